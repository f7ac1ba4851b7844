"""k8s/: all overlays and components build, match strict schemas, and refer to existing objects."""

import json
import os
import re
import tomllib

import jsonschema
import kubernetes_validate
import pytest
import yaml

import sync
from harness import ROOT
from kustomize import ALL, K8S, KUBERNETES, gateway_pod, of_kind, settings
from values import memory_needed, seconds, size

SCHEMAS = ROOT / "tests/deploy/schemas"

each = pytest.mark.parametrize("name", ALL)


@each
def test_objects_match_their_schemas(name, built):
    for o in built(name):
        what = f"{o['kind']} {o['metadata']['name']}"
        schema = SCHEMAS / f"{o['kind']}.json"
        if schema.exists():
            jsonschema.validate(o, json.loads(schema.read_text()))
        else:
            try:
                kubernetes_validate.validate(o, KUBERNETES, strict=True)
            except kubernetes_validate.ValidationError as e:
                pytest.fail(f"{what}: {e.path}: {e.message}", pytrace=False)


@each
def test_objects_are_unique_and_have_no_namespace(name, built):
    keys = [(o["kind"], o["metadata"]["name"]) for o in built(name)]
    assert len(keys) == len(set(keys))
    # They are applied to the current namespace.
    assert not [o for o in built(name) if "namespace" in o["metadata"]]
    assert not [o for o in built(name) if o["kind"] == "Secret"], (
        "the repository must not contain secrets"
    )


@each
def test_selectors_and_ports_refer_to_existing_objects(name, built):
    objects = built(name)
    templates = [o["spec"]["template"] for o in objects if o["kind"] == "Deployment"]
    matching = lambda selector: [
        t for t in templates if selector.items() <= t["metadata"]["labels"].items()
    ]
    for o in objects:
        kind, spec = o["kind"], o.get("spec", {})
        if kind == "Deployment":
            assert (
                spec["selector"]["matchLabels"].items()
                <= spec["template"]["metadata"]["labels"].items()
            )
            for constraint in spec["template"]["spec"].get("topologySpreadConstraints", []):
                assert matching(constraint["labelSelector"]["matchLabels"]) == [spec["template"]]
        if kind == "Service":
            [template] = matching(spec["selector"])
            names = {p["name"] for c in template["spec"]["containers"] for p in c["ports"]}
            assert {p["targetPort"] for p in spec["ports"]} <= names
        if kind in ("NetworkPolicy", "PodDisruptionBudget"):
            [template] = matching((spec.get("podSelector") or spec.get("selector"))["matchLabels"])
            names = {p["name"] for c in template["spec"]["containers"] for p in c["ports"]}
            for rule in spec.get("ingress", []):
                assert {p["port"] for p in rule["ports"]} <= names
        if kind in ("HorizontalPodAutoscaler", "ScaledObject"):
            assert of_kind(objects, "Deployment", spec["scaleTargetRef"]["name"])
        if kind == "HTTPRoute":
            for rule in spec["rules"]:
                for ref in rule["backendRefs"]:
                    assert ref["port"] in [
                        p["port"] for p in of_kind(objects, "Service", ref["name"])["spec"]["ports"]
                    ]
        if kind == "Ingress":
            for rule in spec["rules"]:
                for path in rule["http"]["paths"]:
                    service = path["backend"]["service"]
                    assert service["port"]["name"] in [
                        p["name"]
                        for p in of_kind(objects, "Service", service["name"])["spec"]["ports"]
                    ]
            fallback = o["metadata"]["annotations"]["nginx.ingress.kubernetes.io/default-backend"]
            assert of_kind(objects, "Service", fallback)["spec"]["publishNotReadyAddresses"] is True
        if kind == "ServiceMonitor":
            services = [
                s
                for s in objects
                if s["kind"] == "Service"
                and spec["selector"]["matchLabels"].items() <= s["metadata"]["labels"].items()
            ]
            # Exactly one, otherwise every pod would be scraped twice.
            [service] = services
            assert {e["port"] for e in spec["endpoints"]} <= {
                p["name"] for p in service["spec"]["ports"]
            }
            assert service["metadata"]["labels"][spec["jobLabel"]] == "sse-gateway"
            assert matching(service["spec"]["selector"]) == [
                of_kind(objects, "Deployment")["spec"]["template"]
            ]


@each
def test_container_ports_match_the_settings(name, built):
    objects = built(name)
    _, container = gateway_pod(objects)
    ports = {p["name"]: p["containerPort"] for p in container["ports"]}
    listens = {
        key: settings(objects)[f"{key}.listen"].rsplit(":", 1) for key in ("server", "admin")
    }
    assert ports == {"http": int(listens["server"][1]), "admin": int(listens["admin"][1])}
    assert [host for host, _ in listens.values()] == ["[::]", "[::]"], (
        "kubelet and clients connect from outside the pod, over IPv6 or IPv4"
    )
    assert {
        p: (container[p]["httpGet"]["path"], container[p]["httpGet"]["port"])
        for p in ("startupProbe", "livenessProbe", "readinessProbe")
    } == {
        "startupProbe": ("/healthz", "admin"),
        "livenessProbe": ("/healthz", "admin"),
        "readinessProbe": ("/readyz", "admin"),
    }


@each
def test_grace_period_exceeds_the_drain_time(name, built):
    objects = built(name)
    pod, _ = gateway_pod(objects)
    values = settings(objects)
    assert (
        pod["terminationGracePeriodSeconds"]
        > seconds(values["drain.delay"]) + seconds(values["drain.window"]) + 10
    )
    spec = of_kind(objects, "Deployment")["spec"]
    assert spec["strategy"]["rollingUpdate"]["maxUnavailable"] == 0


@each
def test_memory_limit_covers_the_settings(name, built):
    objects = built(name)
    _, container = gateway_pod(objects)
    assert size(container["resources"]["limits"]["memory"]) >= memory_needed(settings(objects))


@each
def test_pods_meet_the_restricted_standard(name, built):
    """The Pod Security Standard "restricted", and a read-only root file system."""
    for o in built(name):
        if o["kind"] != "Deployment":
            continue
        pod = o["spec"]["template"]["spec"]
        assert pod["automountServiceAccountToken"] is False
        assert pod["enableServiceLinks"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        if "openshift" in ALL[name][1]:
            # OpenShift assigns them.
            assert not pod["securityContext"].keys() & {"runAsUser", "runAsGroup", "fsGroup"}
        else:
            assert pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"] + pod.get("initContainers", []):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert "memory" in container["resources"]["limits"] and set(
                container["resources"]["requests"]
            ) == {"cpu", "memory"}
            assert "cpu" not in container["resources"]["limits"]
            assert not container["image"].endswith(":latest") and ":" in container["image"]
        kinds = {next(k for k in v if k != "name") for v in pod["volumes"]}
        assert kinds <= {"configMap", "emptyDir", "secret"}
        mounted = {v["name"] for v in pod["volumes"]}
        assert {
            m["name"]
            for c in pod["containers"] + pod.get("initContainers", [])
            for m in c["volumeMounts"]
        } == mounted
    account = of_kind(built(name), "ServiceAccount")
    assert account["automountServiceAccountToken"] is False
    assert gateway_pod(built(name))[0]["serviceAccountName"] == account["metadata"]["name"]


@each
def test_autoscaler_limits_match_the_settings(name, built):
    objects = built(name)
    values = settings(objects)
    hpas = [o for o in objects if o["kind"] == "HorizontalPodAutoscaler"]
    keda = [o for o in objects if o["kind"] == "ScaledObject"]
    replicas = of_kind(objects, "Deployment")["spec"].get("replicas")
    if name.startswith("demo"):
        assert (hpas, keda, replicas) == ([], [], 2)
        return
    # Exactly one autoscaler, and no fixed number of replicas.
    assert len(hpas) + len(keda) == 1 and replicas is None
    spec = (hpas + keda)[0]["spec"]
    least = spec.get("minReplicas") or spec["minReplicaCount"]
    assert least >= 2, "the recorder needs a standby"
    if hpas:
        behavior, metrics = spec["behavior"], spec["metrics"]
        assert "Resource" in [m["type"] for m in metrics]
        streams = [
            size(m["pods"]["target"]["averageValue"])
            for m in metrics
            if m["type"] == "Pods" and m["pods"]["metric"]["name"] == "sse_connections"
        ]
        assert len(streams) == (0 if "hpa-cpu" in name or name == "base+all-hpa" else 1)
    else:
        behavior = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
        streams = [
            float(t["metadata"]["threshold"]) * values["limits.max_connections"]
            for t in spec["triggers"]
            if t["type"] == "prometheus"
        ]
    for average in streams:
        assert (
            0.5 * values["limits.max_connections"]
            <= average
            <= 0.8 * values["limits.max_connections"]
        )
    assert behavior["scaleDown"]["stabilizationWindowSeconds"] >= 900
    assert behavior["scaleUp"]["stabilizationWindowSeconds"] == 0


@pytest.mark.parametrize(
    "overlay,with_keda", [("base", "base+keda"), ("production", "production+keda+ingress")]
)
def test_keda_has_the_limits_of_the_autoscaler(overlay, with_keda, built):
    hpa, keda = (
        of_kind(built(overlay), "HorizontalPodAutoscaler")["spec"],
        of_kind(built(with_keda), "ScaledObject")["spec"],
    )
    assert (keda["minReplicaCount"], keda["maxReplicaCount"]) == (
        hpa["minReplicas"],
        hpa["maxReplicas"],
    )
    # KEDA divides by the limit of the instances, so its threshold fits every overlay.
    fraction = float(keda["triggers"][0]["metadata"]["threshold"])
    limit = int(settings(built(overlay))["limits.max_connections"])
    assert fraction * limit == size(hpa["metrics"][0]["pods"]["target"]["averageValue"])
    assert keda["advanced"]["horizontalPodAutoscalerConfig"]["behavior"] == hpa["behavior"]


@each
def test_node_drain_evicts_unready_pods_one_by_one(name, built):
    """A full pod is not ready but serves the maximum number of streams."""
    budget = of_kind(built(name), "PodDisruptionBudget")["spec"]
    assert (
        budget["maxUnavailable"],
        budget.get("unhealthyPodEvictionPolicy", "IfHealthyBudget"),
    ) == (1, "IfHealthyBudget")


@each
def test_secrets_are_required_references(name, built):
    pod, container = gateway_pod(built(name))
    env = {e["name"]: e for e in container["env"]}
    references = {n: e["valueFrom"]["secretKeyRef"] for n, e in env.items() if "valueFrom" in e}
    for reference in references.values():
        assert reference["name"] == "sse-gateway" and not reference.get("optional"), (
            "the reference must be required, so that a missing Secret is reported"
        )
    wanted = {r["key"] for r in references.values()}
    # The ticket key is a file that follows the Secret, so no subPath, and not world-readable.
    file = env["SSE_GATEWAY__TICKETS__SECRET_FILE"]["value"]
    [mount] = [m for m in container["volumeMounts"] if m["mountPath"] == os.path.dirname(file)]
    assert (
        mount["readOnly"] is True
        and "subPath" not in mount
        and "SSE_GATEWAY__TICKETS__SECRET" not in env
    )
    [volume] = [v for v in pod["volumes"] if v["name"] == mount["name"]]
    if "secret" in volume:
        assert (
            volume["secret"]["secretName"] == "sse-gateway"
            and not volume["secret"].get("optional")
            and volume["secret"]["defaultMode"] == 0o440
        )
        assert [item["path"] for item in volume["secret"]["items"]] == [os.path.basename(file)]
        wanted |= {item["key"] for item in volume["secret"]["items"]}
    if name.startswith("demo"):
        assert wanted == set()
    else:
        assert wanted == {"ticket-secret", "redis-url"}
        # The header of the kustomization describes the Secret.
        directory = "overlays/production" if name.startswith("production") else "."
        head = (K8S / directory / "kustomization.yaml").read_text()
        assert {*re.findall(r"--from-literal=([\w-]+)=", head)} == wanted


def test_production_allows_redis_over_tls_only(built):
    policy = of_kind(built("production"), "NetworkPolicy")["spec"]
    assert policy["egress"][-1] == {"ports": [{"port": 6380, "protocol": "TCP"}]}


def test_config_maps_contain_the_files(built):
    config = next(o for o in built("root") if o["kind"] == "ConfigMap")
    assert config["data"] == {
        name: (ROOT / "config" / name).read_text() for name in ("gateway.toml", "production.toml")
    }
    redis = next(o for o in built("demo") if o["kind"] == "ConfigMap" and "redis.conf" in o["data"])
    assert redis["data"]["redis.conf"] == (ROOT / "deploy/redis/redis.conf").read_text()
    dashboard = of_kind(built("base+grafana-dashboard"), "ConfigMap", "sse-gateway-dashboard")
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert dashboard["data"] == {
        "sse-gateway.json": (ROOT / "deploy/grafana/dashboards/sse-gateway.json").read_text()
    }


def test_prometheus_rule_is_an_exact_copy(built):
    assert sync.COPY.read_text() == sync.copy(), "run: python3 tests/deploy/sync.py"
    rules = yaml.safe_load(sync.SOURCE.read_text())
    for name in ("base+prometheus-rule", "production+watched"):
        assert of_kind(built(name), "PrometheusRule")["spec"] == rules


def test_image_tags_match_the_version(built):
    version = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]["version"]
    for name in ("root", "demo", "production"):
        assert gateway_pod(built(name))[1]["image"] == f"sse-gateway:{version}"
    assert f"image: sse-gateway:{version}\n" in (ROOT / "docker-compose.yaml").read_text()
    assert f"docker build -t sse-gateway:{version} ." in (ROOT / "Dockerfile").read_text()

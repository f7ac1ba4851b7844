"""deploy/helm: the objects of all value sets match strict schemas and refer to each other."""

import json
import os
import re
import sys

import jsonschema
import kubernetes_validate
import pytest
import yaml

from harness import ROOT, run, tool
from helm import CHART, SETS, helm, program, render, test_pod, toml
from kustomize import gateway_pod, of_kind
from test_kustomize import KUBERNETES, SCHEMAS
from values import defaults, flatten, memory_needed, seconds, size

each = pytest.mark.parametrize("name", SETS)

# Kinds that a cluster has without custom resource definitions.
BUILT_IN = {
    "ConfigMap",
    "Deployment",
    "HorizontalPodAutoscaler",
    "Ingress",
    "NetworkPolicy",
    "Pod",
    "PodDisruptionBudget",
    "Service",
    "ServiceAccount",
}


def selected(selector: dict, objects) -> list[str]:
    """The pods that a selector matches: that of the Deployment, and that of `helm test`."""
    pods = [(o["kind"], o["metadata"]["labels"]) for o in objects if o["kind"] == "Pod"]
    pods += [
        ("Deployment", o["spec"]["template"]["metadata"]["labels"])
        for o in objects
        if o["kind"] == "Deployment"
    ]
    return [kind for kind, labels in pods if selector.items() <= labels.items()]


def selectors(o: dict) -> list[dict]:
    """The selectors of pods that an object contains."""
    kind, spec = o["kind"], o.get("spec", {})
    if kind == "Service":
        return [spec["selector"]]
    if kind == "Deployment":
        pod = spec["template"]["spec"]
        spread = pod.get("topologySpreadConstraints", [])
        return [s["matchLabels"] for s in (spec["selector"], *(c["labelSelector"] for c in spread))]
    named = {
        "NetworkPolicy": "podSelector",
        "PodDisruptionBudget": "selector",
        "CiliumNetworkPolicy": "endpointSelector",
    }
    return [spec[named[kind]]["matchLabels"]] if kind in named else []


@each
def test_objects_match_their_schemas(name, chart):
    for o in chart(name):
        schema = SCHEMAS / f"{o['kind']}.json"
        if schema.exists():
            jsonschema.validate(o, json.loads(schema.read_text()))
            continue
        assert o["kind"] in BUILT_IN
        try:
            kubernetes_validate.validate(o, KUBERNETES, strict=True)
        except kubernetes_validate.ValidationError as e:
            pytest.fail(f"{o['kind']} {o['metadata']['name']}: {e.path}: {e.message}")


def test_default_needs_no_custom_resources(chart):
    assert {o["kind"] for o in chart("default")} <= BUILT_IN


@each
def test_helm_3_renders_the_same_objects(name, chart):
    assert render(SETS[name], version=3) == chart(name)


@pytest.mark.parametrize("version", (3, 4))
def test_lint_finds_no_fault(version):
    done = run(program(version), "lint", "--strict", CHART)
    assert "[WARNING]" not in done.stdout and "[ERROR]" not in done.stdout


@each
def test_all_objects_and_pods_have_labels(name, chart):
    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
    for o in chart(name):
        if o["metadata"]["name"] == "sse-gateway-x":
            continue  # from extraObjects
        pods = [o["spec"]["template"]] if o["kind"] == "Deployment" else []
        for metadata in (o["metadata"], *(p["metadata"] for p in pods)):
            labels = metadata["labels"]
            of = lambda key: labels.get(f"app.kubernetes.io/{key}")
            assert of("name") == ("sse-gateway-test" if o["kind"] == "Pod" else "sse-gateway")
            assert (of("instance"), of("part-of"), of("version"), of("managed-by")) == (
                "sse-gateway", "sse-gateway", version, "Helm",
            )
            assert labels.items() >= SETS[name].get("commonLabels", {}).items()


@each
def test_selectors_match_the_gateway_only(name, chart):
    """They contain what never changes, because an upgrade cannot change that of a Deployment."""
    for o in chart(name):
        for selector in selectors(o):
            assert selector == {
                "app.kubernetes.io/name": "sse-gateway",
                "app.kubernetes.io/instance": "sse-gateway",
            }
            assert selected(selector, chart(name)) == ["Deployment"]


@each
def test_references_lead_to_objects_of_the_release(name, chart):
    objects = chart(name)
    for o in objects:
        kind, spec = o["kind"], o.get("spec", {})
        if kind == "Service":
            names = {p["name"] for p in gateway_pod(objects)[1]["ports"]}
            assert {p["targetPort"] for p in spec["ports"]} <= names
        if kind in ("HorizontalPodAutoscaler", "ScaledObject"):
            assert of_kind(objects, "Deployment", spec["scaleTargetRef"]["name"])
        if kind == "HTTPRoute":
            [ref] = spec["rules"][0]["backendRefs"]
            [port] = of_kind(objects, "Service", ref["name"])["spec"]["ports"]
            assert ref["port"] == port["port"]
        if kind == "Ingress":
            for rule in spec["rules"]:
                service = rule["http"]["paths"][0]["backend"]["service"]
                [port] = of_kind(objects, "Service", service["name"])["spec"]["ports"]
                assert service["port"]["name"] == port["name"]
        if kind == "ServiceMonitor":
            [service] = [
                s["metadata"]["name"]
                for s in objects
                if s["kind"] == "Service"
                and spec["selector"]["matchLabels"].items() <= s["metadata"]["labels"].items()
            ]
            [endpoint], [port] = (
                spec["endpoints"], of_kind(objects, "Service", service)["spec"]["ports"],
            )
            assert endpoint["port"] == port["name"]
    for pod in (gateway_pod(objects)[0], test_pod(objects)["spec"]):
        if "serviceAccount" not in SETS[name] or SETS[name]["serviceAccount"].get("create", True):
            assert of_kind(objects, "ServiceAccount", pod["serviceAccountName"])
        volumes = {v["name"] for v in pod["volumes"]}
        mounts = {m["name"] for m in pod["containers"][0]["volumeMounts"]}
        assert mounts == volumes
        assert {v["configMap"]["name"] for v in pod["volumes"] if "configMap" in v} == {
            "sse-gateway"
        }


def test_pod_of_helm_test_is_scheduled_on_the_nodes_of_the_gateway(chart):
    objects = chart("everything of the pod")
    gateway, tested = gateway_pod(objects)[0], test_pod(objects)["spec"]
    for field in ("nodeSelector", "tolerations", "priorityClassName"):
        assert tested[field] == gateway[field]
    node = gateway["affinity"]["nodeAffinity"]
    assert node and tested["affinity"] == {"nodeAffinity": node}


@each
def test_pods_meet_the_restricted_standard(name, chart):
    for pod in (gateway_pod(chart(name))[0], test_pod(chart(name))["spec"]):
        assert pod["automountServiceAccountToken"] is False
        assert pod["enableServiceLinks"] is False
        context = pod["securityContext"]
        assert context["runAsNonRoot"] is True
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        user = {context.get(key) for key in ("runAsUser", "runAsGroup", "fsGroup")}
        assert user == ({None} if name == "openshift" else {65532})
        for container in pod["containers"]:
            if container["name"] == "sidecar":
                continue
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert set(container["resources"]["limits"]) == {"memory"}
            assert set(container["resources"]["requests"]) == {"cpu", "memory"}


@each
def test_times_follow_the_drain(name, chart):
    settings = defaults() | flatten(toml(chart(name)))
    drain = seconds(settings["drain.delay"]) + seconds_of(settings["drain.window"])
    spec = of_kind(chart(name), "Deployment")["spec"]
    start = gateway_pod(chart(name))[1]["startupProbe"]
    assert spec["minReadySeconds"] >= drain
    assert spec["progressDeadlineSeconds"] >= (
        spec["minReadySeconds"] + start["periodSeconds"] * start["failureThreshold"] + 120
    )
    assert gateway_pod(chart(name))[0]["terminationGracePeriodSeconds"] > drain + 10


def seconds_of(text: str) -> float:
    """`1m30s`, which `seconds` does not read."""
    return sum(seconds(part) for part in re.findall(r"\d+(?:ms|s|m|h)", text))


@each
def test_references_to_secrets_are_required_and_not_public(name, chart):
    pod, container = gateway_pod(chart(name))
    env = {e["name"]: e for e in container["env"]}
    for e in env.values():
        assert not e.get("valueFrom", {}).get("secretKeyRef", {}).get("optional")
    for volume in pod["volumes"]:
        if "secret" in volume:
            assert volume["secret"]["defaultMode"] == 0o440
            assert not volume["secret"].get("optional")
    for mount in container["volumeMounts"]:
        assert mount["mountPath"] == "/more" or mount["readOnly"] is True
        assert "subPath" not in mount, "Kubernetes would never update the file"
    # Kubernetes expands only variables that are defined earlier.
    order = list(env)
    url = env["SSE_GATEWAY__REDIS__URL"]
    for used in re.findall(r"\$\((\w+)\)", url.get("value", "")):
        assert order.index(used) < order.index("SSE_GATEWAY__REDIS__URL")
    assert not [o for o in chart(name) if o["kind"] == "Secret"]
    # Files are where the settings expect them.
    for e in env.values():
        if e.get("value", "").startswith("/"):
            mounts = [m["mountPath"] for m in container["volumeMounts"]]
            assert os.path.dirname(e["value"]) in mounts


@each
def test_container_ports_and_probes_match_the_settings(name, chart):
    _, container = gateway_pod(chart(name))
    env = {e["name"]: e.get("value") for e in container["env"]}
    assert (env["SSE_GATEWAY__SERVER__LISTEN"], env["SSE_GATEWAY__ADMIN__LISTEN"]) == (
        "[::]:8080", "[::]:9090",
    )
    assert {p["name"]: p["containerPort"] for p in container["ports"]} == {
        "http": 8080, "admin": 9090,
    }
    assert [
        container[probe]["httpGet"]
        for probe in ("startupProbe", "livenessProbe", "readinessProbe")
    ] == [{"path": f"/{path}", "port": "admin"} for path in ("healthz", "healthz", "readyz")]


@each
def test_autoscaler_replaces_the_number_of_pods(name, chart):
    scalers = [o for o in chart(name) if o["kind"] in ("HorizontalPodAutoscaler", "ScaledObject")]
    enabled = SETS[name].get("autoscaling", {}).get("enabled", False)
    assert len(scalers) == enabled
    assert ("replicas" in of_kind(chart(name), "Deployment")["spec"]) == (not enabled)


def test_autoscalers_scale_by_the_limit_of_streams(chart):
    def streams(name):
        [metric] = [
            m for m in of_kind(chart(name), "HorizontalPodAutoscaler")["spec"]["metrics"]
            if m["type"] == "Pods"
        ]
        return metric["pods"]["target"]["averageValue"]

    # As the API server writes it, so that another `apply` reports no change.
    assert (streams("hpa"), streams("production")) == ("5500", "14k")
    assert size(defaults()["limits.max_connections"]) * 0.7 == 7000
    trigger, cpu = of_kind(chart("keda"), "ScaledObject")["spec"]["triggers"]
    assert trigger["metadata"]["threshold"] == "7000" and cpu["metadata"] == {"value": "70"}
    assert trigger["metadata"]["query"] == (
        'sum(sse_connections{job="sse-gateway",namespace="events"})'
    )


@each
def test_memory_limit_covers_the_settings(name, chart):
    _, container = gateway_pod(chart(name))
    needed = memory_needed(defaults() | flatten(toml(chart(name))))
    assert size(container["resources"]["limits"]["memory"]) >= needed


def test_changed_configuration_replaces_the_pods(chart):
    template = lambda values: of_kind(render(values), "Deployment")["spec"]["template"]
    default = of_kind(chart("default"), "Deployment")["spec"]["template"]
    assert template({"config": {"limits": {"stall": "31s"}}}) != default
    assert template({"service": {"annotations": {"a": "b"}}, "replicas": 5}) == default


def test_redis_urls(chart):
    def url(name):
        env = {e["name"]: e for e in gateway_pod(chart(name))[1]["env"]}
        return env["SSE_GATEWAY__REDIS__URL"].get("value")

    login = "gateway:$(REDIS_PASSWORD)@"
    sentinels = "sentinel-0.example.com:26379,sentinel-1.example.com/mymaster"
    assert url("default") is None
    assert url("production") == f"rediss://{login}redis.example.com:6380"
    assert url("sentinel") == f"redis+sentinel://{sentinels}"
    assert url("sentinel with TLS") == f"rediss+sentinel://{login}{sentinels}"
    assert url("cluster") == f"redis+cluster://{login}10.0.0.1:7000,[2001:db8::1]:7000"
    assert url("password of another Secret") == "redis://:$(REDIS_PASSWORD)@redis-master/2"


def test_policies_allow_redis_and_the_issuer(chart):
    def ports(name, kind="NetworkPolicy"):
        rules = of_kind(chart(name), kind)["spec"].get("egress", [])
        found = [p for r in rules for p in r.get("ports", [])]
        found += [p for r in rules for t in r.get("toPorts", []) for p in t["ports"]]
        return {int(p["port"]) for p in found} - {53}

    assert ports("default") == {6379, 6380}
    assert ports("production") == {6380}
    assert ports("sentinel") == {26379, 6379, 6380}
    assert ports("cluster") == {7000, 6379, 6380}
    assert ports("key set") == {6379, 6380, 8443}
    assert ports("openshift") == {5353, 6379, 6380}
    # Policies add up, so only one of them has rules for outgoing connections.
    assert ports("cilium") == set()
    assert of_kind(chart("cilium"), "NetworkPolicy")["spec"]["policyTypes"] == ["Ingress"]
    assert ports("cilium", "CiliumNetworkPolicy") == {6379, 443}
    [_, names] = of_kind(chart("cilium"), "CiliumNetworkPolicy")["spec"]["egress"]
    assert names["toFQDNs"] == [{"matchName": "redis.example.com"}, {"matchName": "id.example.com"}]


def test_admin_port_is_open_to_the_named_peers_only():
    """Kubernetes reads an empty list of peers as all."""
    def peers(monitoring) -> list:
        objects = render({"networkPolicy": {"monitoring": monitoring}})
        rules = of_kind(objects, "NetworkPolicy")["spec"]["ingress"]
        return [r["from"] for r in rules if {"port": "admin", "protocol": "TCP"} in r["ports"]]

    prometheus = [{"podSelector": {}}]
    assert peers(prometheus) == [prometheus] and peers([]) == []


def test_only_portable_routes_have_no_timeouts(chart):
    """GKE rejects a route with timeouts."""
    [route], [plain] = (
        of_kind(chart(name), "HTTPRoute")["spec"]["rules"] for name in ("route", "route on GKE")
    )
    assert route == plain | {"timeouts": {"request": "0s", "backendRequest": "0s"}}
    assert "timeouts" not in plain


def test_ingress_annotations_equal_those_of_the_component(chart, built):
    """Those of the user win."""
    nginx = of_kind(chart("nginx"), "Ingress")["metadata"]["annotations"]
    component = of_kind(built("base+ingress-nginx"), "Ingress")["metadata"]["annotations"]
    assert nginx == component | SETS["nginx"]["ingress"]["annotations"]
    fallback = of_kind(chart("nginx"), "Service", "sse-gateway-alive")["spec"]
    assert fallback["publishNotReadyAddresses"] is True
    other = of_kind(chart("other ingress"), "Ingress")["metadata"]["annotations"]
    assert other == {"a/b": "c"}


def test_monitoring_selects_the_job_of_the_release(chart, tmp_path):
    rules = yaml.safe_load((ROOT / "deploy/prometheus/alerts.yaml").read_text())
    for release in ("sse-gateway", "blue"):
        objects = render(SETS["monitoring"], release)
        name = of_kind(objects, "Deployment", objects_name(release))["metadata"]["name"]
        [endpoint] = of_kind(objects, "ServiceMonitor", name)["spec"]["endpoints"]
        job, *own = endpoint["relabelings"]
        assert job == {"action": "replace", "targetLabel": "job", "replacement": name}
        assert own == SETS["monitoring"]["serviceMonitor"]["relabelings"]
        spec = of_kind(objects, "PrometheusRule", name)["spec"]
        expected = json.dumps(rules).replace(r"job=\"sse-gateway\"", rf"job=\"{name}\"")
        runbook = SETS["monitoring"]["prometheusRule"]["runbookUrl"]
        expected = re.sub(r'[^"\s]*docs/operations/runbook\.md', runbook, expected)
        assert spec == json.loads(expected)
        (tmp_path / "rules.yaml").write_text(yaml.safe_dump(spec))
        run(tool("promtool"), "check", "rules", tmp_path / "rules.yaml")
        dashboard = of_kind(objects, "ConfigMap", f"{name}-dashboard")
        source = (ROOT / "deploy/grafana/dashboards/sse-gateway.json").read_text()
        assert json.loads(dashboard["data"][f"{name}.json"]) == json.loads(
            source.replace(r"job=\"sse-gateway\"", rf"job=\"{name}\"")
        )
        for kind in ("ServiceMonitor", "PrometheusRule"):
            assert of_kind(objects, kind, name)["metadata"]["labels"]["release"] == "prometheus"


def objects_name(release: str) -> str:
    return release if release == "sse-gateway" else f"{release}-sse-gateway"


def test_releases_of_a_namespace_share_nothing():
    """Also if the name of one is the name of an object of the other."""
    releases = ("sse-gateway", "a", "a-sse-gateway", "sse-gateway-admin")
    merged = SETS["monitoring"] | SETS["nginx"] | SETS["route"] | SETS["hpa"]
    rendered = {release: render(merged, release) for release in releases}
    names = [(o["kind"], o["metadata"]["name"]) for r in releases for o in rendered[r]]
    assert len(names) == len(set(names))
    pods = [o for r in releases for o in rendered[r] if o["kind"] in ("Deployment", "Pod")]
    for release in releases:
        for o in rendered[release]:
            assert [selected(s, pods) for s in selectors(o)] == [["Deployment"]] * len(selectors(o))
    jobs = [
        o["spec"]["endpoints"][0]["relabelings"][0]["replacement"]
        for r in releases
        for o in rendered[r]
        if o["kind"] == "ServiceMonitor"
    ]
    assert len(set(jobs)) == len(releases)


@each
def test_notes_name_the_keys_of_the_secret(name, chart):
    done = helm("install sse-gateway --dry-run=client", SETS[name])
    assert done.returncode == 0, done.stderr
    notes = done.stdout.partition("\nNOTES:\n")[2]
    pod, container = gateway_pod(chart(name))
    secret = SETS[name].get("existingSecret", "sse-gateway")
    wanted = {
        e["valueFrom"]["secretKeyRef"]["key"]
        for e in container["env"]
        if "valueFrom" in e and e["valueFrom"]["secretKeyRef"]["name"] == secret
    } | {
        item["key"]
        for v in pod["volumes"]
        if v.get("secret", {}).get("secretName") == secret
        for item in v["secret"]["items"]
    }
    assert set(re.findall(r"--from-literal=([\w-]+)=", notes)) == wanted
    assert f"create secret generic {secret} " in notes
    assert "helm test sse-gateway --namespace events" in notes


def test_notes_name_an_image_without_registry():
    def notes(repository) -> str:
        values = {"image": {"repository": repository, "tag": "1"}}
        return helm("install sse-gateway --dry-run=client", values).stdout

    assert "The nodes need the image gateway:1. To pull it" in notes("gateway")
    assert "The nodes need" not in notes("registry.example.com/gateway")


def test_readme_installs_as_the_page_does():
    """With an image, and after the Secret was created."""
    [command] = re.findall(r"```sh\n(.*?)```", (CHART / "README.md").read_text(), flags=re.S)
    assert "image.repository" in command
    assert command.strip() in (ROOT / "docs/operations/helm.md").read_text()


def test_notes_warn_of_a_low_memory_limit(chart):
    def warning(limit, **config) -> list[str]:
        values = {"resources": {"limits": {"memory": limit}}, "config": config}
        notes = helm("install sse-gateway --dry-run=client", values).stdout
        return re.findall(r"^WARNING: .* may need (\d+)Mi\.", notes, flags=re.M)

    many = {"limits": {"max_connections": 20_000}, "history": {"replay_cache_bytes": "32MiB"}}
    needed = memory_needed(defaults() | flatten(many)) // (1 << 20)
    assert warning("512Mi", **many) == warning("600M", **many) == [str(needed)]
    assert warning("1Gi", **many) == warning("1.5Gi", **many) == warning(f"{needed + 1}Mi", **many)
    assert warning("1Gi", **many) == [] and warning("400Mi") == ["476"] and warning("512Mi") == []


def test_generated_files_are_current():
    """The schema, the copies of alerts and dashboard, and the table of values."""
    done = run(sys.executable, ROOT / ".ci/chart", "--check", check=False)
    assert done.returncode == 0, done.stderr


def test_every_value_is_described():
    """A value without a comment is missing in the README."""
    readme = (CHART / "README.md").read_text()
    described = {*re.findall(r"^\| `([\w.]+)` \|", readme, flags=re.M)}

    def missing(values: dict, prefix: str = ""):
        for key, value in values.items():
            path = prefix + key
            if path in described:
                continue
            if isinstance(value, dict) and value:
                yield from missing(value, f"{path}.")
            else:
                yield path

    assert list(missing(yaml.safe_load((CHART / "values.yaml").read_text()))) == []

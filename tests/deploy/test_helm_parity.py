"""deploy/helm and k8s/: the default of the chart equals the base, and its example the overlay."""

import copy

import pytest
import yaml

from helm import CHART, toml
from kustomize import gateway_pod, of_kind, settings
from values import defaults, flatten

# A value set of the chart, and the kustomization that it equals.
PAIRS = pytest.mark.parametrize(
    "chart_name,k8s_name", [("default", "base"), ("production", "production")]
)


def without_instance(value):
    """Without the label that distinguishes releases, by which only the chart selects."""
    if isinstance(value, dict):
        return {
            k: without_instance(v) for k, v in value.items() if k != "app.kubernetes.io/instance"
        }
    return [without_instance(v) for v in value] if isinstance(value, list) else value


def test_chart_has_the_version_of_the_image(chart, built):
    described = yaml.safe_load((CHART / "Chart.yaml").read_text())
    version = described["appVersion"]
    assert described["version"] == version
    assert gateway_pod(built("base"))[1]["image"] == f"sse-gateway:{version}"
    assert gateway_pod(chart("default"))[1]["image"].endswith(f":{version}")


@PAIRS
def test_deployments_are_equal(chart_name, k8s_name, chart, built):
    helm, k8s = (
        copy.deepcopy(of_kind(o, "Deployment")["spec"])
        for o in (chart(chart_name), built(k8s_name))
    )
    for key in ("strategy", "minReadySeconds", "progressDeadlineSeconds"):
        assert helm[key] == k8s[key]
    helm, k8s = (spec["template"]["metadata"] for spec in (helm, k8s))
    del helm["annotations"]["checksum/config"]
    assert helm["annotations"] == k8s["annotations"]
    assert helm["labels"] == k8s["labels"] | {"app.kubernetes.io/managed-by": "Helm"}


@PAIRS
def test_pods_are_equal(chart_name, k8s_name, chart, built):
    (pod, container), (expected, k8s) = gateway_pod(chart(chart_name)), gateway_pod(built(k8s_name))
    # The configuration is a file of another name, and the URL of Redis is a value of the chart.
    differs = {"containers", "volumes"}
    assert without_instance({k: v for k, v in pod.items() if k not in differs}) == without_instance(
        {k: v for k, v in expected.items() if k not in differs}
    )
    # The image of the chart is the published one, and that of k8s/ is replaced in an overlay.
    differs = {"args", "env", "image", "imagePullPolicy"}
    assert {k: v for k, v in container.items() if k not in differs} == {
        k: v for k, v in k8s.items() if k not in differs
    }
    secrets = lambda pod: [v for v in pod["volumes"] if "secret" in v]
    assert secrets(pod) == secrets(expected)


@PAIRS
def test_settings_are_equal(chart_name, k8s_name, chart, built):
    env = {
        e["name"].removeprefix("SSE_GATEWAY__").lower().replace("__", "."): e.get("value")
        for e in gateway_pod(chart(chart_name))[1]["env"]
        if e["name"].startswith("SSE_GATEWAY__")
    }
    helm = defaults() | flatten(toml(chart(chart_name))) | env
    k8s = settings(built(k8s_name))
    # In the overlay, the whole URL is in the Secret.
    if k8s_name == "production":
        assert helm["redis.url"].startswith("rediss://") and not k8s["redis.url"]
        del helm["redis.url"], k8s["redis.url"]
    assert helm == k8s


@PAIRS
@pytest.mark.parametrize(
    "kind", ["Service", "NetworkPolicy", "PodDisruptionBudget", "ServiceAccount"]
)
def test_other_objects_are_equal(kind, chart_name, k8s_name, chart, built):
    helm, k8s = (of_kind(o, kind) for o in (chart(chart_name), built(k8s_name)))
    ignored = {"metadata"}
    helm, k8s = (
        without_instance({k: v for k, v in o.items() if k not in ignored}) for o in (helm, k8s)
    )
    if kind == "Service":
        helm["spec"].pop("type")
    assert helm == k8s


def test_autoscalers_are_equal(chart, built):
    helm, k8s = (
        of_kind(o, "HorizontalPodAutoscaler")["spec"]
        for o in (chart("production"), built("production"))
    )
    assert helm == k8s


def test_components_are_equal(chart, built):
    route = of_kind(chart("route"), "HTTPRoute")["spec"]
    assert route == of_kind(built("base+gateway-api-timeouts"), "HTTPRoute")["spec"]
    plain = of_kind(built("base+gateway-api"), "HTTPRoute")["spec"]["rules"]
    assert of_kind(chart("route on GKE"), "HTTPRoute")["spec"]["rules"] == plain
    for name in ("sse-gateway", "sse-gateway-alive"):
        helm, k8s = (
            of_kind(o, "Ingress" if name == "sse-gateway" else "Service", name)["spec"]
            for o in (chart("nginx"), built("base+ingress-nginx"))
        )
        if name == "sse-gateway":
            helm, k8s = helm["rules"], k8s["rules"]
        assert without_instance(helm) == k8s
    admin, component = (
        of_kind(o, "Service", "sse-gateway-admin")
        for o in (chart("monitoring"), built("base+service-monitor"))
    )
    assert without_instance(admin["spec"]) == component["spec"]
    keda, component = (
        of_kind(o, "ScaledObject")["spec"] for o in (chart("keda"), built("base+keda"))
    )
    for key in ("minReplicaCount", "maxReplicaCount", "advanced"):
        assert keda[key] == component[key]

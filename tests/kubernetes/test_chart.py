"""The chart in the cluster: `helm test`, two releases in one namespace, and an upgrade."""

from chart import Helm, first_chart
from images import PRESENT, version
from paths import GUARD

RELEASE = "sse-gateway"


def test_first_chart_is_upgraded_under_load(gateways, tmp_path):
    helm = Helm(gateways.kubectl)
    values = {"replicas": 3, "existingSecret": "sse-gateway", "image": {"tag": version()}}
    helm.upgrade(RELEASE, values, first_chart(tmp_path))
    gateways.until_replaced([], 3)
    before = gateways.pods()
    with gateways.load(clients=100, rate=50) as load:
        done = helm.upgrade(RELEASE, values | {"image": {"tag": PRESENT}})
        assert done.stderr == ""
        gateways.until_replaced(before, 3)
        result = load.finish()
    result.assert_nothing_was_lost()
    print(f"{len(result.reconnects)} reconnects of 100 streams")
    assert len(result.reconnects) >= 100


def test_two_releases_share_a_namespace(gateways):
    helm = Helm(gateways.kubectl)
    for release in ("orders", "news"):
        values = {"replicas": 1, "existingSecret": "sse-gateway", "minReadySeconds": 1}
        helm.upgrade(release, values)
    for release in ("orders", "news"):
        gateways.kubectl(
            "rollout", "status", f"deployment/{release}-sse-gateway", f"--timeout={GUARD}s"
        )
        tested = helm("test", release, "--logs")
        assert "Phase:          Succeeded" in tested.stdout, tested.stdout
    # Each Service leads to the pod of its own release.
    assert endpoints(gateways, "orders") == pods(gateways, "orders")
    assert endpoints(gateways, "news") == pods(gateways, "news")
    assert pods(gateways, "orders") != pods(gateways, "news")


def endpoints(gateways, release: str) -> list[str]:
    label = f"kubernetes.io/service-name={release}-sse-gateway"
    slices = gateways.kubectl.json("get", "endpointslices", "--selector", label)["items"]
    return [a for s in slices for e in s["endpoints"] for a in e["addresses"]]


def pods(gateways, release: str) -> list[str]:
    label = f"app.kubernetes.io/instance={release},app.kubernetes.io/name=sse-gateway"
    found = gateways.kubectl.json("get", "pods", "--selector", label)["items"]
    return [pod["status"]["podIP"] for pod in found]

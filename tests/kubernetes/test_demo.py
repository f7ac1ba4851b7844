"""The demo in the cluster, with the commands of its documentation."""

import pytest

from harness import Process, eventually
from kustomize import K8S
from paths import GUARD

DEMO = K8S / "overlays/demo"


@pytest.fixture
def demo(cluster):
    kubectl = cluster.kubectl.within("demo").create_namespace()
    kubectl("apply", "--kustomize", DEMO)
    kubectl("rollout", "status", "deployment/sse-gateway", f"--timeout={GUARD}s")
    yield kubectl
    kubectl("delete", "--kustomize", DEMO)


def test_documented_commands_deliver_an_event(demo):
    created = demo("exec", "deployment/sse-gateway", "--", "/sse-gateway", "ticket", "--user", "42")
    # No note about a default container.
    assert created.stderr == ""
    address = demo.json("get", "service/sse-gateway")["spec"]["clusterIP"]
    url = f"http://{address}:8080/events?ticket={created.stdout.strip()}"
    with Process(*demo.prefix, "curl", "--silent", "--no-buffer", url) as stream:
        eventually("the stream is open", lambda: "event: sse.connected" in stream.lines)
        demo(
            "exec",
            "deployment/sse-gateway-redis",
            "--",
            "redis-cli",
            "FCALL",
            "sse_publish",
            "1",
            "user:42:events",
            "order-completed",
            '{"orderId":7}',
        )
        eventually("the event arrives", lambda: 'data: {"orderId":7}' in stream.lines)

"""docs/operations/kubernetes.md: its commands do what it says."""

import os
import re

import pytest
import yaml

from harness import run
from kubernetes_page import PAGE, block_of_kind, clone, overlay, write  # noqa: F401
from kustomize import of_kind
from paths import KUBECTL

# Without nodes, a rollout does not end.
NEEDS_PODS = "rollout status"


def commands(section: str) -> list[str]:
    """The shell blocks of a section."""
    text = PAGE[PAGE.index(f"## {section}\n") :].split("\n## ")[0]
    found = re.findall(r"^```sh\n(.*?)^```", text, re.M | re.S)
    assert found, section
    return [re.sub(rf"^.*{NEEDS_PODS}.*\n", "", block, flags=re.M) for block in found]


@pytest.fixture
def shell(api, overlay):
    """Runs commands of the page in the directory that contains the overlay and the clone."""
    path = f"{KUBECTL.parent}{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "KUBECONFIG": str(api.config)}
    yield lambda script: run("bash", "-euc", script, cwd=overlay.parent, env=env)
    api("delete", "namespace", "events", "--wait=false", check=False)
    # Without a controller, finalizers would keep the namespace.
    api("replace", "--raw", "/api/v1/namespaces/events/finalize", "--filename", "-",
        input='{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"events"}}', check=False)


def test_commands_of_the_page_work(shell, api, overlay):
    events = api.within("events")
    secret = lambda: events.json("get", "secret", "sse-gateway")["data"]
    names = lambda kind: {o["metadata"]["name"] for o in events.json("get", kind)["items"]}

    [create] = commands("Your own overlay")
    assert shell(create).stderr == ""
    again = shell("kubectl apply -k events")
    changed = [line for line in again.stdout.splitlines() if not line.endswith(" unchanged")]
    assert changed == ["poddisruptionbudget.policy/sse-gateway configured"] and not again.stderr
    assert shell("kubectl diff -k events").stdout == ""

    # A patch changes one key of the Secret.
    before = secret()
    patch, restart = commands("Changing the Secret")
    shell(patch)
    assert secret()["redis-url"] == before["redis-url"]
    assert secret()["ticket-secret"] != before["ticket-secret"]
    assert "restarted" in shell(restart).stdout

    # Another overlay without the autoscaler and with another ConfigMap.
    delete, prune = commands("Removing objects")
    [old] = names("configmaps")
    shell(prune)
    config = overlay / "production.toml"
    config.write_text(config.read_text() + "# changed\n")
    own = block_of_kind(PAGE, "Kustomization")
    own["components"] = [c.replace("hpa-cpu", "keda") for c in own["components"]]
    write(overlay, own)
    shell("kubectl apply -k events")
    assert old in names("configmaps") and names("horizontalpodautoscalers") == {"sse-gateway"}
    shell(prune)
    assert old not in names("configmaps") and names("horizontalpodautoscalers") == set()
    assert names("secrets") == {"sse-gateway"} and secret() != before

    # An autoscaler that an earlier overlay left behind, removed by its name.
    write(overlay, block_of_kind(PAGE, "Kustomization"))
    shell("kubectl apply -k events")
    shell(delete)
    assert names("horizontalpodautoscalers") == set()

    [last] = re.findall(r"`(kubectl delete -k events)`", PAGE)
    shell("kubectl apply -k events && " + last)
    assert names("deployments") | names("services") | names("networkpolicies") == set()
    assert names("secrets") == {"sse-gateway"}


def test_limit_range_of_the_page_satisfies_a_quota(api, built):
    kubectl = api.within("quota").create_namespace()
    kubectl("create", "quota", "cpu", "--hard=limits.cpu=100")
    # What the quota controller would write.
    kubectl("patch", "quota", "cpu", "--subresource=status", "--patch",
            '{"status":{"hard":{"limits.cpu":"100"},"used":{"limits.cpu":"0"}}}')
    kubectl("create", "serviceaccount", "sse-gateway")
    template = of_kind(built("demo"), "Deployment")["spec"]["template"]
    pod = {"apiVersion": "v1", "kind": "Pod", **template}
    pod["metadata"] = template["metadata"] | {"name": "gateway"}
    create = lambda o, **options: kubectl(
        "create", "--filename", "-", input=yaml.safe_dump(o), **options
    )
    assert "must specify limits.cpu" in create(pod, check=False).stderr
    create(block_of_kind(PAGE, "LimitRange"))
    assert create(pod).stderr == ""
    spec = kubectl.json("get", "pod", "gateway")["spec"]
    containers = spec["containers"] + spec["initContainers"]
    assert {c["resources"]["limits"]["cpu"] for c in containers} == {"4"}

"""Autoscaling is enabled on running gateways: the commands of the pages keep the number of pods."""

import os
import re

import pytest

from chart import Helm
from harness import ROOT, run
from paths import KUBECTL

PODS = 5


def keep_pods(page: str, kubectl):
    """Runs the command that follows this sentence on a page."""
    text = (ROOT / "docs/operations" / page).read_text()
    after = text[text.index("To keep the number of pods, first ") :]
    script = re.search(r"^```sh\n(.*?)^```", after, re.M | re.S)[1]
    path = f"{KUBECTL.parent}{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "KUBECONFIG": str(kubectl.config)}
    here = script.replace("--namespace events", f"--namespace {kubectl.namespace}")
    run("bash", "-euc", here, env=env)


def replicas(kubectl) -> int:
    return kubectl.json("get", "deployment", "sse-gateway")["spec"]["replicas"]


# Without the command, the number is reset, as the pages say.
@pytest.mark.parametrize("kept,expected", [(True, PODS), (False, 1)])
def test_of_the_chart(kept, expected, api):
    kubectl = api.within(f"autoscaling-{kept}".lower()).create_namespace()
    helm = Helm(kubectl)
    helm.upgrade("sse-gateway", {"replicas": PODS})
    if kept:
        keep_pods("helm.md", kubectl)
    for _ in range(2):
        helm.upgrade("sse-gateway", {"autoscaling": {"enabled": True}})
        assert replicas(kubectl) == expected


@pytest.mark.parametrize("kept,expected", [(True, 2), (False, 1)])
def test_from_the_demo_to_the_base(kept, expected, api):
    kubectl = api.within(f"from-demo-{kept}".lower()).create_namespace()
    kubectl("apply", "--kustomize", ROOT / "k8s/overlays/demo")
    if kept:
        keep_pods("kubernetes.md", kubectl)
    for _ in range(2):
        kubectl("apply", "--kustomize", ROOT / "k8s")
        assert replicas(kubectl) == expected

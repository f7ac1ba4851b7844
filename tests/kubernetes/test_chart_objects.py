"""The API server accepts the chart with every set of values in tests/deploy/helm.py."""

import re
from dataclasses import dataclass
from subprocess import CompletedProcess

import pytest
import yaml

from chart import Helm
from helm import SETS

RELEASE = "sse-gateway"
# It contains a sidecar without a security context.
NOT_RESTRICTED = "everything of the pod"


@dataclass
class Installed:
    name: str
    helm: Helm
    done: CompletedProcess


@pytest.fixture(scope="module", params=SETS)
def installed(request, api):
    """A release with an entry of SETS, in a namespace of its own."""
    namespace = "chart-" + re.sub("[^a-z0-9]+", "-", request.param.lower())
    helm = Helm(api.within(namespace).create_namespace())
    return Installed(request.param, helm, helm.upgrade(RELEASE, SETS[request.param]))


def test_installing_prints_no_warning(installed):
    if installed.name == NOT_RESTRICTED:
        assert "would violate PodSecurity" in installed.done.stderr
    else:
        assert installed.done.stderr == ""


def test_upgrading_to_the_same_chart_changes_nothing(installed):
    before = versions(installed.helm)
    installed.helm.upgrade(RELEASE, SETS[installed.name])
    assert versions(installed.helm) == before


def versions(helm: Helm) -> dict[str, str]:
    """The resource versions of the release's objects."""
    manifest = helm("get", "manifest", RELEASE).stdout
    found = helm.kubectl("get", "--filename", "-", "--output", "json", input=manifest).stdout
    return {
        f"{o['kind']}/{o['metadata']['name']}": o["metadata"]["resourceVersion"]
        for o in yaml.safe_load(found)["items"]
    }

"""The API server accepts every overlay and component, and applying twice changes nothing."""

import re
from dataclasses import dataclass
from subprocess import CompletedProcess

import pytest
import yaml

from kubectl import Kubectl
from kustomize import ALL


@dataclass
class Applied:
    objects: list[dict]
    kubectl: Kubectl
    source: tuple
    done: CompletedProcess


@pytest.fixture(scope="module", params=ALL)
def applied(request, api, built, tmp_path_factory):
    """An entry of ALL that was applied in a namespace of its own."""
    name = request.param
    kubectl = api.within(re.sub("[^a-z0-9]+", "-", name)).create_namespace()
    directory, components = ALL[name]
    source = ("--kustomize", directory)
    if components:
        file = tmp_path_factory.mktemp("objects") / "objects.yaml"
        file.write_text(yaml.safe_dump_all(built(name)))
        source = ("--filename", file)
    return Applied(built(name), kubectl, source, kubectl("apply", *source))


def test_applying_prints_no_warning(applied):
    assert applied.done.stderr == ""
    lines = applied.done.stdout.splitlines()
    assert len(lines) == len(applied.objects)
    assert [line for line in lines if not line.endswith(" created")] == []


def test_applying_again_changes_nothing(applied):
    again = applied.kubectl("apply", *applied.source)
    assert again.stderr == ""
    # kubectl always sends the selector of a PodDisruptionBudget, and therefore says "configured".
    kept = ("unchanged", "poddisruptionbudget.policy/sse-gateway configured")
    assert [line for line in again.stdout.splitlines() if not line.endswith(kept)] == []
    difference = applied.kubectl("diff", *applied.source, check=False)
    assert (difference.returncode, difference.stdout, difference.stderr) == (0, "", "")
    # Nothing but the first application changed the objects.
    generations = applied.kubectl.json("get", "deployments,poddisruptionbudgets")["items"]
    assert {o["metadata"]["generation"] for o in generations} == {1}

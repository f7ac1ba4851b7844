"""The API server replaces the first committed manifests with the present ones."""

import pytest

from harness import ROOT, run
from kustomize import K8S

# The first commit with k8s/. Selectors and other immutable fields have to stay as they were there.
# Its gateway is older than the data format (docs/operations/upgrading.md), so test_rollouts.py
# begins with the first one that can be upgraded without a gap.
FIRST = "cdf4bfd"


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    directory = tmp_path_factory.mktemp("first")
    archive = directory / "archive.tar"
    run("git", "-C", ROOT, "archive", f"--output={archive}", FIRST, "k8s", "config", "deploy")
    run("tar", "--extract", f"--file={archive}", f"--directory={directory}")
    return directory / "k8s"


@pytest.mark.parametrize("overlay", ["", "overlays/demo", "overlays/production"])
def test_first_manifests_can_be_replaced(overlay, first, api):
    kubectl = api.within(f"first-{overlay.rpartition('/')[2]}".rstrip("-")).create_namespace()
    kubectl("apply", "--kustomize", first / overlay)
    done = kubectl("apply", "--kustomize", K8S / overlay)
    assert done.stderr == ""
    difference = kubectl("diff", "--kustomize", K8S / overlay, check=False)
    assert (difference.returncode, difference.stdout, difference.stderr) == (0, "", "")

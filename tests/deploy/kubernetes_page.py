"""The pages about Kubernetes, and the overlay of the first one beside a clone."""

import re
import shutil

import pytest
import yaml

from harness import ROOT, run

PAGE = (ROOT / "docs/operations/kubernetes.md").read_text()
PLATFORMS = (ROOT / "docs/operations/kubernetes-platforms.md").read_text()
# Everything that the kustomizations read.
TRACKED = ("k8s", "config", "deploy/redis", "deploy/grafana/dashboards")


def blocks(page: str) -> list:
    """The YAML documents of a page."""
    fenced = re.findall(r"^```yaml\n(.*?)^```", page, re.M | re.S)
    return [document for text in fenced for document in yaml.safe_load_all(text)]


def block_of_kind(page: str, kind: str) -> dict:
    [found] = [b for b in blocks(page) if isinstance(b, dict) and b.get("kind") == kind]
    return found


def commit(directory):
    """Makes a directory a repository with one commit and the tag v0.1.0."""
    name = ("-c", "user.name=test", "-c", "user.email=test@example.com")
    run("git", "init", "--quiet", cwd=directory)
    run("git", "add", ".", cwd=directory)
    run("git", *name, "commit", "--quiet", "--message", "Release", cwd=directory)
    run("git", "tag", "v0.1.0", cwd=directory)


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A clone of the tracked files, in a directory `sse-gateway`."""
    directory = tmp_path_factory.mktemp("beside") / "sse-gateway"
    for path in TRACKED:
        shutil.copytree(ROOT / path, directory / path)
    commit(directory)
    return directory


def write(directory, kustomization):
    (directory / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))


@pytest.fixture
def overlay(clone):
    """The overlay of the page, in the directory `events` beside the clone."""
    directory = clone.parent / "events"
    directory.mkdir()
    shutil.copy(clone / "config/production.toml", directory)
    write(directory, block_of_kind(PAGE, "Kustomization"))
    yield directory
    shutil.rmtree(directory)

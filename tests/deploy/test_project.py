"""The version and the URL of the project, which .ci/project writes into every file."""

import json
import shutil
import subprocess
import sys
import tomllib

import pytest
import yaml

from harness import ROOT, run

GENERATED = ("target", ".cache", "node_modules", ".next", "book", "dist", "corpus", ".git")
URL = "https://github.com/example/events"
# Constants, because .ci/project would write the version after a name here, too.
OLD, NEW = "0.1.0", "9.8.7"


def script(project, *arguments, check=True) -> subprocess.CompletedProcess:
    return run(sys.executable, project / ".ci/project", *arguments, check=check)


def contents(folder) -> dict[str, bytes]:
    files = (p for p in folder.rglob("*") if p.is_file() and not p.is_symlink())
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


def toml(project, path):
    return tomllib.loads((project / path).read_text())


def manifest(project, path):
    return json.loads((project / path).read_text())


@pytest.fixture
def project(tmp_path):
    """A copy of the project, of version 0.1.0 and unpublished, whatever this one is."""
    copy = tmp_path / "project"
    shutil.copytree(ROOT, copy, symlinks=True, ignore=shutil.ignore_patterns(*GENERATED))
    script(copy, "version", OLD)
    script(copy, "url", "")
    return copy


def test_every_file_has_the_version_and_url_of_the_manifest():
    script(ROOT, "check")
    for path in ("Cargo.toml", "loadtest/Cargo.toml"):
        assert toml(ROOT, path)["package"]["version"] == {"workspace": True}


def test_version_is_written_to_all_packages(project):
    before = contents(project)
    script(project, "version", NEW)
    script(project, "check")
    assert script(project, "version").stdout == f"{NEW}\n"
    assert toml(project, "servers/rust/Cargo.toml")["package"]["version"] == NEW
    assert toml(project, "servers/python/pyproject.toml")["project"]["version"] == NEW
    assert manifest(project, "servers/php/composer.json")["version"] == NEW
    for package in ("clients/js", "servers/node"):
        assert manifest(project, f"{package}/package.json")["version"] == NEW
        lock = manifest(project, f"{package}/package-lock.json")
        assert lock["version"] == lock["packages"][""]["version"] == NEW
    [image] = yaml.safe_load((project / "k8s/base/kustomization.yaml").read_text())["images"]
    assert image["newTag"] == NEW
    for compose in ("docker-compose.yaml", "examples/next/compose.yaml"):
        services = yaml.safe_load((project / compose).read_text())["services"].values()
        assert f"sse-gateway:{NEW}" in {service.get("image") for service in services}
    # The lock files agree with the manifests.
    for path in ("Cargo.toml", "servers/rust/Cargo.toml"):
        command = ("cargo", "metadata", "--locked", "--offline", "--no-deps", "--format-version=1")
        run(*command, "--manifest-path", project / path)
    script(project, "version", OLD)
    assert contents(project) == before


def test_url_is_written_to_all_packages_and_links(project):
    before = contents(project)
    script(project, "url", URL)
    script(project, "check")
    assert toml(project, "Cargo.toml")["workspace"]["package"]["repository"] == URL
    assert toml(project, "servers/rust/Cargo.toml")["package"]["repository"] == URL
    assert toml(project, "servers/python/pyproject.toml")["project"]["urls"]["Repository"] == URL
    assert toml(project, "book.toml")["output"]["html"]["git-repository-url"] == URL
    assert manifest(project, "servers/php/composer.json")["support"]["source"] == URL
    for package in ("clients/js", "servers/node"):
        repository = manifest(project, f"{package}/package.json")["repository"]
        assert repository == {"type": "git", "url": f"git+{URL}.git", "directory": package}
    go = URL.removeprefix("https://") + "/servers/go"
    assert (project / "servers/go/go.mod").read_text().startswith(f"module {go}\n")
    assert f'"{go}"' in (project / "servers/go/README.md").read_text()
    rules = yaml.safe_load((project / "deploy/prometheus/alerts.yaml").read_text())
    for rule in rules["groups"][0]["rules"]:
        page = f"{URL}/blob/main/docs/operations/runbook.md#{rule['alert'].lower()}"
        assert rule["annotations"]["runbook_url"] == page
    # The workflow pushes the image of a repository on GitHub to this name.
    assert image_of_chart(project) == "ghcr.io/example/events"
    run(sys.executable, project / ".ci/chart", "--check")
    script(project, "url", "https://git.example.com/example/events")
    assert image_of_chart(project) == "sse-gateway"
    script(project, "url", "")
    assert contents(project) == before


def image_of_chart(project) -> str:
    values = yaml.safe_load((project / "deploy/helm/values.yaml").read_text())
    return values["image"]["repository"]


def test_runbook_of_an_operator_is_kept(project):
    wiki = "https://wiki.example.com/sse-gateway/"
    run(sys.executable, project / "tests/deploy/sync.py", wiki)
    script(project, "check")
    script(project, "url", URL)
    rules = (project / "deploy/prometheus/alerts.yaml").read_text()
    assert wiki in rules and URL not in rules


def test_notes_are_the_section_of_the_version(project):
    assert OLD in script(project, "notes", check=False).stderr
    other = "## [0.0.9] - 2026-01-01\n\n- Earlier.\n"
    (project / "CHANGELOG.md").write_text(
        f"# Changelog\n\n## [Unreleased]\n\n## [{OLD}] - 2026-02-01\n\n- New.\n\n{other}"
    )
    assert script(project, "notes").stdout == "- New.\n"


# File -> a text in it, and what a change by hand could make of it.
DEVIATIONS = {
    "servers/rust/Cargo.lock": (f'backend"\nversion = "{OLD}"', f'backend"\nversion = "{NEW}"'),
    "servers/rust/Cargo.toml": ('repository = ""', f'repository = "{URL}"'),
    "servers/go/go.mod": ("module example.com/", "module example.org/"),
    "clients/js/package.json": (f'"version": "{OLD}"', f'"version": "{NEW}"'),
    "k8s/base/kustomization.yaml": (f"newTag: {OLD}", "newTag: latest"),
    "docker-compose.yaml": (f"sse-gateway:{OLD}", f"sse-gateway:{NEW}"),
    "docs/guides/react.md": (f"client-{OLD}.tgz", f"client-{NEW}.tgz"),
    "README.md": ("# sse-gateway\n", f"# sse-gateway\n\nsse-gateway_{NEW}_amd64.deb\n"),
}


def test_deviating_file_fails_the_check(project):
    for path, (old, new) in DEVIATIONS.items():
        text = (project / path).read_text()
        assert old in text
        (project / path).write_text(text.replace(old, new, 1))
        done = script(project, "check", check=False)
        assert done.returncode != 0 and path in done.stderr, done.stderr
        (project / path).write_text(text)
    script(project, "check")


def test_invalid_values_are_rejected_and_change_nothing(project):
    before = contents(project)
    invalid = [("version", "1.2"), ("version", "v1.2.3"), ("url", "http://x/y"), ("url", f"{URL}/")]
    for arguments in invalid:
        done = script(project, *arguments, check=False)
        assert done.returncode != 0 and arguments[1] in done.stderr
    assert contents(project) == before

"""The workflows that build and publish releases."""

import re
import tomllib

import yaml

from harness import ROOT

WORKFLOWS = {f.name: yaml.safe_load(f.read_text()) for f in ROOT.glob(".github/workflows/*.yml")}
PACKAGE = "./.github/workflows/package.yml"
KUBERNETES = "./.github/workflows/kubernetes.yml"


def jobs(name: str) -> dict:
    return WORKFLOWS[name]["jobs"]


def test_actions_are_pinned_to_a_commit():
    steps = [
        step["uses"]
        for name in WORKFLOWS
        for job in jobs(name).values()
        for step in job.get("steps", [])
        if "uses" in step
    ]
    assert steps and [uses for uses in steps if not re.fullmatch(r".+@[0-9a-f]{40}", uses)] == []


def test_nightly_and_release_use_the_same_build_and_tests():
    assert jobs("nightly.yml")["package"] == {"uses": PACKAGE}
    assert jobs("release.yml")["package"]["uses"] == PACKAGE
    for name in ("nightly.yml", "release.yml"):
        assert jobs(name)["kubernetes"]["uses"] == KUBERNETES
    assert jobs("release.yml")["publish"]["needs"] == ["package", "kubernetes"]
    assert jobs("package.yml")["test"]["needs"] == ["build", "libraries"]


def test_packages_are_not_built_beside_scripts_of_npm():
    commands = {
        name: "\n".join(step.get("run", "") for step in job["steps"])
        for name, job in jobs("package.yml").items()
    }
    assert "release-gateway" in commands["build"]
    assert "release-libraries" in commands["libraries"]
    assert "release-libraries" not in commands["build"]


def test_only_the_publishing_job_may_write():
    for name in ("package.yml", "release.yml"):
        assert WORKFLOWS[name]["permissions"] == {"contents": "read"}
        writers = {job for job, steps in jobs(name).items() if "permissions" in steps}
        assert writers == ({"publish"} if name == "release.yml" else set())


def test_all_workflows_build_with_the_pinned_toolchain():
    toolchain = tomllib.loads((ROOT / "rust-toolchain.toml").read_text())["toolchain"]["channel"]
    images = set()
    for name in WORKFLOWS:
        for job in jobs(name).values():
            container = job.get("container", {})
            images.add(container if isinstance(container, str) else container.get("image"))
    assert images - {None} == {f"rust:{toolchain}-bookworm"}

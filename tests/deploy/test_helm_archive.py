"""The archive of the chart, which a release publishes as a file and in a registry."""

import os

import pytest
import yaml

from harness import ROOT, run
from helm import CHART, NAMESPACE, SETS, program, render


def pack(directory):
    run(ROOT / ".ci/release", "chart", env={**os.environ, "RELEASE_DIR": str(directory)})
    [archive] = directory.iterdir()
    return archive


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    return pack(tmp_path_factory.mktemp("chart"))


@pytest.mark.parametrize("version", (3, 4))
@pytest.mark.parametrize("name", ("default", "monitoring"))
def test_archive_renders_what_the_directory_does(archive, name, version):
    rendered = run(
        program(version), "template", "sse-gateway", archive, "--namespace", NAMESPACE,
        "--values", "-", input=yaml.safe_dump(SETS[name]),
    )
    assert [o for o in yaml.safe_load_all(rendered.stdout) if o] == render(SETS[name])


def test_archive_has_the_name_that_helm_gives_it(archive, tmp_path):
    run(program(), "package", CHART, "--destination", tmp_path)
    [packed] = tmp_path.iterdir()
    assert archive.name == packed.name
    names = lambda file: {n for n in run("tar", "-tf", file).stdout.split() if n[-1] != "/"}
    assert names(archive) == names(packed)


def test_release_pushes_and_attests_the_archive(archive):
    workflow = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text())
    steps = workflow["jobs"]["publish"]["steps"]
    [index] = [i for i, step in enumerate(steps) if step.get("id") == "chart"]
    version = run(ROOT / ".ci/project", "version").stdout.strip()
    script = steps[index]["run"].replace("$(.ci/project version)", version)
    assert f'push "target/dist/{archive.name}" "oci://' in script
    assert steps[index + 1]["with"] == {
        "subject-name": "${{ steps.chart.outputs.name }}",
        "subject-digest": "${{ steps.chart.outputs.digest }}",
    }


def test_same_commit_gives_the_same_archive(archive, tmp_path):
    assert pack(tmp_path).read_bytes() == archive.read_bytes()

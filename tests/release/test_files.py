"""The files of a release: checksums, SBOM, archives and images."""

import json
import os
import re
import shutil

import pytest

from harness import ROOT, SECRET, Gateway, Stream, require_root, run, tool

# The isolation of a container runtime, as in the tests of the Dockerfile.
from test_image import Confined

OCI = ROOT / "deploy/image/oci.sh"


def test_checksums_cover_every_file(dist):
    run("sha256sum", "--check", "--strict", "SHA256SUMS", cwd=dist)
    listed = {line.split("  ")[1] for line in (dist / "SHA256SUMS").read_text().splitlines()}
    assert listed == {file.name for file in dist.iterdir()} - {"SHA256SUMS"}


def test_every_archive_has_an_sbom(dist, version):
    archives = sorted(dist.glob("sse-gateway-*-linux-*.tar.gz"))
    assert archives
    for archive in archives:
        sbom = archive.with_name(archive.name.replace(".tar.gz", ".cdx.json"))
        component = json.loads(sbom.read_text())["metadata"]["component"]
        assert (component["name"], component["version"]) == ("sse-gateway", version)


def test_archives_contain_a_working_gateway(dist, version, machine, tmp_path, redis):
    archives = sorted(dist.glob(f"sse-gateway-{version}-{machine['rust']}-unknown-linux-*.tar.gz"))
    assert archives, "no archive for this architecture"
    for archive in archives:
        run("tar", "-xf", archive, "-C", tmp_path)
        folder = tmp_path / archive.name.removesuffix(".tar.gz")
        assert {file.name for file in folder.iterdir()} == {
            *("sse-gateway", "sse-gateway.service", "gateway.toml", "production.toml"),
            *("completions", "man", "LICENSE", "CHANGELOG.md"),
        }
        assert {file.name for file in (folder / "man").iterdir()} >= {
            *("sse-gateway.1.gz", "sse-gateway-serve.1.gz"),
        }
        config = folder / "gateway.toml"
        with Gateway(redis.url, binary=folder / "sse-gateway", config=config) as gateway:
            assert gateway.get("/healthz")[0] == 200
            with Stream(gateway.public) as stream:
                stream.until("sse.connected")
                publish(folder / "sse-gateway", redis)
                assert json.loads(stream.until("news")["data"]) == {"from": "release"}


def publish(binary, redis):
    run(
        *(binary, "publish", "user:42:events", "news", '{"from":"release"}'),
        env={"SSE_GATEWAY__REDIS__URL": redis.url},
    )


def test_static_binary_needs_no_library(dist, version, machine, tmp_path):
    name = f"sse-gateway-{version}-{machine['rust']}-unknown-linux-musl"
    if not (dist / f"{name}.tar.gz").exists():
        pytest.skip("make release could not build for musl here")
    run("tar", "-xf", dist / f"{name}.tar.gz", "-C", tmp_path)
    assert "NEEDED" not in run("objdump", "-p", tmp_path / name / "sse-gateway").stdout


@pytest.fixture(scope="module")
def buildah(tmp_path_factory):
    require_root("unpack images")
    store = tmp_path_factory.mktemp("buildah")
    options = ("--storage-driver", "vfs", "--root", store / "root", "--runroot", store / "run")
    yield lambda *command: run(tool("buildah"), *options, *command).stdout.strip()
    shutil.rmtree(store)


def test_image_runs_read_only_and_unprivileged(dist, version, machine, buildah, tmp_path, redis):
    archive = dist / f"sse-gateway-{version}-image-{machine['debian']}.tar"
    image = buildah("pull", "--quiet", f"oci-archive:{archive}")
    described = json.loads(buildah("inspect", "--type", "image", image))["OCIv1"]
    assert described["architecture"] == machine["debian"]
    labels = described["config"]["Labels"]
    assert labels["org.opencontainers.image.version"] == version
    assert re.fullmatch("[0-9a-f]{40}", labels["org.opencontainers.image.revision"])
    root = tmp_path / "files"
    container = buildah("from", image)
    run("cp", "--archive", buildah("mount", container), root)
    (tmp_path / "confined").mkdir()
    assert described["config"]["User"] == "65532:65532"
    with Confined(root, tmp_path / "confined", described["config"], redis.url) as gateway:
        with Stream(gateway.public) as stream:
            stream.until("sse.connected")
            redis.cli("FCALL", "sse_publish", 1, "user:42:events", "news", "{}")
            assert stream.until("news")["data"] == "{}"


def test_images_are_merged_for_two_architectures(dist, version, machine, buildah, binary, tmp_path):
    """The image for the other architecture has the binary of this one: nothing starts it."""
    first = dist / f"sse-gateway-{version}-image-{machine['debian']}.tar"
    [other] = {"amd64", "arm64"} - {machine["debian"]}
    second = tmp_path / "other.tar"
    run(OCI, "build", binary, other, second, "org.opencontainers.image.version=1")
    merged = tmp_path / "merged"
    printed = run(OCI, "merge", f"oci:{merged}:sse-gateway", first, second).stdout.strip()
    blob = lambda digest: json.loads((merged / "blobs" / digest.replace(":", "/")).read_text())
    [index] = json.loads((merged / "index.json").read_text())["manifests"]
    assert printed == index["digest"]
    platforms = {
        (m["platform"]["os"], m["platform"]["architecture"])
        for m in blob(index["digest"])["manifests"]
    }
    assert platforms == {("linux", "amd64"), ("linux", "arm64")}
    sizes = {len(blob(m["digest"])["layers"]) for m in blob(index["digest"])["manifests"]}
    assert sizes == {1}


def test_same_commit_gives_the_same_files(machine, binary, tmp_path):
    target = f"{machine['rust']}-unknown-linux-gnu"
    for name in ("first", "second"):
        again = {"RELEASE_DIR": str(tmp_path / name), "SSE_GATEWAY_BIN": str(binary)}
        run(ROOT / ".ci/release", "gateway", target, env={**os.environ, **again})
    first, second = ({f.name: f for f in (tmp_path / n).iterdir()} for n in ("first", "second"))
    assert set(first) == set(second)
    # The archive of an image has a time stamp; its index names the content.
    index = lambda file: run("tar", "-xOf", file, "index.json").stdout.encode()
    content = lambda file: index(file) if "-image-" in file.name else file.read_bytes()
    assert [n for n in first if content(first[n]) != content(second[n])] == []


def test_named_target_that_cannot_be_built_is_an_error(machine, tmp_path):
    [other] = {"x86_64", "aarch64"} - {machine["rust"]}
    target = f"{other}-unknown-linux-gnu"
    env = {**os.environ, "RELEASE_DIR": str(tmp_path)}
    done = run(ROOT / ".ci/release", "gateway", target, env=env, check=False)
    assert done.returncode != 0 and f"{target}: needs a machine" in done.stderr
    assert list(tmp_path.iterdir()) == []

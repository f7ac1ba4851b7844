"""Container images, made without an engine: a directory becomes an archive for `ctr images import`.

Registries cannot be reached, so the images of Redis and of the pause container are made of Debian's
programs.
"""

import hashlib
import io
import json
import os
import shutil
import tarfile
from pathlib import Path

import yaml

from harness import ROOT, gateway_binary, run, tool

# The reference of the pause container, for the configuration of containerd.
PAUSE = "localhost/pause:1"
HERE = Path(__file__).resolve().parent

# The gateway to test, and an earlier one with its source, from which it can be upgraded without a
# gap (docs/operations/upgrading.md).
PRESENT, EARLIER = "present", "earlier"
NAMES = ("pause", "redis", "busybox", PRESENT, EARLIER)
OLD = Path(os.environ.get("SSE_GATEWAY_OLD", "no SSE_GATEWAY_OLD"))


def build_all(directory: Path) -> list[Path]:
    """Builds the images of the tests, and returns their archives."""
    old = OLD / "target/debug/sse-gateway"
    assert old.exists(), f"no earlier gateway at {old}; run make test-kubernetes in a full clone"
    targets = {name: directory / f"{name}.tar" for name in NAMES}
    pause(directory / "pause", targets["pause"])
    redis(directory / "redis", targets["redis"])
    busybox(directory / "busybox", targets["busybox"])
    gateway(gateway_binary(), [version(), PRESENT], directory / PRESENT, targets[PRESENT])
    gateway(str(old), [EARLIER], directory / EARLIER, targets[EARLIER])
    return list(targets.values())


def archive(root: Path, names: list[str], config: dict, target: Path):
    """Writes an image with one layer in Docker's format."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        tar.add(root, ".", filter=_owned_by_root)
    digest = hashlib.sha256(layer.getvalue()).hexdigest()
    image = json.dumps(
        {
            "architecture": {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine],
            "os": "linux",
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
        }
    ).encode()
    name = hashlib.sha256(image).hexdigest() + ".json"
    manifest = [{"Config": name, "RepoTags": names, "Layers": ["layer.tar"]}]
    with tarfile.open(target, "w") as tar:
        for file, content in (
            (name, image),
            ("layer.tar", layer.getvalue()),
            ("manifest.json", json.dumps(manifest).encode()),
        ):
            entry = tarfile.TarInfo(file)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))


def _owned_by_root(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = "root"
    return entry


def version() -> str:
    """The tag in k8s/ and in the chart."""
    base = yaml.safe_load((ROOT / "k8s/base/kustomization.yaml").read_text())
    return base["images"][0]["newTag"]


def gateway(binary: str, tags: list[str], work: Path, target: Path):
    """The gateway's image, with the files and the settings of the Dockerfile's last stage."""
    run("sh", ROOT / "deploy/image/rootfs.sh", binary, work)
    config = {
        "Entrypoint": ["/sse-gateway"],
        "Cmd": ["serve"],
        "User": "65532:65532",
        "StopSignal": "SIGTERM",
        "ExposedPorts": {"8080/tcp": {}, "9090/tcp": {}},
    }
    archive(work, [f"docker.io/library/sse-gateway:{tag}" for tag in tags], config, target)


def redis(work: Path, target: Path):
    """Debian's Redis and busybox, named like the official image in k8s/overlays/demo."""
    for directory in ("bin", "usr/bin", "etc", "data"):
        (work / directory).mkdir(parents=True)
    for name in ("redis-server", "redis-cli"):
        _copy_with_libraries(tool(name), work / "usr/bin" / name, work)
    _add_busybox(work, "cut", "head", "sh", "sha256sum", "sleep")
    config = {"Cmd": ["redis-server"], "Env": ["PATH=/usr/bin:/bin"], "WorkingDir": "/data"}
    archive(work, ["docker.io/library/redis:7.2-alpine"], config, target)


def busybox(work: Path, target: Path):
    """Debian's busybox, named like the image that `helm test` uses."""
    (work / "bin").mkdir(parents=True)
    _add_busybox(work, "sh", "wget")
    values = yaml.safe_load((ROOT / "deploy/helm/values.yaml").read_text())
    name = f"docker.io/library/{values['test']['image']}"
    archive(work, [name], {"Env": ["PATH=/bin"]}, target)


def pause(work: Path, target: Path):
    work.mkdir(parents=True)
    run("cc", "-static", "-Os", "-o", work / "pause", HERE / "pause.c")
    archive(work, [PAUSE], {"Entrypoint": ["/pause"], "User": "65535:65535"}, target)


def _add_busybox(root: Path, *commands: str):
    (root / "etc").mkdir(exist_ok=True)
    (root / "etc/nsswitch.conf").write_text("hosts: files dns\n")
    _copy_with_libraries(tool("busybox"), root / "bin/busybox", root)
    for name in commands:
        (root / "bin" / name).symlink_to("busybox")


def _copy_with_libraries(binary: str, target: Path, root: Path):
    shutil.copy(binary, target)
    for word in run("ldd", binary, check=False).stdout.split():
        if word.startswith("/"):
            library = root / word.lstrip("/")
            library.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(word, library)
            library.chmod(0o755)

"""The image: the Dockerfile's last stage, built FROM scratch by buildah with the files that its build stage lays out, and run as Kubernetes
would: read-only, as nobody, without capabilities. No engine is needed; the build stage itself needs a base image and is checked in parts."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import stat
import struct
import threading
import tomllib
from pathlib import Path

import pytest

from harness import (
    ROOT,
    SECRET,
    Gateway,
    KeySet,
    Redis,
    Stream,
    eventually,
    gateway_binary,
    run,
    tool,
)

DOCKERFILE = (ROOT / "Dockerfile").read_text()
ROOTFS = ROOT / "deploy/image/rootfs.sh"


def instructions(text: str) -> list[tuple[str, str]]:
    """The instructions of a Dockerfile."""
    text = re.sub(r"^\s*#.*\n", "", text, flags=re.M).replace("\\\n", " ")
    return [
        (i, " ".join(rest.split()))
        for i, rest in (line.split(maxsplit=1) for line in text.splitlines() if line.strip())
    ]


@pytest.fixture(scope="module")
def buildah(tmp_path_factory):
    """buildah with a store of its own, by the means that need no engine and no privileges beyond root."""
    if os.geteuid() != 0:
        pytest.fail("these tests mount and chroot: run them as root", pytrace=False)
    store = tmp_path_factory.mktemp("buildah")
    env = {"PATH": os.environ["PATH"], "BUILDAH_ISOLATION": "chroot", "HOME": str(store)}
    options = ("--storage-driver", "vfs", "--root", store / "root", "--runroot", store / "run")
    yield lambda *command: run(tool("buildah"), *options, *command, env=env).stdout.strip()
    shutil.rmtree(store)


@pytest.fixture(scope="module")
def image(buildah, tmp_path_factory):
    """The last stage, word by word; what it copies from the build stage comes from the script that the build stage runs."""
    context = tmp_path_factory.mktemp("context")
    run("sh", ROOTFS, gateway_binary(), context / "rootfs")
    final = DOCKERFILE[DOCKERFILE.index("FROM scratch") :]
    assert final.count("--from=build /rootfs /") == 1
    (context / "Dockerfile").write_text(final.replace("--from=build /rootfs /", "rootfs /"))
    buildah("build", "--tag", "sse-gateway", context)
    return json.loads(buildah("inspect", "--type", "image", "sse-gateway"))["OCIv1"]["config"]


@pytest.fixture(scope="module")
def root(buildah, image, tmp_path_factory):
    """The image's files."""
    copy = tmp_path_factory.mktemp("image") / "root"
    container = buildah("from", "sse-gateway")
    run("cp", "--archive", buildah("mount", container), copy)
    buildah("umount", container)
    buildah("rm", container)
    return copy


def test_configuration(image):
    assert image["User"] == "65532:65532"
    assert set(image["ExposedPorts"]) == {"8080", "9090"} or set(image["ExposedPorts"]) == {
        "8080/tcp",
        "9090/tcp",
    }
    assert (image["Entrypoint"], image["Cmd"], image["StopSignal"]) == (
        ["/sse-gateway"],
        ["serve"],
        "SIGTERM",
    )
    assert not [e for e in image.get("Env", []) if not e.startswith("PATH=")], (
        "settings are not baked in"
    )


def test_nothing_else_is_in_it(root):
    files = {str(p.relative_to(root)): p for p in root.rglob("*") if not p.is_dir()}
    libraries = {
        f
        for f in files
        if re.fullmatch(r"lib(64)?/(\S+/)?(lib(c|gcc_s|m)\.so\.\d+|ld-linux\S*\.so\.\d+)", f)
    }
    assert set(files) - libraries == {
        "sse-gateway",
        "etc/passwd",
        "etc/group",
        "etc/nsswitch.conf",
        "etc/ssl/certs/ca-certificates.crt",
    }
    assert len(libraries) in (3, 4)
    for path in [root, *root.rglob("*")]:
        mode = path.lstat()
        assert mode.st_uid == 0 and not mode.st_mode & (
            stat.S_ISUID | stat.S_ISGID | stat.S_IWOTH
        ), path
        assert not stat.S_ISLNK(mode.st_mode), path
    assert sum(p.stat().st_size for n, p in files.items() if n != "sse-gateway") < 5 << 20


class Names:
    """A DNS server that knows one name."""

    def __init__(self, address: str, name: str):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((address, 53))
        self.question = (
            b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"
        )
        self.asked = 0
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        with contextlib.suppress(OSError):
            while True:
                query, peer = self.socket.recvfrom(512)
                known = query[12:].startswith(self.question)
                end = query.index(b"\0", 12) + 5
                of_type_a = query[end - 4 : end - 2] == b"\0\1"
                self.asked += known
                answers = int(known and of_type_a)
                head = query[:2] + struct.pack(
                    ">HHHHH", 0x8180 if known else 0x8183, 1, answers, 0, 0
                )
                answer = (
                    struct.pack(">HHHIH4s", 0xC00C, 1, 1, 1, 4, socket.inet_aton("127.0.0.1"))
                    * answers
                )
                self.socket.sendto(head + query[12:end] + answer, peer)


class Confined(Gateway):
    """The gateway of the image in a mount namespace of its own, as a container runtime would run it; what the runtime adds to the root
    (/proc, /etc/resolv.conf, /etc/hosts) is added."""

    def __init__(
        self, root, directory, image, redis_url, resolver="127.0.0.1", authority=None, **settings
    ):
        place = directory / "root"
        shutil.copytree(root, place, symlinks=True)
        (place / "proc").mkdir()
        (place / "etc/resolv.conf").write_text(
            f"nameserver {resolver}\noptions timeout:1 attempts:5\n"
        )
        (place / "etc/hosts").write_text("127.0.0.1 localhost issuer.example.test\n")
        if authority:
            with (place / "etc/ssl/certs/ca-certificates.crt").open("a") as file:
                file.write(authority.read_text())
        uid = image["User"]
        script = directory / "run.sh"
        script.write_text(
            "#!/bin/sh\nset -e\n"
            '[ -n "$INSIDE" ] || exec env INSIDE=1 unshare --mount --propagation private "$0" "$@"\n'
            f"mount --bind {place} {place}\n"
            f"mount -t proc proc {place}/proc\n"
            f"mount -o remount,bind,ro {place}\n"
            f"exec setpriv --no-new-privs --bounding-set=-all,+sys_chroot,+setuid,+setgid --inh-caps=-all {tool('chroot')} --userspec={uid} --groups= {place} "
            f'{" ".join(image["Entrypoint"])} "$@"\n'
        )
        script.chmod(0o755)
        super().__init__(redis_url, binary=script, **settings)


@pytest.fixture
def confined(root, image, tmp_path):
    with Redis() as redis:
        names = Names("127.0.0.153", "redis.example.test")
        try:
            with Confined(
                root,
                tmp_path,
                image,
                f"redis://redis.example.test:{redis.port}",
                "127.0.0.153",
                drain__delay="100ms",
                drain__window="200ms",
            ) as gateway:
                yield redis, names, gateway
        finally:
            names.socket.close()


def test_it_runs_read_only_and_as_nobody(confined):
    redis, names, gateway = confined
    assert names.asked, "it found Redis by DNS"
    # The child became the gateway (exec all the way): its own process tells what it may.
    status = dict(
        line.split(":\t", 1)
        for line in Path(f"/proc/{gateway.child.pid}/status").read_text().splitlines()
        if ":\t" in line
    )
    assert status["Name"] == "sse-gateway"
    assert status["Uid"].split() == ["65532"] * 4 and status["Gid"].split() == ["65532"] * 4
    assert (int(status["CapEff"], 16), int(status["CapPrm"], 16), status["NoNewPrivs"]) == (
        0,
        0,
        "1",
    )
    mounts = Path(f"/proc/{gateway.child.pid}/mountinfo").read_text().splitlines()
    assert [m.split()[5].split(",")[0] for m in mounts if m.split()[4] == "/"] == ["ro"]
    with Stream(gateway.public) as stream:
        stream.until("sse.connected")
        redis.cli("FCALL", "sse_publish", 1, "user:42:events", "news", "{}")
        assert stream.until("news")["data"] == "{}"
        gateway.child.send_signal(signal.SIGTERM)
        assert json.loads(stream.until("sse.closing")["data"])["reason"] == "draining"
    assert gateway.child.wait(60) == 0


def test_it_fetches_a_key_set_over_https(root, image, tmp_path):
    """Where the image keeps the authorities is where the gateway looks: one more is written there."""
    with Redis() as redis, KeySet(tmp_path, "issuer.example.test") as issuer:
        url = f"https://issuer.example.test:{issuer.port}/"
        with Confined(
            root, tmp_path, image, redis.url, authority=issuer.authority, tickets__jwks_url=url
        ) as gateway:
            eventually("the key set is there", lambda: gateway.metric("sse_jwks_keys") == 1)


def test_commands_run_without_a_shell(root, image):
    """What the comments of the overlays call by `kubectl exec`: a ticket."""
    done = run(
        tool("chroot"),
        "--userspec=65532:65532",
        root,
        *image["Entrypoint"],
        "ticket",
        "--user",
        "42",
        env={"SSE_GATEWAY__TICKETS__SECRET": SECRET},
    )
    assert done.stdout.strip().count(".") == 2
    assert run(tool("chroot"), root, "/bin/sh", "-c", "true", check=False).returncode != 0


def test_without_a_key_it_says_what_is_missing(root, image):
    done = run(tool("chroot"), root, *image["Entrypoint"], *image["Cmd"], env={}, check=False)
    assert done.returncode == 78 and "tickets.secret" in done.stderr


def test_a_missing_library_fails_the_build(tmp_path):
    """The build stage's script, with a binary whose library is not there."""
    (tmp_path / "a.c").write_text("int there(void) { return 0; }")
    (tmp_path / "b.c").write_text("int there(void); int main(void) { return there(); }")
    run("cc", "-shared", "-fPIC", "-o", tmp_path / "libthere.so", tmp_path / "a.c")
    run(
        "cc",
        "-o",
        tmp_path / "b",
        tmp_path / "b.c",
        tmp_path / "libthere.so",
        f"-Wl,-rpath,{tmp_path}",
    )
    (tmp_path / "libthere.so").unlink()
    done = run("sh", ROOTFS, tmp_path / "b", tmp_path / "rootfs", check=False)
    assert done.returncode != 0 and "not found" in done.stderr


def build_stage() -> list[tuple[str, str]]:
    stage = instructions(DOCKERFILE)
    return stage[: [i for i, (name, rest) in enumerate(stage) if name == "FROM"][1]]


def test_dependencies_are_a_layer_of_their_own(tmp_path):
    """The first build needs manifests only, and Cargo takes them: every member of the workspace is there, the lock file fits."""
    stage = build_stage()
    first = [name for name, _ in stage].index("RUN")
    copied = [rest.split() for name, rest in stage[:first] if name == "COPY"]
    sources = {source for *some, _ in copied for source in some}
    assert all(Path(s).name in ("Cargo.toml", "Cargo.lock") for s in sources), (
        "a change of a source would build all dependencies again"
    )
    for *some, target in copied:
        for source in some:
            place = (
                tmp_path / target
                if not target.endswith("/")
                else tmp_path / target / Path(source).name
            )
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / source, place)
    stubs, command = stage[first][1].rsplit(" && ", 1)
    run("sh", "-ec", stubs, cwd=tmp_path)
    assert command == "cargo build --release --locked --package sse-gateway"
    tree = run(
        "cargo",
        "tree",
        "--locked",
        "--package",
        "sse-gateway",
        "--depth",
        "1",
        "--edges",
        "normal",
        cwd=tmp_path,
    ).stdout
    dependencies = tomllib.loads((ROOT / "Cargo.toml").read_text())["dependencies"]
    assert {line.split()[1] for line in tree.splitlines()[1:]} == set(dependencies)
    # The real build comes later, of sources newer than the stubs.
    runs = [rest for name, rest in stage if name == "RUN"]
    assert runs[1] == f"touch src/main.rs src/lib.rs && {command}"


def test_all_that_is_compiled_in_is_copied():
    stage = build_stage()
    copied = {source for name, rest in stage if name == "COPY" for source in rest.split()[:-1]}
    for source in copied:
        assert (ROOT / source).exists(), source
    # Files outside src that the code takes in by a path.
    outside = set()
    for file in (ROOT / "src").rglob("*.rs"):
        for path in re.findall(r'"((?:\.\./)+[^"]*)"', file.read_text()):
            target = (file.parent / path).resolve()
            if ROOT in target.parents and (ROOT / "src") not in target.parents:
                outside.add(target.relative_to(ROOT))
    assert outside, "none found: then this test is blind"
    for path in outside:
        assert any(Path(c) == path or Path(c) in path.parents for c in copied), (
            f"{path} is not copied"
        )
    # And nothing copied is kept out of the context.
    allowed = [
        line[1:]
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    ]
    assert "*" in (ROOT / ".dockerignore").read_text().splitlines()
    for source in copied - {"/rootfs"}:
        assert any(Path(a) == Path(source) or Path(a) in Path(source).parents for a in allowed), (
            f"{source} is ignored"
        )


def test_toolchain_is_that_of_the_manifest():
    version = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"][
        "rust-version"
    ]
    assert instructions(DOCKERFILE)[0] == ("FROM", f"rust:{version}-slim-bookworm AS build")

"""The container image.

buildah builds the last stage of the Dockerfile. The image runs as in Kubernetes: read-only, as an
unprivileged user, without capabilities. The build stage would need a base image from a registry,
so its parts are tested separately. No container engine is needed.
"""

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
    require_root,
    run,
    tool,
)

DOCKERFILE = (ROOT / "Dockerfile").read_text()
ROOTFS = ROOT / "deploy/image/rootfs.sh"


def instructions(text: str) -> list[tuple[str, str]]:
    """The instructions of a Dockerfile as (name, arguments)."""
    text = re.sub(r"^\s*#.*\n", "", text, flags=re.M).replace("\\\n", " ")
    return [
        (i, " ".join(rest.split()))
        for i, rest in (line.split(maxsplit=1) for line in text.splitlines() if line.strip())
    ]


@pytest.fixture(scope="module")
def buildah(tmp_path_factory):
    """Runs buildah with a private store, without a container engine."""
    require_root("build, mount and run the image")
    store = tmp_path_factory.mktemp("buildah")
    env = {"PATH": os.environ["PATH"], "BUILDAH_ISOLATION": "chroot", "HOME": str(store)}
    options = ("--storage-driver", "vfs", "--root", store / "root", "--runroot", store / "run")
    yield lambda *command: run(tool("buildah"), *options, *command, env=env).stdout.strip()
    shutil.rmtree(store)


@pytest.fixture(scope="module")
def image(buildah, tmp_path_factory):
    """Builds the unchanged last stage, with files from the script that the build stage runs."""
    context = tmp_path_factory.mktemp("context")
    run("sh", ROOTFS, gateway_binary(), context / "rootfs")
    final = DOCKERFILE[DOCKERFILE.index("FROM scratch") :]
    assert final.count("--from=build /rootfs /") == 1
    (context / "Dockerfile").write_text(final.replace("--from=build /rootfs /", "rootfs /"))
    buildah("build", "--tag", "sse-gateway", context)
    return json.loads(buildah("inspect", "--type", "image", "sse-gateway"))["OCIv1"]["config"]


@pytest.fixture(scope="module")
def root(buildah, image, tmp_path_factory):
    """A copy of the files of the image."""
    copy = tmp_path_factory.mktemp("image") / "root"
    container = buildah("from", "sse-gateway")
    run("cp", "--archive", buildah("mount", container), copy)
    buildah("umount", container)
    buildah("rm", container)
    return copy


def test_image_configuration_has_no_settings(image):
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
        "the image contains settings"
    )


def test_image_contains_only_expected_files(root):
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


class DnsServer:
    """A DNS server that resolves one name to 127.0.0.1."""

    def __init__(self, address: str, name: str):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((address, 53))
        self.question = (
            b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"
        )
        self.queries = 0
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        with contextlib.suppress(OSError):
            while True:
                query, peer = self.socket.recvfrom(512)
                known = query[12:].startswith(self.question)
                end = query.index(b"\0", 12) + 5
                of_type_a = query[end - 4 : end - 2] == b"\0\1"
                self.queries += known
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
    """The gateway of the image, isolated as by a container runtime.

    Adds the files that a runtime provides: /proc, /etc/resolv.conf and /etc/hosts.
    """

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
            '[ -n "$INSIDE" ] || '
            'exec env INSIDE=1 unshare --mount --propagation private "$0" "$@"\n'
            f"mount --bind {place} {place}\n"
            f"mount -t proc proc {place}/proc\n"
            f"mount -o remount,bind,ro {place}\n"
            "exec setpriv --no-new-privs --bounding-set=-all,+sys_chroot,+setuid,+setgid "
            f"--inh-caps=-all {tool('chroot')} --userspec={uid} --groups= {place} "
            f'{" ".join(image["Entrypoint"])} "$@"\n'
        )
        script.chmod(0o755)
        super().__init__(redis_url, binary=script, **settings)


@pytest.fixture
def confined(root, image, tmp_path):
    with Redis() as redis:
        dns = DnsServer("127.0.0.153", "redis.example.test")
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
                yield redis, dns, gateway
        finally:
            dns.socket.close()


def test_image_runs_read_only_and_unprivileged(confined):
    redis, dns, gateway = confined
    assert dns.queries, "the gateway did not resolve Redis by DNS"
    # Every step uses exec, so the child process is the gateway.
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


def test_gateway_trusts_ca_certificates_of_the_image(root, image, tmp_path):
    """A CA added to the image's certificates is trusted when the key set is fetched."""
    with Redis() as redis, KeySet(tmp_path, "issuer.example.test") as issuer:
        url = f"https://issuer.example.test:{issuer.port}/"
        with Confined(
            root, tmp_path, image, redis.url, authority=issuer.authority, tickets__jwks_url=url
        ) as gateway:
            eventually("the key set was fetched", lambda: gateway.metric("sse_jwks_keys") == 1)


def test_ticket_command_runs_without_a_shell(root, image):
    """The overlays document this command for `kubectl exec`."""
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


def test_missing_ticket_key_is_reported(root, image):
    done = run(tool("chroot"), root, *image["Entrypoint"], *image["Cmd"], env={}, check=False)
    assert done.returncode == 78 and "tickets.secret" in done.stderr


def test_missing_library_fails_the_build(tmp_path):
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


def test_dependency_layer_needs_only_manifests(tmp_path):
    """Cargo accepts them: all workspace members are present and the lock file matches."""
    stage = build_stage()
    builds = [n for n, (name, rest) in enumerate(stage) if name == "RUN" and "cargo" in rest]
    first = builds[0]
    copied = [rest.split() for name, rest in stage[:first] if name == "COPY"]
    sources = {source for *some, _ in copied for source in some}
    assert all(Path(s).name in ("Cargo.toml", "Cargo.lock", "config.toml") for s in sources), (
        "a changed source would rebuild all dependencies"
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
    # An optional dependency is not in a build without its feature.
    required = {
        name
        for name, entry in dependencies.items()
        if not (isinstance(entry, dict) and entry.get("optional"))
    }
    assert {line.split()[1] for line in tree.splitlines()[1:]} == required
    # `touch` makes the sources newer than the stubs.
    assert stage[builds[1]][1] == f"touch src/main.rs src/lib.rs && {command}"


def test_every_compiled_file_is_copied():
    stage = build_stage()
    copied = {source for name, rest in stage if name == "COPY" for source in rest.split()[:-1]}
    for source in copied:
        assert (ROOT / source).exists(), source
    # Files outside src that the code includes.
    outside = set()
    for file in (ROOT / "src").rglob("*.rs"):
        for path in re.findall(r'"((?:\.\./)+[^"]*)"', file.read_text()):
            target = (file.parent / path).resolve()
            if ROOT in target.parents and (ROOT / "src") not in target.parents:
                outside.add(target.relative_to(ROOT))
    assert outside, "found no included file, so this test checks nothing"
    for path in outside:
        assert any(Path(c) == path or Path(c) in path.parents for c in copied), (
            f"{path} is not copied"
        )
    # .dockerignore excludes none of the copied files.
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


def test_toolchain_matches_the_manifest():
    version = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"][
        "rust-version"
    ]
    assert instructions(DOCKERFILE)[0] == ("FROM", f"rust:{version}-slim-bookworm AS build")

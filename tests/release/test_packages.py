"""The deb and the rpm in a clean Debian that was booted by systemd.

The rpm is installed there, too, with an empty database and therefore without its dependencies. Its
dependencies are compared with what the binary needs.
"""

import json
import os
import re
import shutil

import pytest

from harness import ROOT, Stream, eventually, free_port, get, run
from debian import Debian

SECRET = "/etc/sse-gateway/ticket-secret"
CONFIG = "/etc/sse-gateway/gateway.toml"


class Deb:
    install = ("dpkg", "--install", "--force-confold")
    upgrade = install
    remove = ("dpkg", "--remove", "sse-gateway")

    def path(dist, version, machine):
        return dist / f"sse-gateway_{version}_{machine['debian']}.deb"


class Rpm:
    install = ("rpm", "--install", "--nodeps")
    upgrade = ("rpm", "--upgrade", "--nodeps")
    remove = ("rpm", "--erase", "sse-gateway")

    def path(dist, version, machine):
        return dist / f"sse-gateway-{version}-1.{machine['rust']}.rpm"


@pytest.fixture(params=[Deb, Rpm])
def kind(request):
    return request.param


@pytest.fixture
def files(kind, dist, version, machine, binary, tmp_path):
    """A folder with the package, and a newer one with another default configuration."""
    folder = tmp_path / "dist"
    folder.mkdir()
    shutil.copy(kind.path(dist, version, machine), folder / "package")
    source = tmp_path / "newer"
    for path in ("deploy/package", "config"):
        shutil.copytree(ROOT / path, source / path)
    for path in ("LICENSE", "CHANGELOG.md"):
        shutil.copy(ROOT / path, source / path)
    with (source / "config/gateway.toml").open("a") as config:
        config.write("# A setting of the newer version.\n")
    stage = tmp_path / "stage"
    shutil.copytree(binary.parent, stage)
    unit = (stage / "sse-gateway.service").read_text()
    (stage / "sse-gateway.service").write_text(unit.replace("/usr/local/bin/", "/usr/bin/"))
    values = {"VERSION": "99.0.0", "ARCH": machine["debian"], "STAGE": str(stage)}
    values |= {"GLIBC": "2.34", "URL": "", "MAINTAINER": "tests"}
    run(
        *(ROOT / ".cache/bin/nfpm", "package", "--config", "deploy/package/nfpm.yaml"),
        *("--packager", kind.__name__.lower(), "--target", folder / "newer"),
        cwd=source,
        env={**os.environ, **values},
    )
    return folder


@pytest.fixture
def debian(files):
    with Debian(files) as machine:
        yield machine


def state(debian) -> str:
    return debian.run("systemctl", "is-active", "sse-gateway", check=False).stdout.strip()


def start(debian, redis) -> tuple[int, int]:
    """Configures, enables and starts the service. Returns its ports."""
    public, admin = free_port(), free_port()
    settings = {
        "REDIS__URL": redis.url,
        "SERVER__LISTEN": f"127.0.0.1:{public}",
        "ADMIN__LISTEN": f"127.0.0.1:{admin}",
        "DRAIN__DELAY": "0s",
        "DRAIN__WINDOW": "0s",
    }
    lines = "".join(f"SSE_GATEWAY__{key}={value}\n" for key, value in settings.items())
    debian.write("/etc/sse-gateway/environment", lines)
    debian.run("systemctl", "enable", "--now", "sse-gateway")
    is_ready(debian, admin)
    return public, admin


def is_ready(debian, admin):
    def probe():
        try:
            return get(admin, "/readyz")[0] == 200
        except OSError:
            return None

    eventually("the service is ready", probe)


def main_pid(debian) -> str:
    return debian.run("systemctl", "show", "-P", "MainPID", "sse-gateway").stdout.strip()


def receives_events(debian, redis, public):
    """The key that the package generated signs tickets, and an event arrives."""
    environment = "set -a; . /etc/sse-gateway/environment; "
    secret = f"SSE_GATEWAY__TICKETS__SECRET_FILE={SECRET} "
    ticket = debian.run("sh", "-c", environment + secret + "sse-gateway ticket --user 42").stdout
    with Stream(public, token=ticket.strip()) as stream:
        stream.until("sse.connected")
        redis.cli("FCALL", "sse_publish", 1, "user:42:events", "news", '{"from":"package"}')
        assert json.loads(stream.until("news")["data"]) == {"from": "package"}


def test_package_installs_upgrades_and_is_removed(kind, debian, redis):
    debian.run(*kind.install, "/dist/package")
    # Nothing runs before it was configured.
    assert state(debian) == "inactive"
    enabled = debian.run("systemctl", "is-enabled", "sse-gateway", check=False).stdout.strip()
    assert enabled == "disabled"
    owner = debian.run("stat", "--format=%U:%G %a", SECRET).stdout.strip()
    secret = debian.read(SECRET)
    assert owner == "root:root 600" and re.fullmatch("[0-9a-f]{64}", secret)
    assert debian.run("systemd-analyze", "verify", "--man=no", "sse-gateway.service").stderr == ""

    public, admin = start(debian, redis)
    receives_events(debian, redis, public)
    uid = debian.run("sh", "-c", f"awk '/^Uid/ {{ print $2 }}' /proc/{main_pid(debian)}/status")
    assert 61184 <= int(uid.stdout) <= 65519, "must be a dynamic user"

    debian.run("systemctl", "reload", "sse-gateway")
    journal = ("journalctl", "--no-pager", "--unit=sse-gateway")
    reloaded = "keys and certificate reloaded"
    eventually("the reload", lambda: reloaded in debian.run(*journal).stdout)

    # An upgrade replaces the process, and keeps the configuration and the key.
    changed = debian.read(CONFIG) + "# Changed by the administrator.\n"
    debian.write(CONFIG, changed)
    before = main_pid(debian)
    debian.run(*kind.upgrade, "/dist/newer")
    eventually("the new process runs", lambda: main_pid(debian) not in (before, "0"))
    is_ready(debian, admin)
    assert (debian.read(CONFIG), debian.read(SECRET)) == (changed, secret)
    receives_events(debian, redis, public)

    debian.run(*kind.remove)
    assert state(debian) == "inactive"
    for path in ("/usr/bin/sse-gateway", "/usr/lib/systemd/system/sse-gateway.service"):
        assert not debian.exists(path)
    links = debian.run("find", "/etc/systemd", "-name", "sse-gateway*").stdout
    assert links == ""
    assert debian.read(SECRET) == secret
    kept = CONFIG if kind is Deb else f"{CONFIG}.rpmsave"
    assert debian.read(kept) == changed


def test_purged_deb_leaves_nothing(dist, version, machine, redis, tmp_path):
    shutil.copy(Deb.path(dist, version, machine), tmp_path / "package")
    with Debian(tmp_path) as debian:
        debian.run(*Deb.install, "/dist/package")
        start(debian, redis)
        debian.run("dpkg", "--purge", "sse-gateway")
        assert state(debian) == "inactive"
        folders = ("/etc", "/usr", "/var/lib", "/var/cache", "/run/systemd")
        assert debian.run("find", *folders, "-name", "*sse-gateway*").stdout == ""
        assert "sse-gateway" not in debian.read("/etc/passwd")


def test_man_pages_and_completions_are_installed(kind, debian):
    debian.run(*kind.install, "/dist/package")
    for page in ("sse-gateway", "sse-gateway-serve"):
        text = debian.run("zcat", f"/usr/share/man/man1/{page}.1.gz").stdout
        assert f".TH {page} 1" in text
    completions = "/usr/share/bash-completion/completions/sse-gateway"
    debian.run("bash", "-c", f". {completions} && complete -p sse-gateway")
    zsh = "vendor-completions" if kind is Deb else "site-functions"
    assert debian.exists(f"/usr/share/zsh/{zsh}/_sse-gateway")
    assert debian.exists("/usr/share/fish/vendor_completions.d/sse-gateway.fish")


def test_configuration_files_are_marked(dist, version, machine):
    deb, rpm = (kind.path(dist, version, machine) for kind in (Deb, Rpm))
    marked = run("dpkg-deb", "--info", deb, "conffiles").stdout.split()
    assert marked == run("rpm", "-qp", "--configfiles", rpm).stdout.split() == [CONFIG]


def test_dependencies_name_the_glibc_of_the_binary(dist, version, machine, binary):
    symbols = run("objdump", "-T", binary).stdout
    found = {tuple(map(int, v.split("."))) for v in re.findall(r"GLIBC_([\d.]+)\)", symbols)}
    newest = ".".join(map(str, max(found)))
    deb, rpm = (kind.path(dist, version, machine) for kind in (Deb, Rpm))
    depends = run("dpkg-deb", "--field", deb, "Depends").stdout.strip()
    assert depends == f"libc6 (>= {newest}), libgcc-s1"
    requires = run("rpm", "-qp", "--requires", rpm).stdout.split("\n")
    assert f"libc.so.6(GLIBC_{newest})(64bit)" in requires
    assert "libgcc_s.so.1()(64bit)" in requires
    # Nothing else is linked.
    needed = set(re.findall(r"NEEDED +(\S+)", run("objdump", "-p", binary).stdout))
    assert {n for n in needed if not n.startswith(("libc.", "libm.", "ld-linux"))} == {
        "libgcc_s.so.1"
    }

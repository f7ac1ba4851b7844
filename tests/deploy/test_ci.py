"""What CI and `make` install and ask before the tests. apt-get, systemctl and cargo-deny are stand-ins; what they would touch is out of reach."""

import os
import re
import shutil
from pathlib import Path

import pytest

from harness import ROOT, run, tool

# What the scripts may use; no make, no cargo-deny.
TOOLS = [
    "bash",
    "sh",
    "cat",
    "chmod",
    "comm",
    "dirname",
    "env",
    "find",
    "id",
    "mkdir",
    "mktemp",
    "mount",
    "rm",
    "sort",
    "tee",
    "touch",
]


@pytest.fixture
def bench(tmp_path):
    """A directory for $PATH: the tools and whatever the test adds."""
    bin = tmp_path / "bin"
    bin.mkdir()
    for name in TOOLS:
        (bin / name).symlink_to(shutil.which(name))

    def add(name: str, script: str):
        (bin / name).write_text(f"#!/bin/sh\n{script}\n")
        (bin / name).chmod(0o755)

    add.path = str(bin)
    return add


# A host that systemd runs, as far as files go.
HOST = "mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/system && mount -t tmpfs tmpfs /lib/systemd/system && mount -t tmpfs tmpfs /usr/sbin && touch /lib/systemd/system/old.service"


def install(bench, log: Path, before: str = "true"):
    if os.geteuid() != 0:
        pytest.fail("this test mounts: run it as root", pytrace=False)
    bench(
        "apt-get",
        f'/usr/sbin/policy-rc.d; echo "apt-get $1, policy $?" >> {log}; [ "$1" = update ] || touch /lib/systemd/system/redis-server.service',
    )
    bench("systemctl", f'echo "systemctl $*" >> {log}')
    script = f'{HOST} && {before} && bash {ROOT}/.ci/need make && if [ -e /usr/sbin/policy-rc.d ]; then echo "the policy stays" >> {log}; fi'
    return run(tool("unshare"), "--mount", "sh", "-c", script, env={"PATH": bench.path})


def test_nothing_that_is_installed_for_the_tests_runs(bench, tmp_path):
    """Neither at once nor after the next boot; and what was there before is left alone."""
    done = install(bench, tmp_path / "log")
    assert done.stdout == "== installing make\n"
    assert (tmp_path / "log").read_text().splitlines() == [
        "apt-get update, policy 101",
        "apt-get install, policy 101",
        "systemctl disable redis-server.service",
    ]


def test_a_policy_of_the_hosts_own_is_kept(bench, tmp_path):
    install(
        bench,
        tmp_path / "log",
        before="printf '#!/bin/sh\\nexit 104\\n' > /usr/sbin/policy-rc.d && chmod 755 /usr/sbin/policy-rc.d",
    )
    assert (tmp_path / "log").read_text().splitlines()[1:] == [
        "apt-get install, policy 104",
        "systemctl disable redis-server.service",
        "the policy stays",
    ]


@pytest.mark.parametrize(
    "deny,status,said",
    [
        (None, 0, "warning: advisories were not checked: cargo-deny is not installed"),
        (
            "echo no network >&2; exit 1",
            0,
            "warning: advisories were not checked: fetching them failed: no network",
        ),
        ('case "$*" in *check*) echo RUSTSEC; exit 1;; esac', 1, "RUSTSEC"),
        ('case "$*" in *check*) echo advisories ok;; esac', 0, "advisories ok"),
    ],
    ids=["no tool", "no network", "an advisory", "none"],
)
def test_advisories_are_a_fault_and_their_absence_is_said(deny, status, said, bench, tmp_path):
    # A copy, since the tool may stand in the repository's .cache.
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci/advisories", tmp_path / ".ci/advisories")
    if deny:
        bench("cargo-deny", deny)
    done = run("bash", tmp_path / ".ci/advisories", check=False, env={"PATH": bench.path})
    assert (
        done.returncode == status and done.stdout.startswith(said) and done.stdout.count("\n") == 1
    ), done.stdout + done.stderr


def test_every_tool_that_is_asked_for_is_known():
    asked = set()
    for file in ("Makefile", ".ci/run", ".ci/kustomize"):
        for line in re.findall(r"\.ci/need ([a-z -]+)$", (ROOT / file).read_text(), re.M):
            asked |= set(line.split())
    known = set(re.findall(r"^    ([a-z-]+)\) ", (ROOT / ".ci/need").read_text(), re.M))
    assert asked == known
    # The tests in Rust make keys with it.
    [rust] = re.findall(r"^test-rust:.*\n.*\.ci/need (.*)$", (ROOT / "Makefile").read_text(), re.M)
    assert "openssl" in rust.split()

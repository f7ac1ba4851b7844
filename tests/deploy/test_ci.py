"""Scripts in .ci and skips in the Makefile. apt-get, systemctl and cargo-deny are stubs."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harness import ROOT, run, unshare

# Programs that the scripts may use. make and cargo-deny are missing on purpose.
TOOLS = [
    "bash",
    "cat",
    "chmod",
    "comm",
    "dirname",
    "env",
    "find",
    "flock",
    "id",
    "mkdir",
    "mktemp",
    "mount",
    "rm",
    "sh",
    "sort",
    "tee",
    "touch",
]


@pytest.fixture
def stub(tmp_path):
    """Adds a stub to the directory `.path`, which already contains TOOLS."""
    bin = tmp_path / "bin"
    bin.mkdir()
    for name in TOOLS:
        (bin / name).symlink_to(shutil.which(name))

    def add(name: str, script: str):
        (bin / name).write_text(f"#!/bin/sh\n{script}\n")
        (bin / name).chmod(0o755)

    add.path = str(bin)
    return add


# Files of a host that was booted by systemd.
HOST = """
set -e
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/system
mount -t tmpfs tmpfs /lib/systemd/system
mount -t tmpfs tmpfs /usr/sbin
touch /lib/systemd/system/old.service
"""


def install(stub, log: Path, before: str = "true"):
    stub(
        "apt-get",
        f'/usr/sbin/policy-rc.d; echo "apt-get $1, policy $?" >> {log}; '
        '[ "$1" = update ] || touch /lib/systemd/system/redis-server.service',
    )
    stub("systemctl", f'echo "systemctl $*" >> {log}')
    script = f"""{HOST}
{before}
bash {ROOT}/.ci/need make
if [ -e /usr/sbin/policy-rc.d ]; then echo "policy exists" >> {log}; fi
"""
    return run(*unshare(), "sh", "-c", script, env={"PATH": stub.path})


def test_installed_services_are_neither_started_nor_enabled(stub, tmp_path):
    """Services that existed before stay unchanged."""
    done = install(stub, tmp_path / "log")
    assert done.stdout == "== installing make\n"
    assert (tmp_path / "log").read_text().splitlines() == [
        "apt-get update, policy 101",
        "apt-get install, policy 101",
        "systemctl disable redis-server.service",
    ]


def test_existing_policy_of_the_host_is_kept(stub, tmp_path):
    install(
        stub,
        tmp_path / "log",
        before="printf '#!/bin/sh\\nexit 104\\n' > /usr/sbin/policy-rc.d\n"
        "chmod 755 /usr/sbin/policy-rc.d",
    )
    assert (tmp_path / "log").read_text().splitlines()[1:] == [
        "apt-get install, policy 104",
        "systemctl disable redis-server.service",
        "policy exists",
    ]


@pytest.mark.parametrize(
    "deny,status,output",
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
    ids=["no tool", "no network", "advisory", "no advisory"],
)
def test_advisories_fail_and_missing_checks_are_reported(deny, status, output, stub, tmp_path):
    # A copy, because the repository's .cache may contain the tool.
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci/advisories", tmp_path / ".ci/advisories")
    if deny:
        stub("cargo-deny", deny)
    done = run("bash", tmp_path / ".ci/advisories", check=False, env={"PATH": stub.path})
    assert (
        done.returncode == status
        and done.stdout.startswith(output)
        and done.stdout.count("\n") == 1
    ), done.stdout + done.stderr


def test_need_knows_every_requested_tool():
    requested = set()
    workflows = (".github/workflows/package.yml",)
    for file in ("Makefile", ".ci/run", ".ci/nfpm", ".ci/optimise", *workflows):
        for line in re.findall(r"\.ci/need ([a-z -]+?)(?: >&2)?$", (ROOT / file).read_text(), re.M):
            requested |= set(line.split())
    known = set(re.findall(r"^    ([a-z-]+)\) ", (ROOT / ".ci/need").read_text(), re.M))
    assert requested == known
    # The Rust tests create keys with openssl.
    [rust] = re.findall(r"^test-rust:.*\n.*\.ci/need (.*)$", (ROOT / "Makefile").read_text(), re.M)
    assert "openssl" in rust.split()


def git(directory: Path, *arguments):
    run(
        "git",
        "-c",
        "user.name=test",
        "-c",
        "user.email=test@example.com",
        *arguments,
        cwd=directory,
    )


@pytest.fixture
def repository(tmp_path) -> Path:
    """A repository with two commits, which lacks the commit that `make test-upgrade` builds."""
    origin = tmp_path / "origin"
    shutil.copytree(ROOT / ".ci", origin / ".ci")
    shutil.copy(ROOT / "Makefile", origin)
    git(origin, "init", "--quiet")
    git(origin, "add", ".")
    for message in ("first", "second"):
        git(origin, "commit", "--quiet", "--allow-empty", "-m", message)
    return origin


def make(directory: Path, target: str, path: str = "") -> subprocess.CompletedProcess:
    """Runs one target without its slow prerequisites. `path` is prepended to $PATH."""
    slow = ["test-build", "test-rust", "test-http2", "test-js", "test-others"]
    env = {"PATH": path + os.environ["PATH"], "HOME": os.environ["HOME"]}
    options = [f"--assume-old={name}" for name in slow]
    return run("make", *options, target, cwd=directory, env=env, check=False)


def test_shallow_clone_skips_and_reports_the_upgrade(repository, tmp_path):
    git(tmp_path, "clone", "--quiet", "--depth=1", repository.as_uri(), "shallow")
    done = make(tmp_path / "shallow", "test")
    assert done.returncode == 0, done.stdout + done.stderr
    summary = done.stdout[done.stdout.rindex("== ") :]
    assert summary.startswith("== all other tests passed; these were skipped:\ntest-upgrade needs")
    assert "git fetch --unshallow" in summary


def test_source_archive_skips_and_reports_the_upgrade(repository):
    shutil.rmtree(repository / ".git")
    done = make(repository, "test")
    assert done.returncode == 0 and "test-upgrade needs the history" in done.stdout.splitlines()[-1]


def test_complete_clone_without_the_old_version_fails(repository):
    done = make(repository, "test-upgrade")
    assert done.returncode != 0 and "missing although the history is complete" in done.stderr


def test_summary_without_skipped_tests_says_so(repository, stub):
    old = re.search(r"^OLD +:= (\w+)$", (repository / "Makefile").read_text(), re.M)[1]
    (repository / f".cache/old-{old}").mkdir(parents=True)
    (repository / f".cache/old-{old}/done").touch()
    # Replaces the upgrade test.
    stub("cargo", "exit 0")
    done = make(repository, "test", f"{stub.path}:")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "== all tests passed, none were skipped"


def test_skipped_deployment_tests_are_listed(tmp_path):
    shutil.copy(ROOT / "tests/deploy/conftest.py", tmp_path)
    (tmp_path / "test_root.py").write_text(
        "import pytest\n\ndef test_it():\n    pytest.skip('needs root to mount')\n"
    )
    list_of_skipped = tmp_path / "cache/skipped/test-deploy"
    env = {"PATH": os.environ["PATH"], "SSE_SKIPPED": str(list_of_skipped)}
    env["PYTHONPATH"] = str(ROOT / "tests/deploy")
    run(sys.executable, "-m", "pytest", "test_root.py", cwd=tmp_path, env=env)
    expected = "test-deploy, needs root to mount:\n  test_root.py::test_it\n"
    assert list_of_skipped.read_text() == expected


def test_no_other_test_suite_skips_silently():
    """The other suites report no skips. An ignored Rust test names the make target that runs it."""
    files = [*(ROOT / "tests").rglob("*.rs"), *(ROOT / "src").rglob("*.rs")]
    files += (ROOT / "loadtest").rglob("*.rs")
    ignored = [line for f in files for line in f.read_text().splitlines() if "#[ignore" in line]
    assert [line for line in ignored if "make " not in line] == []
    scripts = [*(ROOT / "tests/clients").rglob("*.js"), *(ROOT / "clients/js/tests").rglob("*.js")]
    scripts = [f for f in scripts if "node_modules" not in f.parts]
    assert scripts
    for file in scripts:
        skipped = r"\b(test|it|describe|suite|t)\.(skip|todo)\(|\b(skip|todo):"
        assert not re.search(skipped, file.read_text()), file

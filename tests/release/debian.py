"""A clean Debian with systemd, in which packages are installed."""

import contextlib
import os
import shutil
import signal
import subprocess
import uuid

import pytest

from harness import ROOT, Process, eventually, require_root, run, tool

# Kept between runs: creating it takes minutes. `make clean` removes it.
BASE = ROOT / ".cache/debian"
SUITE = "bookworm"


def base():
    """The files of a Debian with systemd and rpm, as debootstrap installs them."""
    if not (BASE / "done").exists():
        shutil.rmtree(BASE, ignore_errors=True)
        options = ("--variant=minbase", "--include=dbus,rpm,systemd,systemd-sysv")
        mirror = "http://deb.debian.org/debian"
        run(tool("debootstrap"), *options, SUITE, BASE / "root", mirror, timeout=1200)
        (BASE / "done").touch()
    return BASE / "root"


class Debian(Process):
    """A booted Debian, which shares the network of this machine. Its changes are discarded.

    /dist has the files of `files`, read-only.
    """

    leader: str | None = None

    def __init__(self, files):
        require_root("boot a Debian")
        # Without systemd on this machine, nothing assigns a control group.
        unit = () if os.path.isdir("/run/systemd/system") else ("--keep-unit",)
        super().__init__(
            *(tool("systemd-nspawn"), "--quiet", "--boot", "--console=pipe", "--register=no"),
            *(*unit, "--volatile=overlay", f"--directory={base()}"),
            f"--machine=sse-gateway-{uuid.uuid4().hex[:8]}",
            f"--bind-ro={files}:/dist",
            stdin=subprocess.DEVNULL,
        )
        try:
            eventually("Debian has booted", self._has_booted)
        except BaseException:
            self.kill()
            raise

    def _has_booted(self):
        if not self.alive():
            pytest.fail(f"systemd-nspawn exited:\n{self.output}")
        # The first child only prepares the second one, which becomes the init process.
        children = f"/proc/{self.child.pid}/task/{self.child.pid}/children"
        with open(children) as file:
            self.leader = next(iter(file.read().split()), None)
        if self.leader is None:
            return False
        # Without /dist these are still the files of this machine.
        probe = "test -d /dist && systemctl is-system-running"
        state = self.run("sh", "-c", probe, check=False).stdout.strip()
        return state in ("running", "degraded")

    def kill(self):
        """Ends its init process. Then systemd-nspawn releases the files, and ends, too."""
        if self.leader and self.alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(self.leader), signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.child.wait(30)
        super().kill()

    def run(self, *command, check=True) -> subprocess.CompletedProcess:
        namespaces = ("--mount", "--uts", "--ipc", "--pid", "--cgroup")
        return run(
            *(tool("nsenter"), f"--target={self.leader}", *namespaces, *command),
            check=check,
            stdin=subprocess.DEVNULL,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND": "noninteractive"},
        )

    def read(self, path: str) -> str:
        return self.run("cat", path).stdout

    def write(self, path: str, text: str):
        self.run("sh", "-c", f'printf "%s" "$1" > {path}', "sh", text)

    def exists(self, path: str) -> bool:
        return self.run("test", "-e", path, check=False).returncode == 0

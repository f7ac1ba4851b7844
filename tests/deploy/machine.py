"""A machine to follow instructions on: a real systemd as process 1, in namespaces of its own.

It has the files and programs of the host. What it writes goes to memory, and its network is empty,
so it can use any port. It needs root and cgroup v2.
"""

import contextlib
import ctypes
import os
import subprocess
import threading
import uuid
from pathlib import Path

import pytest

from harness import GUARD, ROOT, eventually, gateway_binary, require_root, tool

# Writable copies of directories, on a file system in memory.
WRITABLE = ("/etc", "/usr/local", "/var", str(ROOT))

# $1: the cgroup of the machine, $2: the tested gateway, others: directories to make writable.
BOOT = r"""
set -eu
cgroup=$1 gateway=$2
shift 2
echo $$ > "$cgroup/cgroup.procs"
exec unshare --cgroup --pid --fork --kill-child --mount sh -c '
set -eu
gateway=$1
shift
mount -t tmpfs tmpfs /run
mkdir /run/lock /run/copies /run/dev
touch /run/tested-gateway
mount --bind "$gateway" /run/tested-gateway
copy_of() { echo "/run/copies/$(echo "$1" | tr / _)"; }
for dir in "$@"; do
  copy=$(copy_of "$dir")
  mkdir -p "$copy/lower" "$copy/upper" "$copy/work"
  mount --bind "$dir" "$copy/lower"
done
# It may hide one of the directories.
mount -t tmpfs tmpfs /tmp
for dir in "$@"; do
  copy=$(copy_of "$dir")
  mkdir -p "$dir"
  mount -t overlay overlay \
    -o "lowerdir=$copy/lower,upperdir=$copy/upper,workdir=$copy/work" "$dir"
done
mount --bind /dev /run/dev
mount -t tmpfs tmpfs /dev
for node in null zero full random urandom tty; do
  touch "/dev/$node"
  mount --bind "/run/dev/$node" "/dev/$node"
done
mkdir /dev/shm /dev/pts
mount -t devpts -o newinstance,ptmxmode=0666 devpts /dev/pts
ln -s pts/ptmx /dev/ptmx
# Read-only, so that the kernel settings of the host are not changed.
mount -t proc proc /proc
mount --bind -o ro /proc/sys /proc/sys
mount -o remount,bind,ro /proc/sys
mount -t sysfs -o ro sysfs /sys
mount -t cgroup2 cgroup2 /sys/fs/cgroup
# systemd mounts credentials in a namespace below this one.
mount --make-rshared /
export container=test
exec /lib/systemd/systemd --system --unit=sysinit.target --log-target=journal --show-status=no
' sh "$gateway" "$@"
"""


def cgroup_root() -> Path:
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    found = [Path(fields[1]) for fields in mounts if fields[2] == "cgroup2"]
    if not found:
        pytest.fail("no cgroup2 file system is mounted", pytrace=False)
    return found[0]


class Machine:
    """Boots when its context is entered, and ends with all of its processes."""

    def __init__(self, log: Path):
        require_root("boot systemd in namespaces")
        self.log = log
        self.cgroup = cgroup_root() / f"sse-gateway-{uuid.uuid4()}"

    def __enter__(self):
        self.cgroup.mkdir()
        arguments = ["sh", "-c", BOOT, "sh", self.cgroup, gateway_binary(), *WRITABLE]
        self.process = subprocess.Popen(
            [tool("unshare"), "--mount", "--net", *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=self.log.open("w"),
            stderr=subprocess.STDOUT,
        )
        try:
            self.init = eventually("systemd starts", self._init)
            eventually("systemd is up", self._is_up)
        except BaseException:
            self.__exit__()
            raise
        return self

    def _init(self) -> int:
        if self.process.poll() is not None:
            pytest.fail("the machine ended:\n" + self.log.read_text(), pytrace=False)
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        name = Path(f"/proc/{children[0]}/comm").read_text() if children else ""
        return int(children[0]) if name == "systemd\n" else 0

    def _is_up(self) -> bool:
        return self.run("systemctl is-active --quiet sysinit.target", check=False).returncode == 0

    def command(self, *command) -> list[str]:
        """The command that runs a program on the machine, in the repository."""
        spaces = ("--mount", "--net", "--pid", "--cgroup")
        enter = [tool("nsenter"), "--target", self.init, *spaces, f"--wdns={ROOT}"]
        return [str(part) for part in (*enter, *command)]

    def run(self, script: str, check=True) -> subprocess.CompletedProcess:
        done = subprocess.run(
            self.command("bash", "-c", script), capture_output=True, text=True, timeout=60
        )
        if check and done.returncode != 0:
            pytest.fail(f"{script}: {done.stdout}{done.stderr}", pytrace=False)
        return done

    @contextlib.contextmanager
    def network(self):
        """Within this context, sockets that this thread opens belong to the machine."""
        setns = ctypes.CDLL(None, use_errno=True).setns
        with open("/proc/thread-self/ns/net") as host, open(f"/proc/{self.init}/ns/net") as there:
            assert setns(there.fileno(), 0) == 0, os.strerror(ctypes.get_errno())
            try:
                yield
            finally:
                assert setns(host.fileno(), 0) == 0

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

        def remove():
            # The deepest directories first.
            for path in sorted(self.cgroup.rglob("*/"), key=lambda path: -len(path.parts)):
                with contextlib.suppress(OSError):
                    path.rmdir()
            with contextlib.suppress(OSError):
                self.cgroup.rmdir()
            return not self.cgroup.exists()

        eventually("the processes of the machine end", remove)


class Shell:
    """A shell on a machine. Variables and functions of a block are known in the next one."""

    def __init__(self, machine: Machine):
        self.machine, self.journal = machine, ""
        self.child = subprocess.Popen(
            machine.command("bash", "-s"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.run("exec 2>&1; set -euo pipefail")

    def run(self, block: str) -> str:
        """Runs a block of commands, and returns its output. Fails if a command does."""
        end = f"end-{uuid.uuid4()}"
        self.child.stdin.write(f"{block}\necho {end}\n")
        self.child.stdin.flush()
        output = ""
        guard = threading.Timer(GUARD, self._give_up)
        guard.start()
        try:
            for line in self.child.stdout:
                if line.endswith(end + "\n"):
                    return output + line.removesuffix(end + "\n")
                output += line
        finally:
            guard.cancel()
        self.journal = self.journal or self._read_journal()
        pytest.fail(f"these commands failed:\n{block}\n{output}\n{self.journal}", pytrace=False)

    def _read_journal(self) -> str:
        return self.machine.run("journalctl -n 50", check=False).stdout

    def _give_up(self):
        """Ends all processes, so that none of them keeps the output open."""
        self.journal = f"no end after {GUARD:.0f} s"
        try:
            self.journal = self._read_journal() + "\n" + self.journal
        finally:
            self.machine.process.kill()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.child.kill()
        self.child.wait()

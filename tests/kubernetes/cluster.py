"""Two nodes with real pods. Each is a process in namespaces of its own, without a route out."""

import contextlib
import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from control_plane import SERVICES, sign_control_plane
from harness import Process, eventually, run, tool
from kubectl import Kubectl
from node import SOCKET, Node, sign_components
from paths import GUARD, HERE
from pki import Authority

ALL_NAMESPACES = ("--mount", "--net", "--pid", "--uts", "--ipc")
CGROUPS = Path("/sys/fs/cgroup")


class Machine:
    """A node's first process, and commands in its namespaces."""

    def __init__(self, node: Node):
        self.node = node
        self.process = Process(
            # The node ends with the process that started it, even if that is killed.
            tool("setpriv"),
            "--pdeathsig",
            "KILL",
            tool("unshare"),
            *ALL_NAMESPACES,
            "--fork",
            "--kill-child",
            "--mount-proc",
            "--propagation",
            "private",
            "bash",
            HERE / "machine.sh",
            node.name,
            node.directory,
        )
        eventually(f"{node.name} is prepared", self._prepared, GUARD)
        parent = self.process.child.pid
        self.pid = int(Path(f"/proc/{parent}/task/{parent}/children").read_text())

    def _prepared(self) -> bool:
        assert self.process.alive(), self.process.output
        return (self.node.directory / "prepared").exists()

    def enter(self, *namespaces: str) -> tuple:
        """The command that runs another one in these namespaces, or in all of the node."""
        return (tool("nsenter"), "--target", str(self.pid), *(namespaces or ALL_NAMESPACES), "--")

    def run(self, *command, **options) -> subprocess.CompletedProcess:
        return run(*self.enter(), *command, **options)

    def connect(self, device: str, peer: Node):
        """Makes `device`, which is in this node's network, the way to the other node."""
        for arguments in (
            f"link set {device} name eth0",
            f"address add {self.node.address}/24 dev eth0",
            "link set eth0 up",
            f"route add {peer.pods} via {peer.address}",
            # kube-proxy changes the destination before the packet is sent.
            f"route add {SERVICES} dev eth0",
        ):
            self.run("ip", *arguments.split())
        (self.node.directory / "connected").touch()

    def import_image(self, archive: Path):
        ctr = ("ctr", "--address", SOCKET, "--namespace", "k8s.io")
        eventually(
            f"containerd runs on {self.node.name}",
            lambda: self.run(*ctr, "version", check=False).returncode == 0,
            GUARD,
        )
        self.run(*ctr, "images", "import", archive)


class Cluster:
    """A control plane and two nodes.

    Leaving the context kills everything, and deletes all files but the logs.
    """

    def __init__(self, directory: Path):
        self.directory = directory
        self.group = f"sse-kubernetes-{os.getpid()}"
        server = "https://192.0.2.1:6443"
        pki = Authority(directory / "pki")
        sign_control_plane(pki, "192.0.2.1")
        sign_components(pki, server)
        config = pki.kubeconfig("admin", server)
        self.machines = []
        try:
            for number in (1, 2):
                node = Node(
                    number, directory / f"node{number}", f"{self.group}-{number}", pki, server
                )
                self.machines.append(Machine(node))
            self._connect()
            self.kubectl = Kubectl(config, self.network())
            self.kubectl.until_ready()
        except BaseException:
            self.stop()
            raise

    def network(self) -> tuple:
        """The command that runs another one in the network of the first node."""
        return self.machines[0].enter("--net")

    def _connect(self):
        first, second = self.machines
        ends = [f"sse{os.getpid()}-{n}"[-15:] for n in (1, 2)]
        run("ip", "link", "add", ends[0], "type", "veth", "peer", "name", ends[1])
        for machine, end, other in ((first, ends[0], second), (second, ends[1], first)):
            run("ip", "link", "set", end, "netns", machine.pid)
            machine.connect(end, other.node)

    def import_images(self, archives: list[Path]):
        with ThreadPoolExecutor() as pool:
            for machine in self.machines:
                list(pool.map(machine.import_image, archives))

    def until_nodes_are_ready(self):
        def ready():
            nodes = self.kubectl("get", "nodes", "--output", "name").stdout.split()
            return len(nodes) == len(self.machines)

        eventually("the nodes registered", ready, GUARD)
        self.kubectl("wait", "nodes", "--all", "--for=condition=Ready", f"--timeout={GUARD}s")

    def stop(self):
        for machine in self.machines:
            machine.process.kill()
        for machine in self.machines:
            machine.node.keep_logs()
        eventually("the cgroups are deleted", self._delete_cgroups, GUARD)
        shutil.rmtree(self.directory, ignore_errors=True)

    def _delete_cgroups(self) -> bool:
        roots = [CGROUPS, *(p for p in CGROUPS.iterdir() if p.is_dir())]
        groups = [g for root in roots for g in root.glob(f"{self.group}-*")]
        for group in groups:
            inner = sorted((p for p in group.rglob("*") if p.is_dir()), reverse=True)
            for directory in (*inner, group):
                with contextlib.suppress(OSError):
                    directory.rmdir()
        return not any(group.exists() for group in groups)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

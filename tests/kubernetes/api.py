"""An API server without nodes, on loopback. It accepts objects but runs nothing."""

import shutil
from pathlib import Path

from control_plane import api_server, etcd, sign_control_plane
from harness import Process, eventually, free_port
from kubectl import Kubectl
from paths import GUARD
from pki import Authority


class ApiServer:
    """etcd and the API server. Leaving the context kills both and deletes the directory."""

    def __init__(self, directory: Path):
        self.directory = directory
        pki = Authority(directory / "pki")
        sign_control_plane(pki, "127.0.0.1")
        port, etcd_port = free_port(), free_port()
        self.kubectl = Kubectl(pki.kubeconfig("admin", f"https://127.0.0.1:{port}"))
        self.processes = [
            Process(*etcd(directory / "etcd", etcd_port, free_port())),
            Process(*api_server(pki, "127.0.0.1", port, etcd_port), cwd=directory),
        ]
        eventually("the API server is ready", self._ready, GUARD)

    def _ready(self) -> bool:
        for process in self.processes:
            assert process.alive(), process.output
        return self.kubectl("get", "--raw", "/readyz", check=False).returncode == 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in reversed(self.processes):
            process.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

"""Configuration of a node's programs."""

import json
import shlex
import shutil
import sys
from pathlib import Path

import images
from control_plane import api_server, etcd
from harness import tool
from paths import HERE, LOGS, NODE
from pki import Authority

DNS = "192.0.2.1"  # node1
SOCKET = "/run/containerd/containerd.sock"


class Node:
    """The files of node `number`, which is 1 or 2. The control plane runs on the first."""

    def __init__(self, number: int, directory: Path, group: str, pki: Authority, server: str):
        self.number, self.directory, self.group, self.pki = number, directory, group, pki
        self.name = f"node{number}"
        self.address = f"192.0.2.{number}"
        self.pods = f"198.18.{number}.0/24"
        (directory / "services").mkdir(parents=True)
        (directory / "cgroup").write_text(group)
        hosts = (f"DNS:{self.name}", f"IP:{self.address}")
        pki.sign(self.name, f"system:node:{self.name}", "system:nodes", hosts)
        self.kubeconfig = pki.kubeconfig(self.name, server)
        self._write_services()

    def _write_services(self):
        if self.number == 1:
            self._service("etcd", *etcd(self.directory / "etcd", 2379, 2380))
            self._service("kube-apiserver", *api_server(self.pki, self.address, 6443, 2379))
            self._service("kube-controller-manager", *self._controller_manager())
            self._service("kube-scheduler", *self._scheduler())
            self._service("dns", sys.executable, HERE / "dns.py", self.pki.directory, DNS)
        self._service("containerd", tool("containerd"), "--config", self._containerd())
        self._service("kubelet", NODE, "kubelet", *self._kubelet())
        self._service("kube-proxy", NODE, "kube-proxy", f"--config={self._kube_proxy()}")

    def keep_logs(self):
        """Copies the logs of the programs, instead of those of the previous cluster."""
        target = LOGS / self.name
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        for log in self.directory.glob("*.log"):
            shutil.copy(log, target)

    def _service(self, name: str, *command):
        path = self.directory / "services" / name
        path.write_text(f"#!/bin/sh\nexec {shlex.join(map(str, command))}\n")
        path.chmod(0o755)

    def _file(self, name: str, content) -> Path:
        path = self.directory / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    def _controller_manager(self) -> list:
        config = self.pki.directory / "kube-controller-manager.kubeconfig"
        return [
            NODE,
            "kube-controller-manager",
            "--leader-elect=false",
            *_api_access(config),
            "--use-service-account-credentials",
            f"--root-ca-file={self.pki.crt('ca')}",
            f"--service-account-private-key-file={self.pki.key('service-accounts')}",
        ]

    def _scheduler(self) -> list:
        config = self.pki.directory / "kube-scheduler.kubeconfig"
        return [NODE, "kube-scheduler", "--leader-elect=false", *_api_access(config)]

    def _containerd(self) -> Path:
        self._file(
            "cni/bridge.conflist",
            {
                "cniVersion": "1.0.0",
                "name": "bridge",
                "plugins": [
                    {
                        "type": "bridge",
                        "bridge": "cni0",
                        "isGateway": True,
                        "hairpinMode": True,
                        "ipam": {
                            "type": "host-local",
                            "ranges": [[{"subnet": self.pods}]],
                            "routes": [{"dst": "0.0.0.0/0"}],
                        },
                    },
                    {"type": "portmap", "capabilities": {"portMappings": True}},
                ],
            },
        )
        # JSON would not do: containerd reads TOML. restrict_oom_score_adj: for machines where root
        # lacks CAP_SYS_RESOURCE.
        return self._file(
            "containerd.toml",
            f"""\
version = 2
root = "{self.directory}/containerd"
state = "/run/containerd"
[grpc]
  address = "{SOCKET}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{images.PAUSE}"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{self.directory}/cni"
""",
        )

    def _kubelet(self) -> list:
        config = self._file(
            "kubelet.json",
            {
                "apiVersion": "kubelet.config.k8s.io/v1beta1",
                "kind": "KubeletConfiguration",
                "failCgroupV1": False,
                "failSwapOn": False,
                "cgroupDriver": "cgroupfs",
                "cgroupRoot": f"/{self.group}",
                "oomScoreAdj": 0,
                "containerRuntimeEndpoint": f"unix://{SOCKET}",
                "tlsCertFile": str(self.pki.crt(self.name)),
                "tlsPrivateKeyFile": str(self.pki.key(self.name)),
                "authentication": {
                    "anonymous": {"enabled": False},
                    "webhook": {"enabled": True},
                    "x509": {"clientCAFile": str(self.pki.crt("ca"))},
                },
                "authorization": {"mode": "Webhook"},
                "clusterDNS": [DNS],
                "clusterDomain": "cluster.local",
                "resolvConf": str(self._file("resolv.conf", f"nameserver {DNS}\n")),
                # Neither a full disk nor unused images of the machine concern the tests.
                "imageGCHighThresholdPercent": 100,
                "evictionHard": {
                    "memory.available": "100Mi",
                    "nodefs.available": "1%",
                    "nodefs.inodesFree": "1%",
                    "imagefs.available": "1%",
                },
            },
        )
        return [
            f"--config={config}",
            f"--kubeconfig={self.kubeconfig}",
            f"--node-ip={self.address}",
            f"--hostname-override={self.name}",
            f"--node-labels=topology.kubernetes.io/zone=zone{self.number}",
        ]

    def _kube_proxy(self) -> Path:
        return self._file(
            "kube-proxy.json",
            {
                "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
                "kind": "KubeProxyConfiguration",
                "clientConnection": {
                    "kubeconfig": str(self.pki.directory / "kube-proxy.kubeconfig")
                },
                "mode": "iptables",
                "clusterCIDR": "198.18.0.0/16",
                "hostnameOverride": self.name,
                "oomScoreAdj": 0,
                # Leave the kernel settings of the machine as they are.
                "conntrack": {
                    "maxPerCore": 0,
                    "tcpCloseWaitTimeout": "0s",
                    "tcpEstablishedTimeout": "0s",
                },
            },
        )


def _api_access(config: Path) -> list[str]:
    names = ("kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig")
    return [f"--{name}={config}" for name in names]


def sign_components(pki: Authority, server: str):
    for name in ("kube-controller-manager", "kube-scheduler", "kube-proxy"):
        pki.sign(name, f"system:{name}")
        pki.kubeconfig(name, server)

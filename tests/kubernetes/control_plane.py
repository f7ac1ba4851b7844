"""The commands of etcd and the API server."""

import shutil
from pathlib import Path

from paths import API_SERVER
from pki import ADMINISTRATORS, Authority

# Ranges for documentation and benchmarks: they belong to nobody, and are known only in the
# namespaces of the nodes.
SERVICES = "198.19.0.0/16"
FIRST_SERVICE = "198.19.0.1"
ISSUER = "https://kubernetes.default.svc"


def sign_control_plane(pki: Authority, address: str):
    """Signs the certificates of the API server and its administrator."""
    names = ("kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost")
    pki.sign(
        "apiserver",
        "kube-apiserver",
        hosts=(*(f"DNS:{n}" for n in names), f"IP:{address}", f"IP:{FIRST_SERVICE}"),
    )
    pki.sign("apiserver-kubelet", "kube-apiserver", ADMINISTRATORS)
    pki.sign("admin", "admin", ADMINISTRATORS)


def etcd(data: Path, port: int, peer_port: int) -> list:
    client, peer = (f"http://127.0.0.1:{p}" for p in (port, peer_port))
    return [
        shutil.which("etcd") or "etcd",
        "--data-dir",
        data,
        "--listen-client-urls",
        client,
        "--advertise-client-urls",
        client,
        "--listen-peer-urls",
        peer,
        "--initial-advertise-peer-urls",
        peer,
        "--initial-cluster",
        f"default={peer}",
        # The data need not survive a crash of the machine.
        "--unsafe-no-fsync",
        "--log-level",
        "warn",
    ]


def api_server(pki: Authority, address: str, port: int, etcd_port: int) -> list:
    flags = {
        "etcd-servers": f"http://127.0.0.1:{etcd_port}",
        "bind-address": address,
        "advertise-address": address,
        "secure-port": port,
        "tls-cert-file": pki.crt("apiserver"),
        "tls-private-key-file": pki.key("apiserver"),
        "client-ca-file": pki.crt("ca"),
        "service-account-key-file": pki.key("service-accounts"),
        "service-account-signing-key-file": pki.key("service-accounts"),
        "service-account-issuer": ISSUER,
        "service-cluster-ip-range": SERVICES,
        "authorization-mode": "Node,RBAC",
        "enable-admission-plugins": "NodeRestriction",
        "kubelet-client-certificate": pki.crt("apiserver-kubelet"),
        "kubelet-client-key": pki.key("apiserver-kubelet"),
        "kubelet-certificate-authority": pki.crt("ca"),
        "kubelet-preferred-address-types": "InternalIP",
        "profiling": "false",
    }
    if address.startswith("127."):
        # Without nodes nobody uses the Service `kubernetes`, and it refuses loopback addresses.
        flags["endpoint-reconciler-type"] = "none"
    return [API_SERVER, *(f"--{name}={value}" for name, value in flags.items())]

"""Gateways in a namespace of their own, with a Redis that no rollout touches."""

import os
import secrets
import tempfile
from pathlib import Path

import yaml

from cluster import Cluster
from harness import Process, eventually, run, tool
from paths import GUARD
from streams import Load

# Redis runs on the first node, outside Kubernetes.
REDIS = "192.0.2.1"


class Redis(Process):
    def __init__(self, network: tuple):
        self.directory = tempfile.TemporaryDirectory(prefix="sse-kubernetes-redis-")
        super().__init__(
            *network,
            tool("redis-server"),
            "--bind",
            REDIS,
            "--protected-mode",
            "no",
            "--save",
            "",
            "--dir",
            self.directory.name,
        )
        ping = (*network, tool("redis-cli"), "-h", REDIS, "ping")
        eventually("Redis responds", lambda: run(*ping, check=False).stdout == "PONG\n", GUARD)

    def __exit__(self, *_):
        super().__exit__()
        self.directory.cleanup()


class Gateways:
    """Objects of k8s/ in a namespace, and their clients."""

    def __init__(self, cluster: Cluster, namespace: str, directory: Path):
        self.cluster, self.directory = cluster, directory
        self.secret = secrets.token_hex(32)
        self.kubectl = cluster.kubectl.within(namespace).create_namespace()
        self.kubectl(
            "create",
            "secret",
            "generic",
            "sse-gateway",
            f"--from-literal=redis-url=redis://{REDIS}:6379",
            f"--from-literal=ticket-secret={self.secret}",
        )

    def apply(self, k8s: Path, tag: str, pods: int):
        """Applies k8s/ of a checkout with this image and number of pods, and waits for the end."""
        minimum = [{"op": "replace", "path": "/spec/minReplicas", "value": pods}]
        (self.directory / "kustomization.yaml").write_text(
            yaml.safe_dump(
                {
                    "apiVersion": "kustomize.config.k8s.io/v1beta1",
                    "kind": "Kustomization",
                    "resources": [os.path.relpath(k8s, self.directory)],
                    "images": [{"name": "sse-gateway", "newTag": tag}],
                    "patches": [
                        {
                            "target": {"kind": "HorizontalPodAutoscaler"},
                            "patch": yaml.safe_dump(minimum),
                        }
                    ],
                }
            )
        )
        before = self.pods()
        done = self.kubectl("apply", "--kustomize", self.directory)
        assert done.stderr == ""
        self.until_replaced(before, pods)

    def pods(self) -> list[str]:
        """The names of all gateway pods."""
        label = "app.kubernetes.io/name=sse-gateway"
        return self.kubectl("get", "pods", "--selector", label, "--output", "name").stdout.split()

    def restart(self, pods: int):
        before = self.pods()
        self.kubectl("rollout", "restart", "deployment/sse-gateway")
        self.until_replaced(before, pods)

    def until_replaced(self, before: list[str], pods: int):
        """Waits until `pods` new pods are available and the earlier ones have ended."""

        def available():
            return self.kubectl.json("get", "deployment/sse-gateway")["status"].get(
                "availableReplicas"
            )

        self.kubectl("rollout", "status", "deployment/sse-gateway", "--timeout=900s", timeout=960)
        eventually(f"{pods} pods are available", lambda: available() == pods, GUARD)
        if before:
            self.kubectl("wait", *before, "--for=delete", f"--timeout={GUARD}s")

    def load(self, clients: int, rate: float) -> Load:
        service = self.kubectl.json("get", "service/sse-gateway")
        return Load(
            self.cluster.network(),
            gateway=service["spec"]["clusterIP"],
            redis=REDIS,
            secret=self.secret,
            clients=clients,
            rate=rate,
        )

    def delete(self):
        """Deletes everything, without waiting for the pods to drain."""
        self.kubectl("delete", "deployments", "--all", "--cascade=orphan")
        self.kubectl("delete", "replicasets", "--all", "--cascade=orphan")
        self.kubectl("delete", "pods", "--all", "--grace-period=1")
        self.kubectl("delete", "namespace", self.kubectl.namespace, f"--timeout={GUARD}s")

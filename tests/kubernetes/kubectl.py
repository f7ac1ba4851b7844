"""kubectl as the administrator of a cluster."""

import json
import os
import subprocess
from pathlib import Path

from harness import eventually, run
from paths import GUARD, HERE, KUBECTL


class Kubectl:
    """Runs kubectl. `prefix` is a command in whose network the API server can be reached."""

    def __init__(self, config: Path, prefix: tuple = (), namespace: str = "default"):
        self.config, self.prefix, self.namespace = config, prefix, namespace

    def within(self, namespace: str) -> "Kubectl":
        return Kubectl(self.config, self.prefix, namespace)

    def __call__(self, *args, **options) -> subprocess.CompletedProcess:
        env = {**os.environ, "KUBECONFIG": str(self.config)}
        return run(*self.prefix, KUBECTL, "--namespace", self.namespace, *args, env=env, **options)

    def json(self, *args):
        return json.loads(self(*args, "--output", "json").stdout)

    def create_namespace(self, standard: str = "restricted") -> "Kubectl":
        """Creates the namespace, and enforces a Pod Security Standard in it."""
        self("create", "namespace", self.namespace)
        labels = (
            f"pod-security.kubernetes.io/{m}={standard}" for m in ("enforce", "warn", "audit")
        )
        self("label", "namespace", self.namespace, *labels)
        return self

    def install_crds(self):
        """Installs the custom resource definitions that crds/go.mod pins."""
        files = crd_files()
        self("apply", "--server-side", *(word for f in files for word in ("--filename", f)))
        self("wait", "crd", "--all", "--for=condition=Established", f"--timeout={GUARD}s")

    def until_ready(self):
        eventually(
            "the API server is ready",
            lambda: self("get", "--raw", "/readyz", check=False).returncode == 0,
            GUARD,
        )


CRDS = {
    "github.com/prometheus-operator/prometheus-operator": (
        "example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml",
        "example/prometheus-operator-crd/monitoring.coreos.com_servicemonitors.yaml",
    ),
    "github.com/kedacore/keda/v2": (
        "config/crd/bases/keda.sh_scaledobjects.yaml",
        "config/crd/bases/keda.sh_triggerauthentications.yaml",
    ),
    "sigs.k8s.io/gateway-api": (
        "config/crd/standard/gateway.networking.k8s.io_gateways.yaml",
        "config/crd/standard/gateway.networking.k8s.io_httproutes.yaml",
    ),
    "github.com/cilium/cilium": (
        "pkg/k8s/apis/cilium.io/client/crds/v2/ciliumnetworkpolicies.yaml",
    ),
}


def crd_files() -> list[Path]:
    """Downloads the modules, whose sums crds/go.sum contains."""
    done = run(
        "go",
        "mod",
        "download",
        "-json",
        *CRDS,
        cwd=HERE / "crds",
        env={**os.environ, "GOFLAGS": "-mod=readonly"},
        timeout=600,
    )
    decoder, rest, found = json.JSONDecoder(), done.stdout.strip(), []
    while rest:
        module, end = decoder.raw_decode(rest)
        rest = rest[end:].lstrip()
        found += [Path(module["Dir"]) / file for file in CRDS[module["Path"]]]
    return found

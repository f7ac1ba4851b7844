"""Builds the overlays and components of k8s/, and finds objects in the result."""

import os
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest
import yaml

from harness import ROOT, run
from values import defaults, flatten

K8S = ROOT / "k8s"
# The version of the schemas.
KUBERNETES = "1.37"
COMPONENTS = sorted(p.name for p in (K8S / "components").iterdir())

# Of each pair, an overlay uses one: keda removes what hpa-cpu patches, and gateway-api-timeouts
# includes gateway-api.
ALTERNATIVES = {"hpa-cpu": "keda", "gateway-api": "gateway-api-timeouts"}
WATCHED = ("service-monitor", "prometheus-rule", "grafana-dashboard")


def all_except(*excluded: str) -> tuple[str, ...]:
    return tuple(c for c in COMPONENTS if c not in excluded)


# Each component alone, then all compatible ones together.
ALL = {
    "root": (K8S, ()),
    "base": (K8S / "base", ()),
    "demo": (K8S / "overlays/demo", ()),
    "production": (K8S / "overlays/production", ()),
    **{f"base+{c}": (K8S / "base", (c,)) for c in COMPONENTS},
    "base+all-keda": (K8S / "base", all_except(*ALTERNATIVES)),
    "base+all-hpa": (K8S / "base", all_except(*ALTERNATIVES.values())),
    "production+watched": (K8S / "overlays/production", ("gateway-api-timeouts", *WATCHED)),
    "production+keda+ingress": (K8S / "overlays/production", ("keda", "ingress-nginx")),
    "production+hpa-cpu+ingress": (K8S / "overlays/production", ("hpa-cpu", "ingress-nginx")),
    "production+cilium": (K8S / "overlays/production", ("cilium-network-policy",)),
    "demo+openshift": (K8S / "overlays/demo", ("openshift",)),
    "demo+reachable+watched": (
        K8S / "overlays/demo",
        ("gateway-api", "ingress-nginx", *WATCHED),
    ),
}


def kustomize(directory, check=True) -> subprocess.CompletedProcess:
    """`kubectl kustomize`, with the kubectl of requirements.txt."""
    return run(Path(sys.executable).with_name("kubectl"), "kustomize", directory, check=check)


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """Builds an entry of ALL and returns its objects."""

    @cache
    def build(name: str) -> list[dict]:
        base, components = ALL[name]
        directory = base
        if components:
            directory = tmp_path_factory.mktemp("k")
            relative = lambda p: os.path.relpath(p, directory)
            (directory / "kustomization.yaml").write_text(
                yaml.safe_dump(
                    {
                        "apiVersion": "kustomize.config.k8s.io/v1beta1",
                        "kind": "Kustomization",
                        "resources": [relative(base)],
                        "components": [relative(K8S / "components" / c) for c in components],
                    }
                )
            )
        return list(yaml.safe_load_all(kustomize(directory).stdout))

    return build


def of_kind(objects, kind, name="sse-gateway"):
    found = [o for o in objects if o["kind"] == kind and o["metadata"]["name"] == name]
    assert len(found) == 1, f"{len(found)} {kind} {name}"
    return found[0]


def gateway_pod(objects):
    spec = of_kind(objects, "Deployment")["spec"]["template"]["spec"]
    return spec, spec["containers"][0]


def settings(objects) -> dict:
    """The settings of the Deployment: defaults, overridden by its file and its environment."""
    pod, container = gateway_pod(objects)
    file = container["args"][container["args"].index("--config") + 1]
    mount = next(m for m in container["volumeMounts"] if file.startswith(m["mountPath"] + "/"))
    volume = next(v for v in pod["volumes"] if v["name"] == mount["name"])
    content = of_kind(objects, "ConfigMap", volume["configMap"]["name"])["data"][
        os.path.basename(file)
    ]
    env = {
        e["name"].removeprefix("SSE_GATEWAY__").lower().replace("__", "."): e.get("value")
        for e in container["env"]
        if e["name"].startswith("SSE_GATEWAY__")
    }
    assert set(env) <= set(defaults()), "unknown setting"
    return defaults() | flatten(tomllib.loads(content)) | env

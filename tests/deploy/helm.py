"""Renders the chart in deploy/helm with different values."""

import subprocess
import tomllib
from functools import cache
from pathlib import Path

import pytest
import yaml

from harness import ROOT, run
from kustomize import of_kind

CHART = ROOT / "deploy/helm"
NAMESPACE = "events"

PASSWORD = {"username": "gateway", "password": {"key": "redis-password"}}
SENTINEL = {
    "hosts": ["sentinel-0.example.com:26379", "sentinel-1.example.com"],
    "deployment": "sentinel",
    "primary": "mymaster",
    "sentinel": {"username": "gateway", "password": {"key": "sentinel-password"}},
}
CLUSTER = {"hosts": ["10.0.0.1:7000", "[2001:db8::1]:7000"], "deployment": "cluster"}
TLS = {"enabled": True, "ca": {"secret": "redis-ca"}, "certificateSecret": "redis-client"}
PROMETHEUS_LABELS = {"release": "prometheus"}



def production() -> dict:
    """The settings of config/production.toml that the chart does not set itself."""
    config = tomllib.loads((ROOT / "config/production.toml").read_text())
    return {section: values for section, values in config.items() if section not in MANAGED}


# Sections of which the chart sets what config/production.toml contains: addresses of the listener
# and of Redis.
MANAGED = {"admin", "redis"}

# Values, by name. Each is a deployment that a user may want.
SETS: dict[str, dict] = {
    "default": {},
    # The same as k8s/overlays/production.
    "production": {
        "replicas": 3,
        "redis": {"hosts": ["redis.example.com:6380"], **PASSWORD, "tls": {"enabled": True}},
        "config": production(),
        "autoscaling": {"enabled": True, "streams": True, "minReplicas": 3, "maxReplicas": 20},
        "resources": {
            "requests": {"cpu": "1", "memory": "512Mi"},
            "limits": {"memory": "1Gi"},
        },
    },
    "sentinel": {"redis": SENTINEL},
    "sentinel with TLS": {
        "redis": {
            **SENTINEL,
            **PASSWORD,
            "sentinel": {"password": {"secret": "sentinels", "key": "password"}},
            "tls": TLS,
        }
    },
    "cluster": {"redis": {**CLUSTER, **PASSWORD}},
    "password of another Secret": {
        "redis": {
            "hosts": ["redis-master"],
            "database": 2,
            "password": {"secret": "redis", "key": "redis-password"},
        }
    },
    "key set": {
        "existingSecret": "gateway",
        "secretKeys": {"ticketSecret": "", "redisUrl": "url"},
        "config": {"tickets": {"jwks_url": "https://id.example.com:8443/keys"}},
    },
    "own TLS": {"tlsSecret": "certificate", "service": {"type": "LoadBalancer", "port": 443}},
    "long drain": {"config": {"drain": {"delay": "1500ms", "window": "1m30s"}}},
    "hpa": {"autoscaling": {"enabled": True, "streams": True, "streamsPerPod": 5500}},
    "hpa by CPU": {"autoscaling": {"enabled": True}},
    "keda": {"autoscaling": {"enabled": True, "provider": "keda", "streams": True}},
    "nginx": {
        "ingress": {
            "enabled": True,
            "className": "nginx",
            "controller": "nginx",
            "annotations": {"nginx.ingress.kubernetes.io/proxy-read-timeout": "600"},
            "tls": [{"secretName": "events-tls", "hosts": ["events.example.com"]}],
        }
    },
    "other ingress": {"ingress": {"enabled": True, "annotations": {"a/b": "c"}}},
    "route": {"httpRoute": {"enabled": True, "parentRefs": [{"name": "public"}]}},
    "route on GKE": {
        "httpRoute": {
            "enabled": True,
            "parentRefs": [{"name": "public", "namespace": "gateways"}],
            "disableTimeouts": False,
        }
    },
    "monitoring": {
        "serviceMonitor": {
            "enabled": True,
            "labels": PROMETHEUS_LABELS,
            "relabelings": [{"action": "labeldrop", "regex": "pod"}],
            "metricRelabelings": [{"action": "drop", "sourceLabels": ["a"], "regex": "b"}],
        },
        "prometheusRule": {
            "enabled": True,
            "labels": PROMETHEUS_LABELS,
            "runbookUrl": "https://wiki.example.com/runbook",
        },
        "grafanaDashboard": {"enabled": True, "annotations": {"folder": "Gateways"}},
    },
    "cilium": {
        "ciliumNetworkPolicy": {"enabled": True},
        "redis": {"hosts": ["redis.example.com"]},
        "config": {"tickets": {"jwks_url": "https://id.example.com/keys"}},
    },
    "openshift": {
        "podSecurityContext": {"runAsUser": None, "runAsGroup": None, "fsGroup": None},
        "networkPolicy": {"dnsPorts": [53, 5353]},
    },
    "without options": {
        "podDisruptionBudget": {"enabled": False},
        "networkPolicy": {"enabled": False},
        "serviceAccount": {"create": False},
        "topologySpreadConstraints": [],
        "tolerations": [],
        "test": {"image": ""},
    },
    "everything of the pod": {
        "image": {"repository": "registry.example.com/sse", "digest": "sha256:" + "0" * 64},
        "imagePullSecrets": [{"name": "registry"}],
        "commonLabels": {"team": "events"},
        "annotations": {"a": "1"},
        "podAnnotations": {"b": "2"},
        "podLabels": {"c": "3"},
        "env": [{"name": "SSE_GATEWAY__LOG__LEVEL", "value": "debug"}],
        "envFrom": [{"configMapRef": {"name": "more"}}],
        "nodeSelector": {"disk": "ssd"},
        "affinity": {
            "podAntiAffinity": {},
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {
                    "nodeSelectorTerms": [
                        {"matchExpressions": [{"key": "pool", "operator": "In", "values": ["a"]}]}
                    ]
                }
            },
        },
        "priorityClassName": "high",
        "sidecars": [{"name": "sidecar", "image": "sidecar:1"}],
        "initContainers": [{"name": "init", "image": "init:1"}],
        "volumes": [{"name": "more", "emptyDir": {}}],
        "volumeMounts": [{"name": "more", "mountPath": "/more"}],
        "podSpec": {"runtimeClassName": "gvisor", "dnsPolicy": "Default"},
        "serviceAccount": {"name": "gateway", "annotations": {"d": "4"}},
        "service": {
            "type": "NodePort",
            "nodePort": 30080,
            "annotations": {"e": "5"},
            "labels": {"f": "6"},
            "spec": {"ipFamilyPolicy": "PreferDualStack"},
        },
        "extraObjects": [
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "{{ .Release.Name }}-x"}}
        ],
    },
}


@cache
def program(version: int = 4) -> Path:
    """Helm 4, or the oldest version that the chart supports (3)."""
    return Path(run(ROOT / ".ci/helm", version).stdout.strip())


def helm(command: str, values: dict, *arguments, version: int = 4) -> subprocess.CompletedProcess:
    """A command for the chart, such as `template` or `install`, with these values as a file."""
    return run(
        program(version), *command.split(), CHART, "--namespace", NAMESPACE, "--values", "-",
        *arguments, check=False, input=yaml.safe_dump(values),
    )


def render(values: dict, release: str = "sse-gateway", version: int = 4) -> list[dict]:
    """The objects of a release, and the pod of `helm test`."""
    done = helm(f"template {release}", values, version=version)
    if done.returncode != 0:
        pytest.fail(done.stderr, pytrace=False)
    return [o for o in yaml.safe_load_all(done.stdout) if o]


def refusal(values: dict) -> str:
    """The message with which Helm refuses values."""
    done = helm("template sse-gateway", values)
    assert done.returncode != 0, "was accepted"
    return done.stderr


def toml(objects) -> dict:
    """The configuration file of the gateway."""
    [config] = [o for o in objects if "gateway.toml" in o.get("data", {})]
    return tomllib.loads(config["data"]["gateway.toml"])


def test_pod(objects) -> dict:
    """The pod of `helm test`."""
    return of_kind(objects, "Pod", "sse-gateway-test")


test_pod.__test__ = False


@pytest.fixture(scope="session")
def chart():
    """Renders an entry of SETS and returns its objects."""
    return cache(lambda name: render(SETS[name]))

"""deploy/helm: every value appears in the objects."""

import json

import jsonschema
import kubernetes_validate
import pytest
import yaml

from helm import CHART, SETS, render
from test_kustomize import KUBERNETES, SCHEMAS

# Values that no deployment of SETS needs.
UNUSUAL = {
    "image": {"tag": "9.8.7", "pullPolicy": "Always"},
    "fullnameOverride": "edge",
    "revisionHistoryLimit": 17,
    "strategy": {"rollingUpdate": {"maxSurge": "34%"}},
    "minReadySeconds": 91,
    "progressDeadlineSeconds": 901,
    "terminationGracePeriodSeconds": 77,
    "secretKeys": {"ticketSecret": "hs256"},
    "redis": {"hosts": ["redis"], "tls": {"enabled": True, "ca": {"secret": "x", "key": "y.pem"}}},
    "startupProbe": {"failureThreshold": 61},
    "livenessProbe": {"failureThreshold": 62},
    "readinessProbe": {"failureThreshold": 63},
    "securityContext": {"runAsUser": 12345},
    "topologySpreadConstraints": [
        {"maxSkew": 11, "topologyKey": "rack", "whenUnsatisfiable": "DoNotSchedule"}
    ],
    "tolerations": [{"key": "dedicated", "operator": "Exists"}],
    "ingress": {
        "enabled": True,
        "labels": {"g": "ingress-label"},
        "hosts": ["other.example.com"],
        "path": "/streams",
        "pathType": "Exact",
    },
    "httpRoute": {
        "enabled": True,
        "parentRefs": [{"name": "gw", "sectionName": "tls"}],
        "hostnames": ["route.example.com"],
        "path": "/routed",
        "annotations": {"h": "route-annotation"},
        "labels": {"i": "route-label"},
        "filters": [
            {
                "type": "ResponseHeaderModifier",
                "responseHeaderModifier": {"set": [{"name": "x-served-by", "value": "edge"}]},
            }
        ],
    },
    "podDisruptionBudget": {"maxUnavailable": "23%", "unhealthyPodEvictionPolicy": "AlwaysAllow"},
    "autoscaling": {
        "enabled": True,
        "provider": "keda",
        "streams": True,
        "prometheusAddress": "https://prometheus.example.com",
        "minReplicas": 13,
        "maxReplicas": 31,
        "cpuUtilization": 57,
        "metrics": [{"type": "cron", "metadata": {"desiredReplicas": "14"}}],
        "behavior": {"scaleDown": {"stabilizationWindowSeconds": 1801}},
    },
    "job": "edge-job",
    "serviceMonitor": {
        "enabled": True,
        "namespace": "monitors",
        "interval": "47s",
        "scrapeTimeout": "11s",
    },
    "prometheusRule": {"enabled": True, "namespace": "rules"},
    "grafanaDashboard": {"enabled": True, "labels": {"j": "dashboard-label"}},
    "networkPolicy": {
        "clients": [{"ipBlock": {"cidr": "10.1.0.0/16"}}],
        "monitoring": [{"ipBlock": {"cidr": "10.2.0.0/16"}}],
        "dnsPorts": [1053],
        "redisPorts": [7379],
        "ingress": [{"ports": [{"port": 1111, "protocol": "TCP"}]}],
    },
    "ciliumNetworkPolicy": {
        "enabled": True,
        "hosts": ["*.cache.example.com"],
        "egress": [{"toPorts": [{"ports": [{"port": "3333", "protocol": "TCP"}]}]}],
    },
    "test": {"image": "wget:1"},
}
# What UNUSUAL excludes.
UNUSUAL_EGRESS = {"networkPolicy": {"egress": [{"ports": [{"port": 2222, "protocol": "TCP"}]}]}}


def paths(values: dict, prefix: str = ""):
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from paths(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def scalars(value):
    if isinstance(value, (dict, list)):
        for member in value.values() if isinstance(value, dict) else value:
            yield from scalars(member)
    elif not isinstance(value, bool) and value not in (None, "", 0):
        yield str(value)


@pytest.fixture(scope="module")
def rendered(chart):
    """Values and objects of all sets."""
    sets = [(SETS[name], chart(name)) for name in SETS]
    return sets + [(values, render(values)) for values in (UNUSUAL, UNUSUAL_EGRESS)]


def test_every_value_is_set_by_a_test(rendered):
    """Except members of objects that the user replaces as a whole."""
    known = {path for values, _ in rendered for path, _ in paths(values)}
    parts = ("resources", "Probe", "ecurityContext", "strategy", "behavior", "config", "grafana_")
    missing = [
        path
        for path, _ in paths(yaml.safe_load((CHART / "values.yaml").read_text()))
        if not any(k == path or k.startswith(f"{path}.") for k in known)
        and not any(part in path for part in parts)
    ]
    assert missing == []


def test_every_value_appears_in_the_objects(rendered):
    # Words that choose something, and what the templates convert.
    chosen = {"hpa", "keda", "server", "sentinel", "cluster", "nginx", "1500ms", "1m30s"}
    for values, objects in rendered:
        text = yaml.safe_dump(objects, width=10_000)
        missing = [
            word
            for path, value in paths(values)
            if path != "config" and not path.startswith(("config.", "autoscaling.streams"))
            for word in scalars(value)
            if word not in text and word not in chosen and "{{" not in word
        ]
        assert missing == []


def test_unusual_objects_match_their_schemas(rendered):
    _, objects = rendered[-2]
    for o in objects:
        schema = SCHEMAS / f"{o['kind']}.json"
        if not schema.exists():
            kubernetes_validate.validate(o, KUBERNETES, strict=True)
        elif o["kind"] not in ("ScaledObject", "HTTPRoute", "CiliumNetworkPolicy"):
            # Those describe only what k8s/ uses.
            jsonschema.validate(o, json.loads(schema.read_text()))

"""k8s/: labels, rollouts, failures, and repeated `kubectl apply`."""

import re
import tomllib

import pytest

from harness import ROOT
from kustomize import ALL, K8S, gateway_pod, of_kind, settings
from values import seconds

NAME = "app.kubernetes.io/name"
each = pytest.mark.parametrize("name", ALL)


def nodes(value, path=()):
    """Every value in an object, with its path."""
    yield path, value
    children = value.items() if isinstance(value, dict) else []
    children = enumerate(value) if isinstance(value, list) else children
    for key, child in children:
        yield from nodes(child, (*path, key))


@each
def test_all_objects_and_pods_have_labels(name, built):
    """Including generated ConfigMaps: `kubectl apply --selector` skips objects without labels."""
    version = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]["version"]
    for o in built(name):
        pods = [o["spec"]["template"]] if o["kind"] == "Deployment" else []
        for metadata in (o["metadata"], *(p["metadata"] for p in pods)):
            labels = metadata.get("labels", {})
            of = lambda key: labels.get(f"app.kubernetes.io/{key}")
            what = f"{o['kind']} {o['metadata']['name']}: {labels}"
            assert of("part-of") == of("instance") == "sse-gateway", what
            redis = o["metadata"]["name"].startswith("sse-gateway-redis")
            assert of("name") == ("sse-gateway-redis" if redis else "sse-gateway"), what
            assert of("version") == ("7.2" if redis else version), what


@each
def test_selectors_contain_no_version(name, built):
    """The selector of a Deployment cannot be changed by an upgrade."""
    changing = {f"app.kubernetes.io/{key}" for key in ("version", "instance", "part-of")}
    for o in built(name):
        for path, value in nodes(o.get("spec", {})):
            if isinstance(value, dict) and "labels" not in path:
                assert not changing & set(value), (o["kind"], path)
        if o["kind"] == "Deployment":
            assert set(o["spec"]["selector"]["matchLabels"]) == {NAME}


@each
def test_streams_of_a_hung_process_move_in_time(name, built):
    pod, container = gateway_pod(built(name))
    probe = container["livenessProbe"]
    failed = probe["periodSeconds"] * (1 + probe["failureThreshold"])
    assert probe["timeoutSeconds"] <= probe["periodSeconds"]
    # 40 s, less the retry delay of the clients: `server.retry` and at most as much again.
    retry = 2 * seconds(settings(built(name))["server.retry"])
    assert failed + probe["terminationGracePeriodSeconds"] + retry < 40
    assert pod["terminationGracePeriodSeconds"] > probe["terminationGracePeriodSeconds"]


@each
def test_rollout_replaces_all_pods_in_one_step(name, built):
    """One after another, streams would move to pods that are replaced next."""
    deployment = of_kind(built(name), "Deployment")["spec"]
    assert deployment["strategy"]["rollingUpdate"] == {
        "maxUnavailable": 0,
        "maxSurge": "100%",
    }
    # Where there is no room for that, a step begins after the previous one has drained.
    values = settings(built(name))
    drain = seconds(values["drain.delay"]) + seconds(values["drain.window"])
    ready = deployment["minReadySeconds"]
    assert drain <= ready <= 30
    startup = deployment["template"]["spec"]["containers"][0]["startupProbe"]
    start = startup["periodSeconds"] * startup["failureThreshold"]
    assert ready + start + 120 <= deployment["progressDeadlineSeconds"] <= 600


@each
def test_pods_of_a_lost_node_are_replaced_in_time(name, built):
    pod, _ = gateway_pod(built(name))
    assert {t["key"].partition("/")[2]: t["tolerationSeconds"] for t in pod["tolerations"]} == {
        "not-ready": 30,
        "unreachable": 30,
    }
    assert {(t["operator"], t["effect"]) for t in pod["tolerations"]} == {("Exists", "NoExecute")}


@each
def test_exec_selects_the_gateway_container(name, built):
    template = of_kind(built(name), "Deployment")["spec"]["template"]
    named = template["metadata"]["annotations"]["kubectl.kubernetes.io/default-container"]
    assert named == template["spec"]["containers"][0]["name"] == "gateway"


@each
def test_another_apply_finds_no_change(name, built):
    """Lists are compared as a whole, so they contain the values as the API server writes them.

    The schemas of custom resources require the members that have a default.
    """
    for o in built(name):
        for path, value in nodes(o):
            if path and path[-1] in ("averageValue", "cpu", "memory", "sizeLimit"):
                number, unit = re.fullmatch(r"(\d+)([a-zA-Z]*)", str(value)).groups()
                factor = 1024 if unit.endswith("i") else 1000
                assert isinstance(value, str) and int(number) % factor, (path, value)
            if o["kind"] == "NetworkPolicy" and path and path[-1] == "ports":
                assert all("protocol" in port for port in value), path
        if o["kind"] == "Deployment":
            # kubectl sends a strategy without `type` again.
            assert "type" in o["spec"]["strategy"]


def test_other_policies_of_egress_are_equal(built):
    """cilium-network-policy allows the same ports as the NetworkPolicy of production."""
    policy = of_kind(built("production"), "NetworkPolicy")["spec"]
    cilium = of_kind(built("production+cilium"), "CiliumNetworkPolicy")["spec"]
    ports = lambda rules: {
        str(port["port"])
        for rule in rules
        for port in rule.get("ports", []) + [p for t in rule.get("toPorts", []) for p in t["ports"]]
    }
    assert ports(policy["egress"]) == ports(cilium["egress"]) == {"53", "6380"}
    assert ports(policy["ingress"]) == ports(cilium["ingress"]) == {"http", "admin"}
    assert not [o for o in built("production+cilium") if o["kind"] == "NetworkPolicy"], (
        "policies add up"
    )
    assert cilium["endpointSelector"] == policy["podSelector"]
    # The name that is allowed is that of the Redis URL.
    [names] = [rule["toFQDNs"] for rule in cilium["egress"] if "toFQDNs" in rule]
    head = (K8S / "overlays/production/kustomization.yaml").read_text()
    assert f"@{names[0]['matchName']}:6380" in head


def test_openshift_allows_its_dns_port(built):
    [dns, *_] = of_kind(built("base+openshift"), "NetworkPolicy")["spec"]["egress"]
    assert {(p["port"], p["protocol"]) for p in dns["ports"]} == {
        (port, protocol) for port in (53, 5353) for protocol in ("UDP", "TCP")
    }


def test_only_gateway_api_timeouts_sets_timeouts(built):
    """GKE rejects a route with timeouts."""
    [plain], [disabled] = (
        of_kind(built(f"base+{c}"), "HTTPRoute")["spec"]["rules"]
        for c in ("gateway-api", "gateway-api-timeouts")
    )
    assert disabled == plain | {"timeouts": {"request": "0s", "backendRequest": "0s"}}
    assert "timeouts" not in plain



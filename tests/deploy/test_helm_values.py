"""deploy/helm: wrong values are refused with a message, and every setting can be set."""

import json
import re
import tomllib

import pytest
import yaml

from harness import ROOT, SECRET, gateway_binary, run
from helm import CHART, helm, program, refusal, render, toml
from kustomize import of_kind
from values import defaults

# Settings that the chart sets itself, and where the message sends the user instead.
MANAGED = {
    "server.listen": "service.port",
    "server.tls": "tlsSecret",
    "admin.listen": "the chart sets it",
    "redis.url": "redis.hosts",
    "redis.sentinel_username": "redis.sentinel.username",
    "redis.sentinel_password": "redis.sentinel.password",
    "redis.tls": "redis.tls.ca",
    "tickets.secret": "ticket-secret",
    "tickets.secret_file": "secretKeys.ticketSecret",
}

# Values, and words of the message.
WRONG = {
    "unknown value": ({"replica": 2}, ["'replica' not allowed"]),
    "unknown member": ({"image": {"name": "x"}}, ["/image", "'name' not allowed"]),
    "unknown setting": ({"config": {"server": {"colour": 1}}}, ["/config/server", "'colour'"]),
    "type": ({"replicas": "two"}, ["/replicas", "got string, want integer"]),
    "type of a setting": (
        {"config": {"limits": {"max_connections": "many"}}},
        ["/config/limits/max_connections", "want integer"],
    ),
    "duration without unit": (
        {"config": {"drain": {"window": "20"}}},
        ["/config/drain/window", "'20' does not match", "(ms|s|m|h|d)"],
    ),
    "size": (
        {"config": {"limits": {"queue_bytes": "1MB"}}},
        ["/config/limits/queue_bytes", "(B|KiB|MiB|GiB)"],
    ),
    "word": (
        {"config": {"log": {"format": "xml"}}},
        ["/config/log/format", "one of 'text', 'json'"],
    ),
    "channel rule": (
        {"config": {"channels": [{"match": "broadcast:*", "ttl": 1}]}},
        ["/config/channels/0", "'ttl' not allowed"],
    ),
    "rule without match": (
        {"config": {"channels": [{"rate": 1}]}}, ["/config/channels/0", "missing property 'match'"],
    ),
    "secret of a ticket key": (
        {"config": {"tickets": {"keys": [{"algorithm": "HS256", "secret": SECRET}]}}},
        ["/config/tickets/keys/0", "'secret' not allowed"],
    ),
    "no image": ({"image": {"repository": ""}}, ["/image/repository", "minLength"]),
    "digest": ({"image": {"digest": "latest"}}, ["/image/digest", "sha256:"]),
    "port": ({"service": {"port": 0}}, ["/service/port", "minimum"]),
    "host": ({"redis": {"hosts": ["redis://x"]}}, ["/redis/hosts/0", "does not match"]),
    "deployment of Redis": (
        {"redis": {"deployment": "ring"}}, ["/redis/deployment", "'server', 'sentinel', 'cluster'"],
    ),
    "field of the pod with a value of its own": (
        {"podSpec": {"securityContext": {}}},
        ["podSpec: must not contain securityContext; use the value podSecurityContext"],
    ),
    "token in the pod": (
        {"podSpec": {"automountServiceAccountToken": True}},
        ["podSpec: must not contain automountServiceAccountToken; the chart sets it to false"],
    ),
    "variables of Services in the pod": (
        {"podSpec": {"enableServiceLinks": True}},
        ["podSpec: must not contain enableServiceLinks; the chart sets it to false"],
    ),
    "fields of the Service that the chart sets": (
        {"service": {"spec": {"type": "NodePort", "ports": [], "selector": {}}}},
        [
            "service.spec: must not contain type; use service.type",
            "service.spec: must not contain ports; use service.port and service.nodePort",
            "service.spec: must not contain selector; the chart sets it",
        ],
    ),
    "port of the nodes without a Service for it": (
        {"service": {"nodePort": 30080}},
        ["service.nodePort: is used only with service.type=NodePort or LoadBalancer"],
    ),
    "no key for tickets": (
        {"secretKeys": {"ticketSecret": ""}},
        ["secretKeys.ticketSecret: must not be empty", "config.tickets.jwks_url"],
    ),
    "sentinels without primary": (
        {"redis": {"hosts": ["a"], "deployment": "sentinel"}},
        ["redis.primary: must be set for sentinel", "sentinel monitor"],
    ),
    "primary without sentinels": (
        {"redis": {"hosts": ["a"], "primary": "x"}}, ["redis.primary: is used only with"],
    ),
    "several servers": (
        {"redis": {"hosts": ["a", "b"]}},
        ["redis.hosts: must be one server", "sentinel or cluster"],
    ),
    "database of a cluster": (
        {"redis": {"hosts": ["a"], "deployment": "cluster", "database": 1}},
        ["redis.database: must be 0", "remove it"],
    ),
    "user without password": (
        {"redis": {"hosts": ["a"], "username": "b"}},
        ["redis.username: must be set together with redis.password.key"],
    ),
    "user of sentinels without password": (
        {"redis": {"hosts": ["a"], "sentinel": {"username": "b"}}},
        ["redis.sentinel: must have a password.key", "is used only with"],
    ),
    "authority without TLS": (
        {"redis": {"hosts": ["a"], "tls": {"ca": {"secret": "b"}}}},
        ["redis.tls.ca", "set redis.tls.enabled to true"],
    ),
    "TLS without hosts": (
        {"redis": {"tls": {"enabled": True}}}, ["redis.hosts: must be set together"],
    ),
    "short grace period": (
        {"terminationGracePeriodSeconds": 35}, ["must be more than 35", "set it to 0"],
    ),
    "short deadline": (
        {"progressDeadlineSeconds": 30}, ["must be more than minReadySeconds", "set it to 0"],
    ),
    "minimum above maximum": (
        {"autoscaling": {"enabled": True, "minReplicas": 11}},
        ["autoscaling.minReplicas: must be at most autoscaling.maxReplicas"],
    ),
    "nothing to scale by": (
        {"autoscaling": {"enabled": True, "cpuUtilization": 0}}, ["set cpuUtilization, streams"],
    ),
    "route without Gateway": (
        {"httpRoute": {"enabled": True}}, ["httpRoute.parentRefs: must name a Gateway"],
    ),
    "names without hosts": (
        {"ciliumNetworkPolicy": {"enabled": True}},
        ["ciliumNetworkPolicy.hosts: must name the hosts of Redis"],
    ),
    "admin port open to all": (
        {
            "ciliumNetworkPolicy": {"enabled": True, "hosts": ["redis.example.com"]},
            "networkPolicy": {"enabled": False},
        },
        ["networkPolicy.enabled: must be true together with", "closes the admin port"],
    ),
    "variable of the chart": (
        {"env": [{"name": "SSE_GATEWAY__ADMIN__LISTEN", "value": "[::]:1"}]},
        ["env: must not contain SSE_GATEWAY__ADMIN__LISTEN"],
    ),
    "long name": ({"fullnameOverride": "a" * 56}, ["fullnameOverride: must be set to at most 55"]),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_value_is_refused(name):
    values, words = WRONG[name]
    message = refusal(values)
    assert [word for word in words if word not in message] == [], message


def test_settings_of_the_chart_are_refused():
    """All at once, with the value to use instead."""
    message = refusal(
        {"config": nested({key: {} if key.endswith("tls") else "" for key in MANAGED})}
    )
    assert len(re.findall(r"^- ", message, flags=re.M)) == len(MANAGED), message
    for key, instead in MANAGED.items():
        [fault] = re.findall(rf"^- config\.{re.escape(key)}: .*", message, flags=re.M)
        assert "must not be set" in fault and instead in fault


def test_variables_of_the_chart_are_refused():
    names = [f"SSE_GATEWAY__{key.replace('.', '__').upper()}" for key in MANAGED]
    message = refusal({"env": [{"name": name, "value": ""} for name in names]})
    for name in names:
        assert f"env: must not contain {name}; " in message


def test_long_release_name_is_refused():
    done = helm(f"template {'a' * 53}", {})
    assert done.returncode != 0 and "fullnameOverride: must be set" in done.stderr


def nested(flat: dict) -> dict:
    tables: dict = {}
    for path, value in flat.items():
        *sections, key = path.split(".")
        table = tables
        for section in sections:
            table = table.setdefault(section, {})
        table[key] = value
    return tables


def typed(table: dict) -> str:
    """Text to compare: 7 and 7.0 differ in TOML, but are equal in Python."""
    return json.dumps(table, sort_keys=True)


def settable() -> dict:
    """The default of every setting that the chart does not set itself."""
    return {
        path: value
        for path, value in defaults().items()
        if not any(path == key or path.startswith(f"{key}.") for key in MANAGED)
    }


def test_every_setting_can_be_set():
    # Helm writes 0.0 as 0, which the gateway accepts.
    config = nested(settable() | {"tracing.sample_ratio": 0.5})
    assert typed(toml(render({"config": config}))) == typed(config)


def test_settings_arrive_unchanged():
    """Strings, numbers and tables that are easily changed on the way through YAML and TOML."""
    config = {
        "channels": [
            {"match": "broadcast:prices.*", "max_len": 100_000_000, "ephemeral": True, "rate": 7},
            {"match": "user:*:events", "retention": "1h30m", "keep": "required"},
        ],
        "api_keys": [{"sha256": "0" * 64, "scopes": ["publish", "admin"]}],
        "limits": {"max_connections": 1_000_000, "queue_bytes_total": 1 << 40},
        "log": {"format": "json", "level": 'a="b\\c",<&>\tü'},
        "tickets": {
            "keys": [{"kid": "1", "algorithm": "ES256", "public_key_file": "/keys/1.pem"}],
            "default_topics": ["*", "a,b"],
            "session_cookie": True,
        },
    }
    assert typed(toml(render({"config": config}))) == typed(config)


def test_null_removes_a_setting():
    assert toml(render({"config": {"log": {"format": None}}})).get("log", {}) == {}


def enumerations(schema: dict, prefix: str = ""):
    for key, member in schema.get("properties", {}).items():
        if "enum" in member:
            yield prefix + key, member["enum"]
        yield from enumerations(member, f"{prefix}{key}.")


def test_words_of_the_schema_are_those_of_the_gateway(tmp_path):
    schema = json.loads((CHART / "values.schema.json").read_text())["properties"]["config"]
    found = dict(enumerations(schema))
    assert len(found) == 5
    # Without it, what does not fit is an error.
    url = {"sources.postgres.url": "postgres://sse_gateway:change-me@127.0.0.1/shop"}
    for path, words in found.items():
        for word in words:
            assert check(tmp_path, nested(url | {path: word})) == "", (path, word)
        message = check(tmp_path, nested({path: "nonsense"}))
        named = {*re.findall(r'"([\w-]+)"', message.partition("(got")[0])}
        assert named == set(words), message


def lines(table: dict, prefix: str = ""):
    """The settings of a table in TOML, with dotted keys."""
    for key, value in table.items():
        if isinstance(value, dict):
            yield from lines(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key} = {json.dumps(value)}\n"


def check(directory, config: dict) -> str:
    """The errors of `check-config` for settings."""
    file = directory / "gateway.toml"
    file.write_text("".join(lines(config)))
    assert tomllib.loads(file.read_text()) == config
    env = {"SSE_GATEWAY__TICKETS__SECRET": SECRET}
    done = run(gateway_binary(), "check-config", "--config", file, env=env, check=False)
    return done.stderr if done.returncode else ""


PAGE = (ROOT / "docs/operations/helm.md").read_text()


EXAMPLES = re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.S)


@pytest.mark.parametrize("example", EXAMPLES)
def test_example_of_the_page_is_accepted(example):
    assert render(yaml.safe_load(example))


def test_page_connects_a_gateway_with_tls():
    """A route has no field for it: the policy must select the Service of the release."""
    [example] = [e for e in EXAMPLES if "tlsSecret" in e]
    objects = render(yaml.safe_load(example))
    service = of_kind(objects, "Service")
    assert service["spec"]["ports"][0]["appProtocol"] == "https"
    policy = of_kind(objects, "BackendTLSPolicy")["spec"]
    name = service["metadata"]["name"]
    assert policy["targetRefs"] == [{"group": "", "kind": "Service", "name": name}]
    assert policy["validation"]["hostname"] in (
        of_kind(objects, "HTTPRoute")["spec"]["hostnames"]
    )


def test_pages_name_the_tested_helm_versions():
    for page in (PAGE, (CHART / "README.md").read_text()):
        assert {4: "Helm 4", 3: "Helm 3.17"} == {
            version: name
            for version in (3, 4)
            for name in re.findall(r"Helm [34](?:\.\d+)?", page)
            if program(version).parent.name.startswith(name.replace("Helm ", "v"))
        }

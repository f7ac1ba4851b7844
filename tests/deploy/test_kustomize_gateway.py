"""k8s/: the gateway runs with the configuration and the commands of the overlays."""

import json
import os
import re

import pytest

from harness import ROOT, SECRET, Gateway, Redis, Stream, gateway_binary, run, ticket
from kustomize import gateway_pod, of_kind


def write_configuration(objects, tmp_path):
    """Writes the files of the ConfigMap; returns the path of the configuration and the environment.

    Values of Secrets are replaced by values of the form that the comments describe.
    """
    pod, container = gateway_pod(objects)
    secrets = {
        "ticket-secret": SECRET,
        "redis-url": "rediss://gateway:0af3@redis.example.com:6380",
    }
    env, known = {}, {}
    for e in container["env"]:
        known[e["name"]] = (
            e["value"]
            if e.get("value") is not None
            else secrets[e["valueFrom"]["secretKeyRef"]["key"]]
        )
        known[e["name"]] = re.sub(r"\$\((\w+)\)", lambda m: known[m[1]], known[e["name"]])
    env |= known
    (tmp_path / "ticket-secret").write_text(SECRET)
    env["SSE_GATEWAY__TICKETS__SECRET_FILE"] = str(tmp_path / "ticket-secret")
    config = [v["configMap"]["name"] for v in pod["volumes"] if "configMap" in v]
    for file, content in of_kind(objects, "ConfigMap", config[0])["data"].items():
        (tmp_path / file).write_text(content)
    return tmp_path / os.path.basename(container["args"][2]), env


@pytest.mark.parametrize("name", ["root", "demo", "production"])
def test_gateway_accepts_its_configuration(name, built, tmp_path):
    file, env = write_configuration(built(name), tmp_path)
    done = run(gateway_binary(), "check-config", "--config", file, env=env, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    # It does not start without the secret.
    without_secret = {k: v for k, v in env.items() if "TICKETS__SECRET" not in k}
    done = run(gateway_binary(), "serve", "--config", file, env=without_secret, check=False)
    assert done.returncode == 78 and "tickets.secret" in done.stderr


@pytest.mark.parametrize("name", ["root", "demo", "production"])
def test_ticket_from_the_runbook_command_is_accepted(name, built, tmp_path):
    """Runs the command with the configuration of the pod, and opens a stream with the ticket."""
    file, env = write_configuration(built(name), tmp_path)
    row = next(
        line
        for line in (ROOT / "docs/operations/runbook.md").read_text().splitlines()
        if line.startswith("| a ticket")
    )
    command = next(
        c
        for c in re.findall(r"`(kubectl exec [^`]+)`", row)
        if (f"/{file.name}" in c) == (name == "production")
    )
    command = re.sub(r"^kubectl exec deployment/sse-gateway -- /sse-gateway ", "", command).replace(
        f"/etc/sse-gateway/{file.name}", str(file)
    )
    ran_with = {
        k.removeprefix("SSE_GATEWAY__").lower(): v
        for k, v in env.items()
        if k.startswith("SSE_GATEWAY__")
    }
    with Redis() as redis:
        own = {
            "redis__url": redis.url,
            "server__listen": "127.0.0.1:0",
            "admin__listen": "127.0.0.1:0",
            "tickets__secret": None,
        }
        made = run(gateway_binary(), *command.split(), env=env)
        with (
            Gateway(redis.url, config=file, **(ran_with | own)) as gateway,
            Stream(gateway.public, token=made.stdout.strip()) as stream,
        ):
            assert json.loads(stream.until("sse.connected")["data"])["topics"], (
                "the ticket has no topics"
            )


def test_demo_pods_share_one_ticket_key(built, tmp_path):
    """Runs the script of the init container twice with a real Redis."""
    pod, _ = gateway_pod(built("demo"))
    [init] = pod["initContainers"]
    with Redis() as redis:
        keys = []
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            env = {
                "PATH": os.environ["PATH"],
                "REDIS_HOST": "127.0.0.1",
                "REDIS_PORT": str(redis.port),
                "KEYS": str(tmp_path / name),
            }
            assert set(e["name"] for e in init["env"]) == set(env) - {"PATH"}
            run(*init["command"], *init["args"], env=env)
            keys.append((tmp_path / name / "ticket-secret").read_text().strip())
        assert keys[0] == keys[1] and re.fullmatch("[0-9a-f]{64}", keys[0])
        file = tmp_path / "one/ticket-secret"
        with (
            Gateway(redis.url, tickets__secret=None, tickets__secret_file=file) as gateway,
            Stream(gateway.public, token=ticket(secret=keys[1])) as stream,
        ):
            assert stream.until("sse.connected")

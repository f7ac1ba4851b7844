"""deploy/helm: the gateway runs with the configuration of the chart, and `helm test` tests it."""

import re
import socket
import threading

import pytest

from harness import SECRET, Gateway, Redis, Stream, gateway_binary, run, tool
from helm import SETS, render, test_pod
from kustomize import gateway_pod

# Sets with files that only exist in a cluster.
MOUNTED = {"sentinel with TLS", "own TLS"}


def environment(container: dict, directory) -> dict:
    """The environment of the container, with values in place of Secrets."""
    env: dict = {}
    for e in container["env"]:
        is_url = e["name"] == "SSE_GATEWAY__REDIS__URL"
        value = e.get("value") or ("redis://redis:6379" if is_url else "0af3")
        env[e["name"]] = re.sub(r"\$\((\w+)\)", lambda m: env[m[1]], value)
    (directory / "ticket-secret").write_text(SECRET)
    if "SSE_GATEWAY__TICKETS__SECRET_FILE" in env:
        env["SSE_GATEWAY__TICKETS__SECRET_FILE"] = str(directory / "ticket-secret")
    return env


def configuration(objects, directory):
    """Writes the configuration file; returns its path."""
    [config] = [o for o in objects if "gateway.toml" in o.get("data", {})]
    file = directory / "gateway.toml"
    file.write_text(config["data"]["gateway.toml"])
    return file


@pytest.mark.parametrize("name", [name for name in SETS if name not in MOUNTED])
def test_gateway_accepts_its_configuration(name, chart, tmp_path):
    file = configuration(chart(name), tmp_path)
    env = environment(gateway_pod(chart(name))[1], tmp_path)
    done = run(gateway_binary(), "check-config", "--config", file, env=env, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    # It is not valid without the secret, unless there is a key set.
    has_secret = "SSE_GATEWAY__TICKETS__SECRET_FILE" in env
    assert has_secret == (name != "key set")
    if "jwks_url" not in file.read_text():
        del env["SSE_GATEWAY__TICKETS__SECRET_FILE"]
        done = run(gateway_binary(), "check-config", "--config", file, env=env, check=False)
        assert done.returncode == 78 and "tickets.secret" in done.stderr


def test_helm_test_checks_configuration_and_redis(chart, tmp_path):
    """The first container of the pod, with a real Redis, and without one."""
    container = test_pod(chart("default"))["spec"]["containers"][0]
    env = environment(container, tmp_path)
    arguments = [*container["args"][:-1], configuration(chart("default"), tmp_path)]
    with Redis() as redis:
        env["SSE_GATEWAY__REDIS__URL"] = redis.url
        run(gateway_binary(), *arguments, env=env)
    done = run(gateway_binary(), *arguments, env=env, check=False)
    assert done.returncode == 69, "Redis is unavailable"


def test_helm_test_requests_the_service(chart):
    """The second container of the pod: a gateway passes, another server does not."""
    container = test_pod(chart("default"))["spec"]["containers"][1]
    assert "http://sse-gateway:8080/" in container["args"][0]

    assert test_pod(chart("default"))["spec"]["activeDeadlineSeconds"] == 120

    def request(port: int):
        script = container["args"][0].replace("sse-gateway:8080", f"127.0.0.1:{port}")
        return run(*container["command"], script, check=False)

    tool("wget")
    with Redis() as redis, Gateway(redis.url) as gateway:
        done = request(gateway.public)
        assert done.returncode == 0, done.stdout + done.stderr
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=refuse, args=(server,), daemon=True).start()
        done = request(server.getsockname()[1])
        assert done.returncode == 1 and "must respond with 401" in done.stdout


def refuse(server: socket.socket):
    connection, _ = server.accept()
    with connection:
        connection.recv(4096)
        connection.sendall(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")


def test_stream_opens_with_the_settings_of_the_chart(tmp_path):
    """The listeners accept IPv4 although they are IPv6."""
    objects = render({"config": {"cors": {"allowed_origins": ["https://app.example.com"]}}})
    file = configuration(objects, tmp_path)
    with (
        Redis() as redis,
        Gateway(redis.url, config=file, server__listen="[::]:0", admin__listen="[::]:0") as gateway,
        Stream(gateway.public, origin="https://app.example.com") as stream,
    ):
        assert stream.until("sse.connected")
        allowed = stream.answer.headers["access-control-allow-origin"]
        assert allowed == "https://app.example.com"

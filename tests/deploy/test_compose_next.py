"""examples/next/compose.yaml as parsed by docker-compose, and the environment of its app."""

import pytest
import yaml

from harness import ROOT, SECRET, gateway_binary, run, tool

EXAMPLE = ROOT / "examples/next"


def config(env, check=True):
    arguments = ["-f", EXAMPLE / "compose.yaml", "config"]
    env = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent"} | env
    return run(tool("docker-compose"), *arguments, env=env, check=check)


@pytest.fixture(scope="module")
def services():
    return yaml.safe_load(config({"TICKET_SECRET": SECRET}).stdout)["services"]


def test_missing_secret_is_reported():
    done = config({"TICKET_SECRET": ""}, check=False)
    assert done.returncode != 0
    assert "set TICKET_SECRET in .env" in done.stderr


def test_gateway_accepts_its_environment(services):
    env = {name: str(value) for name, value in services["gateway"]["environment"].items()}
    done = run(gateway_binary(), "check-config", env=env, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def address(port):
    if isinstance(port, dict):
        return f"{port['host_ip']}:{port['published']}"
    return port.rpartition(":")[0]


def test_services_are_those_of_the_environment_and_only_local(services):
    published = {name: address(service["ports"][0]) for name, service in services.items()}
    lines = (EXAMPLE / ".env.example").read_text().splitlines()
    env = dict(line.split("=", 1) for line in lines if not line.startswith("#"))
    postgres = services["postgres"]["environment"]
    user, password = postgres["POSTGRES_USER"], postgres["POSTGRES_PASSWORD"]
    assert env == {
        "DATABASE_URL": f"postgres://{user}:{password}@{published['postgres']}/app",
        "REDIS_URL": f"redis://{published['redis']}",
        "GATEWAY_URL": f"http://{published['gateway']}",
    }


def test_images_are_those_of_the_main_file(services):
    main = yaml.safe_load((ROOT / "docker-compose.yaml").read_text())["services"]
    for name in ("redis", "gateway"):
        assert services[name]["image"] == main[name]["image"]

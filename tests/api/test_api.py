"""schemathesis compares docs/reference/openapi.json with a running gateway (`make test-api`)."""

import contextlib
import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from harness import ROOT, Gateway, Redis, ticket

HERE = Path(__file__).parent
DESCRIPTION = ROOT / "docs/reference/openapi.json"
KEY = "key-of-the-tests"


@contextlib.contextmanager
def publishing(redis: Redis):
    """Publishes events, so that no poll and no stream waits for one for long."""
    stopped = threading.Event()

    def publish():
        while not stopped.wait(0.1):
            redis.cli("publish", "broadcast:news", "text")

    thread = threading.Thread(target=publish, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()


@pytest.fixture(scope="module")
def gateway():
    keys = [
        {
            "sha256": hashlib.sha256(KEY.encode()).hexdigest(),
            "scopes": ["publish", "tickets", "admin"],
        }
    ]
    with Redis() as redis, publishing(redis):
        settings = {"api_keys": json.dumps(keys), "presence__enabled": "true"}
        with Gateway(redis.url, tickets__max_ttl="1h", **settings) as gateway:
            yield gateway


def tested(output: str) -> int:
    """The number of operations that schemathesis tested."""
    found = re.search(r"Tested: (\d+)", output)
    return int(found[1]) if found else 0


def operations(tag: str) -> int:
    paths = json.loads(DESCRIPTION.read_text())["paths"].values()
    described = [operation for path in paths for operation in path.values()]
    return sum(isinstance(o, dict) and tag in o["tags"] for o in described)


def run(tag: str, port: int, credential: str, event_id: str):
    """Runs all checks of schemathesis for the operations with a tag."""
    command = [
        Path(sys.executable).parent / "st",
        f"--config-file={HERE / 'schemathesis.toml'}",
        "run",
        DESCRIPTION,
        f"--url=http://127.0.0.1:{port}",
        f"--include-tag={tag}",
        f"--header=Authorization: Bearer {credential}",
        "--checks=all",
        "--no-color",
        *os.environ.get("API_ARGS", "").split(),
    ]
    env = os.environ | {"SCHEMATHESIS_HOOKS": "hooks", "SSE_EVENT_ID": event_id}
    done = subprocess.run(command, cwd=HERE, env=env, capture_output=True, text=True)
    print(done.stdout, done.stderr)
    assert done.returncode == 0
    assert tested(done.stdout) == operations(tag)


def test_clients(gateway):
    run("clients", gateway.public, ticket(), "")


def test_backends(gateway):
    run("backends", gateway.public, KEY, "")


def test_admin(gateway):
    run("admin", gateway.admin, KEY, "")

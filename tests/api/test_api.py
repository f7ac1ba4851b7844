"""schemathesis compares docs/reference/openapi.json with a running gateway (`make test-api`)."""

import contextlib
import hashlib
import json
import os
import re
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path

import pytest
from harness import ROOT, Gateway, Redis, get_json

HERE = Path(__file__).parent
DESCRIPTION = ROOT / "docs/reference/openapi.json"
KEY = "key-of-the-tests"


@contextlib.contextmanager
def publishing(redis: Redis):
    """Publishes events of the ticket's user, so that no poll and no stream waits for long."""
    stopped = threading.Event()

    def publish():
        while not stopped.wait(0.1):
            redis.cli("publish", "user:42:events", "text")

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
            "scopes": ["publish", "tickets", "admin", "operate"],
        }
    ]
    with Redis() as redis, publishing(redis):
        settings = {"api_keys": json.dumps(keys), "presence__enabled": "true"}
        with Gateway(redis.url, tickets__max_ttl="1h", **settings) as gateway:
            yield gateway


def operations_in(output: str) -> int:
    """The number of operations that schemathesis tested."""
    found = re.search(r"Tested: (\d+)", output)
    return int(found[1]) if found else 0


def described_operations(tag: str) -> int:
    paths = json.loads(DESCRIPTION.read_text())["paths"].values()
    described = [operation for path in paths for operation in path.values()]
    return sum(isinstance(o, dict) and tag in o["tags"] for o in described)


def run(directory: Path, tag: str, port: int, credential: str, event_id: str = "-"):
    """Runs all checks of schemathesis for the operations with a tag."""
    command = [
        Path(sys.executable).parent / "st",
        f"--config-file={HERE / 'schemathesis.toml'}",
        "run",
        DESCRIPTION,
        f"--url=http://127.0.0.1:{port}",
        f"--include-tag={tag}",
        f"--header=Authorization: Bearer {credential}",
        "--no-color",
        *os.environ.get("API_ARGS", "").split(),
    ]
    env = os.environ | {
        "PYTHONPATH": str(HERE),
        "SCHEMATHESIS_HOOKS": "hooks",
        "SSE_EVENT_ID": event_id,
    }
    # It leaves files in its directory.
    done = subprocess.run(command, cwd=directory, env=env, capture_output=True, text=True)
    print(done.stdout, done.stderr)
    assert done.returncode == 0
    assert operations_in(done.stdout) == described_operations(tag)


def post(gateway: Gateway, path: str, body: dict) -> dict:
    """The response to a POST with the API key."""
    headers = {"Authorization": f"Bearer {KEY}"}
    url = f"http://127.0.0.1:{gateway.public}{path}"
    return get_json(urllib.request.Request(url, json.dumps(body).encode(), headers))


def test_clients(gateway, tmp_path):
    ticket = post(gateway, "/tickets", {"user": "42", "ttl": 3600})["ticket"]
    event_id = post(gateway, "/publish", {"channel": "user:42:events", "payload": 1})["id"]
    run(tmp_path, "clients", gateway.public, ticket, event_id)


def test_backends(gateway, tmp_path):
    run(tmp_path, "backends", gateway.public, KEY)


def test_admin(gateway, tmp_path):
    event_id = post(gateway, "/publish", {"channel": "user:42:events", "payload": 1})["id"]
    run(tmp_path, "admin", gateway.admin, KEY, event_id)

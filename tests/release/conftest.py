"""Tests of what `make release` wrote: every file is installed as a user would, and started.

$RELEASE_DIR is the directory of the files.
"""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Redis, gateways and clients for the tests.
sys.path.insert(0, str(ROOT / "tests/deploy"))

from harness import Gateway, Redis  # noqa: E402


@pytest.fixture(scope="session")
def dist() -> Path:
    return Path(os.environ["RELEASE_DIR"])


@pytest.fixture(scope="session")
def version() -> str:
    command = [sys.executable, ROOT / ".ci/project", "version"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture(scope="session")
def machine() -> dict[str, str]:
    """Names of this machine's architecture."""
    names = {"x86_64": "amd64", "aarch64": "arm64"}
    return {"rust": platform.machine(), "debian": names[platform.machine()]}


@pytest.fixture(scope="session")
def binary(dist, version, machine, tmp_path_factory) -> Path:
    """The binary of the archive for glibc."""
    name = f"sse-gateway-{version}-{machine['rust']}-unknown-linux-gnu"
    folder = tmp_path_factory.mktemp("archive")
    subprocess.run(["tar", "-xf", dist / f"{name}.tar.gz", "-C", folder], check=True)
    return folder / name / "sse-gateway"


@pytest.fixture
def redis():
    with Redis() as server:
        yield server


@pytest.fixture
def gateway(redis, binary):
    with Gateway(redis.url, binary=binary) as running:
        yield running

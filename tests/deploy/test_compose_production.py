"""docs/deployment/docker-compose.md: its commands, and deploy/compose/compose.yaml as parsed."""

import re
import shutil

import pytest
import yaml

from harness import ROOT, gateway_binary, run, tool
from values import defaults, memory_needed, seconds, size

PAGE = (ROOT / "docs/deployment/docker-compose.md").read_text()

# There is no Docker here: docker-compose parses the file.
COMMANDS = """
set -euo pipefail
docker() { [[ "$1 $2" == "compose up" ]] && docker-compose config > ../parsed.yaml; }
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A copy of deploy/, after the commands of the page up to the start."""
    root = tmp_path_factory.mktemp("compose")
    personal = shutil.ignore_patterns("local", ".env")
    shutil.copytree(ROOT / "deploy", root / "deploy", ignore=personal)
    folder = root / "deploy/compose"
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-subj", "/CN=localhost"]
    files = ["-keyout", folder / "privkey.pem", "-out", folder / "fullchain.pem"]
    run(tool("openssl"), "req", "-x509", "-nodes", *key, *files)
    section = PAGE[PAGE.index("## Secrets and settings") : PAGE.index("## Check")]
    tool("docker-compose")
    blocks = re.findall(r"^```sh\n(.*?)^```", section, re.M | re.S)
    assert len(blocks) == 2
    digest = "".join(blocks).replace("DIGEST", "0" * 64)
    run("bash", "-c", COMMANDS + digest, cwd=root, env={"PATH": "/usr/bin:/bin", "HOME": str(root)})
    return folder


@pytest.fixture(scope="module")
def compose(folder):
    return yaml.safe_load((folder.parent / "parsed.yaml").read_text())


def test_missing_image_is_reported():
    env = {"PATH": "/usr/bin:/bin", "SSE_IMAGE": ""}
    command = [tool("docker-compose"), "-f", ROOT / "deploy/compose/compose.yaml", "config"]
    done = run(*command, env=env, check=False)
    assert done.returncode != 0 and "set SSE_IMAGE in .env" in done.stderr


def test_gateways_accept_their_environment(folder, compose):
    names = [name for name in compose["services"] if name.startswith("gateway")]
    assert names == ["gateway-1", "gateway-2"]
    for name in names:
        gateway = compose["services"][name]
        env = {key: str(value) for key, value in gateway["environment"].items()}
        [secret] = gateway["secrets"]
        source = secret if isinstance(secret, str) else secret["source"]
        # Docker mounts a secret there.
        assert env.pop("SSE_GATEWAY__TICKETS__SECRET_FILE") == f"/run/secrets/{source}"
        file = compose["secrets"][source]["file"]
        env["SSE_GATEWAY__TICKETS__SECRET_FILE"] = file
        done = run(gateway_binary(), "check-config", env=env, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert gateway["image"].endswith("@sha256:" + "0" * 64)
        assert gateway["networks"]["default"]["aliases"] == ["gateway"]


def test_gateways_have_time_and_memory(compose):
    gateway, values = compose["services"]["gateway-1"], defaults()
    drain = seconds(values["drain.delay"]) + seconds(values["drain.window"])
    assert seconds(gateway["stop_grace_period"]) > drain + 10
    assert gateway["ulimits"]["nofile"] > values["limits.max_connections"] + 200
    limit = str(gateway["mem_limit"])
    needed = memory_needed(values)
    assert (int(limit) if limit.isdigit() else size(limit.upper().replace("M", "Mi"))) >= needed
    assert gateway["read_only"] is True and gateway["cap_drop"] == ["ALL"]


def test_only_tls_is_published(folder, compose):
    published = [str(p) for s in compose["services"].values() for p in s.get("ports", [])]
    assert len(published) == 1 and "443" in published[0] and "8443" in published[0]
    text = (folder / "local/haproxy.cfg").read_text()
    assert re.findall(r"^ +bind .*", text, re.M) == [
        "    bind :8443 ssl crt /run/secrets/certificate alpn h2,http/1.1"
    ]
    assert {"gateway"} == set(re.findall(r"server-template \w+ \d+ (\w+):8080", text))
    certificate = compose["secrets"]["certificate"]["file"]
    checked = folder / "checked.cfg"
    checked.write_text(text.replace("/run/secrets/certificate", certificate))
    done = run(tool("haproxy"), "-c", "-f", checked)
    assert "WARNING" not in done.stdout + done.stderr


def test_containers_can_read_local_files(folder):
    """They run as other users; the folder keeps other users of the machine out."""
    local = folder / "local"
    assert local.stat().st_mode & 0o777 == 0o700
    assert all(file.stat().st_mode & 0o004 for file in local.iterdir())


def test_images_and_mounts_are_those_of_the_main_file(folder, compose):
    main = yaml.safe_load((ROOT / "docker-compose.yaml").read_text())["services"]
    for name in ("redis", "balancer"):
        assert compose["services"][name]["image"] == main[name]["image"]
    for service in compose["services"].values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0] if isinstance(volume, str) else volume["source"]
            if source.startswith("/"):
                assert run("test", "-f", source, check=False).returncode == 0, source

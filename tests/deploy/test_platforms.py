"""deploy/fly and deploy/railway: the platforms' formats, and settings that the gateway accepts."""

import json
import re
import tomllib

import jsonschema
import pytest

from harness import ROOT, SECRET, gateway_binary, run
from values import defaults, memory_needed, seconds, size

FLY = ROOT / "deploy/fly"
# Sections that Fly.io's documentation has, and the schema has not.
NOT_IN_SCHEMA = ("checks", "files")
RAILWAY = ROOT / "deploy/railway/railway.ts"


def strict(schema):
    """The schema, without properties that it does not name."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: strict(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
        found["additionalProperties"] = schema.get("additionalProperties") or False
    return found


def faults(file: dict) -> list[str]:
    # From SchemaStore (Apache-2.0), commit 8cf3bac4e0240e6cb2eee52768fb79d42f8146ef.
    schema = json.loads((ROOT / "tests/deploy/schemas/fly.json").read_text())
    schema = strict(schema) | {"additionalProperties": False}
    known = {key: value for key, value in file.items() if key not in NOT_IN_SCHEMA}
    return [error.message for error in jsonschema.Draft7Validator(schema).iter_errors(known)]


def fly(name: str) -> dict:
    return tomllib.loads((FLY / name).read_text())


def accepted(env: dict[str, str]):
    """Checks the settings; keys that do not exist are errors."""
    ours = {k: v for k, v in env.items() if k.startswith("SSE_GATEWAY__")}
    done = run(gateway_binary(), "check-config", env=ours, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def grace() -> float:
    return seconds(defaults()["drain.delay"]) + seconds(defaults()["drain.window"]) + 10


@pytest.mark.parametrize("name", ["fly.toml", "redis.toml"])
def test_fly_files_match_the_schema(name):
    assert faults(fly(name)) == []


@pytest.mark.parametrize(
    "path", [(), ("http_service",), ("http_service", "concurrency"), ("deploy",), ("vm", 0)]
)
def test_misspelt_keys_of_fly_are_found(path):
    file = fly("fly.toml")
    table = file
    for key in path:
        table = table[key]
    table["misspelt"] = "1"
    assert len(faults(file)) == 1


def test_fly_settings_are_accepted_and_match_the_platform():
    file, redis = fly("fly.toml"), fly("redis.toml")
    env = file["env"]
    accepted(env | {"SSE_GATEWAY__TICKETS__SECRET": SECRET})
    assert file["kill_timeout"] >= grace() and file["kill_signal"] == "SIGTERM"
    port = lambda key: int(env[key].rpartition(":")[2])
    assert file["http_service"]["internal_port"] == port("SSE_GATEWAY__SERVER__LISTEN")
    admin = port("SSE_GATEWAY__ADMIN__LISTEN")
    assert (file["checks"]["readyz"]["port"], file["metrics"]["port"]) == (admin, admin)
    limits = file["http_service"]["concurrency"]
    assert limits["hard_limit"] == defaults()["limits.max_connections"]
    assert size(file["vm"][0]["memory"].replace("mb", "Mi")) >= memory_needed(defaults())
    assert env["SSE_GATEWAY__REDIS__URL"] == f"redis://{redis['app']}.internal:6379"
    # The file that Redis reads is in the machine, and its data on the volume.
    [conf] = redis["files"]
    assert (FLY / conf["local_path"]).samefile(ROOT / "deploy/redis/redis.conf")
    assert conf["guest_path"] in redis["processes"]["app"]
    assert f"\ndir {redis['mounts'][0]['destination']}\n" in (FLY / conf["local_path"]).read_text()
    assert (FLY / file["build"]["dockerfile"]).samefile(ROOT / "Dockerfile")


@pytest.mark.parametrize(
    ("page", "file"),
    [("fly.md", FLY / "fly.toml"), ("railway.md", RAILWAY)],
    ids=["fly", "railway"],
)
def test_pages_quote_the_files(page, file):
    """The first column of the page's table: lines of the file, or names of sections."""
    text = (ROOT / "docs/deployment" / page).read_text()
    rows = re.findall(r"^\| (`.*?) \| ", text[text.index("and why") :], re.M)
    quoted = [span for row in rows for span in re.findall(r"`([^`]+)`", row)]
    assert len(quoted) >= 7
    content = file.read_text()
    assert [span for span in quoted if span not in content] == []


def test_pages_name_existing_settings():
    names = {f"SSE_GATEWAY__{key.upper().replace('.', '__')}" for key in defaults()}
    files = [*(ROOT / "docs/deployment").glob("*.md"), ROOT / "deploy/compose/compose.yaml"]
    found = {name for f in files for name in re.findall(r"SSE_GATEWAY__\w+", f.read_text())}
    assert len(found) > 10 and found <= names, found - names


def test_examples_of_settings_are_accepted(tmp_path):
    pages = [page.read_text() for page in sorted((ROOT / "docs/deployment").glob("*.md"))]
    examples = [e for page in pages for e in re.findall(r"^```toml\n(.*?)^```", page, re.M | re.S)]
    assert len(examples) == 2
    for example in examples:
        file = tmp_path / "gateway.toml"
        file.write_text(example)
        env = {"SSE_GATEWAY__TICKETS__SECRET": SECRET}
        done = run(gateway_binary(), "check-config", "--config", file, env=env, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_railway_settings_are_accepted_and_match_the_platform():
    text = RAILWAY.read_text()
    env = dict(re.findall(r"^ +(PORT|SSE_GATEWAY__\w+): '(.*)',$", text, re.M))
    named = set(re.findall(r"SSE_GATEWAY__\w+", text))
    assert named - set(env) == {"SSE_GATEWAY__REDIS__URL", "SSE_GATEWAY__TICKETS__SECRET"}
    accepted(
        env
        | {
            "SSE_GATEWAY__REDIS__URL": "redis://default:password@redis.railway.internal:6379",
            "SSE_GATEWAY__TICKETS__SECRET": SECRET,
        }
    )
    number = lambda key: int(re.search(rf"\b{key}: (\d+)", text)[1])
    assert number("drainingSeconds") >= grace()
    # Health checks go to PORT, clients to the port of the domain.
    assert env["SSE_GATEWAY__ADMIN__LISTEN"] == f"[::]:{env['PORT']}"
    assert env["SSE_GATEWAY__SERVER__LISTEN"] == f"[::]:{number('port')}"
    # A stream may be 20 % older than the setting, and Railway ends requests after 15 minutes.
    assert 1.2 * seconds(env["SSE_GATEWAY__SERVER__MAX_CONNECTION_AGE"]) < 15 * 60

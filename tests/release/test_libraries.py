"""The packed client and server libraries, each in an empty project as its README shows.

The first example of each README issues a ticket and publishes an event.
"""

import json
import os
import re
import shutil
import sys
import zipfile

import pytest

from harness import ROOT, SECRET, Gateway, Process, Stream, eventually, run, ticket

ID = re.compile(r"\d+-\d+\.[0-9a-z]+")


def first_example(readme: str, language: str) -> str:
    return re.search(rf"^```{language}\n(.*?)^```$", readme, re.M | re.S)[1]


@pytest.fixture
def publishes(redis, gateway):
    """Runs a program that was made from a README and expects its event at the gateway."""

    def expect(*command, cwd, **env):
        with Stream(gateway.public, token=ticket()) as stream:
            stream.until("sse.connected")
            done = run(*command, cwd=cwd, env={**os.environ, "TICKET_SECRET": SECRET, **env})
            event = stream.until("order-completed")
        printed, event_id = done.stdout.split()
        assert ID.fullmatch(event_id) and event_id == event["id"]
        assert json.loads(event["data"])["orderId"] == 7
        # The gateway accepts the ticket.
        with Stream(gateway.public, token=printed) as stream:
            assert stream.status == 200

    return expect


@pytest.fixture
def local(redis):
    """Sets the address of Redis in an example."""
    return lambda code: code.replace("127.0.0.1:6379", f"127.0.0.1:{redis.port}").replace(
        "'127.0.0.1', 6379", f"'127.0.0.1', {redis.port}"
    )


def npm_install(folder, *packages):
    (folder / "package.json").write_text('{ "type": "module", "private": true }')
    run("npm", "install", "--no-audit", "--no-fund", "--loglevel=error", *packages, cwd=folder)


def test_node_library(dist, version, local, publishes, tmp_path):
    npm_install(tmp_path, dist / f"sse-gateway-backend-{version}.tgz", "ioredis@6.0.0")
    readme = (tmp_path / "node_modules/@sse-gateway/backend/README.md").read_text()
    program = local(first_example(readme, "js")) + "process.exit(0);"
    (tmp_path / "program.js").write_text(program)
    publishes("node", "program.js", cwd=tmp_path)


RECEIVER = """
import { EventSource } from 'eventsource';
import { connect } from '@sse-gateway/client';
import * as script from './node_modules/@sse-gateway/client/dist/sse-gateway-client.esm.min.js';

for (const [name, open] of Object.entries({ package: connect, module: script.connect })) {
  const [url, ...tickets] = process.argv.slice(2);
  const ticket = () => tickets[name === 'package' ? 0 : 1];
  const stream = open({ url, ticket, EventSource });
  stream.on('news', (data) => console.log(name, data.from));
  stream.onState((state) => console.log(name, state));
}
"""


def test_browser_client(dist, version, redis, gateway, tmp_path):
    npm_install(tmp_path, dist / f"sse-gateway-client-{version}.tgz", "eventsource@4.1.1")
    (tmp_path / "receiver.js").write_text(RECEIVER)
    url = f"http://127.0.0.1:{gateway.public}/events"
    with Process("node", "receiver.js", url, ticket(), ticket(), cwd=tmp_path) as receiver:
        until(receiver, {"package open", "module open"})
        redis.cli("FCALL", "sse_publish", 1, "user:42:events", "news", '{"from":"client"}')
        until(receiver, {"package client", "module client"})


def until(process, lines):
    eventually(f"{lines} in:\n{process.output}", lambda: lines <= set(process.lines))


@pytest.mark.parametrize("suffix", ["-py3-none-any.whl", ".tar.gz"])
def test_python_library(dist, version, local, publishes, tmp_path, suffix):
    run(sys.executable, "-m", "venv", tmp_path / "venv")
    python = tmp_path / "venv/bin/python"
    package = dist / f"sse_gateway_backend-{version}{suffix}"
    run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", package)
    readme = (ROOT / "servers/python/README.md").read_text()
    code = local(first_example(readme, "python"))
    publishes(python, "-c", code, cwd=tmp_path)


def test_php_library(dist, version, local, publishes, tmp_path):
    archive = dist / f"sse-gateway-backend-php-{version}.tar"
    # As a package index describes it.
    package = json.loads(run("tar", "-xOf", archive, "composer.json").stdout)
    package["dist"] = {"type": "tar", "url": f"file://{archive}"}
    repositories = [{"type": "package", "package": package}, {"packagist.org": False}]
    require = {"sse-gateway/backend": version}
    (tmp_path / "composer.json").write_text(
        json.dumps({"repositories": repositories, "require": require})
    )
    env = {**os.environ, "COMPOSER_ALLOW_SUPERUSER": "1", "COMPOSER_HOME": str(tmp_path / "home")}
    run("composer", "install", "--no-interaction", "--quiet", cwd=tmp_path, env=env)
    readme = (tmp_path / "vendor/sse-gateway/backend/README.md").read_text()
    code = local(first_example(readme, "php"))
    code = code.replace("require 'SseGateway.php'", "require 'vendor/autoload.php'")
    (tmp_path / "program.php").write_text(f"<?php\n{code}")
    publishes("php", "program.php", cwd=tmp_path)
    assert not (tmp_path / "vendor/sse-gateway/backend/tests").exists()


def go_proxy(folder, version) -> tuple[str, str]:
    """The module as a Go proxy makes it from the tag. Returns its name and the proxy's URL."""
    source = ROOT / "servers/go"
    module = re.search(r"^module (\S+)$", (source / "go.mod").read_text(), re.M)[1]
    versions = folder / module / "@v"
    versions.mkdir(parents=True)
    (versions / "list").write_text(f"v{version}\n")
    (versions / f"v{version}.info").write_text(json.dumps({"Version": f"v{version}"}))
    shutil.copy(source / "go.mod", versions / f"v{version}.mod")
    with zipfile.ZipFile(versions / f"v{version}.zip", "w") as archive:
        for file in source.iterdir():
            archive.write(file, f"{module}@v{version}/{file.name}")
    return module, f"file://{folder}"


def test_go_library(version, local, publishes, tmp_path):
    module, proxy = go_proxy(tmp_path / "proxy", version)
    application = tmp_path / "application"
    application.mkdir()
    readme = (ROOT / "servers/go/README.md").read_text()
    (application / "main.go").write_text(local(first_example(readme, "go")))
    others = run("go", "env", "GOPROXY").stdout.strip()
    env = {
        **os.environ,
        "GOPROXY": f"{proxy},{others}",
        "GONOSUMDB": module,
        "GOFLAGS": "-mod=mod -modcacherw",
        "GOMODCACHE": str(tmp_path / "modules"),
    }
    for command in (
        ("go", "mod", "init", "application"),
        ("go", "mod", "edit", "-require", f"{module}@v{version}"),
        ("go", "build", "-o", "application", "."),
    ):
        run(*command, cwd=application, env=env)
    publishes(application / "application", cwd=application)


def test_rust_library(dist, version, local, publishes, tmp_path):
    name = f"sse-gateway-backend-{version}"
    run("tar", "-xf", dist / f"{name}.crate", "-C", tmp_path)
    readme = (tmp_path / name / "README.md").read_text()
    dependencies = first_example(readme, "toml").replace("../servers/rust", f"../{name}")
    application = tmp_path / "application"
    (application / "src").mkdir(parents=True)
    (application / "src/main.rs").write_text(local(first_example(readme, "rust")))
    (application / "Cargo.toml").write_text(
        f'[package]\nname = "application"\nedition = "2024"\n\n{dependencies}'
    )
    # Kept, so that dependencies are compiled once.
    target = {"CARGO_TARGET_DIR": str(ROOT / ".cache/release-rust")}
    run("cargo", "build", "--quiet", cwd=application, env={**os.environ, **target}, timeout=1200)
    publishes(ROOT / ".cache/release-rust/debug/application", cwd=application)


def test_cargo_installs_the_gateway_from_git(redis, version, tmp_path):
    """From a clone without the working tree. It compiles the gateway, which takes minutes."""
    # Kept between runs. Not the directory of `make build`: cargo would remove the binary there.
    directory = ROOT / ".cache/cargo-install"
    target = {"CARGO_TARGET_DIR": str(directory)}
    # Cargo would take the gateway of an earlier commit for this one.
    for built in (directory / "release/.fingerprint").glob("sse-gateway-*"):
        shutil.rmtree(built)
    run("git", "clone", "--quiet", "--bare", ROOT, tmp_path / "sse-gateway.git")
    run(
        *("cargo", "install", "--locked", "--quiet", "--root", tmp_path / "installed"),
        *("--git", f"file://{tmp_path}/sse-gateway.git", "sse-gateway"),
        env={**os.environ, **target},
        timeout=5400,
    )
    binary = tmp_path / "installed/bin/sse-gateway"
    assert run(binary, "--version").stdout == f"sse-gateway {version}\n"
    with Gateway(redis.url, binary=binary) as gateway:
        assert gateway.get("/healthz")[0] == 200
        with Stream(gateway.public) as stream:
            stream.until("sse.connected")
            redis.cli("FCALL", "sse_publish", 1, "user:42:events", "news", "{}")
            assert stream.until("news")["data"] == "{}"

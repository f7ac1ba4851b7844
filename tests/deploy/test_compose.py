"""docker-compose.yaml as parsed by docker-compose: its mounts, settings, limits and references."""

import re
from pathlib import Path

import pytest
import yaml

from harness import ROOT, SECRET, Gateway, Process, eventually, free_port, gateway_binary, run, tool
from values import defaults, memory_needed, seconds, size


@pytest.fixture(scope="module")
def compose():
    done = run(
        tool("docker-compose"),
        "-f",
        ROOT / "docker-compose.yaml",
        "config",
        env={"PATH": "/usr/bin:/bin", "SSE_TICKET_SECRET": SECRET, "HOME": "/nonexistent"},
    )
    return yaml.safe_load(done.stdout)


def test_missing_secret_is_reported():
    for env in ({}, {"SSE_TICKET_SECRET": ""}):
        done = run(
            tool("docker-compose"),
            "-f",
            ROOT / "docker-compose.yaml",
            "config",
            "-q",
            env={"PATH": "/usr/bin:/bin"} | env,
            check=False,
        )
        assert done.returncode != 0
        assert "set SSE_TICKET_SECRET in .env to a secret of at least 32 bytes" in done.stderr


def test_mounted_files_exist_and_are_read_only(compose):
    for name, service in compose["services"].items():
        for volume in service.get("volumes", []):
            source, target = (
                volume.split(":")[:2]
                if isinstance(volume, str)
                else (volume["source"], volume["target"])
            )
            if source.startswith("/"):
                assert source.startswith(str(ROOT)), source
                assert Path(source).exists(), f"{name}: {source}"
                assert volume.endswith(":ro") if isinstance(volume, str) else volume["read_only"], (
                    f"{name}: {target} is not mounted read-only"
                )
            else:
                assert source in compose["volumes"]


def test_gateway_accepts_its_environment(compose):
    gateway = compose["services"]["gateway"]
    assert gateway["deploy"]["replicas"] == 2
    done = run(
        gateway_binary(),
        "check-config",
        env={k: str(v) for k, v in gateway["environment"].items()},
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert gateway["environment"]["SSE_GATEWAY__ADMIN__LISTEN"] == "[::]:9090"
    host, port = re.fullmatch(
        r"redis://(\w+):(\d+)", gateway["environment"]["SSE_GATEWAY__REDIS__URL"]
    ).groups()
    assert host in compose["services"] and port == "6379"


def test_gateway_has_no_privileges_or_public_ports(compose):
    gateway = compose["services"]["gateway"]
    assert (
        gateway["read_only"] is True
        and gateway["cap_drop"] == ["ALL"]
        and gateway["security_opt"] == ["no-new-privileges:true"]
    )
    assert "ports" not in gateway, "only the balancer may be reachable"
    values = defaults()
    assert (
        seconds(gateway["stop_grace_period"])
        > seconds(values["drain.delay"]) + seconds(values["drain.window"]) + 10
    )
    assert gateway["ulimits"]["nofile"] > values["limits.max_connections"] + 200
    limit = str(gateway["mem_limit"])
    assert (
        int(limit) if limit.isdigit() else size(limit.upper().replace("M", "Mi"))
    ) >= memory_needed(values)


def test_only_the_balancer_is_public(compose):
    published = {
        name: [
            p if isinstance(p, str) else f"{p.get('host_ip', '')}:{p['published']}"
            for p in s.get("ports", [])
        ]
        for name, s in compose["services"].items()
    }
    outside = {
        name for name, ports in published.items() for p in ports if not p.startswith("127.0.0.1:")
    }
    assert outside == {"balancer"}


def test_references_between_configuration_files_match(compose):
    services = compose["services"]
    balancer = (ROOT / "deploy/haproxy/haproxy.cfg").read_text()
    assert (
        set(re.findall(r"server-template \w+ \d+ (\w+):8080", balancer))
        == {"gateway"}
        <= set(services)
    )
    assert re.search(r"check port 9090 ", balancer)
    prometheus = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
    [scrape] = prometheus["scrape_configs"]
    assert scrape["job_name"] == "sse-gateway"
    assert (
        scrape["dns_sd_configs"][0]["names"] == ["gateway"]
        and scrape["dns_sd_configs"][0]["port"] == 9090
    )
    mounts = {
        v.split(":")[0].removeprefix(str(ROOT)): v.split(":")[1]
        for s in services.values()
        for v in s.get("volumes", [])
    }
    assert prometheus["rule_files"] == [mounts["/deploy/prometheus"] + "/alerts.yaml"]
    provider = yaml.safe_load(
        (ROOT / "deploy/grafana/provisioning/dashboards/sse-gateway.yaml").read_text()
    )["providers"][0]
    assert provider["options"]["path"] == mounts["/deploy/grafana/dashboards"]
    assert (
        services["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
        == mounts["/deploy/grafana/dashboards"] + "/sse-gateway.json"
    )
    source = yaml.safe_load(
        (ROOT / "deploy/grafana/provisioning/datasources/prometheus.yaml").read_text()
    )["datasources"][0]
    assert source["url"] == "http://prometheus:9090" and "prometheus" in services
    assert source["jsonData"]["timeInterval"] == prometheus["global"]["scrape_interval"]
    assert services["redis"]["command"] == ["redis-server", mounts["/deploy/redis/redis.conf"]]


def test_redis_configuration_is_durable_and_compact(tmp_path):
    """A real Redis never evicts, stores a log with one event compactly, and survives a kill."""
    conf = (ROOT / "deploy/redis/redis.conf").read_text()
    assert "dir /data\n" in conf
    (tmp_path / "redis.conf").write_text(conf.replace("dir /data\n", f"dir {tmp_path}\n"))

    def start():
        port = free_port()
        redis = Process(
            tool("redis-server"), tmp_path / "redis.conf", "--port", port, "--bind", "127.0.0.1"
        )
        cli = lambda *args: run(tool("redis-cli"), "-p", port, *args, check=False).stdout.strip()
        eventually("Redis responds", lambda: cli("ping") == "PONG")
        return redis, port, cli

    redis, port, cli = start()
    with redis:
        with Gateway(f"redis://127.0.0.1:{port}") as gateway:
            assert not [line for line in gateway.lines if "maxmemory-policy" in line]
            event = cli("FCALL", "sse_publish", "1", "user:42:events", "order-completed", "x" * 200)
            assert re.fullmatch(r"\d+-\d+\.[0-9a-z]+", event)
        assert int(cli("MEMORY", "USAGE", "sse:log:{user:42:events}")) < 2000
        assert cli("CONFIG", "GET", "maxmemory-policy").split() == [
            "maxmemory-policy",
            "noeviction",
        ]
        assert cli("CONFIG", "GET", "appendonly").split() == ["appendonly", "yes"]
        # Leaving the context kills Redis. Wait for the fsync, which runs every second.
        eventually(
            "the append-only file is written",
            lambda: (
                "aof_pending_bio_fsync:0" in cli("INFO", "persistence")
                and any(p.stat().st_size for p in tmp_path.glob("appendonlydir/*.incr.aof"))
            ),
        )
    redis, port, cli = start()
    with redis:
        assert cli("XLEN", "sse:log:{user:42:events}") == "1"

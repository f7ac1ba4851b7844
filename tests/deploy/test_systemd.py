"""The systemd unit: systemd reads it without complaint, finds it well confined, and its command works."""

import re

from harness import ROOT, SECRET, defaults, gateway_binary, run, seconds, tool

UNIT = ROOT / "deploy/systemd/sse-gateway.service"


def options(section: str) -> dict[str, list[str]]:
    text = re.search(rf"^\[{section}\]\n(.*?)(?=^\[|\Z)", UNIT.read_text(), re.M | re.S)[1]
    found: dict[str, list[str]] = {}
    for key, value in re.findall(r"^(\w+)=(.*)$", text, re.M):
        found.setdefault(key, []).append(value)
    return found


def test_systemd_reads_it(tmp_path):
    # The program is not installed here: the one that is tested stands in for it.
    unit = tmp_path / "sse-gateway.service"
    unit.write_text(UNIT.read_text().replace("/usr/local/bin/sse-gateway", gateway_binary()))
    done = run(tool("systemd-analyze"), "verify", "--man=no", unit, check=False)
    complaints = [line for line in (done.stdout + done.stderr).splitlines() if "sse-gateway" in line]
    assert (done.returncode, complaints) == (0, [])


def test_systemd_finds_it_confined():
    done = run(tool("systemd-analyze"), "security", "--offline=yes", "--threshold=15", "--no-pager", UNIT, check=False)
    assert done.returncode == 0, done.stdout[-200:]


def test_limits_fit_the_settings():
    service, values = options("Service"), defaults()
    assert seconds(service["TimeoutStopSec"][0]) > seconds(values["drain.delay"]) + seconds(values["drain.window"]) + 10
    assert int(service["LimitNOFILE"][0]) > values["limits.max_connections"] + 200
    assert service["KillSignal"] == ["SIGTERM"] and service["RestartPreventExitStatus"] == ["78"]


def test_its_command_works(tmp_path):
    """With the credential where systemd puts it, the file of the repository and the environment of the unit."""
    service = options("Service")
    [load] = service["LoadCredential"]
    name = load.split(":")[0]
    (tmp_path / name).write_text(SECRET + "\n")
    env = dict(e.split("=", 1) for e in service["Environment"])
    env = {k: v.replace("%d", str(tmp_path)) for k, v in env.items()}
    for command in (*service["ExecStartPre"], *service["ExecStart"]):
        program, *arguments = command.split()
        assert program == "/usr/local/bin/sse-gateway" and arguments[1:] == ["--config", "/etc/sse-gateway/gateway.toml"]
    done = run(gateway_binary(), "check-config", "--config", ROOT / "config/gateway.toml", env=env, check=False)
    assert (done.returncode, done.stdout) == (0, "the configuration is good\n"), done.stderr

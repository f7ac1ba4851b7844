"""The systemd unit: its syntax, sandbox, limits, command and restart behaviour."""

import os
import re

import pytest

from harness import ROOT, SECRET, gateway_binary, require_root, run, tool, unshare
from values import defaults, memory_needed, seconds, size

UNIT = ROOT / "deploy/systemd/sse-gateway.service"


def options(section: str) -> dict[str, list[str]]:
    text = re.search(rf"^\[{section}\]\n(.*?)(?=^\[|\Z)", UNIT.read_text(), re.M | re.S)[1]
    found: dict[str, list[str]] = {}
    for key, value in re.findall(r"^(\w+)=(.*)$", text, re.M):
        found.setdefault(key, []).append(value)
    return found


def test_unit_passes_systemd_verification(tmp_path):
    # The program is not installed, so use the tested binary.
    unit = tmp_path / "sse-gateway.service"
    unit.write_text(UNIT.read_text().replace("/usr/local/bin/sse-gateway", gateway_binary()))
    done = run(tool("systemd-analyze"), "verify", "--man=no", unit, check=False)
    warnings = [line for line in (done.stdout + done.stderr).splitlines() if "sse-gateway" in line]
    assert (done.returncode, warnings) == (0, [])


def test_sandbox_passes_systemd_security_analysis():
    done = run(
        tool("systemd-analyze"),
        "security",
        "--offline=yes",
        "--threshold=15",
        "--no-pager",
        UNIT,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-200:]


def test_unit_limits_match_default_settings():
    service, values = options("Service"), defaults()
    assert (
        seconds(service["TimeoutStopSec"][0])
        > seconds(values["drain.delay"]) + seconds(values["drain.window"]) + 10
    )
    assert int(service["LimitNOFILE"][0]) > values["limits.max_connections"] + 200
    assert size(service["MemoryMax"][0].replace("M", "Mi")) >= memory_needed(values)
    assert service["KillSignal"] == ["SIGTERM"] and service["RestartPreventExitStatus"] == ["78"]


def test_process_start_time_is_readable():
    """Without /proc/stat, process_start_time_seconds is 0 and restarts are invisible."""
    assert "ProcSubset" not in options("Service")


# Starts a separate service manager. `systemd --user` requires that /run says systemd was booted.
MANAGER = """
set -eu
mount -t proc proc /proc
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/system /run/user
export XDG_RUNTIME_DIR=/run/user
/lib/systemd/systemd --user --unit=basic.target --log-target=console >"$1/manager.log" 2>&1 &
manager=$!
until systemctl --user is-active --quiet basic.target; do
  kill -0 $manager || { cat "$1/manager.log"; exit 1; }
  sleep 0.1
done
systemctl --user daemon-reload
systemctl --user start sse-gateway.service
sh -c "$2" || echo "the probe failed"
systemctl --user show sse-gateway.service --property=ActiveState,Result,ExecMainStatus,NRestarts
systemctl --user exit
wait $manager || true
"""


@pytest.fixture
def systemd(tmp_path):
    """Runs the unit in a real systemd until the probe (a shell command) exits.

    Returns the state of the unit. The sandbox is removed, because it needs the host's manager.
    """
    require_root("run a systemd manager")

    def start(config: str, probe: str, **settings) -> dict[str, str]:
        (tmp_path / "gateway.toml").write_text(config)
        (tmp_path / "ticket-secret").write_text(SECRET + "\n")
        (tmp_path / "environment").write_text(
            "".join(f"SSE_GATEWAY__{k.upper()}={v}\n" for k, v in settings.items())
        )
        text, _, rest = UNIT.read_text().partition("# Sandbox:")
        install = rest[rest.index("[Install]") :]
        # This manager provides no credentials, so use the path of the file.
        text = re.sub(r"^LoadCredential=.*\n", "", text, flags=re.M)
        for there, here in (
            ("/usr/local/bin/sse-gateway", gateway_binary()),
            ("/etc/sse-gateway", str(tmp_path)),
            ("%d/", f"{tmp_path}/"),
        ):
            assert there in text
            text = text.replace(there, here)
        (tmp_path / "sse-gateway.service").write_text(text + install)
        env = {
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "SYSTEMD_UNIT_PATH": f"{tmp_path}:/usr/lib/systemd/user",
        }
        command = [
            *unshare("--pid", "--fork", "--kill-child"),
            "sh",
            "-c",
            MANAGER,
            "sh",
            tmp_path,
            probe,
        ]
        done = run(*command, env=env, check=False, timeout=90)
        log = (tmp_path / "manager.log").read_text() if (tmp_path / "manager.log").exists() else ""
        assert "the probe failed" not in done.stdout, done.stdout + done.stderr + log
        found = dict(re.findall(r"^(\w+)=(.*)$", done.stdout, re.M))
        assert set(found) == {"ActiveState", "Result", "ExecMainStatus", "NRestarts"}, (
            done.stdout + done.stderr + log
        )
        return found

    yield start


# Waits for a property of the unit. 30 s allow for a busy machine.
UNTIL = """
for _ in $(seq 300); do
  [ "$(systemctl --user show -P {} sse-gateway)" = {} ] && exit 0
  sleep 0.1
done
exit 1
"""


def test_invalid_configuration_is_not_restarted(systemd):
    found = systemd("[server]\nlissen = '127.0.0.1:0'\n", UNTIL.format("ActiveState", "failed"))
    assert found == {
        "ActiveState": "failed",
        "Result": "exit-code",
        "ExecMainStatus": "78",
        "NRestarts": "0",
    }


def test_crashed_gateway_is_restarted(systemd):
    # The gateway runs without Redis.
    crash = "systemctl --user kill --signal=KILL sse-gateway; " + UNTIL.format("NRestarts", "1")
    found = systemd("", crash, server__listen="127.0.0.1:0", admin__listen="127.0.0.1:0")
    assert (found["NRestarts"], found["Result"]) == ("1", "success")


def test_unit_command_accepts_its_configuration(tmp_path):
    """Uses the credential path, environment and configuration file of the unit."""
    service = options("Service")
    [load] = service["LoadCredential"]
    name = load.split(":")[0]
    (tmp_path / name).write_text(SECRET + "\n")
    env = dict(e.split("=", 1) for e in service["Environment"])
    env = {k: v.replace("%d", str(tmp_path)) for k, v in env.items()}
    # A failed ExecStartPre= would be retried forever despite RestartPreventExitStatus=.
    assert not {key for key in service if re.fullmatch("Exec.*Pre|ExecCondition", key)}
    [command] = service["ExecStart"]
    program, *arguments = command.split()
    assert program == "/usr/local/bin/sse-gateway" and arguments[1:] == [
        "--config",
        "/etc/sse-gateway/gateway.toml",
    ]
    done = run(
        gateway_binary(),
        "check-config",
        "--config",
        ROOT / "config/gateway.toml",
        env=env,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr

"""docs/deployment/vm.md: its commands, on a machine with systemd, Redis and HAProxy of Debian."""

import contextlib
import re
import ssl
import subprocess
import threading
import tomllib

from harness import GUARD, ROOT, Stream, eventually
from machine import Machine, Shell
from values import defaults, flatten, memory_needed, size

PAGE = (ROOT / "docs/deployment/vm.md").read_text()

# Packages are installed, and the gateway is built. A machine for tests may allow fewer files than
# HAProxy needs for 40,000 connections.
REPLACED = """
sed -i 's/maxconn 40000/maxconn 1000/' deploy/haproxy/haproxy.cfg
apt-get() { [[ "$1 $2" == "install --no-install-recommends" ]] && dpkg -s "${@:3}" >/dev/null; }
cargo() { mkdir -p target/release && cp /run/tested-gateway target/release/sse-gateway; }
"""
# An upgrade takes a minute.
FASTER = """
cat >> /etc/sse-gateway/environment <<END
SSE_GATEWAY__DRAIN__DELAY=2s
SSE_GATEWAY__DRAIN__WINDOW=0s
END
"""


def sections() -> dict[str, str]:
    """The commands of each section, by its heading."""
    found = {}
    for section in re.split(r"^## ", PAGE, flags=re.M)[1:]:
        heading, _, body = section.partition("\n")
        if blocks := re.findall(r"^```sh\n(.*?)^```", body, re.M | re.S):
            found[heading] = "".join(blocks)
    return found


def resume(stream: Stream, tls: ssl.SSLContext) -> Stream:
    """Like an EventSource: the same URL with the last id, until a gateway admits it."""

    def admitted():
        again = Stream(443, token=stream.token, last_id=stream.last_id, tls=tls)
        with contextlib.suppress(EOFError):
            if again.next().get("event") == "sse.connected":
                return again
        again.close()

    return eventually("a gateway admits the client", admitted)


def both_serve(machine: Machine, shell: Shell, tls: ssl.SSLContext) -> bool:
    """Whether HAProxy distributes four streams to both gateways."""
    tokens = shell.run("for n in 1 2 3 4; do gateway ticket --user 43; done").split()
    with machine.network(), contextlib.ExitStack() as streams:
        for token in tokens:
            streams.enter_context(Stream(443, token=token, tls=tls)).until("sse.connected")
        metrics = "curl -s http://127.0.0.1:9091/metrics http://127.0.0.1:9092/metrics"
        counts = shell.run(f"{metrics} | awk '/^sse_connections / {{ print $2 }}'").split()
        return len(counts) == 2 and "0" not in counts


class Reader(threading.Thread):
    """Keeps a stream of user 42 open, and collects its events."""

    def __init__(self, machine: Machine, token: str, tls: ssl.SSLContext):
        super().__init__(daemon=True)
        self.machine, self.token, self.tls = machine, token, tls
        self.events: list[dict] = []
        self.resumed = 0
        self.fault: BaseException | None = None

    def run(self):
        try:
            with self.machine.network():
                self.read()
        except BaseException as fault:
            self.fault = fault

    def read(self):
        stream = Stream(443, token=self.token, tls=self.tls)
        assert stream.status == 200
        while not self.ended():
            try:
                self.events.append(stream.next())
            except EOFError:
                stream.close()
                stream = resume(stream, self.tls)
                self.resumed += 1
        stream.close()

    def ended(self) -> bool:
        return self.events[-1:] and self.events[-1].get("event") == "last"

    def names(self) -> list[str]:
        return [event.get("event", "") for event in self.events]


def test_commands_of_the_page_work_and_the_upgrade_loses_nothing(tmp_path):
    steps = sections()
    upgrade, logs = steps.pop("Upgrade"), steps.pop("Logs")
    with Machine(tmp_path / "boot.log") as machine, Shell(machine) as shell:
        shell.run(REPLACED)
        outputs = {}
        for heading, commands in steps.items():
            outputs[heading] = shell.run(commands)
            if heading == "Settings and secrets":
                shell.run(FASTER)
        assert "error" not in outputs["Settings and secrets"]
        assert "ok: permissions" in outputs["Settings and secrets"]
        assert outputs["Units"].endswith('{"status":"ready"}' * 2)
        assert '"type":"order-completed"' in outputs["Try it"], outputs["Try it"]

        for secret in ("redis-password", "ticket-secret", "environment"):
            assert shell.run(f"stat -c %a:%U /etc/sse-gateway/{secret}") == "600:root\n"
        assert "root" not in shell.run("ps -o user= -C sse-gateway,redis-server").split()
        # Only HAProxy listens on other addresses.
        listening = shell.run("ss -Hltn | awk '{print $4}'").split()
        assert {a for a in listening if not a.startswith(("127.", "[::1]"))} == {"0.0.0.0:443"}

        tls = ssl.create_default_context(cadata=shell.run("cat /etc/haproxy/events.crt"))
        eventually("both gateways have streams", lambda: both_serve(machine, shell, tls))
        assert "policy drop" in shell.run("nft list ruleset")
        token = shell.run("gateway ticket --user 42").strip()
        reader = Reader(machine, token, tls)
        reader.start()
        eventually("the stream begins", lambda: reader.fault or "sse.connected" in reader.names())
        password = shell.run("cat /etc/sse-gateway/redis-password").strip()
        publish = f"redis-cli --no-auth-warning -a {password} FCALL sse_publish 1 user:42:events"
        # Counts until its input ends: then `read` fails, as after 0.02 s, but with a lower status.
        counting = (
            f"n=0; while read -rt 0.02; (($? > 128)); do {publish} count $((++n)); done; echo $n"
        )
        counter = subprocess.Popen(
            machine.command("bash", "-c", counting),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        before = shell.run("pgrep -f 'sse-gateway serve'").split()
        shell.run(upgrade)
        after = shell.run("pgrep -f 'sse-gateway serve'").split()
        assert len(before) == len(after) == 2 and not set(before) & set(after)
        published = int(counter.communicate(timeout=GUARD)[0].split()[-1])
        shell.run(f"{publish} last ''")
        reader.join(60)
        assert not reader.is_alive() and reader.fault is None, (reader.fault, reader.names())
        counted = [e["data"] for e in reader.events if e.get("event") == "count"]
        assert counted == [str(n) for n in range(1, published + 1)]
        assert "sse.gap" not in reader.names()
        assert reader.resumed >= 1

        # systemd stopped both with success, within TimeoutStopSec=.
        stopped = shell.run("journalctl -u 'sse-gateway@*' -o cat _PID=1")
        assert "Failed" not in stopped and "timed out" not in stopped, stopped
        assert '"message":' in shell.run(logs)
        # The journal of HAProxy has the requests, and no ticket.
        proxied = shell.run("journalctl -u haproxy -o cat")
        assert "GET /events 200" in proxied and "ticket" not in proxied
        assert token.split(".")[2] not in shell.run("journalctl -o cat")


def test_drop_in_has_memory_for_the_production_settings():
    text = (ROOT / "deploy/systemd/instance.conf").read_text()
    [limit] = re.findall(r"^MemoryMax=(\d+)M$", text, re.M)
    production = flatten(tomllib.loads((ROOT / "config/production.toml").read_text()))
    assert size(f"{limit}Mi") >= memory_needed(defaults() | production)

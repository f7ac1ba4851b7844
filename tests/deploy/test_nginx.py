"""The nginx configuration of docs/guides/reverse-proxies.md in a real nginx.

Paths and ports are those of the test.
"""

import contextlib
import json
import re

import pytest

from harness import (
    ROOT,
    Gateway,
    Process,
    Redis,
    Stream,
    eventually,
    free_port,
    get,
    run,
    ticket,
    tool,
)

PAGE = (ROOT / "docs/guides/reverse-proxies.md").read_text()
[SNIPPET] = re.findall(r"^```nginx\n(.*?)^```", PAGE, re.M | re.S)


class Nginx(Process):
    """nginx in front of a gateway, with an additional port without TLS."""

    def __init__(self, directory, gateway: Gateway):
        self.port, self.log = free_port(), directory / "events.log"
        run(
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-subj",
            "/CN=events.example.com",
            "-keyout",
            directory / "events.example.com.key",
            "-out",
            directory / "events.example.com.pem",
        )
        text = SNIPPET
        for there, here in (
            ("server 127.0.0.1:8080;", f"server 127.0.0.1:{gateway.public};"),
            (
                "listen 443 ssl http2;",
                f"listen 127.0.0.1:{free_port()} ssl http2; listen 127.0.0.1:{self.port};",
            ),
            ("/etc/ssl/", f"{directory}/"),
            ("/var/log/nginx/", f"{directory}/"),
        ):
            assert there in text, there
            text = text.replace(there, here)
        paths = "".join(
            f"{kind}_temp_path {directory}/{kind}; "
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        (directory / "nginx.conf").write_text(
            f"daemon off; master_process off; pid {directory}/pid; error_log stderr;\n"
            f"events {{}}\nhttp {{ {paths}\n{text}\n}}\n"
        )
        super().__init__(
            tool("nginx"), "-p", directory, "-e", "stderr", "-c", directory / "nginx.conf"
        )
        eventually("nginx listens", self._listens)

    def _listens(self):
        assert self.alive(), self.output
        with contextlib.suppress(OSError):
            return get(self.port, "/elsewhere")[0] == 404


@pytest.fixture
def stack(tmp_path):
    with (
        Redis() as redis,
        Gateway(
            redis.url, server__heartbeat="1h", cors__allowed_origins="https://app.example.com"
        ) as gateway,
        Nginx(tmp_path, gateway) as nginx,
    ):
        yield redis, gateway, nginx


def test_each_event_is_forwarded_immediately(stack):
    redis, _, nginx = stack
    with Stream(nginx.port) as stream:
        stream.until("sse.connected")
        # Nothing else is sent, so a buffering proxy would never forward the event.
        for n in range(5):
            redis.cli("FCALL", "sse_publish", 1, "user:42:events", "news", n)
            assert stream.next()["data"] == str(n)


def test_unavailable_gateway_returns_busy_to_browsers(stack):
    _, gateway, nginx = stack
    with Stream(nginx.port) as stream:
        stream.until("sse.connected")
        gateway.kill()
        with pytest.raises(EOFError):
            stream.next()
    with Stream(nginx.port, token=stream.token, origin="https://app.example.com") as again:
        busy = again.next()
        assert (again.status, busy["event"], json.loads(busy["data"])) == (
            200,
            "sse.busy",
            {"reason": "draining"},
        )
        assert 10_000 <= int(busy["retry"]) < 20_000
        with pytest.raises(EOFError):
            again.next()
        headers = again.answer.headers
        assert (
            headers["content-type"].startswith("text/event-stream")
            and headers["cache-control"] == "no-cache"
        )
        assert (
            headers["access-control-allow-origin"],
            headers["access-control-allow-credentials"],
            headers["vary"],
        ) == ("https://app.example.com", "true", "Origin")
    # Polling clients read the status, so they get a 503.
    assert get(nginx.port, "/events/poll?ticket=" + ticket())[0] == 503
    for secret in (stream.token, again.token):
        assert secret not in nginx.log.read_text() + nginx.output


def test_error_responses_are_forwarded(stack):
    _, _, nginx = stack
    with Stream(nginx.port, token="none") as stream:
        assert stream.status == 401 and "ticket-malformed" in stream.answer.read().decode()

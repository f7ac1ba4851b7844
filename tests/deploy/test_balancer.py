"""deploy/haproxy/haproxy.cfg in a real HAProxy with two real gateways.

Addresses replace the names that Docker resolves.
"""

import contextlib
import json
import re
import signal
import urllib.parse

import pytest

from harness import ROOT, Gateway, Process, Redis, Stream, eventually, free_port, get, run, tool
from values import defaults, seconds

CONFIG = ROOT / "deploy/haproxy/haproxy.cfg"


class Balancer(Process):
    """HAProxy with the repository's configuration in front of these gateways."""

    def __init__(self, directory, *gateways: Gateway):
        self.port = free_port()
        text, places = re.subn(
            r"( +)server-template gateway 10 gateway:8080\n",
            lambda m: "".join(
                f"{m[1]}server gateway{n} 127.0.0.1:{g.public} port {g.admin}\n"
                for n, g in enumerate(gateways, 1)
            ),
            CONFIG.read_text(),
        )
        assert places == 2 and text.count("bind :8080\n") == 1
        text = text.replace("bind :8080\n", f"bind 127.0.0.1:{self.port}\n")
        # Few enough connections for a small machine, and no timeouts during a test.
        text = re.sub(
            r"timeout (client|server) +60s",
            r"timeout \1 1h",
            text.replace("maxconn 40000\n", "maxconn 1000\n"),
        )
        (directory / "haproxy.cfg").write_text(text)
        super().__init__(tool("haproxy"), "-db", "-f", directory / "haproxy.cfg")
        eventually("the balancer forwards a client", self._forwards)

    def _forwards(self):
        assert self.alive(), self.output
        with contextlib.suppress(OSError), Stream(self.port, user="probe") as stream:
            return stream.next().get("event") == "sse.connected"


@pytest.fixture
def stack(tmp_path):
    """Redis, two gateways and the balancer, without heartbeats that would flush buffers."""
    with contextlib.ExitStack() as contexts:
        redis = contexts.enter_context(Redis())
        one, two = (
            contexts.enter_context(Gateway(redis.url, server__heartbeat="1h")) for _ in range(2)
        )
        yield redis, one, two, contexts.enter_context(Balancer(tmp_path, one, two))


def publish(redis, data="{}", channel="user:42:events"):
    return redis.cli("FCALL", "sse_publish", 1, channel, "news", data).stdout.strip()


def until_connections(count, *gateways):
    """Waits until the gateways have this number of connections, without those that were closed."""
    eventually(
        f"the number of connections is {count}",
        lambda: sum(gateway.metric("sse_connections") for gateway in gateways) == count,
    )


def test_haproxy_accepts_the_configuration():
    done = run(tool("haproxy"), "-c", "-V", "-f", CONFIG)
    assert (
        "valid" in done.stdout
        and "WARNING" not in done.stdout + done.stderr
        and "ALERT" not in done.stderr
    )


def test_timeouts_exceed_the_heartbeat():
    timeouts = dict(re.findall(r"^ +timeout (client|server) +(\w+)$", CONFIG.read_text(), re.M))
    assert set(timeouts) == {"client", "server"}
    for timeout in timeouts.values():
        assert seconds(timeout) >= 3 * seconds(defaults()["server.heartbeat"])


def test_each_event_is_forwarded_immediately(stack):
    redis, _, _, balancer = stack
    with Stream(balancer.port) as stream:
        stream.until("sse.connected")
        # Nothing else is sent, so a buffering balancer would never forward the event.
        for n in range(5):
            publish(redis, str(n))
            assert stream.next()["data"] == str(n)


def test_stream_resumes_on_the_other_gateway(stack):
    redis, one, two, balancer = stack
    with Stream(balancer.port) as stream:
        stream.until("sse.connected")
        publish(redis, "1")
        assert stream.next()["data"] == "1"
        until_connections(1, one, two)
        holder, other = (one, two) if one.metric("sse_connections") else (two, one)
        holder.kill()
        with pytest.raises(EOFError):
            stream.next()
        publish(redis, "2")
        # Before a health check fails, the balancer still sends some clients to the killed gateway.
        for n in range(6):
            with Stream(balancer.port, user=f"u{n}") as newcomer:
                assert newcomer.until("sse.connected")
        # Like an EventSource: the same URL with the last id.
        with Stream(balancer.port, token=stream.token, last_id=stream.last_id) as again:
            assert again.status == 200
            assert json.loads(again.until("sse.connected")["data"])["resumed"] is True
            assert again.until("news")["data"] == "2"
            until_connections(1, other)


def test_streams_are_distributed_by_connection_count(stack):
    _, one, two, balancer = stack
    eventually("both are up", lambda: distribute(balancer, one, two))


def distribute(balancer, one, two):
    until_connections(0, one, two)
    with contextlib.ExitStack() as stack:
        for n in range(10):
            stack.enter_context(Stream(balancer.port, user=f"u{n}")).until("sse.connected")
        numbers = sorted([one.metric("sse_connections"), two.metric("sse_connections")])
        if numbers[0] == 0:
            return False  # HAProxy has not detected one gateway yet
        # HAProxy also counts idle keep-alive connections.
        assert numbers[0] >= 4, numbers
        return True


def test_client_disconnect_closes_the_gateway_connection(stack):
    _, one, two, balancer = stack
    stream = Stream(balancer.port)
    stream.until("sse.connected")
    stream.close()
    until_connections(0, one, two)


def test_log_contains_no_ticket(stack):
    redis, one, two, balancer = stack
    stream = Stream(balancer.port, last_id="of-long-ago")
    stream.until("sse.connected")
    stream.close()
    get(balancer.port, "/elsewhere?ticket=" + stream.token)
    # A request that HAProxy rejects, and one that is interrupted during the response.
    get(balancer.port, "/events?ticket=" + stream.token + "&topics=%00")
    with Stream(balancer.port) as cut:
        cut.until("sse.connected")
        one.kill(), two.kill()
        with pytest.raises(EOFError):
            cut.next()
    with contextlib.suppress(OSError, EOFError):
        Stream(balancer.port, token=cut.token).next()
    eventually(
        "all requests are logged",
        lambda: (
            balancer.output.count("GET /events ") >= 3 and "GET /elsewhere 404" in balancer.output
        ),
    )
    assert not re.search(r"ticket|eyJ|lastEventId|\?", balancer.output), balancer.output
    for token in (stream.token, cut.token):
        assert token not in balancer.output and token.split(".")[2] not in balancer.output


def test_only_event_paths_are_public(stack):
    balancer = stack[3]
    assert {
        path: get(balancer.port, path)[0]
        for path in ("/publish", "/tickets", "/metrics", "/readyz", "/connections", "/")
    } == dict.fromkeys(("/publish", "/tickets", "/metrics", "/readyz", "/connections", "/"), 404)
    status, body = get(
        balancer.port,
        "/events/poll?" + urllib.parse.urlencode({"ticket": Stream(balancer.port).token}),
    )
    assert status == 200 and "lastEventId" in body


def test_draining_gateway_gets_no_new_streams(tmp_path):
    with (
        Redis() as redis,
        Gateway(redis.url, drain__delay="1h") as one,
        Gateway(redis.url) as two,
        Balancer(tmp_path, one, two) as balancer,
    ):
        one.child.send_signal(signal.SIGTERM)
        eventually(
            "the balancer detects it",
            lambda: re.search(r"Server ready/gateway1 is DOWN", balancer.output),
        )
        before = two.metric('sse_connections_opened_total{transport="stream"}')
        for _ in range(4):
            with Stream(balancer.port) as stream:
                stream.until("sse.connected")
        assert two.metric('sse_connections_opened_total{transport="stream"}') == before + 4


def test_unavailable_backends_return_busy_to_browsers(tmp_path):
    """Without Redis, then without gateways: 200, `sse.busy` and a retry time, with CORS headers."""
    with contextlib.ExitStack() as stack:
        redis = stack.enter_context(Redis())
        gateways = [
            stack.enter_context(Gateway(redis.url, cors__allowed_origins="https://app.example.com"))
            for _ in range(2)
        ]
        balancer = stack.enter_context(Balancer(tmp_path, *gateways))
        redis.kill()
        eventually(
            "the balancer detects it",
            lambda: all(f"Server ready/gateway{n} is DOWN" in balancer.output for n in (1, 2)),
        )
        answers = []
        for expected in ("redis-away", "draining"):
            with Stream(balancer.port, origin="https://app.example.com") as stream:
                busy = stream.next()
                assert (stream.status, busy["event"], json.loads(busy["data"])) == (
                    200,
                    "sse.busy",
                    {"reason": expected},
                )
                assert 10_000 <= int(busy["retry"]) <= 30_000
                # Browsers reject `*` for an EventSource with credentials (tickets.session_cookie).
                assert (
                    stream.answer.headers["access-control-allow-origin"]
                    == "https://app.example.com"
                )
                assert stream.answer.headers["access-control-allow-credentials"] == "true"
                assert "origin" in stream.answer.headers["vary"].lower()
                assert stream.answer.headers["content-type"].startswith("text/event-stream")
                with pytest.raises(EOFError):
                    stream.next()
            answers.append(expected)
            for gateway in gateways:
                gateway.kill()
            eventually(
                "the balancer detects it",
                lambda: all(f"Server alive/gateway{n} is DOWN" in balancer.output for n in (1, 2)),
            )
        # A failed gateway must cause no 502 or 503, after which browsers do not reconnect.
        assert answers == ["redis-away", "draining"]
        # No CORS headers without an Origin header.
        with Stream(balancer.port) as stream:
            assert stream.next()["event"] == "sse.busy"
            assert "access-control-allow-origin" not in stream.answer.headers
        assert not re.search(r"GET /events 50\d", balancer.output)

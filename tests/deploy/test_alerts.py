"""Debian's Prometheus scrapes real gateways, and each alert is made to fire by making its fault.

The rules are those of deploy/prometheus/alerts.yaml with three changes that only save time and size: `for` is a second, windows are 20 s, and two limits
are small. What the real durations do is tested in test_rules.py by promtool. Every fault has a Redis and gateways of its own, told apart by a label.
"""

import contextlib
import json
import re
import signal
import threading
import time
import urllib.parse
from itertools import count

import pytest
import yaml

from harness import ROOT, Gateway, Process, Redis, Stream, eventually, free_port, get_json, ticket, tool

ALERTS = ROOT / "deploy/prometheus/alerts.yaml"
NAMES = [rule["alert"] for rule in yaml.safe_load(ALERTS.read_text())["groups"][0]["rules"]]


def hurried(rules: str) -> str:
    rules = re.sub(r"for: \w+", "for: 1s", rules)
    rules = re.sub(r"\[\d+m\]", "[20s]", rules)
    for limit, small in (("10000", "5"), ("268435456", "1000000")):
        assert limit in rules
        rules = rules.replace(f"0.8 * {limit}", f"0.8 * {small}")
    return rules


class Prometheus(Process):
    """Prometheus with the rules; installations come and go by a file that it watches."""

    def __init__(self, directory):
        self.targets, self.file = {}, directory / "targets.json"
        self._write()
        (directory / "alerts.yaml").write_text(hurried(ALERTS.read_text()))
        (directory / "prometheus.yml").write_text(
            json.dumps({
                "global": {"scrape_interval": "1s", "evaluation_interval": "1s", "scrape_timeout": "1s"},
                "rule_files": [str(directory / "alerts.yaml")],
                "scrape_configs": [{"job_name": "sse-gateway", "file_sd_configs": [{"files": [str(self.file)], "refresh_interval": "1s"}]}],
            })
        )
        self.port = free_port()
        super().__init__(
            tool("prometheus"), f"--config.file={directory}/prometheus.yml", f"--storage.tsdb.path={directory}/data", f"--web.listen-address=127.0.0.1:{self.port}"
        )
        eventually("Prometheus answers", lambda: self.alive() and "Server is ready" in self.output)

    def _write(self):
        part = self.file.with_suffix(".new")
        part.write_text(json.dumps([{"targets": t, "labels": {"namespace": n}} for n, t in self.targets.items()]))
        part.rename(self.file)

    @contextlib.contextmanager
    def watching(self, namespace: str, *gateways: Gateway):
        """Scrapes these gateways as one installation."""
        self.targets[namespace] = [f"127.0.0.1:{g.admin}" for g in gateways]
        self._write()
        selector = f'up{{namespace="{namespace}"}}'
        eventually("the gateways are scraped", lambda: len(self.query(selector)) == len(gateways))
        try:
            yield
        finally:
            del self.targets[namespace]
            self._write()

    def query(self, expression: str) -> list:
        query = urllib.parse.quote(expression)
        return get_json(f"http://127.0.0.1:{self.port}/api/v1/query?query={query}")["data"]["result"]

    def firing(self, alert: str, namespace: str | None) -> dict | None:
        for a in get_json(f"http://127.0.0.1:{self.port}/api/v1/alerts")["data"]["alerts"]:
            if a["state"] == "firing" and a["labels"]["alertname"] == alert and a["labels"].get("namespace") == namespace:
                return a
        return None


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory):
    with Prometheus(tmp_path_factory.mktemp("prometheus")) as p:
        yield p


@pytest.fixture(scope="module")
def healthy(prometheus):
    """Two gateways at work beside all the faults: nothing may be said of them."""
    with Redis() as redis, Gateway(redis.url) as a, Gateway(redis.url) as b, Stream(a.public) as stream:
        eventually("a standby", lambda: a.metric('sse_recorder_role{role="standby"}') + b.metric('sse_recorder_role{role="standby"}') == 1)
        stop = threading.Event()

        def publish():
            while not stop.wait(0.5):
                redis.cli("FCALL", "sse_publish", 1, "user:42:events", "news", "{}")

        def read():
            with contextlib.suppress(EOFError):
                while True:
                    stream.next()

        threads = [threading.Thread(target=t, daemon=True) for t in (publish, read)]
        for thread in threads:
            thread.start()
        with prometheus.watching("healthy", a, b):
            yield a
        stop.set()
        threads[0].join()


class Installation:
    """What a fault is made of."""

    def __init__(self, stack: contextlib.ExitStack, prometheus: Prometheus):
        self.stack, self.prometheus = stack, prometheus

    def redis(self) -> Redis:
        return self.stack.enter_context(Redis())

    def gateway(self, redis: Redis, **settings) -> Gateway:
        return self.stack.enter_context(Gateway(redis.url, **settings))

    def stream(self, gateway: Gateway, *args, **options) -> Stream:
        stream = self.stack.enter_context(Stream(gateway.public, *args, **options))
        return stream

    def watch(self, *gateways: Gateway):
        self.stack.enter_context(self.prometheus.watching("fault", *gateways))
        # Rates need a first value.
        eventually("two scrapes", lambda: all(int(v["value"][1]) >= 2 for v in self.prometheus.query('count_over_time(up{namespace="fault"}[1m])') or [{"value": [0, 0]}]))

    def over_scrapes(self, act, times: int = 3):
        """Does it again and again, with a scrape between."""
        for _ in range(times):
            act()
            time.sleep(1.1)


def down(i):
    redis = i.redis()
    one, other = i.gateway(redis), i.gateway(redis)
    i.watch(one, other)
    one.kill()


def redis_link_down(i):
    redis = i.redis()
    i.watch(i.gateway(redis))
    redis.kill()


def redis_link_unsteady(i):
    redis = i.redis()
    gateway = i.gateway(redis)
    i.watch(gateway)
    for n in count(1):
        redis.cli("CLIENT", "KILL", "TYPE", "pubsub")
        eventually("the link is set up again", lambda: gateway.metric("sse_redis_reconnects_total") >= n)
        eventually("and up", lambda: gateway.metric("sse_redis_link_up") == 1)
        if n == 5:
            break


def ticks_late(i):
    redis = i.redis()
    gateway = i.gateway(redis)
    i.watch(gateway)
    stop = threading.Event()

    def pause():
        # A Redis that is busy for most of the time, but never for the 3 s after which the link is given up.
        while not stop.is_set():
            redis.cli("CLIENT", "PAUSE", 2600, "ALL")
            stop.wait(2.8)

    thread = threading.Thread(target=pause, daemon=True)
    thread.start()
    i.stack.callback(lambda: (stop.set(), thread.join()))


def no_recorder(i):
    redis = i.redis()
    # A neighbour that holds the lease and does nothing.
    redis.cli("SET", "sse:lease:recorder", "somebody")
    i.watch(i.gateway(redis))


def two_recorders(i):
    i.watch(i.gateway(i.redis()), i.gateway(i.redis()))


def no_standby(i):
    redis = i.redis()
    redis.cli("SET", "sse:lease:standby", "somebody")
    i.watch(i.gateway(redis), i.gateway(redis))


def events_may_be_lost(i):
    redis = i.redis()
    gateway = i.gateway(redis)
    stream = i.stream(gateway)
    stream.until("sse.connected")
    i.watch(gateway)
    redis.cli("FLUSHALL")
    assert json.loads(stream.until("sse.gap")["data"])["reason"] == "reset"


def history_too_short(i):
    redis = i.redis()
    gateway = i.gateway(redis, history__max_len=10)
    first = redis.cli("FCALL", "sse_publish", 1, "user:42:events", "news", "1").stdout.strip()
    redis.batch("FCALL sse_publish 1 user:42:events news 2" for _ in range(400))
    i.watch(gateway)

    def come_back():
        for _ in range(10):
            with Stream(gateway.public, last_id=first) as stream:
                assert json.loads(stream.until("sse.gap")["data"])["reason"] == "trimmed"

    i.over_scrapes(come_back)


def unknown_ids(i):
    gateway = i.gateway(i.redis())
    i.watch(gateway)

    def come_back():
        for _ in range(10):
            with Stream(gateway.public, last_id="of-another-gateway") as stream:
                assert json.loads(stream.until("sse.gap")["data"])["reason"] == "unknown-id"

    i.over_scrapes(come_back)


def events_rejected(i):
    redis = i.redis()
    gateway = i.gateway(redis)
    i.watch(gateway)
    redis.cli("PUBLISH", "user:42:events", '{"type":"sse.mine","payload":1}')
    eventually("it is refused", lambda: gateway.metric('sse_rejected_total{reason="reserved-type"}') == 1)


def tickets_refused(i):
    gateway = i.gateway(i.redis())
    i.watch(gateway)

    def knock():
        for _ in range(10):
            with Stream(gateway.public, token=ticket(secret="another secret, the old one perhaps")) as stream:
                assert stream.status == 401

    i.over_scrapes(knock)


def full(i):
    gateway = i.gateway(i.redis(), limits__max_connections=1)
    i.watch(gateway)
    i.stream(gateway).until("sse.connected")
    assert json.loads(i.stream(gateway).until("sse.busy")["data"])["reason"] == "full"


def nearly_full(i):
    gateway = i.gateway(i.redis(), limits__max_connections=5)
    i.watch(gateway)
    for _ in range(5):
        i.stream(gateway).until("sse.connected")


def users_full(i):
    gateway = i.gateway(i.redis(), limits__max_connections_per_user=1)
    i.watch(gateway)
    i.stream(gateway).until("sse.connected")

    def ask():
        for _ in range(20):
            with Stream(gateway.public) as stream:
                assert json.loads(stream.until("sse.busy")["data"])["reason"] == "user-full"

    i.over_scrapes(ask)


def slow_clients(i, clients: int, **settings):
    """Clients that take nothing, and more events than their buffers hold."""
    redis = i.redis()
    gateway = i.gateway(redis, **settings)
    for _ in range(clients):
        i.stream(gateway, receive_buffer=4096).until("sse.connected")
    i.watch(gateway)
    payload = "x" * 60_000
    for _ in range(60):
        redis.cli("-x", "FCALL", "sse_publish", 1, "broadcast:news", "news", input=payload)
    return gateway


def queues_overflow(i):
    gateway = slow_clients(i, 40, limits__queue_bytes="64KiB")
    eventually("queues overflow", lambda: gateway.metric("sse_queue_overflows_total") >= 40)


def queues_large(i):
    gateway = slow_clients(i, 2, limits__queue_bytes="16MiB")
    eventually("queues grow", lambda: gateway.metric("sse_queued_bytes") > 1_000_000)


def slow(i):
    redis = i.redis()
    gateway = i.gateway(redis)
    stream = i.stream(gateway)
    stream.until("sse.connected")
    i.watch(gateway)
    # A gateway that gets no CPU for two seconds, less than after which it gives its link up.
    gateway.child.send_signal(signal.SIGSTOP)
    try:
        redis.batch("FCALL sse_publish 1 user:42:events news 1" for _ in range(400))
        time.sleep(2.2)
    finally:
        gateway.child.send_signal(signal.SIGCONT)


def reconnect_storm(i):
    gateway = i.gateway(i.redis())
    i.watch(gateway)

    def come_and_go():
        token = ticket()
        for _ in range(300):
            with Stream(gateway.public, token=token) as stream:
                stream.until("sse.connected")

    i.over_scrapes(come_and_go)


FAULTS = {
    "SseGatewayDown": down,
    "SseGatewayRedisLinkDown": redis_link_down,
    "SseGatewayRedisLinkUnsteady": redis_link_unsteady,
    "SseGatewayTicksLate": ticks_late,
    "SseGatewayNoRecorder": no_recorder,
    "SseGatewayTwoRecorders": two_recorders,
    "SseGatewayNoStandby": no_standby,
    "SseGatewayEventsMayBeLost": events_may_be_lost,
    "SseGatewayHistoryTooShort": history_too_short,
    "SseGatewayUnknownIds": unknown_ids,
    "SseGatewayEventsRejected": events_rejected,
    "SseGatewayTicketsRefused": tickets_refused,
    "SseGatewayFull": full,
    "SseGatewayNearlyFull": nearly_full,
    "SseGatewayUsersFull": users_full,
    "SseGatewayQueuesOverflow": queues_overflow,
    "SseGatewayQueuesLarge": queues_large,
    "SseGatewaySlow": slow,
    "SseGatewayReconnectStorm": reconnect_storm,
}


def test_every_alert_has_a_fault():
    assert set(NAMES) == set(FAULTS) | {"SseGatewayAbsent"}


@pytest.mark.parametrize("alert", [n for n in NAMES if n in FAULTS])
def test_fault_fires(alert, prometheus, healthy):
    # Nothing of the fault before.
    eventually("the fault before is forgotten", lambda: prometheus.firing(alert, "fault") is None)
    with contextlib.ExitStack() as stack:
        FAULTS[alert](Installation(stack, prometheus))
        fired = eventually(f"{alert} fires", lambda: prometheus.firing(alert, "fault"))
    for text in fired["annotations"].values():
        assert text and "<no value>" not in text and "{{" not in text and "error" not in text, fired


def test_nothing_is_said_of_a_healthy_installation(prometheus, healthy):
    # Ticks and latencies depend on how busy this machine is; test_rules.py has their quiet case.
    said = prometheus.query('count by (alertname) (max_over_time(ALERTS{namespace="healthy", alertstate="firing", alertname!~"SseGateway(TicksLate|Slow)"}[1h]))')
    assert said == []
    assert prometheus.query('ALERTS{alertname="SseGatewayAbsent"}') == []


def test_absent_fires(prometheus, healthy):
    healthy_targets = prometheus.targets.pop("healthy")
    prometheus._write()
    try:
        assert eventually("SseGatewayAbsent fires", lambda: prometheus.firing("SseGatewayAbsent", None))
    finally:
        prometheus.targets["healthy"] = healthy_targets
        prometheus._write()

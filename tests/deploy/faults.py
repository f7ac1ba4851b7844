"""The fault of each alert, and installations that work normally.

Each fault creates its installation and yields its gateways. After Prometheus scraped them, the rest
of the function causes the fault.
"""

import contextlib
import json
import pathlib
import signal
import tempfile
import threading
import time

from harness import CLUSTER, SECRET, Gateway, KeySet, Redis, Stream, eventually, ticket
from prometheus import Prometheus
from redis_balancer import Balancer


class Installation:
    """The Redis, gateways and streams of one fault."""

    def __init__(self, stack: contextlib.ExitStack, name: str, prometheus: Prometheus):
        self.stack, self.name, self.prometheus = stack, name, prometheus

    def redis(self) -> Redis:
        return self.stack.enter_context(Redis())

    def cluster(self) -> list[Redis]:
        """Two masters of a cluster."""
        pair = [self.stack.enter_context(Redis(*CLUSTER)) for _ in range(2)]
        for number, (node, slots) in enumerate(zip(pair, ((0, 8191), (8192, 16383)))):
            node.cli("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            node.cli("CLUSTER", "ADDSLOTSRANGE", *slots)
        bus = pair[1].cli("CONFIG", "GET", "cluster-port").stdout.split()[1]
        pair[0].cli("CLUSTER", "MEET", "127.0.0.1", pair[1].port, bus)
        eventually(
            "the cluster is complete",
            lambda: all("cluster_state:ok" in node.cli("CLUSTER", "INFO").stdout for node in pair),
        )
        return pair

    def gateway(self, redis: Redis, **settings) -> Gateway:
        return self.stack.enter_context(Gateway(redis.url, **settings))

    def pair(self, redis: Redis) -> list[Gateway]:
        pair = [self.gateway(redis), self.gateway(redis)]
        eventually(
            "a writer and a standby",
            lambda: all(
                sum(g.metric(f'sse_recorder_role{{role="{role}"}}') for g in pair) == 1
                for role in ("writer", "standby")
            ),
        )
        return pair

    def stream(self, gateway: Gateway, *args, **options) -> Stream:
        return self.stack.enter_context(Stream(gateway.public, *args, **options))


def over_scrapes(act, times: int = 3):
    """Repeats an action with a scrape in between."""
    for _ in range(times):
        act()
        time.sleep(1.1)


def down(i):
    one, other = i.pair(i.redis())
    yield one, other
    one.kill()


def alone(i):
    one, other = i.pair(i.redis())
    yield one, other
    one.kill()
    i.prometheus.forget(i.name, one)


def redis_link_down(i):
    redis = i.redis()
    yield [i.gateway(redis)]
    redis.kill()


def redis_link_unsteady(i):
    redis = i.redis()
    gateway = i.gateway(redis)
    yield [gateway]
    for n in range(1, 6):
        redis.cli("CLIENT", "KILL", "TYPE", "pubsub")
        eventually(
            "the link is re-established",
            lambda: (
                gateway.metric("sse_redis_reconnects_total") >= n
                and gateway.metric("sse_redis_link_up") == 1
            ),
        )


def watermarks_late(i):
    redis = i.redis()
    yield [i.gateway(redis)]
    stop = threading.Event()

    def pause():
        # Redis is busy most of the time, but less than the 3 s after which the gateway reconnects.
        while not stop.is_set():
            redis.cli("CLIENT", "PAUSE", 2600, "ALL")
            stop.wait(2.8)

    thread = threading.Thread(target=pause, daemon=True)
    thread.start()
    i.stack.callback(lambda: (stop.set(), thread.join()))


def new_epochs(i):
    redis = i.redis()
    gateway = i.gateway(redis)
    yield [gateway]
    for n in range(1, 6):
        redis.cli("FLUSHALL")
        changes = "sse_epoch_changes_total"
        eventually("a new epoch", lambda: gateway.metric(changes) >= n)
        time.sleep(1.1)  # until the next scrape


def two_servers(i):
    balancer = i.stack.enter_context(Balancer(i.redis().port))
    gateway = i.gateway(balancer)
    yield [gateway]
    balancer.ports.append(i.redis().port)
    eventually("the other server is met", lambda: gateway.metric("sse_redis_rivals_total") > 6)


def slots_stuck(i):
    one, other = i.cluster()
    gateway = i.gateway(one, publishers__plain="off")
    yield [gateway]
    one.cli("CLUSTER", "SETSLOT", 1, "MIGRATING", other.cli("CLUSTER", "MYID").stdout.strip())


def no_recorder(i):
    redis = i.redis()
    yield i.pair(redis)
    # Another client holds the lease and records nothing.
    redis.cli("SET", "sse:lease:recorder:{broadcast}", "somebody")


def two_recorders(i):
    # A configuration error, present from the start.
    yield i.gateway(i.redis()), i.gateway(i.redis())


def no_standby(i):
    redis = i.redis()
    yield i.pair(redis)
    redis.cli("SET", "sse:lease:standby:{broadcast}", "somebody")


def events_may_be_lost(i):
    redis = i.redis()
    gateway = i.gateway(redis)
    stream = i.stream(gateway)
    stream.until("sse.connected")
    yield [gateway]
    redis.cli("FLUSHALL")
    assert json.loads(stream.until("sse.gap")["data"])["reason"] == "reset"


def history_too_short(i):
    redis = i.redis()
    gateway = i.gateway(redis, history__max_len=10)
    first = redis.cli("FCALL", "sse_publish", 1, "user:42:events", "news", "1").stdout.strip()
    redis.batch("FCALL sse_publish 1 user:42:events news 2" for _ in range(400))
    yield [gateway]

    def resume():
        for _ in range(10):
            with Stream(gateway.public, last_id=first) as stream:
                assert json.loads(stream.until("sse.gap")["data"])["reason"] == "trimmed"

    over_scrapes(resume)


def unknown_ids(i):
    gateway = i.gateway(i.redis())
    yield [gateway]

    def resume():
        for _ in range(10):
            with Stream(gateway.public, last_id="of-another-gateway") as stream:
                assert json.loads(stream.until("sse.gap")["data"])["reason"] == "unknown-id"

    over_scrapes(resume)


def events_rejected(i):
    redis = i.redis()
    gateway = i.gateway(redis)
    yield [gateway]
    redis.cli("PUBLISH", "user:42:events", '{"type":"sse.mine","payload":1}')
    eventually(
        "the event is rejected",
        lambda: gateway.metric('sse_rejected_total{reason="reserved-type"}') == 1,
    )


def tickets_refused(i):
    gateway = i.gateway(i.redis())
    yield [gateway]

    def connect_with_invalid_ticket():
        for _ in range(10):
            with Stream(gateway.public, token=ticket(secret="another secret")) as stream:
                assert stream.status == 401

    over_scrapes(connect_with_invalid_ticket)


def full(i):
    gateway = i.gateway(i.redis(), limits__max_connections=1)
    yield [gateway]
    # It turns no clients away, because a balancer sends none to an instance that is not ready.
    i.stream(gateway).until("sse.connected")
    eventually("the instance is not ready", lambda: "full" in gateway.get("/readyz")[1])


def turned_away(i):
    """The instance is full only between two scrapes."""
    gateway = i.gateway(i.redis(), limits__max_connections=1)
    yield [gateway]
    with Stream(gateway.public) as stream:
        stream.until("sse.connected")
        assert json.loads(i.stream(gateway).until("sse.busy")["data"])["reason"] == "full"
    eventually("the instance has room again", lambda: gateway.metric("sse_connections") == 0)


def nearly_full(i):
    gateway = i.gateway(i.redis(), limits__max_connections=5)
    yield [gateway]
    for _ in range(5):
        i.stream(gateway).until("sse.connected")


def users_full(i):
    gateway = i.gateway(i.redis(), limits__max_connections_per_user=1)
    i.stream(gateway).until("sse.connected")
    yield [gateway]

    def exceed_limit():
        for _ in range(20):
            with Stream(gateway.public) as stream:
                assert json.loads(stream.until("sse.busy")["data"])["reason"] == "user-full"

    over_scrapes(exceed_limit)


def slow_clients(i, clients: int, enough, **settings):
    """Publishes to clients that do not read, until `enough` returns true."""
    redis = i.redis()
    gateway = i.gateway(redis, **settings)
    for _ in range(clients):
        i.stream(gateway, receive_buffer=4096).until("sse.connected")
    yield [gateway]

    def publish():
        redis.cli("-x", "FCALL", "sse_publish", 1, "broadcast:news", "news", input="x" * 60_000)
        return enough(gateway)

    eventually("enough is queued", publish)


def queues_overflow(i):
    return slow_clients(
        i,
        40,
        lambda gateway: gateway.metric("sse_queue_overflows_total") >= 40,
        limits__queue_bytes="64KiB",
    )


def queues_large(i):
    # More than 80 % of the limit, but below the limit, where queues are dropped.
    return slow_clients(
        i,
        2,
        lambda gateway: gateway.metric("sse_queued_bytes") > 0.85 * (4 << 20),
        limits__queue_bytes="4MiB",
        limits__queue_bytes_total="4MiB",
    )


def slow(i):
    redis = i.redis()
    gateway = i.gateway(redis)
    i.stream(gateway).until("sse.connected")
    yield [gateway]

    # Stop the gateway for more than 1 s, so that events are late, but less than the 3 s after which
    # it reconnects and catches up without measuring. A busy machine may need several attempts.
    def pause():
        gateway.child.send_signal(signal.SIGSTOP)
        try:
            redis.batch("FCALL sse_publish 1 user:42:events news 1" for _ in range(400))
            time.sleep(1.2)
        finally:
            gateway.child.send_signal(signal.SIGCONT)
        time.sleep(0.5)
        measured, fast = (
            gateway.metric(f'sse_publish_to_write_seconds_bucket{{le="{le}"}}')
            for le in ("+Inf", "1")
        )
        return measured > fast

    eventually("late events are measured", pause)


def reconnect_storm(i):
    gateway = i.gateway(i.redis())
    yield [gateway]
    token, last_id = ticket(), None

    def come_and_go():
        nonlocal last_id
        for _ in range(300):
            with Stream(gateway.public, token=token, last_id=last_id) as stream:
                stream.until("sse.connected")
                last_id = stream.last_id

    over_scrapes(come_and_go)


def key_set_stale(i):
    issuer = KeySet(pathlib.Path(i.stack.enter_context(tempfile.TemporaryDirectory())))
    gateway = i.gateway(
        i.redis(),
        tickets__jwks_url=f"http://127.0.0.1:{issuer.port}/",
        tickets__jwks_cooldown="1s",
        tickets__jwks_refresh="1s",
    )
    yield [gateway]
    issuer.__exit__()
    eventually(
        "fetches of the key set fail",
        lambda: gateway.metric('sse_jwks_fetches_total{outcome="unreachable"}') >= 2,
    )


def reload_failed(i):
    secret = pathlib.Path(i.stack.enter_context(tempfile.TemporaryDirectory())) / "secret"
    secret.write_text(SECRET)
    gateway = i.gateway(i.redis(), tickets__secret=None, tickets__secret_file=secret)
    yield [gateway]
    secret.unlink()
    gateway.child.send_signal(signal.SIGHUP)
    eventually(
        "the reload fails", lambda: gateway.metric('sse_reloads_total{outcome="failed"}') >= 1
    )


def reader(i, **settings):
    """A Redis, and a gateway that reads the stream `orders` in it."""
    redis = i.redis()
    streams = json.dumps([{"stream": "orders", "channel": "broadcast:orders"}])
    gateway = i.gateway(redis, sources__redis_streams=streams, **settings)
    eventually(
        "the stream is read", lambda: gateway.metric('sse_source_reader{source="orders"}') == 1
    )
    return redis, gateway


def source_without_reader(i):
    redis, gateway = reader(i)
    yield [gateway]
    redis.cli("SET", "orders", "not a stream")


def source_late(i):
    rules = json.dumps([{"match": "broadcast:orders", "rate": 1}])
    redis, gateway = reader(i, channels=rules)
    yield [gateway]
    # Entries of two minutes ago, more than the rate allows.
    written_ms = int(time.time() * 1000) - 120_000
    for number in range(200):
        redis.cli("XADD", "orders", f"{written_ms}-{number}", "n", number)


def source_entries_lost(i):
    redis, gateway = reader(i)
    yield [gateway]
    # Another consumer receives an entry, and it is deleted.
    redis.cli(
        "EVAL",
        "redis.call('XADD', 'orders', '*', 'n', 1) "
        "redis.call('XREADGROUP', 'GROUP', 'sse-gateway', 'another', 'STREAMS', 'orders', '>') "
        "redis.call('XTRIM', 'orders', 'MAXLEN', 0)",
        0,
    )


def plain_off(i):
    """Durable publishes only, so no instance has to record plain publishes."""
    redis = i.redis()
    yield [i.gateway(redis, publishers__plain="off") for _ in range(2)]


def short_visits(i):
    """Many short visits: streams are opened often, but by new clients."""
    gateway = i.gateway(i.redis())
    yield [gateway]

    def visits():
        for n in range(300):
            with Stream(gateway.public, user=f"u{n}") as stream:
                stream.until("sse.connected")

    over_scrapes(visits)


def healthy(i):
    """Two gateways that work normally beside all faults."""
    redis = i.redis()
    pair = i.pair(redis)
    stop = threading.Event()

    def publish():
        while not stop.wait(0.5):
            redis.cli("FCALL", "sse_publish", 1, "user:42:events", "news", "{}")

    def read():
        with contextlib.suppress(EOFError), Stream(pair[0].public) as stream:
            while True:
                stream.next()

    publishing = threading.Thread(target=publish, daemon=True)
    publishing.start()
    threading.Thread(target=read, daemon=True).start()
    i.stack.callback(lambda: (stop.set(), publishing.join()))
    eventually("events are delivered", lambda: pair[0].metric("sse_deliveries_total") > 1)
    yield pair


FAULTS = {
    "SseGatewayDown": down,
    "SseGatewayAlone": alone,
    "SseGatewayRedisLinkDown": redis_link_down,
    "SseGatewayRedisLinkUnsteady": redis_link_unsteady,
    "SseGatewayWatermarksLate": watermarks_late,
    "SseGatewayNewEpochs": new_epochs,
    "SseGatewayTwoServers": two_servers,
    "SseGatewaySlotsStuck": slots_stuck,
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
    "SseGatewayKeySetStale": key_set_stale,
    "SseGatewayReloadFailed": reload_failed,
    "SseGatewaySourceWithoutReader": source_without_reader,
    # Each attempt to read it fails.
    "SseGatewaySourceFailing": source_without_reader,
    "SseGatewaySourceLate": source_late,
    "SseGatewaySourceEntriesLost": source_entries_lost,
}


# No alert may fire for these.
HEALTHY = {"healthy": healthy, "plain-off": plain_off, "short-visits": short_visits}

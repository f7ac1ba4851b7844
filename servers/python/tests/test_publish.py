"""What the library publishes is what the gateway delivers, with every client."""

import asyncio
import inspect
import os
import re
import signal
import time
import uuid

import pytest
import redis
import redis.asyncio
from conftest import SECRET

from sse_gateway import AsyncSseGateway, Raw, SseError, SseGateway

REDIS = os.environ["SSE_TEST_REDIS"]
GATEWAY = os.environ["SSE_TEST_GATEWAY"]
ID = re.compile(r"\d+-\d+\.[0-9a-z]+")


class Blocking:
    """An `AsyncSseGateway` with the methods of `SseGateway`."""

    def __init__(self, client, **settings):
        self.sse = AsyncSseGateway(client, **settings)
        self.loop = client and client.loop

    def __getattr__(self, name):
        member = getattr(self.sse, name)
        if not inspect.iscoroutinefunction(member):
            return member
        return lambda *args, **options: self.loop.run_until_complete(member(*args, **options))


def synchronous(url, **options):
    client = redis.Redis.from_url(url, **options)
    return SseGateway, client, client.close


def asynchronous(url, **options):
    loop = asyncio.new_event_loop()
    client = redis.asyncio.Redis.from_url(url, **options)
    client.loop = loop

    def close():
        loop.run_until_complete(client.aclose())
        loop.close()

    return Blocking, client, close


MAKERS = {
    "sync": synchronous,
    "sync, RESP2": lambda url: synchronous(url, protocol=2, decode_responses=True),
    "async": asynchronous,
    "async, RESP2": lambda url: asynchronous(url, protocol=2),
}


@pytest.fixture(params=MAKERS)
def connect(request):
    """Makes a class and a client of a URL."""
    ends = []

    def make(url=REDIS, **settings):
        cls, client, close = MAKERS[request.param](url)
        ends.append(close)
        return cls(client, **settings)

    yield make
    for end in ends:
        end()


@pytest.fixture(scope="module", autouse=True)
def unseen():
    """The channel and id of an event that nobody sees. It becomes undelivered meanwhile."""
    channel = f"user:{uuid.uuid4()}:events"
    with redis.Redis.from_url(REDIS) as client:
        event_id = SseGateway(client).publish(channel, "shipped", {"orderId": 7}, unseen="1s")
    return channel, event_id


def refused(call, code, retriable):
    with pytest.raises(SseError) as caught:
        call()
    assert (caught.value.code, caught.value.retriable) == (code, retriable), caught.value


def test_events_arrive_as_published(connect, listen):
    sse = connect(secret=SECRET)
    user = str(uuid.uuid4())
    stream = listen(GATEWAY, sse.ticket(user, topics=["news"], filter={"region": ["eu"]}))
    assert (stream.connected["user"], stream.connected["topics"]) == (user, ["news"])

    key = f"{user}-completed"
    first = sse.publish_to_user(user, "order-completed", {"total": 1.5, "ü": [None]}, key=key)
    assert ID.fullmatch(first)
    data = '{"total":1.5,"ü":[null]}'
    assert stream.next() == {"id": first, "event": "order-completed", "data": data}
    assert sse.publish_to_user(user, "order-completed", 2, key=key) == first

    text = sse.publish(f"user:{user}:events", "text", Raw('not "JSON"'), retry=1234)
    expected = {"id": text, "retry": "1234", "event": "text", "data": 'not "JSON"'}
    assert stream.next() == expected

    sse.publish_to_broadcast("news", "filtered", 1, tags={"region": "us"})
    sse.publish_to_broadcast("other", "not-permitted", 1)
    tags = {"region": "eu", "team": "x=y"}
    headline = sse.publish_to_broadcast("news", "headline", ["a"], tags=tags)
    assert stream.next() == {"id": headline, "event": "headline", "data": '["a"]'}

    assert sse.publish_to_user(user, "typing", None, ephemeral=True) == ""
    assert stream.next() == {"event": "typing", "data": "null"}

    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    traced = sse.publish_to_user(user, "traced", 1, traceparent=trace)
    assert stream.next() == {"id": traced, "event": "traced", "data": "1"}
    sse.publish_to_user(user, "untraced", 1, traceparent="")
    malformed = lambda: sse.publish_to_user(user, "traced", 1, traceparent="x")  # noqa: E731
    refused(malformed, "bad-traceparent", False)


def test_kept_values_reach_new_streams(connect, listen):
    sse = connect(secret=SECRET)
    user = str(uuid.uuid4())
    sse.publish_to_user(user, "price", 1, keep="btc")
    sse.publish_to_user(user, "price", 2, keep="btc")
    sse.publish_to_user(user, "price", 3, keep="eth")
    sse.publish_to_user(user, "price", None, forget="eth")
    stream = listen(GATEWAY, sse.ticket(user, topics=[]))
    assert stream.next()["event"] == "sse.snapshot"
    assert stream.next()["data"] == "2"
    sse.publish_to_user(user, "end", 1)
    assert stream.next()["event"] == "end"


def test_undelivered_events_are_read_and_acknowledged(connect, unseen):
    sse = connect()
    group = str(uuid.uuid4())
    (channel, event_id), found = unseen, []
    while not found:
        events = sse.undelivered(group, "first")
        found = [event for event in events if event.channel == channel]
        if not events:
            time.sleep(0.1)
    (event,) = found
    assert (event.id, event.type, event.payload) == (event_id, "shipped", '{"orderId":7}')
    # Another consumer gets it after `idle`, and nobody after it was acknowledged.
    assert event in sse.undelivered(group, "second", idle=0)
    sse.acknowledge(group, event)
    assert event not in sse.undelivered(group, "second", idle=0)


def test_errors_have_codes(connect):
    sse = connect()
    refused(lambda: sse.publish_to_user("42", "a", "x" * 70_000), "too-large", False)
    refused(lambda: sse.publish_to_user("42", "sse.a", 1), "reserved-type", False)
    both = {"ephemeral": True, "key": "k"}
    refused(lambda: sse.publish_to_user("42", "a", 1, **both), "bad-ephemeral", False)
    refused(lambda: sse.publish_to_user("4 2", "a", 1), "bad-user", False)
    refused(lambda: sse.publish_to_broadcast("a*", "a", 1), "bad-channel", False)
    refused(lambda: sse.publish("news", "a", 1), "bad-channel", False)
    for payload in [{1, 2}, float("nan"), "\ud800"]:
        refused(lambda: sse.publish_to_user("42", "a", payload), "bad-payload", False)
    with pytest.raises(TypeError, match="unknown option keyy"):
        sse.publish_to_user("42", "a", 1, keyy="k")
    absent = connect(key_prefix="absent:", retry_for=0)
    refused(lambda: absent.publish_to_user("42", "a", 1), "not-loaded", True)
    with redis.Redis.from_url(REDIS) as admin:
        admin.set("sse:log:{user:broken:events}", "1")
        admin.acl_setuser("nobody", enabled=True, nopass=True)
    refused(lambda: sse.publish_to_user("broken", "a", 1), "wrong-type", False)
    nobody = connect(REDIS.replace("//", "//nobody:any@"))
    refused(lambda: nobody.publish_to_user("42", "a", 1), "redis-error", False)


def test_lost_connections_are_retriable_with_a_key(connect):
    closed = connect(os.environ["SSE_TEST_CLOSED"], retry_for=0)
    refused(lambda: closed.publish_to_user("42", "a", 1), "redis-away", False)
    refused(lambda: closed.publish_to_user("42", "a", 1, key="k"), "redis-away", True)
    patient = connect(os.environ["SSE_TEST_CLOSED"], retry_for=0.3)
    started = time.monotonic()
    refused(lambda: patient.undelivered("emails", "c"), "redis-away", True)
    assert time.monotonic() - started > 0.05


def test_a_client_is_required():
    refused(lambda: SseGateway().publish_to_user("42", "a", 1), "no-redis", False)


def test_prefixes(connect, listen):
    prefixes = {"key_prefix": "shop-1:", "channel_prefix": "shop:"}
    sse = connect(secret=SECRET, retry_for=0, **prefixes)
    user = str(uuid.uuid4())
    ticket = sse.ticket(user, topics=["*"])
    stream = listen(os.environ["SSE_TEST_PREFIXED_GATEWAY"], ticket)
    first = sse.publish_to_user(user, "a", 1)
    assert stream.next()["id"] == first
    second = sse.publish("{broadcast}:news", "a", 1)
    assert stream.next()["id"] == second
    assert sse.undelivered(str(uuid.uuid4()), "c") == []


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_cluster(kind, listen):
    host, port = os.environ["SSE_TEST_CLUSTER"].split(",")[0].split(":")
    if kind == "sync":
        client = redis.RedisCluster(host=host, port=int(port))
        sse = SseGateway(client, secret=SECRET)
    else:
        loop = asyncio.new_event_loop()
        client = redis.asyncio.RedisCluster(host=host, port=int(port))
        client.loop = loop
        sse = Blocking(client, secret=SECRET)
    # Their slots are on all masters.
    for user in [f"{n}{uuid.uuid4()}" for n in range(6)]:
        ticket = sse.ticket(user, topics=["news"])
        stream = listen(os.environ["SSE_TEST_CLUSTER_GATEWAY"], ticket)
        sse.publish_to_user(user, "a", 1, key="k", keep="x")
        assert stream.next()["event"] == "a"
        sse.publish_to_broadcast("news", "b", 2)
        assert stream.next()["event"] == "b"
    refused(lambda: sse.publish_to_user("42", "sse.a", 1), "reserved-type", False)
    assert sse.undelivered("emails", "one") == []
    if kind == "sync":
        client.close()
    else:
        loop.run_until_complete(client.aclose())
        loop.close()


def test_client_of_one_node_reports_moved_slots():
    moved = 0
    for node in os.environ["SSE_TEST_CLUSTER"].split(","):
        with redis.Redis.from_url(f"redis://{node}") as client:
            try:
                SseGateway(client, retry_for=0).publish_to_user("42", "a", 1)
            except SseError as error:
                assert (error.code, error.retriable) == ("redis-away", True)
                moved += 1
    assert moved == 2


def test_unadopted_server_is_a_temporary_error(connect):
    sse = connect(os.environ["SSE_TEST_UNADOPTED"], retry_for=0)
    refused(lambda: sse.publish_to_user("42", "a", 1), "not-adopted", True)
    patient = connect(os.environ["SSE_TEST_UNADOPTED"], retry_for=0.3)
    started = time.monotonic()
    refused(lambda: patient.publish_to_user("42", "a", 1), "not-adopted", True)
    assert time.monotonic() - started > 0.05


# Last: it ends the state in which the server is not adopted.
def test_publishing_succeeds_once_a_gateway_adopts():
    with redis.Redis.from_url(os.environ["SSE_TEST_UNADOPTED"]) as client:
        impatient = SseGateway(client, retry_for=0)
        refused(lambda: impatient.publish_to_user("42", "a", 1), "not-adopted", True)
        os.kill(int(os.environ["SSE_TEST_STOPPED_GATEWAY"]), signal.SIGCONT)
        assert ID.fullmatch(SseGateway(client, retry_for=30).publish_to_user("42", "a", 1))

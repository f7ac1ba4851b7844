"""Clients and a publisher: load.py '{"gateway": ..., "redis": ..., "secret": ..., ...}'

Each client has a user of its own and behaves like a native EventSource: it comes back after
`retry` milliseconds with its last id, has no watchdog, and gives up after any status but 200.
The publisher numbers the events of each user, and those of one topic, which all clients receive.

Prints a line of JSON when all streams are open, one each second, and the result after the end of
standard input. It runs in the network of a node, so it uses the standard library only.
"""

import asyncio
import base64
import hashlib
import hmac
import json
import sys
import time
import uuid
from dataclasses import dataclass, field

TOPIC = "news"
EVENT = "numbered"


@dataclass
class Options:
    gateway: str
    redis: str
    secret: str
    clients: int
    rate: float  # events per second, one in ten to the topic

    def ticket(self, user: str) -> str:
        encode = lambda data: base64.urlsafe_b64encode(data).rstrip(b"=")
        now = int(time.time())
        claims = {
            "sub": user,
            "aud": "sse-gateway",
            "iat": now,
            "exp": now + 60,
            "jti": str(uuid.uuid4()),
            "topics": [TOPIC],
        }
        body = encode(b'{"alg":"HS256","typ":"JWT"}') + b"." + encode(json.dumps(claims).encode())
        digest = hmac.digest(self.secret.encode(), body, hashlib.sha256)
        return (body + b"." + encode(digest)).decode()


@dataclass
class Client:
    user: str
    options: Options
    received: dict[str, list[int]] = field(default_factory=dict)
    # Seconds since the epoch at which a stream after the first one began.
    reconnects: list[float] = field(default_factory=list)
    gaps: int = 0
    connected: bool = False
    opened: bool = False
    failure: str | None = None
    last_id: str = ""
    retry: float = 3.0

    async def run(self):
        ticket = self.options.ticket(self.user)
        while self.failure is None:
            writer = None
            try:
                reader, writer = await asyncio.open_connection(self.options.gateway, 8080)
                await self._stream(reader, writer, ticket)
            except (OSError, asyncio.IncompleteReadError):
                pass
            finally:
                self.connected = False
                if writer:
                    writer.close()
            await asyncio.sleep(self.retry)

    async def _stream(self, reader, writer, ticket: str):
        resume = f"Last-Event-ID: {self.last_id}\r\n" if self.last_id else ""
        writer.write(
            (
                f"GET /events?ticket={ticket} HTTP/1.1\r\nHost: gateway\r\n"
                f"Accept: text/event-stream\r\n{resume}\r\n"
            ).encode()
        )
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        status = int(head.split()[1])
        if status != 200:
            self.failure = f"status {status}"
            return
        self.connected = True
        if self.opened:
            self.reconnects.append(time.time())
        self.opened = True
        event: dict[str, str] = {}
        while line := await reader.readline():
            name, _, value = line.decode().rstrip("\r\n").partition(":")
            value = value.removeprefix(" ")
            if name == "id":
                self.last_id = value
            elif name == "retry":
                self.retry = int(value) / 1000
            elif name in ("event", "data"):
                event[name] = value
            elif line in (b"\n", b"\r\n"):
                self._take(event)
                event = {}

    def _take(self, event: dict[str, str]):
        if event.get("event") == "sse.gap":
            self.gaps += 1
        elif event.get("event") == EVENT:
            data = json.loads(event["data"])
            self.received.setdefault(data["channel"], []).append(data["number"])


class Publisher:
    """Publishes through the function library, and counts what Redis acknowledged."""

    def __init__(self, options: Options, clients: list[Client]):
        self.options, self.clients = options, clients
        self.sent: dict[str, int] = {}
        self.publishing = True

    async def run(self):
        reader, writer = await asyncio.open_connection(self.options.redis, 6379)
        turn, due = 0, time.monotonic()
        while self.publishing:
            user = self.clients[turn % len(self.clients)].user
            channel = f"user:{user}:events" if turn % 10 else f"broadcast:{TOPIC}"
            turn += 1
            number = self.sent.get(channel, 0)
            data = json.dumps({"channel": channel, "number": number})
            words = [w.encode() for w in ("FCALL", "sse_publish", "1", channel, EVENT, data)]
            writer.write(b"*%d\r\n" % len(words))
            writer.writelines(b"$%d\r\n%s\r\n" % (len(w), w) for w in words)
            answer = await reader.readline()
            if not answer.startswith(b"$"):
                raise RuntimeError(f"Redis: {answer.decode().strip() or 'connection closed'}")
            await reader.readexactly(int(answer[1:]) + 2)
            self.sent[channel] = number + 1
            due += 1 / self.options.rate
            await asyncio.sleep(max(0, due - time.monotonic()))

    def expected(self, client: Client) -> dict[str, int]:
        channels = (f"user:{client.user}:events", f"broadcast:{TOPIC}")
        return {c: self.sent[c] for c in channels if c in self.sent}


def lost(client: Client, publisher: Publisher) -> int:
    return sum(
        n - len(set(client.received.get(channel, ())))
        for channel, n in publisher.expected(client).items()
    )


def result(clients: list[Client], publisher: Publisher) -> dict:
    logs = [log for c in clients for log in c.received.values()]
    return {
        "published": sum(publisher.sent.values()),
        "received": sum(map(len, logs)),
        "lost": sum(lost(c, publisher) for c in clients),
        "duplicated": sum(len(log) - len(set(log)) for log in logs),
        "out_of_order": sum(log != sorted(log) for log in logs),
        "gaps": sum(c.gaps for c in clients),
        "failures": sorted({c.failure for c in clients if c.failure}),
        "reconnects": sorted(t for c in clients for t in c.reconnects),
    }


async def until_end_of_input():
    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
    await reader.read()


async def main():
    options = Options(**json.loads(sys.argv[1]))
    run = uuid.uuid4().hex[:8]
    clients = [Client(f"{run}-{n}", options) for n in range(options.clients)]
    publisher = Publisher(options, clients)
    streams = [asyncio.create_task(c.run()) for c in clients]
    end = asyncio.create_task(until_end_of_input())

    def report(**more):
        state = {
            "open": sum(c.connected for c in clients),
            "reconnects": sum(len(c.reconnects) for c in clients),
            "published": sum(publisher.sent.values()),
        }
        print(json.dumps(state | more), flush=True)

    while not all(c.connected for c in clients) and not end.done():
        await asyncio.sleep(0.05)
    report(ready=True)
    publishing = asyncio.create_task(publisher.run())
    while not end.done() and not publishing.done():
        await asyncio.wait([end, publishing], timeout=1, return_when=asyncio.FIRST_COMPLETED)
        report()
    publisher.publishing = False
    await publishing  # raises what stopped the publisher
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and any(lost(c, publisher) for c in clients):
        await asyncio.sleep(0.1)
    report(result=result(clients, publisher))
    for stream in streams:
        stream.cancel()


asyncio.run(main())

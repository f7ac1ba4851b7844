#!/usr/bin/env python3
"""Counts the instructions that the gateway executes, with callgrind, and compares them with
budget.json. The counts hardly depend on how busy the machine is, unlike times.

  measure.py GATEWAY [--update]

Prints the instructions per connect, delivery of a broadcast, event of one user, and resume. Exits
with 1 if one exceeds its budget by more than the tolerance, or is lower by as much: then run it
with --update and commit the new budget. Instructions of the kernel are not counted, so changes of
the number of system calls are visible only in `make bench`.
"""

import base64
import hashlib
import hmac
import json
import os
import re
import selectors
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BUDGET = Path(__file__).with_name("budget.json")
STREAMS = 300
BROADCASTS = 200
USER_EVENTS = 3000
IDLE_S = 5
SETTLE_S = 3
# valgrind runs the gateway about 50 times slower.
PATIENCE_S = 120
SECRET = b"a key of this measurement, not used anywhere else"
PAYLOAD = json.dumps({"filler": "x" * 240})


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(port):
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port))
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


class Redis:
    """Publishes, one command at a time."""

    def __init__(self, port):
        self.file = wait_for(port).makefile("rwb", buffering=0)

    def publish(self, channel):
        parts = ["FCALL", "sse_publish", "1", channel, "measured", PAYLOAD]
        command = f"*{len(parts)}\r\n" + "".join(f"${len(p)}\r\n{p}\r\n" for p in parts)
        self.file.write(command.encode())
        reply = self.file.readline()
        if not reply.startswith(b"$"):
            raise SystemExit(f"FCALL sse_publish: {reply!r}")
        self.file.readline()


def encoded(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def ticket(number):
    now = int(time.time())
    claims = {"sub": f"u{number}", "aud": "sse-gateway", "iat": now, "exp": now + 60,
              "jti": f"{number}-{time.monotonic_ns()}", "topics": ["news"]}
    parts = [json.dumps(part).encode() for part in ({"alg": "HS256", "typ": "JWT"}, claims)]
    signed = b".".join(encoded(part) for part in parts)
    signature = hmac.new(SECRET, signed, hashlib.sha256).digest()
    return (signed + b"." + encoded(signature)).decode()


class Streams:
    """The streams of all users, each with the text that it has received."""

    def __init__(self, port):
        self.port = port
        self.tickets = [ticket(number) for number in range(STREAMS)]
        self.selector = selectors.DefaultSelector()
        self.sockets = []
        self.texts = [""] * STREAMS

    def wait_until_ready(self):
        """Waits until the gateway is linked to Redis and admits a client."""
        deadline = time.monotonic() + PATIENCE_S
        text = b""
        while b"sse.connected" not in text:
            if time.monotonic() > deadline:
                raise SystemExit(f"the gateway is not ready: {text!r}")
            text = b""
            with socket.create_connection(("127.0.0.1", self.port)) as stream:
                path = f"/events?ticket={ticket(STREAMS)}"
                stream.sendall(f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
                while b"sse.connected" not in text and (piece := stream.recv(1 << 16)):
                    text += piece

    def open(self):
        last_ids = [re.findall(r"^id: (.*)$", text, re.M)[-1:] for text in self.texts]
        self.texts = [""] * STREAMS
        for number, (ticket, last_id) in enumerate(zip(self.tickets, last_ids)):
            stream = socket.create_connection(("127.0.0.1", self.port))
            resume = "".join(f"last-event-id: {value}\r\n" for value in last_id)
            head = f"GET /events?ticket={ticket} HTTP/1.1\r\nhost: x\r\n{resume}\r\n"
            stream.sendall(head.encode())
            self.selector.register(stream, selectors.EVENT_READ, number)
            self.sockets.append(stream)
        self.wait("event: sse.connected", 1)

    def close(self):
        for stream in self.sockets:
            self.selector.unregister(stream)
            stream.close()
        self.sockets = []

    def wait(self, what, count, numbers=None):
        """Waits until the streams have received a text so many times."""
        numbers = range(STREAMS) if numbers is None else numbers
        missing = {n for n in numbers if self.texts[n].count(what) < count}
        deadline = time.monotonic() + PATIENCE_S
        while missing:
            if time.monotonic() > deadline:
                raise SystemExit(f"{len(missing)} streams have not received {count} x {what!r}")
            for key, _ in self.selector.select(1):
                piece = key.fileobj.recv(1 << 16)
                if not piece:
                    raise SystemExit(f"a stream has ended: {self.texts[key.data][-400:]!r}")
                self.texts[key.data] += piece.decode()
                if self.texts[key.data].count(what) >= count:
                    missing.discard(key.data)


class Counter:
    """The instructions of the gateway since the last call."""

    def __init__(self, pid, directory):
        self.pid, self.directory, self.idle_per_s = str(pid), directory, 0
        self.start()

    def control(self, option):
        subprocess.run(["callgrind_control", option, self.pid], check=True,
                       stdout=subprocess.DEVNULL, timeout=PATIENCE_S)

    def start(self):
        self.control("--zero")
        self.began = time.monotonic()

    def taken(self):
        """Instructions since `start`, without those of the time that has passed."""
        seconds = time.monotonic() - self.began
        seen = set(self.directory.glob("counts.*"))
        self.control("--dump")
        new = max(set(self.directory.glob("counts.*")) - seen)
        text = new.read_text()
        total = int(re.search(r"^(?:totals|summary): (\d+)", text, re.M).group(1))
        self.start()
        return total - self.idle_per_s * seconds


def measure(gateway, directory):
    port, redis_port = free_port(), free_port()
    redis = subprocess.Popen(
        ["redis-server", "--port", str(redis_port), "--save", "", "--appendonly", "no",
         "--dir", str(directory)], stdout=subprocess.DEVNULL)
    settings = {
        "REDIS__URL": f"redis://127.0.0.1:{redis_port}",
        "SERVER__LISTEN": f"127.0.0.1:{port}",
        "SERVER__WORKERS": "1",
        "ADMIN__LISTEN": "127.0.0.1:0",
        "TICKETS__SECRET": SECRET.decode(),
        "LOG__LEVEL": "error",
        "DRAIN__DELAY": "0s",
        "DRAIN__WINDOW": "0s",
        # No heartbeat during a measurement, and enough time for all replies.
        "SERVER__HEARTBEAT": "10m",
        "REDIS__COMMAND_TIMEOUT": "30s",
    }
    environment = {f"SSE_GATEWAY__{name}": value for name, value in settings.items()}
    wait_for(redis_port).close()
    process = subprocess.Popen(
        ["valgrind", "--tool=callgrind", "--compress-strings=no",
         f"--callgrind-out-file={directory}/counts", "--quiet", gateway, "serve"],
        env={**os.environ, **environment}, stderr=subprocess.DEVNULL)
    try:
        publisher, streams = Redis(redis_port), Streams(port)
        wait_for(port).close()
        streams.wait_until_ready()
        # The first requests load what later ones find in memory.
        streams.open()
        streams.close()
        streams.tickets = [ticket(number) for number in range(STREAMS)]
        time.sleep(SETTLE_S)
        counter = Counter(process.pid, directory)
        streams.open()
        connect = counter.taken() / STREAMS
        # What follows the connects is over.
        time.sleep(SETTLE_S)
        counter.start()
        time.sleep(IDLE_S)
        idle_s = time.monotonic() - counter.began
        counter.idle_per_s = counter.taken() / idle_s
        for count in range(1, BROADCASTS + 1):
            publisher.publish("broadcast:news")
            streams.wait("event: measured", count)
        delivery = counter.taken() / (BROADCASTS * STREAMS)
        for event in range(USER_EVENTS):
            number = event % STREAMS
            publisher.publish(f"user:u{number}:events")
            streams.wait("event: measured", BROADCASTS + event // STREAMS + 1, [number])
        user_event = counter.taken() / USER_EVENTS
        streams.close()
        time.sleep(SETTLE_S)
        publisher.publish("broadcast:news")
        counter.start()
        streams.open()
        streams.wait("event: measured", 1)
        resume = counter.taken() / STREAMS
        return {"connect": connect, "delivery": delivery,
                "user_event": user_event, "resume": resume}
    finally:
        process.terminate()
        process.wait(PATIENCE_S)
        redis.terminate()
        redis.wait()


def main():
    gateway, options = sys.argv[1], sys.argv[2:]
    with tempfile.TemporaryDirectory() as directory:
        counts = {name: round(count) for name, count in measure(gateway, Path(directory)).items()}
    if "--update" in options:
        budget = json.loads(BUDGET.read_text())
        BUDGET.write_text(json.dumps({**budget, "instructions": counts}, indent=2) + "\n")
    budget = json.loads(BUDGET.read_text())
    failed = False
    for name, count in counts.items():
        expected = budget["instructions"][name]
        change = count / expected - 1
        is_off = abs(change) > budget["tolerance"][name]
        failed |= is_off
        print(f"{name:>12}: {count:>9,} instructions, budget {expected:>9,} ({change:+.1%})"
              + (" <- outside of the tolerance" if is_off else ""))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()

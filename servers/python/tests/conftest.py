"""What a gateway delivers, and Redis clients."""

import json
import os
import urllib.request

import pytest

SECRET = os.environ["TICKET_SECRET"]


class Stream:
    """Reads the stream of a ticket from now on."""

    def __init__(self, gateway, ticket):
        url = f"{gateway}/events?ticket={ticket}"
        self.response = urllib.request.urlopen(url, timeout=30)
        self.connected = json.loads(self.next()["data"])

    def next(self):
        """The next event, as its lines."""
        while True:
            lines = {}
            while True:
                line = self.response.readline().decode().rstrip("\n")
                if not line:
                    break
                name, _, value = line.partition(": ")
                lines[name] = value
            if lines.get("event", "sse.heartbeat") != "sse.heartbeat":
                return lines


@pytest.fixture
def listen():
    """Opens streams that are closed after the test."""
    opened = []

    def open_stream(gateway, ticket):
        opened.append(Stream(gateway, ticket))
        return opened[-1]

    yield open_stream
    for stream in opened:
        stream.response.close()

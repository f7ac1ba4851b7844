"""Receives with httpx-sse and prints each event as a line of JSON.

Usage: receive.py URL...

After a connection failure it resumes at the next URL with the last event id, as described in the
documentation of httpx-sse.
"""

import json
import sys
import time

import httpx
from httpx_sse import connect_sse

last_event_id = ""
retry = 0
with httpx.Client(timeout=httpx.Timeout(10, read=30)) as client:
    for url in sys.argv[1:]:
        time.sleep(retry / 1000)
        headers = {"last-event-id": last_event_id} if last_event_id else {}
        try:
            with connect_sse(client, "GET", url, headers=headers) as source:
                source.response.raise_for_status()
                for event in source.iter_sse():
                    last_event_id = event.id
                    if event.retry is not None:
                        retry = event.retry
                    line = {"type": event.event, "data": event.data, "id": event.id}
                    print(json.dumps(line), flush=True)
        except httpx.TransportError as error:
            print(f"the connection failed: {error!r}", file=sys.stderr, flush=True)

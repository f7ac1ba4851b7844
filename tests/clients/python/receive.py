"""Receives with httpx-sse and prints each event as a line of JSON: receive.py URL...

When a stream breaks it goes on at the next URL with the last event id, as the documentation of httpx-sse describes.
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
                    print(json.dumps({"type": event.event, "data": event.data, "id": event.id}), flush=True)
        except httpx.TransportError as error:
            print(f"the stream broke: {error!r}", file=sys.stderr, flush=True)

"""Publishes with redis-py.

Usage: publish.py URL plain CHANNEL MESSAGE
       publish.py URL durable CHANNEL TYPE PAYLOAD (prints the id)
"""

import sys

import redis

url, mode, *words = sys.argv[1:]
with redis.Redis.from_url(url, decode_responses=True) as client:
    if mode == "plain":
        channel, message = words
        client.publish(channel, message)
    else:
        channel, kind, payload = words
        print(client.fcall("sse_publish", 1, channel, kind, payload))

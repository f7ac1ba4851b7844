"""What the synchronous and the asynchronous class have in common."""

from __future__ import annotations

import random
import time
from datetime import datetime
from typing import Any, Mapping, Optional, Protocol, Sequence, Union

from ._errors import SseError, from_redis
from ._names import function_name
from ._tickets import Tickets

_FIRST_PAUSE = 0.05
_MAX_PAUSE = 0.5

class Client(Protocol):
    """A client of redis-py, or of redis.asyncio."""

    def fcall(self, function: str, numkeys: int, /, *args: Any) -> Any: ...

    def xgroup_create(
        self, name: Any, groupname: Any, id: Any = ..., mkstream: bool = ...
    ) -> Any: ...

    def xautoclaim(
        self,
        name: Any,
        groupname: Any,
        consumername: Any,
        min_idle_time: int,
        start_id: Any = ...,
        count: Any = ...,
    ) -> Any: ...

    def xreadgroup(
        self, groupname: str, consumername: str, streams: Any, count: Any = ...
    ) -> Any: ...

    def xack(self, name: Any, groupname: Any, /, *ids: Any) -> Any: ...


class Gateway:
    """Settings, and tickets."""

    def __init__(
        self,
        redis: Optional[Client] = None,
        *,
        secret: Union[str, bytes, None] = None,
        audience: str = "sse-gateway",
        issuer: Optional[str] = None,
        key_id: Optional[str] = None,
        max_ttl: int = 60,
        key_prefix: str = "sse:",
        channel_prefix: str = "",
        retry_for: float = 3.0,
    ) -> None:
        """
        - `redis`: a client of redis-py, for publishing.
        - `secret`, `audience`, `issuer`, `key_id` (the `kid`), `max_ttl` (in seconds):
          as in the gateway's settings of tickets.
        - `key_prefix`, `channel_prefix`: the gateway's `redis.key_prefix` and
          `redis.channel_prefix`.
        - `retry_for`: how long temporary errors are retried, in seconds; 0: never.
        """
        self._redis = redis
        self._tickets = (
            Tickets(secret, audience, issuer, key_id, max_ttl) if secret is not None else None
        )
        self._function = function_name(key_prefix)
        self._prefix = channel_prefix
        self._stream = f"{key_prefix}undelivered:{{{channel_prefix}broadcast}}"
        self._retry_for = retry_for

    def ticket(
        self,
        user: str,
        *,
        topics: Optional[Sequence[str]] = None,
        filter: Optional[Mapping[str, Sequence[str]]] = None,
        presence: bool = False,
        ttl: int = 30,
        session_expires: Union[datetime, float, None] = None,
    ) -> str:
        """Signs a ticket for a user that you have authenticated. It is for one connection.

        - `topics`: names, `prefix*` or `*`. Default: `tickets.default_topics` of the gateway.
        - `filter`: only events whose tags have one of these values; events without the tag pass.
        - `presence`: whether the ticket also gets the events of presence.
        - `ttl`: within which time the first connection must be made, in seconds.
        - `session_expires`: when the stream ends: a datetime, or seconds since 1970.
        """
        if self._tickets is None:
            raise SseError("bad-secret", "the setting secret is missing")
        return self._tickets.sign(user, topics, filter, presence, ttl, session_expires)

    def _client(self) -> Client:
        if self._redis is None:
            raise SseError("no-redis", "the setting redis is missing")
        return self._redis


class Retries:
    """Decides whether a call that failed is repeated."""

    def __init__(self, retry_for: float, is_repeatable: bool) -> None:
        self._end = time.monotonic() + retry_for
        self._is_repeatable = is_repeatable
        self._delay = _FIRST_PAUSE

    def pause(self, cause: Exception) -> float:
        """The pause before the next attempt, in seconds. Raises the error if it is final."""
        error = from_redis(cause, self._is_repeatable)
        # Clients that failed together must not retry together.
        wait = self._delay * random.uniform(0.5, 1)
        self._delay = min(2 * self._delay, _MAX_PAUSE)
        if not error.retriable or time.monotonic() + wait > self._end:
            raise error from cause
        return wait

"""The asynchronous class."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, List, Protocol

from ._base import Gateway, Retries
from ._errors import FAILURES, from_redis
from ._events import Undelivered, arguments, claimed, identifier, read
from ._names import channel_key, check_user

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ._events import PublishOptions


class AsyncRedis(Protocol):
    """`redis.asyncio.Redis` or `redis.asyncio.RedisCluster`."""

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


class AsyncSseGateway(Gateway[AsyncRedis]):
    """Publishes events and issues tickets, with asyncio."""

    async def publish(
        self, channel: str, type: str, payload: object, **options: Unpack[PublishOptions]
    ) -> str:
        """Publishes an event on `user:<id>:events` or `broadcast:<topic>`.

        The payload is any JSON value, or `Raw`. Returns the event's id, which is empty for an
        ephemeral event. Raises `SseError`.
        """
        key = channel_key(channel, self._prefix)
        args = arguments(type, payload, options)
        # Retries errors that end by themselves, if the event cannot be published twice.
        retries = Retries(self._retry_for, options.get("key") is not None)
        while True:
            try:
                return identifier(await self._client().fcall(self._function, 1, key, *args))
            except FAILURES as error:
                pause = retries.pause(error)
            await asyncio.sleep(pause)

    async def publish_to_user(
        self, user: str, type: str, payload: object, **options: Unpack[PublishOptions]
    ) -> str:
        """Publishes an event for all streams of a user."""
        check_user(user)
        return await self.publish(f"user:{user}:events", type, payload, **options)

    async def publish_to_broadcast(
        self, topic: str, type: str, payload: object, **options: Unpack[PublishOptions]
    ) -> str:
        """Publishes an event for all streams whose ticket has the topic."""
        return await self.publish(f"broadcast:{topic}", type, payload, **options)

    async def undelivered(
        self, group: str, consumer: str, *, count: int = 100, idle: float = 60.0
    ) -> List[Undelivered]:
        """Reads up to `count` undelivered events as a consumer of a group.

        First those that another consumer read `idle` seconds ago and did not acknowledge, then new
        ones. Does not wait for events.
        """
        redis, stream = self._client(), self._stream
        try:
            await self._create_group(group)
            idle_ms = int(idle * 1000)
            found = claimed(
                await redis.xautoclaim(stream, group, consumer, idle_ms, "0-0", count=count)
            )
            if found:
                return found
            return read(await redis.xreadgroup(group, consumer, {stream: ">"}, count=count))
        except FAILURES as error:
            raise from_redis(error, True) from error

    async def acknowledge(self, group: str, *events: Undelivered) -> None:
        """Acknowledges undelivered events: no consumer of the group gets them again."""
        if not events:
            return
        try:
            await self._client().xack(self._stream, group, *(event.entry for event in events))
        except FAILURES as error:
            raise from_redis(error, True) from error

    async def _create_group(self, group: str) -> None:
        try:
            await self._client().xgroup_create(self._stream, group, id="0", mkstream=True)
        except FAILURES as error:
            if not str(error).startswith("BUSYGROUP"):
                raise

"""The asynchronous class."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Awaitable, Callable, List, TypeVar

from ._base import Gateway, Retries
from ._errors import FAILURES
from ._events import Undelivered, arguments, claimed, identifier, read
from ._names import channel_key, check_user

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ._events import PublishOptions

Result = TypeVar("Result")


class AsyncSseGateway(Gateway):
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
        is_repeatable = options.get("key") is not None
        return identifier(
            await self._retry(
                is_repeatable, lambda: self._client().fcall(self._function, 1, key, *args)
            )
        )

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
        return await self._retry(True, lambda: self._undelivered(group, consumer, count, idle))

    async def acknowledge(self, group: str, *events: Undelivered) -> None:
        """Acknowledges undelivered events: no consumer of the group gets them again."""
        if events:
            entries = [event.entry for event in events]
            await self._retry(True, lambda: self._client().xack(self._stream, group, *entries))

    async def _undelivered(
        self, group: str, consumer: str, count: int, idle: float
    ) -> List[Undelivered]:
        redis, stream = self._client(), self._stream
        try:
            await redis.xgroup_create(stream, group, id="0", mkstream=True)
        except FAILURES as error:
            if not str(error).startswith("BUSYGROUP"):
                raise
        idle_ms = int(idle * 1000)
        found = claimed(
            await redis.xautoclaim(stream, group, consumer, idle_ms, "0-0", count=count)
        )
        if found:
            return found
        return read(await redis.xreadgroup(group, consumer, {stream: ">"}, count=count))

    async def _retry(self, is_repeatable: bool, call: Callable[[], Awaitable[Result]]) -> Result:
        """Retries errors that end by themselves.

        `is_repeatable`: also those that leave it unknown whether the call was executed.
        """
        retries = Retries(self._retry_for, is_repeatable)
        while True:
            try:
                return await call()
            except FAILURES as error:
                pause = retries.pause(error)
            await asyncio.sleep(pause)

"""The synchronous class."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Callable, List, TypeVar

from ._base import Gateway, Retries
from ._errors import FAILURES
from ._events import Undelivered, arguments, claimed, identifier, read
from ._names import channel_key, check_user

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ._events import PublishOptions

Result = TypeVar("Result")


class SseGateway(Gateway):
    """Publishes events and issues tickets."""

    def publish(
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
            self._retry(
                is_repeatable, lambda: self._client().fcall(self._function, 1, key, *args)
            )
        )

    def publish_to_user(
        self, user: str, type: str, payload: object, **options: Unpack[PublishOptions]
    ) -> str:
        """Publishes an event for all streams of a user."""
        check_user(user)
        return self.publish(f"user:{user}:events", type, payload, **options)

    def publish_to_broadcast(
        self, topic: str, type: str, payload: object, **options: Unpack[PublishOptions]
    ) -> str:
        """Publishes an event for all streams whose ticket has the topic."""
        return self.publish(f"broadcast:{topic}", type, payload, **options)

    def undelivered(
        self, group: str, consumer: str, *, count: int = 100, idle: float = 60.0
    ) -> List[Undelivered]:
        """Reads up to `count` undelivered events as a consumer of a group.

        First those that another consumer read `idle` seconds ago and did not acknowledge, then new
        ones. Does not wait for events.
        """
        return self._retry(True, lambda: self._undelivered(group, consumer, count, idle))

    def acknowledge(self, group: str, *events: Undelivered) -> None:
        """Acknowledges undelivered events: no consumer of the group gets them again."""
        if events:
            entries = [event.entry for event in events]
            self._retry(True, lambda: self._client().xack(self._stream, group, *entries))

    def _undelivered(
        self, group: str, consumer: str, count: int, idle: float
    ) -> List[Undelivered]:
        redis, stream = self._client(), self._stream
        try:
            redis.xgroup_create(stream, group, id="0", mkstream=True)
        except FAILURES as error:
            if not str(error).startswith("BUSYGROUP"):
                raise
        idle_ms = int(idle * 1000)
        found = claimed(
            redis.xautoclaim(stream, group, consumer, idle_ms, "0-0", count=count)
        )
        if found:
            return found
        return read(redis.xreadgroup(group, consumer, {stream: ">"}, count=count))

    def _retry(self, is_repeatable: bool, call: Callable[[], Result]) -> Result:
        """Retries errors that end by themselves.

        `is_repeatable`: also those that leave it unknown whether the call was executed.
        """
        retries = Retries(self._retry_for, is_repeatable)
        while True:
            try:
                return call()
            except FAILURES as error:
                pause = retries.pause(error)
            time.sleep(pause)

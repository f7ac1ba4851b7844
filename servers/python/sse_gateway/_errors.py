"""The error of all functions, and what the errors of Redis mean."""

from __future__ import annotations

import re

from redis import exceptions


class SseError(Exception):
    """Why a ticket was not issued or an event was not published.

    `code` is a short name of the problem that does not change, for example `too-large`.
    `retriable`: the same call may succeed later, and cannot publish the event twice.
    """

    def __init__(self, code: str, message: str, retriable: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.retriable = retriable


FAILURES = (exceptions.RedisError, exceptions.RedisClusterException)
"""The errors of redis-py."""

_TEMPORARY_CODES = ("not-adopted", "too-often")

# These end by themselves, and the command was not executed. redis-py removes the first word of the
# errors that it has a class for.
_TEMPORARY_CLASSES = (
    exceptions.AskError,
    exceptions.BusyLoadingError,
    exceptions.ClusterDownError,
    exceptions.MasterDownError,
    exceptions.ReadOnlyError,
    exceptions.TryAgainError,
)
_TEMPORARY = re.compile(
    "(MOVED|ASK|TRYAGAIN|CLUSTERDOWN|LOADING|MASTERDOWN|NOREPLICAS|READONLY|BUSY) "
)


def from_redis(cause: Exception, is_repeatable: bool) -> SseError:
    """The error of a command that failed.

    `is_repeatable`: it may be sent again although it is unknown whether it was executed.
    """
    text = str(cause)
    rejected = re.match("SSE ([a-z0-9-]+): (.*)", text, re.DOTALL)
    if rejected:
        code, reason = rejected.groups()
        return SseError(code, reason, code in _TEMPORARY_CODES)
    if "Function not found" in text:
        return SseError(
            "not-loaded",
            "the function of the gateway is missing: no gateway has connected to this Redis server"
            " yet, or key_prefix is not its redis.key_prefix",
            True,
        )
    if isinstance(cause, _TEMPORARY_CLASSES) or _TEMPORARY.match(text):
        return SseError("redis-away", text, True)
    if isinstance(cause, exceptions.ResponseError):
        return SseError("redis-error", text)
    return SseError("redis-away", f"Redis has not replied: {text}", is_repeatable)

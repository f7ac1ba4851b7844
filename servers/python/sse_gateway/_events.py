"""The arguments of a publish, and undelivered events."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, List, Mapping, TypedDict

from ._errors import SseError


class PublishOptions(TypedDict, total=False):
    """Options of an event.

    - `key`: idempotency key. A second event with it is dropped, and has the id of the first one.
    - `retry`: the event's `retry:`, in ms.
    - `keep`: keeps the event as the channel's current value for this key.
    - `forget`: publishes the event, and removes the value that was kept for this key.
    - `ephemeral`: delivers the event live only. It is not stored and has no id.
    - `tags`: labels for the `filter` of tickets.
    - `unseen`: reports the event as undelivered if the user does not get it within this time,
      such as `30s`.
    - `traceparent`: the publisher's trace (W3C trace context). An empty text is no trace.
    """

    key: str
    retry: int
    keep: str
    forget: str
    ephemeral: bool
    tags: Mapping[str, str]
    unseen: str
    traceparent: str


@dataclass(frozen=True)
class Raw:
    """A payload that is published as it is, for example JSON that you have as a text."""

    text: str


@dataclass(frozen=True)
class Undelivered:
    """An event that its user was not handed in time."""

    entry: str
    """The entry's id, for `acknowledge`."""
    channel: str
    id: str
    type: str
    payload: str
    """As published: usually JSON."""


_WITH_VALUE = ("key", "retry", "keep", "forget", "unseen")
_KNOWN = (*_WITH_VALUE, "ephemeral", "tags", "traceparent")


def arguments(type: str, payload: object, options: Mapping[str, Any]) -> List[str]:
    """The arguments of the gateway's function after the channel."""
    unknown = set(options) - set(_KNOWN)
    if unknown:
        raise TypeError(f"unknown option {', '.join(unknown)}; use {', '.join(_KNOWN)}")
    args = [type, _serialize(payload)]
    for name in _WITH_VALUE:
        if options.get(name) is not None:
            args += [name.upper(), str(options[name])]
    if options.get("traceparent"):
        args += ["TRACE", options["traceparent"]]
    if options.get("ephemeral"):
        args.append("EPHEMERAL")
    tags = options.get("tags")
    if tags:
        args += ["TAGS", *(f"{name}={value}" for name, value in tags.items())]
    return args


def _serialize(payload: object) -> str:
    if isinstance(payload, Raw):
        return payload.text
    try:
        # Without NaN and infinity, which are not JSON, and without halves of surrogate pairs.
        text = json.dumps(payload, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise SseError("bad-payload", f"the payload is not JSON: {error}") from error
    return text


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def identifier(reply: object) -> str:
    """The id in the reply of the gateway's function."""
    return _text(reply)


def _undelivered(entry: Any) -> Undelivered:
    id, fields = entry
    named = {_text(name): _text(value) for name, value in fields.items()}
    event = (named.get(name, "") for name in ("channel", "id", "type", "payload"))
    return Undelivered(_text(id), *event)


def claimed(reply: Any) -> List[Undelivered]:
    """The events in the reply of XAUTOCLAIM. Entries that were trimmed are `None` in Redis 6."""
    return [_undelivered(entry) for entry in reply[1] if entry[1] is not None]


def read(reply: Any) -> List[Undelivered]:
    """The events in the reply of XREADGROUP for one stream."""
    if not reply:
        return []
    if isinstance(reply, dict):  # RESP3
        (entries,) = reply.values()
        entries = entries[0] if entries and isinstance(entries[0], list) else entries
    else:
        ((_, entries),) = reply
    return [_undelivered(entry) for entry in entries]

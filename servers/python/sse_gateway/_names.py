"""Users, topics, filters and channels."""

from __future__ import annotations

import re
from typing import Mapping, Sequence

from ._errors import SseError

_NAME = re.compile(r"[!-)+\-./0-9:;<=>@A-Z^_`a-z|~]{1,256}")
_NAME_RULE = "1 to 256 printable ASCII characters without space, comma and * ? [ ] { } \\"
_TAG_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_TAG_VALUE = re.compile(r"[^\s\x00-\x1f\x7f-\x9f]+")
_MAX_TOPICS = 256
_MAX_TAGS = 8
_MAX_FILTER_VALUES = 64
_MAX_TAG_BYTES = 256


def _is_name(value: object) -> bool:
    return isinstance(value, str) and _NAME.fullmatch(value) is not None


def check_user(user: object) -> None:
    if not _is_name(user):
        raise SseError("bad-user", f"user must have {_NAME_RULE} (got {user!r:.80})")


def check_topics(topics: Sequence[str]) -> None:
    def is_pattern(topic: object) -> bool:
        if not isinstance(topic, str):
            return False
        prefix = topic[:-1] if topic.endswith("*") else topic
        return topic == "*" or _is_name(prefix)

    is_list = isinstance(topics, (list, tuple))
    if not is_list or len(topics) > _MAX_TOPICS or not all(map(is_pattern, topics)):
        raise SseError(
            "bad-topics",
            "topics must be a list of at most 256 names, `prefix*` or `*`; a name has"
            f" {_NAME_RULE} (got {topics!r:.80})",
        )


def check_filter(filter: Mapping[str, Sequence[str]]) -> None:
    def is_value(value: object) -> bool:
        return (
            isinstance(value, str)
            and _TAG_VALUE.fullmatch(value) is not None
            and len(value.encode()) <= _MAX_TAG_BYTES
        )

    def is_tag(name: object, values: object) -> bool:
        return (
            isinstance(name, str)
            and _TAG_NAME.fullmatch(name) is not None
            and isinstance(values, (list, tuple))
            and 1 <= len(values) <= _MAX_FILTER_VALUES
            and all(map(is_value, values))
        )

    is_object = isinstance(filter, Mapping) and 1 <= len(filter) <= _MAX_TAGS
    if not is_object or not all(is_tag(*tag) for tag in filter.items()):
        raise SseError(
            "bad-filter",
            "filter must have 1 to 8 tags, each with a list of 1 to 64 values without spaces, such"
            f' as {{"region": ["eu"]}} (got {filter!r:.80})',
        )


def channel_key(channel: str, prefix: str) -> str:
    """The key of a channel in Redis.

    A broadcast's key names the slot that all broadcasts share, which a cluster requires.
    """
    user = re.fullmatch("user:(.*):events", channel, re.DOTALL)
    if user and _is_name(user[1]):
        return prefix + channel
    topic = re.fullmatch(r"(?:broadcast|\{broadcast\}):(.*)", channel, re.DOTALL)
    if topic and _is_name(topic[1]):
        return f"{{{prefix}broadcast}}:{topic[1]}"
    raise SseError(
        "bad-channel",
        f"the channel must be user:<id>:events or broadcast:<topic>, with {_NAME_RULE}"
        f" (got {channel!r:.80})",
    )


def function_name(key_prefix: str) -> str:
    """The gateway names its functions after its key prefix: `shop-1:` becomes `shop_1`."""
    trimmed = re.sub("^[^a-zA-Z0-9]+|[^a-zA-Z0-9]+$", "", key_prefix)
    return (re.sub("[^a-zA-Z0-9]", "_", trimmed) or "sse") + "_publish"

"""Publishes events to sse-gateway and issues tickets for it."""

from ._async import AsyncSseGateway
from ._errors import SseError
from ._events import PublishOptions, Raw, Undelivered
from ._sync import SseGateway

__all__ = [
    "AsyncSseGateway",
    "PublishOptions",
    "Raw",
    "SseError",
    "SseGateway",
    "Undelivered",
]

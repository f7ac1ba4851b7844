"""Signs tickets: JWT with HS256, which needs no library."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
import uuid
from datetime import datetime
from typing import Any, Mapping, Optional, Sequence, Union

from ._errors import SseError
from ._names import check_filter, check_topics, check_user

_MIN_SECRET_BYTES = 32
_MAX_TICKET_BYTES = 8192


class Tickets:
    """Signs tickets with the gateway's secret."""

    def __init__(
        self,
        secret: Union[str, bytes],
        audience: str,
        issuer: Optional[str],
        key_id: Optional[str],
        max_ttl: int,
    ) -> None:
        self._secret = secret.encode() if isinstance(secret, str) else secret
        if len(self._secret) < _MIN_SECRET_BYTES:
            raise SseError("bad-secret", "secret must have at least 32 bytes")
        self._audience = audience
        self._issuer = issuer
        self._max_ttl = max_ttl
        self._header = _present({"alg": "HS256", "typ": "JWT", "kid": key_id})

    def sign(
        self,
        user: str,
        topics: Optional[Sequence[str]],
        filter: Optional[Mapping[str, Sequence[str]]],
        presence: bool,
        ttl: int,
        session_expires: Union[datetime, float, None],
    ) -> str:
        check_user(user)
        if topics is not None:
            check_topics(topics)
        if filter is not None:
            check_filter(filter)
        if type(ttl) is not int or not 1 <= ttl <= self._max_ttl:
            raise SseError(
                "bad-ttl",
                f"ttl must be an integer number of seconds from 1 to {self._max_ttl} (got {ttl})",
            )
        iat = int(time.time())
        end = None if session_expires is None else _session_end(session_expires, iat)
        claims = {
            "sub": user,
            "aud": self._audience,
            "iss": self._issuer,
            "iat": iat,
            "exp": iat + ttl,
            "jti": str(uuid.uuid4()),
            "topics": topics,
            "filter": filter and dict(filter),
            "presence": presence or None,
            "session_exp": end,
        }
        body = _encode(self._header) + b"." + _encode(_present(claims))
        mac = hmac.new(self._secret, body, hashlib.sha256).digest()
        ticket = (body + b"." + _base64(mac)).decode()
        if len(ticket) > _MAX_TICKET_BYTES:
            raise SseError(
                "ticket-too-long",
                "the ticket is longer than 8 KiB; use fewer topics, or patterns such as team-*",
            )
        return ticket


def _session_end(end: Union[datetime, float], now: int) -> int:
    seconds = end.timestamp() if isinstance(end, datetime) else end
    # A number of milliseconds would be a date in a distant future.
    if not now < seconds < 1e11:
        raise SseError(
            "bad-session-expires",
            "session_expires must be a datetime in the future, or its seconds since 1970"
            f" (got {end})",
        )
    return int(seconds)


def _present(members: Mapping[str, Any]) -> Mapping[str, Any]:
    return {name: value for name, value in members.items() if value is not None}


def _base64(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def _encode(value: Mapping[str, Any]) -> bytes:
    return _base64(json.dumps(value, separators=(",", ":")).encode())

"""The gateway accepts what `ticket` signs, and `ticket` rejects what the gateway would."""

import base64
import json
import os
import time
from datetime import datetime, timedelta, timezone

import pytest
from conftest import SECRET

from sse_gateway import SseError, SseGateway


def part(ticket, n):
    text = ticket.split(".")[n]
    return json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))


def test_claims():
    sse = SseGateway(secret=SECRET)
    claims = part(sse.ticket("42"), 1)
    iat, jti = claims.pop("iat"), claims.pop("jti")
    assert abs(iat - time.time()) < 30
    assert claims == {"sub": "42", "aud": "sse-gateway", "exp": iat + 30}
    assert part(sse.ticket("42"), 1)["jti"] != jti

    end = datetime.now(timezone.utc) + timedelta(hours=1)
    settings = {"audience": "a", "issuer": "i", "key_id": "k", "max_ttl": 3600}
    other = SseGateway(secret=SECRET.encode(), **settings)
    ticket = other.ticket(
        "42", topics=[], filter={"a": ["b"]}, presence=True, ttl=3600, session_expires=end
    )
    claims = part(ticket, 1)
    iat = claims.pop("iat")
    del claims["jti"]
    assert claims == {
        "sub": "42",
        "aud": "a",
        "iss": "i",
        "exp": iat + 3600,
        "topics": [],
        "filter": {"a": ["b"]},
        "presence": True,
        "session_exp": int(end.timestamp()),
    }
    assert part(ticket, 0) == {"alg": "HS256", "typ": "JWT", "kid": "k"}


def test_gateway_accepts_every_claim(listen):
    ticket = SseGateway(secret=SECRET).ticket(
        "a:b@c",
        topics=["news", "team-*", "*"],
        filter={"x-y_z.1": ["é", "b"]},
        presence=True,
        ttl=60,
        session_expires=time.time() + 60,
    )
    assert listen(os.environ["SSE_TEST_GATEWAY"], ticket).connected["user"] == "a:b@c"


def names(count):
    return [f"n{n}" for n in range(count)]


LETTERS = ["", "a b", "a,b", "a*", "a?", "[a", "a]", "{a}", "a\\", "ä", "a\n", "x" * 257, 42]
WRONG = [
    *(("bad-user", {"user": user}) for user in LETTERS),
    *(
        ("bad-topics", {"topics": topics})
        for topics in ["news", ["a b"], ["a*b"], [""], names(257), [1]]
    ),
    *(
        ("bad-filter", {"filter": filter})
        for filter in [
            {},
            {"a": "b"},
            {"a": []},
            {"a b": ["c"]},
            {"a": ["b c"]},
            {"a": names(65)},
            dict.fromkeys(names(9), ["a"]),
        ]
    ),
    *(("bad-ttl", {"ttl": ttl}) for ttl in [0, 61, 1.5, True]),
    *(("bad-session-expires", {"session_expires": end}) for end in [1, time.time() * 1000]),
    ("ticket-too-long", {"topics": [name + "x" * 60 for name in names(256)]}),
]


@pytest.mark.parametrize(("code", "members"), WRONG, ids=lambda value: str(value)[:40])
def test_wrong_ticket_is_reported(code, members):
    with pytest.raises(SseError) as caught:
        SseGateway(secret=SECRET).ticket(**{"user": "42", **members})
    assert (caught.value.code, caught.value.retriable) == (code, False)


@pytest.mark.parametrize("secret", ["x" * 31, b"", None])
def test_short_secret_is_reported(secret):
    with pytest.raises(SseError, match="secret") as caught:
        SseGateway(secret=secret).ticket("42")
    assert caught.value.code == "bad-secret"


def test_every_allowed_character_is_accepted():
    allowed = "".join(c for c in map(chr, range(33, 127)) if c not in ",*?[]{}\\")
    SseGateway(secret="ä" * 16).ticket(allowed)

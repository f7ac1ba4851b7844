//! `docs/reference/events.md`

use sse_gateway::core::reasons::{BusyReason, CloseReason, GapReason};

use super::{assemble, code, table};

const WIRE: &str = "\
This page describes what `GET /events` sends: your events, and the gateway's own events, whose
names begin with `sse.`.

## Your events

```text
id: 1763719000789-0.k3f9x2
event: order-completed
data: {\"orderId\":7}
```

- `id` is the event's id. It is opaque: keep the last one, and do not compare ids.
  [Retained values](../concepts/retained-values.md) and
  [ephemeral events](../concepts/ephemeral-events.md) have no `id:` line, so the last id remains. In
  a [poll](../guides/polling.md) they have `\"id\":null`.
- `event` is the type that the publisher chose, `message` by default.
- `data` is the payload, byte for byte. CR, LF and CRLF each start a new `data:` line, which the
  browser joins with `\\n`.
- `retry` is present if the publisher set one.

Frames of a stream end with an empty line. All text is UTF-8.

## The gateway's events

Their data is JSON. Only `sse.gap` needs code in your application, and `sse.snapshot` if you use
retained values.

| event | data | what a front end does |
|---|---|---|
| `sse.connected` | `connectionId`, `user`, `topics`, `resumed` | Nothing. It is the first event of every stream |
| `sse.heartbeat` | `timestamp` (ms) | Nothing. It is sent when a stream was idle for `server.heartbeat` (15 s), and carries a current id. If none arrives for 45 s, the network is dead: close the stream and connect again |
| `sse.gap` | `reason`, `channels`, `from` (the client's last id) | **Load the state again from the backend**, and keep listening |
| `sse.snapshot` | `covers`, `channels` | Discards the values of keys that it does not list; the current values follow |
| `sse.closing` | `reason` | Nothing. The stream ends, and the browser reconnects after `retry:` |
| `sse.busy` | `reason` | Nothing. It is the whole response, and the browser reconnects after `retry:`. If it lasts, show \"offline\" |

`sse.connected` has an `id:` line. On a resume it is the client's own last id; with `since` it
stands for that time.
Its `user` is `null` for a client
[without a ticket](../guides/authentication-without-url-token.md#topics-without-a-ticket).
While [retained values](#ssesnapshot) are missing, ids end with `!`.
The first frame of a stream has a `retry:` of `server.retry` plus a random part of up to the same
again.";

const PRESENCE: &str = "\
## sse.online and sse.offline

[Presence](../guides/presence.md) events, on the channel `broadcast:presence`.
Only tickets with the claim `presence` get them.

| event | data | when |
|---|---|---|
| `sse.online` | `user` | the first stream of a user on any instance has begun |
| `sse.offline` | `user` | the last stream of a user ended `presence.linger` (10 s) ago, and the user has not come back |

They are stored like your events: they have an `id:` line, and a resume repeats them.";

const GAP: &str = "\
## sse.gap

The gateway sends `sse.gap` if it cannot prove that the stream is complete.
`trimmed` and `unknown-id` mean that events were lost or cannot be identified.
`reset`, `unrecorded` and `expired` mean that events may have been lost.

`channels` does not name channels
[with `keep = \"required\"`](../guides/channel-rules.md#channels-of-retained-values) if their
retained values follow, and there is no `sse.gap` if no other channel remains.
With `unrecorded` it names all channels.";

const SNAPSHOT: &str = "\
## sse.snapshot

Precedes the [retained values](../concepts/retained-values.md) of a stream that began now (without
a last event id and without `since`), or in which events are missing (usually after `sse.gap`).

```text
event: sse.snapshot
data: {\"covers\":[\"user:42:events\",\"broadcast:*\"],\"channels\":{\"broadcast:prices\":[\"btc\",\"eth\"]}}
```

- `channels` has the current keys of each channel with retained values, as far as the client's
  [filter](../concepts/filters-and-tags.md) lets it receive them.
- `covers` has the channels, and patterns of channels, about which `channels` is complete: a key of
  one of these that is not listed has no value.
- The values follow as ordinary events without `id:`, in the order in which they were published,
  then `sse.heartbeat`.
- Until then, the last event id ends with `!`: a client that resumes from it gets `sse.snapshot` and
  the values again.
- A stream that begins gets `sse.snapshot` only if there are values. After `sse.gap` it is also sent
  if its channels had values within `history.kept_retention`, so that clients discard keys that were
  forgotten meanwhile.
- On a Redis Cluster there may be two, one for each of the stream's sources.
- A gap (`unrecorded`) of a stream that misses nothing that was recorded is not followed by
  `sse.snapshot`.
- A stream that resumes may get `sse.snapshot` and the values without `sse.gap`, if only channels
  [with `keep = \"required\"`](../guides/channel-rules.md#channels-of-retained-values) have a gap.";

const CLOSING: &str = "\
## sse.closing

The reason is also the label of `sse_connections_closed_total`.";

const SILENT: &str = "\
Three more reasons appear only in the metric, since the client cannot be notified:";

const BUSY: &str = "\
## sse.busy

The response has status 200, because a native `EventSource` never reconnects after any other status.
A poll or a history gets status 503 (429 for `too-often`) with `Retry-After` instead.";

fn gap(reason: GapReason) -> [&'static str; 2] {
    match reason {
        GapReason::Trimmed => [
            "The client missed more events than a log keeps (`history.max_len`, or `max_len` of a \
             [channel rule](../guides/channel-rules.md)), more were published since the \
             time in `since`, or more topics were active than a resume reads",
            "the remaining events, then live",
        ],
        GapReason::Expired => [
            "The client was disconnected for longer than the retention of a channel \
             (`history.retention`, or a [channel rule](../guides/channel-rules.md#retention)) or \
             `since` is longer ago, and its log cannot prove that nothing was published",
            "the remaining events, then live",
        ],
        GapReason::Unrecorded => [
            "Plain publishes may have been made while no recorder was running. Durable events \
             are complete",
            "all recorded events, then live",
        ],
        GapReason::Reset => [
            "Redis was wiped, restarted, restored from a file or replaced by a replica; its last \
             events may be lost",
            "the remaining events, then live",
        ],
        GapReason::UnknownId => [
            "The last event id was not issued by this gateway, is in the future, or is older \
             than the session; or `since` is",
            "live events from now on",
        ],
    }
}

/// Why the gateway ends a stream and what happens next; without the latter the client gets no
/// `sse.closing`.
fn closing(reason: CloseReason) -> (&'static str, Option<&'static str>) {
    match reason {
        CloseReason::Draining => {
            ("the instance is shutting down", Some("reconnects in 1–3 s, to another instance"))
        }
        CloseReason::MaxAge => (
            "`server.max_connection_age` was reached; streams move to balance the load",
            Some("reconnects after `server.retry`; no event is lost"),
        ),
        CloseReason::TakenOver => (
            "the same ticket connected again (never if it is in a cookie)",
            Some(
                "this client waits for 60 s, then longer each time. If it was another tab, get a \
                 ticket for each tab",
            ),
        ),
        CloseReason::SessionOver => (
            "`session_exp` or `tickets.max_session` was reached",
            Some("the next attempt gets a 401: get a new ticket"),
        ),
        CloseReason::Revoked => (
            "an operator ended the user's sessions",
            Some("the next attempt gets a 401; your backend decides whether to issue a ticket"),
        ),
        CloseReason::ClientGone => ("the client closed the connection", None),
        CloseReason::Stalled => {
            ("the client acknowledged nothing for `limits.stall` while bytes were in flight", None)
        }
        CloseReason::PollDone => ("the poll was answered", None),
    }
}

fn busy(reason: BusyReason) -> [&'static str; 2] {
    match reason {
        BusyReason::Full => [
            "`limits.max_connections` of this instance is reached; for a poll or a history also: \
             unread responses take their part of `limits.queue_bytes_total`; for a history also: \
             16 are being read",
            "10–30 s",
        ],
        BusyReason::UserFull => [
            "`limits.max_connections_per_user` is reached: too many tabs, or a loop that opens \
             streams",
            "10–30 s",
        ],
        BusyReason::AnonymousFull => [
            "`limits.anonymous_connections` of this instance is reached: clients without a \
             ticket",
            "10–30 s",
        ],
        BusyReason::AddressFull => [
            "`limits.anonymous_connections_per_address` is reached: clients without a ticket",
            "10–30 s",
        ],
        BusyReason::TooOften => [
            "`limits.connects_per_address_per_minute`, `limits.connects_per_user_per_minute` or \
             `limits.anonymous_connects_per_address_per_minute` is reached",
            "10–30 s",
        ],
        BusyReason::RedisAway => {
            ["Redis is unavailable. Open streams stay open and catch up later", "10–30 s"]
        }
        BusyReason::KeysAway => [
            "the ticket's key is unknown, and `tickets.jwks_url` cannot be fetched. Tickets \
             with a known key are accepted",
            "10–30 s",
        ],
        BusyReason::Draining => [
            "the instance is shutting down; also sent by a [proxy](../guides/reverse-proxies.md) \
             that reaches no gateway",
            "1–3 s; from a proxy 10–30 s",
        ],
    }
}

pub fn page() -> String {
    let owned = |row: &[&str]| row.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
    let gaps = GapReason::ALL.iter().map(|r| {
        let row = owned(&gap(*r));
        [code(r.name()), row[0].clone(), row[1].clone()]
    });
    let gaps = table(["`reason`", "what happened", "what follows"], gaps);
    let all = || CloseReason::ALL.iter().map(|r| (r.name(), closing(*r)));
    let notified = all()
        .filter_map(|(name, (why, next))| Some([code(name), why.to_owned(), next?.to_owned()]));
    let notified = table(["`reason`", "why", "what happens next"], notified);
    let silent = all().filter(|(_, (_, next))| next.is_none());
    let silent = silent.map(|(name, (why, _))| [code(name), why.to_owned()]);
    let silent = table(["`reason`", "why"], silent);
    let busy = BusyReason::ALL.iter().map(|r| {
        let row = owned(&busy(*r));
        [code(r.name()), row[0].clone(), row[1].clone()]
    });
    let busy = table(["`reason`", "why", "`retry:`"], busy);
    assemble(
        "Events",
        &[WIRE, PRESENCE, GAP, &gaps, SNAPSHOT, CLOSING, &notified, SILENT, &silent, BUSY, &busy],
    )
}

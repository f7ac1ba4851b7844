//! `docs/reference/errors.md`

use std::collections::{BTreeMap, BTreeSet};

use sse_gateway::core::{
    envelope::Rejection,
    reasons::{BusyReason, TicketRejection},
};

use super::{assemble, code, table};
use crate::names::http_codes;

const INTRODUCTION: &str = "\
An error response is JSON:

```json
{\"error\":\"ticket-expired\",\"message\":\"the ticket has expired and has no session; get a new ticket\"}
```

`error` is one of the codes below and does not change between releases of the same major version.
`message` names the problem and the fix; its wording may change.

## Rejected tickets

Status 401 on `GET /events`, `GET /events/poll` and `GET /events/history`.
It means that this URL will never work again: get a new ticket.
The code is also the label of `sse_tickets_refused_total`.";

const OTHERS: &str = "## Other responses";

const EVENTS: &str = "\
## Rejected events

`POST /publish` returns these with a status.
`FCALL sse_publish` returns a Redis error `SSE <code>: <text>`, and `SSE usage: <text>` if
arguments are missing.

A plain `PUBLISH` has no reply that could carry an error.
A rejected message is counted in `sse_rejected_total` and stored with its channel and the reason
in the capped stream `sse:rejected:{broadcast}`:

```sh
redis-cli XREVRANGE sse:rejected:{broadcast} + - COUNT 10
```";

fn ticket(fault: TicketRejection) -> &'static str {
    match fault {
        TicketRejection::Missing => {
            "no `Authorization: Bearer` header, no `ticket` in the query and no cookie \
             (`tickets.cookie`), and `tickets.anonymous_topics` is empty; or an empty ticket"
        }
        TicketRejection::Malformed => {
            "not a JWT, longer than 8 KiB, or its header has `crit` (no extension is supported)"
        }
        TicketRejection::UnknownKey => {
            "no key is configured for its `kid`, and the key set of `tickets.jwks_url` has none"
        }
        TicketRejection::WrongAlgorithm => {
            "its `alg` is not the algorithm of the key (`none` never is)"
        }
        TicketRejection::BadSignature => "signed with a different key",
        TicketRejection::MissingClaim => "a required claim is missing; the message names it",
        TicketRejection::BadClaim => "a claim has the wrong type, for example `exp` as a string",
        TicketRejection::BadSubject => "`sub` is not a valid user id, for example a number",
        TicketRejection::WrongAudience => "`aud` is not `tickets.audience`",
        TicketRejection::WrongIssuer => "`iss` is not `tickets.issuer`",
        TicketRejection::Expired => "`exp` has passed, and there is no session to resume",
        TicketRejection::NotYetValid => "`nbf` or `iat` is in the future: compare the clocks",
        TicketRejection::TooLongLived => {
            "`exp - iat` exceeds `tickets.max_ttl`, or in a cookie `tickets.cookie_max_ttl`"
        }
        TicketRejection::Used => {
            "it was used before, and `tickets.reconnect_grace` is 0 (never in a cookie)"
        }
        TicketRejection::SessionOver => "`session_exp` or `tickets.max_session` has passed",
        TicketRejection::CookieMissing => {
            "the session is bound to a cookie (`tickets.session_cookie`) that the request does \
             not have: another browser opened it"
        }
        TicketRejection::SessionRevoked => {
            "the user's sessions were revoked after the ticket was signed"
        }
    }
}

fn event(refusal: Rejection) -> [&'static str; 2] {
    match refusal {
        Rejection::BadChannel => {
            ["400", "neither `user:<id>:events` nor `broadcast:<topic>`; also of a history"]
        }
        Rejection::BadType => {
            ["400", "the type is not a string of 1 to 128 bytes without control characters"]
        }
        Rejection::ReservedType => ["400", "the type begins with `sse.`"],
        Rejection::BadKey => ["400", "the idempotency key is not a string of 1 to 256 bytes"],
        Rejection::BadRetry => ["400", "`retry` is not an integer of ms between 0 and one day"],
        Rejection::TooLarge => [
            "413",
            "the payload exceeds `history.max_event_bytes`, or `max_event_bytes` of the \
             [channel's rule](../guides/channel-rules.md), or the body exceeds \
             `limits.publish_body_bytes`",
        ],
        Rejection::NotUtf8 => ["400", "the message is not UTF-8"],
        Rejection::BadKeep => [
            "400",
            "`keep` or `forget` is not a string of 1 to 256 bytes without control characters, or \
             the event has both",
        ],
        Rejection::BadTags => [
            "400",
            "the tags are not 1 to 8 different names of up to 64 letters, digits and `_ . -`, \
             with values of up to 256 bytes without spaces",
        ],
        Rejection::BadUnseen => {
            ["400", "`unseen` is not a duration from `1s` to `7d`, or the channel is a broadcast"]
        }
        Rejection::BadTraceParent => [
            "400",
            "`traceparent` has not the form of W3C trace context, such as \
             `00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01`",
        ],
        Rejection::BadEphemeral => [
            "400",
            "`ephemeral` is neither true nor false, or an ephemeral event has an `id`, `keep`, \
             `forget` or `unseen`, which need storage",
        ],
        Rejection::NeedsKeep => [
            "400",
            "the rule of the channel has `keep = \"required\"`, and the event has neither `keep` \
             nor `forget`",
        ],
        Rejection::TooManyKept => [
            "409",
            "the channel has `history.max_kept` retained values; forget some, or use fewer keys",
        ],
        Rejection::TooManyUnseen => [
            "409",
            "1,000 events of the user wait to be seen; publish again when their time is over",
        ],
        Rejection::NotStored => [
            "none",
            "plain publishes only: `publishers.plain` is `relay`, which stores nothing, and the \
             event has `keep`, `forget` or `unseen`. Publish it durably",
        ],
        Rejection::WrongType => [
            "409",
            "a key in Redis that the event needs has a value that the gateway never writes; the \
             message names the key. Delete it \
             ([how](../operations/runbook.md#foreign-data-in-the-gateways-keys)), then publish \
             again",
        ],
        Rejection::TooOften => [
            "429",
            "the channel has more events per second than its \
             [rule](../guides/channel-rules.md#rate) allows; publish again after `Retry-After`",
        ],
        Rejection::BadEntry => [
            "none",
            "entries of external sources only: the entry lacks a field that the settings name; the \
             log names it. A notification of Postgres, at most 7,999 bytes, must be a JSON object \
             with `channel` and `payload`",
        ],
    }
}

/// Codes that the HTTP layer writes as literals. A test compares them with the code.
const HTTP: &[(&str, &str, &str)] = &[
    (
        "bad-topics",
        "400",
        "`topics` contains something other than up to 256 names, `prefix*` or `*`",
    ),
    (
        "bad-since",
        "400",
        "`since` is not a duration (`15m`), a time of RFC 3339 or ms since 1970, or it is in the \
         future, or the request has `after`, too",
    ),
    ("bad-after", "400", "`after` is not an id of this gateway"),
    ("bad-until", "400", "`until` is not an id of this gateway"),
    ("bad-limit", "400", "`limit` is not an integer from 1 to 1000"),
    ("not-allowed", "403", "the ticket does not allow the channel of `GET /events/history`"),
    ("bad-wait", "400", "`wait` is not a number from 0 to 30"),
    ("bad-request", "400", "the request, its query or its body is invalid; the message states why"),
    ("api-key-missing", "401", "no API key"),
    ("api-key-unknown", "401", "the API key is not configured"),
    ("scope-missing", "403", "the API key is valid, but lacks the scope for this endpoint"),
    (
        "not-found",
        "404",
        "no such path; also `POST /publish` and `POST /tickets` if `api_keys` is empty",
    ),
    (
        "origin-not-allowed",
        "403",
        "a preflight, or a request whose ticket is in the cookie of `tickets.cookie`, from an \
         origin that is not in `cors.allowed_origins`; `*` does not allow cookies",
    ),
    ("presence-disabled", "409", "`GET /presence` without `presence.enabled`"),
    ("method-not-allowed", "405", "the `Allow` header names the method of this endpoint"),
    ("body-timeout", "408", "the body of a POST did not arrive within 10 s"),
    (
        "expectation-failed",
        "417",
        "an `Expect` other than `100-continue`; the connection is closed",
    ),
    (
        "head-too-long",
        "431",
        "request line and headers exceed 16 KiB or 96 fields; the connection is closed",
    ),
    (
        "not-adopted",
        "503",
        "`POST /publish`: no gateway has confirmed yet that this Redis server is the primary \
         ([Fence](../operations/redis.md#fence)); retry after `Retry-After`",
    ),
    (
        "redis-refused",
        "409",
        "the API of the admin page: Redis refused a command, for example because of a permission; \
         the message names it",
    ),
    ("not-signed", "500", "`POST /tickets`: the key cannot sign"),
    ("no-signing-key", "501", "`POST /tickets`: only public keys are configured"),
    (
        "coding-not-supported",
        "501",
        "a `Transfer-Encoding` other than `chunked`; the connection is closed",
    ),
    (
        "version-not-supported",
        "505",
        "neither HTTP/1.0, HTTP/1.1 nor HTTP/2; the connection is closed",
    ),
];

/// The status and explanation that polls and backends get instead of `sse.busy`.
fn busy(reason: BusyReason) -> [&'static str; 2] {
    match reason {
        BusyReason::Full
        | BusyReason::UserFull
        | BusyReason::AnonymousFull
        | BusyReason::AddressFull
        | BusyReason::KeysAway
        | BusyReason::Draining => [
            "503",
            "polls and histories: see [sse.busy](events.md#ssebusy); retry after `Retry-After`",
        ],
        BusyReason::RedisAway => [
            "503",
            "polls, histories, publishing and revoking: Redis is unavailable; retry after \
             `Retry-After`",
        ],
        BusyReason::TooOften => [
            "429",
            "a poll or a history, or a POST whose API key reached `limits.posts_per_key_per_second`; \
             on the admin listener, an address that sent 60 unknown API keys within a minute; \
             retry after `Retry-After`",
        ],
    }
}

pub fn page() -> String {
    let tickets = TicketRejection::ALL.iter().map(|f| [code(f.name()), ticket(*f).to_owned()]);
    let tickets = table(["code", "problem"], tickets);
    let http =
        HTTP.iter().map(|(name, status, text)| [code(name), status.to_string(), text.to_string()]);
    let later = BusyReason::ALL.iter().map(|r| {
        let [status, text] = busy(*r);
        [code(r.name()), status.to_owned(), text.to_owned()]
    });
    let others = table(["code", "status", "problem"], http.chain(later));
    let events = Rejection::ALL.iter().map(|r| {
        let [status, text] = event(*r);
        [code(r.code()), status.to_owned(), text.to_owned()]
    });
    let events = table(["code", "status", "problem"], events);
    assemble("Errors", &[INTRODUCTION, &tickets, OTHERS, &others, EVENTS, &events])
}

/// The status of each code that an HTTP response may have.
pub fn statuses() -> BTreeMap<&'static str, u16> {
    let tickets = TicketRejection::ALL.iter().map(|t| (t.name(), "401"));
    let http = HTTP.iter().map(|(name, status, _)| (*name, *status));
    let busy = BusyReason::ALL.iter().map(|r| (r.name(), busy(*r)[0]));
    let events = Rejection::ALL.iter().map(|r| (r.code(), event(*r)[0]));
    let all = tickets.chain(http).chain(busy).chain(events);
    all.filter_map(|(code, status)| Some((code, status.parse().ok()?))).collect()
}

#[test]
fn documented_error_codes_match_the_http_layer() {
    let enums = TicketRejection::ALL.iter().map(|f| f.name());
    let enums = enums.chain(Rejection::ALL.iter().map(|r| r.code()));
    let enums: BTreeSet<&str> = enums.chain(BusyReason::ALL.iter().map(|r| r.name())).collect();
    let in_code = http_codes();
    let in_code: BTreeSet<&str> =
        in_code.iter().map(String::as_str).filter(|c| !enums.contains(c)).collect();
    let documented: BTreeSet<&str> = HTTP.iter().map(|(name, ..)| *name).collect();
    assert_eq!(documented, in_code);
}

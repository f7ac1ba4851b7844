//! The gateway's own events, `sse.*`, and their reasons (ARCHITECTURE.md#gaps).

use bytes::Bytes;
use serde::Serialize;
use serde_json::json;

use super::{frame, id::EventId};

macro_rules! reasons {
    ($(#[$meta:meta])* $name:ident {
        $($(#[$doc:meta])* $variant:ident = $text:literal),* $(,)?
    }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$doc])* $variant),* }

        impl $name {
            /// Every value.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// Name in events, metrics and logs.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $text),* }
            }
        }
    };
}

reasons! {
    /// Reason for an `sse.gap`.
    GapReason {
        /// The cursor is older than the retention, and the log cannot prove that no event expired.
        Expired = "expired",
        /// Events past the cursor were trimmed from the log.
        Trimmed = "trimmed",
        /// Redis was wiped, restored or replaced, so the order of ids is broken.
        Reset = "reset",
        /// Plain publishes may be missing from the log.
        Unrecorded = "unrecorded",
        /// The cursor cannot be parsed or is ahead of the clock.
        UnknownId = "unknown-id",
    }
}

reasons! {
    /// Why a connection was closed; the label of `sse_connections_closed_total`.
    CloseReason {
        /// The client disconnected.
        ClientGone = "client-gone",
        /// The instance is shutting down.
        Draining = "draining",
        /// `server.max_connection_age` was reached.
        MaxAge = "max-age",
        /// `session_exp` or `tickets.max_session` was reached.
        SessionOver = "session-over",
        /// A newer connection of the same session took over.
        TakenOver = "taken-over",
        /// An operator ended the user's sessions.
        Revoked = "revoked",
        /// The client acknowledged no byte for `limits.stall`.
        Stalled = "stalled",
        /// The response to a poll was sent.
        PollDone = "poll-done",
    }
}

reasons! {
    /// Why a ticket is refused: the code of the 401, and the label of `sse_tickets_refused_total`.
    TicketRejection {
        /// The request has no ticket.
        Missing = "ticket-missing",
        /// The ticket is not a JWT, or is too long.
        Malformed = "ticket-malformed",
        /// No configured or fetched key has its `kid`.
        UnknownKey = "ticket-unknown-key",
        /// Its `alg` differs from the algorithm of the key.
        WrongAlgorithm = "ticket-wrong-algorithm",
        /// The signature does not match the key.
        BadSignature = "ticket-bad-signature",
        /// A required claim is missing.
        MissingClaim = "ticket-missing-claim",
        /// A claim has the wrong type or an invalid value.
        BadClaim = "ticket-bad-claim",
        /// `sub` is not a valid user id.
        BadSubject = "ticket-bad-subject",
        /// `aud` is not `tickets.audience`.
        WrongAudience = "ticket-wrong-audience",
        /// `iss` is not `tickets.issuer`.
        WrongIssuer = "ticket-wrong-issuer",
        /// `exp` has passed, and the ticket has no session.
        Expired = "ticket-expired",
        /// `nbf` or `iat` is in the future.
        NotYetValid = "ticket-not-yet-valid",
        /// `exp - iat` exceeds `tickets.max_ttl`.
        TooLongLived = "ticket-too-long-lived",
        /// The ticket was used before, and `tickets.reconnect_grace` is 0.
        Used = "ticket-used",
        /// `session_exp` or `tickets.max_session` has passed.
        SessionOver = "session-over",
        /// The request lacks the session's cookie: another browser opened the session.
        CookieMissing = "session-cookie-missing",
        /// The user's sessions were revoked.
        SessionRevoked = "session-revoked",
    }
}

reasons! {
    /// Reason for an `sse.busy`.
    BusyReason {
        /// `limits.max_connections` is reached.
        Full = "full",
        /// `limits.max_connections_per_user` is reached.
        UserFull = "user-full",
        /// `limits.connects_per_address_per_minute` or `limits.connects_per_user_per_minute` is
        /// reached.
        TooOften = "too-often",
        /// Redis cannot be reached.
        RedisAway = "redis-away",
        /// The ticket's key is unknown, and the issuer's key set cannot be fetched.
        KeysAway = "keys-away",
        /// The instance is shutting down.
        Draining = "draining",
    }
}

reasons! {
    /// Why a connection reads missed events from the log.
    CatchUpCause {
        /// The client sent a cursor.
        Resume = "resume",
        /// The connection's queue was dropped.
        Overflow = "overflow",
        /// The link to Redis broke, or a worker could not keep up.
        Link = "link",
        /// A new epoch began: Redis was wiped, restored or replaced.
        Epoch = "epoch",
        /// A live event names a predecessor that the stream has not received.
        Predecessor = "predecessor",
    }
}

/// `sse.connected`, the first frame of a stream.
pub struct Connected<'a> {
    /// `retry:` hint in ms.
    pub retry_ms: u64,
    /// The cursor; `None` if the client's cursor cannot be sent back.
    pub id: Option<EventId>,
    /// Id of this connection.
    pub connection: &'a str,
    /// The user.
    pub user: &'a str,
    /// The topics of the stream.
    pub topics: Vec<String>,
    /// Whether the stream resumes from the client's cursor.
    pub resumed: bool,
}

impl Connected<'_> {
    /// Encodes the event as an SSE frame.
    pub fn frame(&self) -> Bytes {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Data<'a> {
            connection_id: &'a str,
            user: &'a str,
            topics: &'a [String],
            resumed: bool,
        }
        let data = Data {
            connection_id: self.connection,
            user: self.user,
            topics: &self.topics,
            resumed: self.resumed,
        };
        let data = serde_json::to_string(&data).unwrap_or_default();
        frame::encode(Some(self.retry_ms), self.id, "sse.connected", &data)
    }
}

/// The data of `sse.gap`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Gap {
    /// Why events may be missing.
    #[serde(serialize_with = "reason_name")]
    pub reason: GapReason,
    /// The channels (or topic patterns) that may have lost events.
    pub channels: Vec<String>,
    /// The cursor after which events may be missing.
    pub from: String,
}

fn reason_name<S: serde::Serializer>(reason: &GapReason, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_str(reason.name())
}

impl Gap {
    /// Encodes the event as an SSE frame. `restart` is the id from which the stream continues; only
    /// `unknown-id` has one.
    pub fn frame(&self, restart: Option<EventId>) -> Bytes {
        frame::encode(None, restart, "sse.gap", &serde_json::to_string(self).unwrap_or_default())
    }
}

/// Encodes `sse.heartbeat`.
pub fn heartbeat(id: EventId, timestamp_ms: u64) -> Bytes {
    frame::encode(
        None,
        Some(id),
        "sse.heartbeat",
        &json!({ "timestamp": timestamp_ms }).to_string(),
    )
}

/// Encodes `sse.closing`, the last frame of a stream that the gateway ends.
pub fn closing(reason: CloseReason, retry_ms: u64) -> Bytes {
    frame::encode(
        Some(retry_ms),
        None,
        "sse.closing",
        &json!({ "reason": reason.name() }).to_string(),
    )
}

/// Encodes `sse.busy`, the only frame of a response that asks the client to retry later.
pub fn busy(reason: BusyReason, retry_ms: u64) -> Bytes {
    frame::encode(Some(retry_ms), None, "sse.busy", &json!({ "reason": reason.name() }).to_string())
}

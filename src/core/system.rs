//! The gateway's own events, `sse.*`, and the reasons that they name (ARCHITECTURE.md#gaps).

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
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// Its name in events, metrics and logs.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $text),* }
            }
        }
    };
}

reasons! {
    /// Reason for an `sse.gap`.
    GapReason {
        /// The cursor is older than the retention and the log cannot prove that nothing was there.
        Expired = "expired",
        /// Events past the cursor were trimmed from the log.
        Trimmed = "trimmed",
        /// The order was broken: Redis was wiped, restored or replaced.
        Reset = "reset",
        /// Plain publishes may have gone unrecorded.
        Unrecorded = "unrecorded",
        /// The cursor cannot be parsed or is ahead of the clock.
        UnknownId = "unknown-id",
    }
}

reasons! {
    /// Why a connection was closed; the label of `sse_connections_closed_total`.
    CloseReason {
        /// The client went away.
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
        /// The client took nothing for `limits.stall`.
        Stalled = "stalled",
        /// A poll was answered.
        PollDone = "poll-done",
    }
}

reasons! {
    /// Why a ticket is refused: the code of the 401, and the label of `sse_tickets_refused_total`.
    TicketRejection {
        /// There is none.
        Missing = "ticket-missing",
        /// It is no JWT, or too long.
        Malformed = "ticket-malformed",
        /// No key is known for its `kid`.
        UnknownKey = "ticket-unknown-key",
        /// Its `alg` is not that of the key.
        WrongAlgorithm = "ticket-wrong-algorithm",
        /// It was signed with another key.
        BadSignature = "ticket-bad-signature",
        /// A required claim is absent.
        MissingClaim = "ticket-missing-claim",
        /// A claim has the wrong form.
        BadClaim = "ticket-bad-claim",
        /// `sub` cannot be a user id.
        BadSubject = "ticket-bad-subject",
        /// `aud` is not `tickets.audience`.
        WrongAudience = "ticket-wrong-audience",
        /// `iss` is not `tickets.issuer`.
        WrongIssuer = "ticket-wrong-issuer",
        /// `exp` has passed, and there is no session.
        Expired = "ticket-expired",
        /// `nbf` or `iat` lies ahead.
        NotYetValid = "ticket-not-yet-valid",
        /// `exp - iat` is over `tickets.max_ttl`.
        TooLongLived = "ticket-too-long-lived",
        /// It was used, and `tickets.reconnect_grace` is 0.
        Used = "ticket-used",
        /// `session_exp` or `tickets.max_session` has passed.
        SessionOver = "session-over",
        /// Another browser opened the session.
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
        /// The ticket's key is not known, and the issuer's key set cannot be fetched.
        KeysAway = "keys-away",
        /// The instance is shutting down.
        Draining = "draining",
    }
}

reasons! {
    /// Why a connection joins (again).
    CatchUpCause {
        /// It came with a cursor.
        Resume = "resume",
        /// Its queue was dropped.
        Overflow = "overflow",
        /// The link to Redis broke, or a worker could not follow.
        Link = "link",
        /// A live event named a predecessor that had not come.
        Predecessor = "predecessor",
    }
}

/// `sse.connected`, the first frame of a stream.
pub struct Connected<'a> {
    /// `retry:` hint in ms.
    pub retry_ms: u64,
    /// The cursor; `None` where the client's own cannot be repeated.
    pub id: Option<EventId>,
    /// Id of this connection.
    pub connection: &'a str,
    /// The user.
    pub user: &'a str,
    /// The topics that it gets.
    pub topics: Vec<String>,
    /// Whether it goes on from the client's cursor.
    pub resumed: bool,
}

impl Connected<'_> {
    /// Encodes it.
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
    /// Why.
    #[serde(serialize_with = "reason_name")]
    pub reason: GapReason,
    /// The channels (or patterns of topics) that may have lost events.
    pub channels: Vec<String>,
    /// The cursor behind which something is missing.
    pub from: String,
}

fn reason_name<S: serde::Serializer>(reason: &GapReason, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_str(reason.name())
}

impl Gap {
    /// Encodes it; `restart` is the id from which the stream goes on, only after `reset` and
    /// `unknown-id`.
    pub fn frame(&self, restart: Option<EventId>) -> Bytes {
        frame::encode(None, restart, "sse.gap", &serde_json::to_string(self).unwrap_or_default())
    }
}

/// `sse.heartbeat`.
pub fn heartbeat(id: EventId, timestamp_ms: u64) -> Bytes {
    frame::encode(
        None,
        Some(id),
        "sse.heartbeat",
        &json!({ "timestamp": timestamp_ms }).to_string(),
    )
}

/// `sse.closing`, the last frame of a stream that the gateway ends.
pub fn closing(reason: CloseReason, retry_ms: u64) -> Bytes {
    frame::encode(
        Some(retry_ms),
        None,
        "sse.closing",
        &json!({ "reason": reason.name() }).to_string(),
    )
}

/// `sse.busy`, the only frame of an answer that asks the client to come back later.
pub fn busy(reason: BusyReason, retry_ms: u64) -> Bytes {
    frame::encode(Some(retry_ms), None, "sse.busy", &json!({ "reason": reason.name() }).to_string())
}

//! The reasons that the gateway's own events, closed connections and rejected tickets have, and the
//! causes of catch-ups (ARCHITECTURE.md#gaps).

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
    /// Why a ticket is rejected: the code of the 401, and the label of `sse_tickets_refused_total`.
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
        /// `exp - iat` exceeds `tickets.max_ttl`, or in a cookie `tickets.cookie_max_ttl`.
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
        /// `limits.max_connections` is reached, or the maximum number of histories that are being
        /// read.
        Full = "full",
        /// `limits.max_connections_per_user` is reached.
        UserFull = "user-full",
        /// `limits.anonymous_connections` is reached.
        AnonymousFull = "anonymous-full",
        /// `limits.anonymous_connections_per_address` is reached.
        AddressFull = "address-full",
        /// `limits.connects_per_address_per_minute`, `limits.connects_per_user_per_minute` or
        /// `limits.anonymous_connects_per_address_per_minute` is reached.
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
        /// The slot of the user's channel, or of the broadcasts, moved to another server.
        Moved = "moved",
    }
}

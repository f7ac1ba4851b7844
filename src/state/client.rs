//! The client of a connection: its user, topics and session.

use std::sync::Arc;

use tracing::Span;

use crate::core::{
    filter::Filter, id::StreamPosition, part::Part, stream_state::GapChannels, topics::Topics,
    transport::Transport,
};

/// The session that a connection belongs to.
#[derive(Clone, Debug)]
pub struct Session {
    /// The user.
    pub user: Arc<str>,
    /// Digest of the ticket.
    pub digest: String,
    /// The cursor of its first connection; no resume reaches back before it.
    pub first: StreamPosition,
    /// When it was opened, ms since 1970 by the clock of Redis.
    pub opened_ms: u64,
    /// When it ends, ms since 1970.
    pub until_ms: u64,
    /// Digest of the session's secret; empty if it has none.
    pub proof: String,
    /// Sequence number of the connection within the session; the highest one replaces the others.
    /// 0: the session is shared.
    pub generation: u64,
}

impl Session {
    /// The position before which no resume reaches. A shared session has none: each tab of a
    /// browser continues from its own position.
    pub fn resumable_from(&self) -> StreamPosition {
        if self.generation == 0 { StreamPosition::ZERO } else { self.first }
    }
}

/// The client of a connection, and what it subscribes to.
#[derive(Clone, Debug)]
pub struct Client {
    /// The session, which has the user; `None`: an anonymous client, which receives only
    /// broadcasts.
    pub session: Option<Session>,
    /// The topics that it receives.
    pub topics: Topics,
    /// Which tags events must have; `None`: it receives all.
    pub filter: Option<Arc<Filter>>,
    /// Id of the connection.
    pub id: String,
    /// How it receives events.
    pub transport: Transport,
    /// Id of the request that opened it (`x-request-id`).
    pub request_id: Box<str>,
}

/// A random UUID for an id that protects nothing. It is not from the system's generator, because
/// that costs a system call.
pub fn random_id() -> String {
    let random = fastrand::u128(..).to_ne_bytes();
    uuid::Builder::from_random_bytes(random).into_uuid().to_string()
}

/// The span of log lines about a connection. It is created for each activity that may log, not for
/// the life of the connection: an idle stream would hold some hundred bytes for it. Never add the
/// ticket.
pub fn connection_span(id: &str, user: Option<&str>, request_id: &str) -> Span {
    tracing::error_span!(parent: None, "connection", connection = id, user, request_id)
}

/// Maximum number of channels that an `sse.gap` names.
pub const MAX_GAP_CHANNELS: usize = 100;

impl GapChannels for Client {
    fn all(&self) -> Vec<String> {
        self.channels(Part::Whole).collect()
    }
}

impl Client {
    /// The user; `None`: an anonymous client.
    pub fn user(&self) -> Option<&Arc<str>> {
        self.session.as_ref().map(|session| &session.user)
    }

    /// The channels and patterns that an `sse.gap` names if it concerns all of a part.
    pub fn channels(&self, part: Part) -> impl Iterator<Item = String> {
        let user = self.user().filter(|_| part.includes(Part::User));
        let user = user.map(|user| format!("user:{user}:events"));
        let topics = part.includes(Part::Broadcasts).then(|| self.topics.patterns());
        let topics = topics.into_iter().flatten().map(|topic| format!("broadcast:{topic}"));
        user.into_iter().chain(topics).take(MAX_GAP_CHANNELS)
    }
}

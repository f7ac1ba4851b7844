//! What an admission needs to know of a request and its client.

use std::net::IpAddr;

use crate::{
    auth::Credential,
    core::{
        id::{Cursor, EventId, StreamPosition},
        transport::Transport,
    },
    state::client_liveness::ClientLiveness,
};

/// A request for a stream or a poll.
pub struct AdmissionRequest<'a> {
    /// The address of the client; `None` if it has gone already.
    pub address: Option<IpAddr>,
    /// The ticket as the client sent it; `None`: the client has none.
    pub credential: Option<Credential<'a>>,
    /// The topics that the client wants, separated by commas; `None`: all that the ticket allows.
    pub topics: Option<&'a str>,
    /// The last event id as the client sent it; `None`: the stream begins at `since_ms`.
    pub cursor: Option<String>,
    /// When a stream without a last event id begins, ms since 1970; `None`: now.
    pub since_ms: Option<u64>,
    /// The id of the request, for log lines; empty: none.
    pub request_id: Box<str>,
    /// How the client receives events.
    pub transport: Transport,
    /// The client.
    pub client: &'a dyn RequestClient,
}

impl AdmissionRequest<'_> {
    /// The last event id, if it is one.
    pub fn named(&self) -> Option<Cursor> {
        self.cursor.as_deref().and_then(Cursor::parse)
    }

    /// The time at which the stream begins, if the client named no last event id.
    pub fn begins_at(&self) -> Option<StreamPosition> {
        let since_ms = self.since_ms.filter(|_| self.cursor.is_none());
        since_ms.map(|ms| EventId::before_time(ms).into())
    }

    /// See [`Credential::is_shared`].
    pub(super) fn is_session_shared(&self) -> bool {
        self.credential.is_some_and(|credential| credential.is_shared())
    }
}

/// The client of a request, before it is admitted.
pub trait RequestClient {
    /// The secret that the client presents for the session of that ticket.
    fn session_secret(&self, ticket_digest: &str) -> Option<String>;

    /// The client has a session: its connection is kept until the result is dropped.
    fn begin_stream(&self) -> Box<dyn ClientStream>;

    /// Lets the client use another connection, and so another instance, for its next request.
    fn retire(&self);
}

/// The client of an admitted stream or poll.
pub trait ClientStream {
    /// The handle by which the connection observes and disconnects the client.
    fn liveness(&self) -> Box<dyn ClientLiveness>;

    /// Whether the writer ended the stream because the client did not read.
    fn has_stalled(&self) -> bool;

    /// See [`RequestClient::retire`].
    fn retire(&self);
}

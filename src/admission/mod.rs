//! Which clients are admitted: rate, ticket, limits, session, subscription, and the first frame.
//! The same for streams and polls. Knows nothing of HTTP.

mod error;
pub mod history;
pub mod readiness;
mod request;
pub mod session;

use std::{net::IpAddr, rc::Rc, sync::Arc, time::Duration};

use tracing::{Instrument, Span, level_filters::LevelFilter};

use self::session::{NewSecret, Opening, proof};
pub use self::{
    error::{AdmissionError, Denied},
    request::{AdmissionRequest, ClientStream, RequestClient},
};
use crate::{
    auth::{Auth, AuthError, Ticket, TicketError},
    core::{
        address::site,
        catch_up,
        id::{EventId, StreamPosition},
        reasons::{BusyReason, CloseReason, TicketRejection},
        topics::Topics,
    },
    redis::{call_pipeline::CallPipeline, catch_up::CatchUpDriver, link::LinkDown, routes::Routes},
    state::{
        client::{Client, connection_span, random_id},
        clock::unix_ms,
        connection::{Connection, Parts},
        hub::Hub,
        lifecycle::Lifecycle,
        limits::connections::ConnectionPermit,
        stream_context::StreamContext,
    },
};

/// Within this time after a recovery of Redis, all instances have written their sessions again.
const SESSIONS_REWRITTEN: Duration = Duration::from_secs(5);
/// Maximum length of a client's last event id in `sse.gap`, in characters.
const MAX_CURSOR_CHARS: usize = 512;

/// Admits the clients of one worker.
pub struct Admission {
    /// Settings, clock, metrics and limits.
    pub context: Arc<StreamContext>,
    /// Verifies tickets.
    pub auth: Arc<Auth>,
    /// The phase of the instance.
    pub lifecycle: Arc<Lifecycle>,
    /// The servers that have the sessions.
    pub routes: Routes,
    /// Opens the sessions.
    pub sessions: CallPipeline,
    /// Gets the admitted connections.
    pub hub: Rc<Hub>,
    /// Subscribes, and begins the first catch-up.
    pub catch_up: Rc<CatchUpDriver>,
}

/// An admitted connection. Dropping it ends the connection.
pub struct Admitted {
    /// The connection.
    pub connection: Rc<Connection>,
    /// Whether the client named a last event id, or a time.
    pub has_cursor: bool,
    /// The secret of a session that this connection opened.
    pub new_secret: Option<Box<NewSecret>>,
    hub: Rc<Hub>,
    stream: Box<dyn ClientStream>,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        if self.stream.has_stalled() {
            self.connection.set_reason(CloseReason::Stalled);
        }
        self.hub.remove(&self.connection);
        if tracing::enabled!(tracing::Level::DEBUG) {
            let reason = self.connection.reason().name();
            self.connection.span().in_scope(|| tracing::debug!(reason, "connection closed"));
        }
        // Another instance may serve the client better.
        if matches!(self.connection.reason(), CloseReason::Draining | CloseReason::MaxAge) {
            self.stream.retire();
        }
    }
}

impl Admission {
    /// Admits a client. On success its subscription is confirmed, its first frame is queued, and
    /// its catch-up has begun. A denial is counted in the metrics.
    ///
    /// # Errors
    /// See [`AdmissionError`].
    pub async fn admit(&self, request: AdmissionRequest<'_>) -> Result<Admitted, Denied> {
        let admitted = self.try_admit(request).await;
        if let Err(denied) = &admitted {
            self.count(&denied.error);
        }
        admitted
    }

    fn count(&self, error: &AdmissionError) {
        let metrics = &self.context.metrics;
        match error {
            AdmissionError::Ticket(rejected) => {
                metrics.tickets_rejected.with_label_values(&[rejected.code.name()]).inc();
            }
            AdmissionError::Busy(reason) => {
                metrics.busy.with_label_values(&[reason.name()]).inc();
            }
            AdmissionError::Topics => {}
        }
    }

    async fn try_admit(&self, request: AdmissionRequest<'_>) -> Result<Admitted, Denied> {
        // First, because everything after it costs more.
        self.check_rate(request.address)?;
        let ticket = self.verify(request.ticket).await?;
        let now_ms = unix_ms();
        let topics = requested_topics(request.topics, &ticket)?;
        let permit = self.permit(&ticket, request.client)?;
        if self.routes.user_when_up(&ticket.user).await.is_none() {
            return Err(AdmissionError::Busy(BusyReason::RedisAway).into());
        }
        self.open(request, ticket, topics, permit, now_ms).await
    }

    /// Opens the session and the connection of a client that is within all limits.
    async fn open(
        &self,
        request: AdmissionRequest<'_>,
        ticket: Ticket,
        topics: Topics,
        permit: ConnectionPermit,
        now_ms: u64,
    ) -> Result<Admitted, Denied> {
        let id = random_id();
        let is_resume = request.cursor.is_some();
        let since = request.since_ms.filter(|_| !is_resume).map(EventId::before_time);
        let since = since.map(StreamPosition::from);
        let named = since.or_else(|| request.cursor.as_deref().and_then(StreamPosition::parse));
        let presented = request.client.session_secret(&ticket.digest);
        let has_cookie = self.context.settings.sessions.cookie;
        let new_secret = has_cookie.then(|| Box::new(NewSecret::new(&ticket.digest)));
        let new_proof = new_secret.as_ref().map(|secret| secret.proof()).unwrap_or_default();
        let opening = Opening {
            ticket: &ticket,
            connection: &id,
            cursor: named,
            proof: &presented.as_deref().map(proof).unwrap_or_default(),
            new_proof: &new_proof,
            now_ms,
        };
        let span = admission_span(&id, &ticket.user, &request.request_id);
        let session = self.open_session(&opening).instrument(span.clone()).await?;
        // Only the connection that opened the session gets its secret.
        let new_secret = new_secret.filter(|_| session.proof == new_proof);
        // No resume reaches back before the session's first cursor; the client gets a gap instead.
        let server_ms = self.context.clock.server_ms();
        let cursor = catch_up::resumable(named, session.first, server_ms);
        let cursor_text = request.cursor.or_else(|| since.map(|position| position.to_string()));
        let has_cursor = cursor_text.is_some();
        let stream = request.client.begin_stream();
        let (transport, request_id) = (request.transport, request.request_id);
        let connection = Connection::new(Parts {
            context: self.context.clone(),
            client: Client {
                user: ticket.user.clone(),
                topics,
                session,
                id,
                transport,
                request_id,
            },
            cursor,
            cursor_text: cursor_text.map(|text| text.chars().take(MAX_CURSOR_CHARS).collect()),
            permit,
            liveness: stream.liveness(),
        });
        self.hub.add(&connection);
        let admitted =
            Admitted { connection, has_cursor, new_secret, hub: self.hub.clone(), stream };
        self.connect(admitted, is_resume).instrument(span).await
    }

    /// Subscribes the connection, queues its first frame, and starts its catch-up. `is_resume`: the
    /// client named a last event id.
    async fn connect(&self, mut admitted: Admitted, is_resume: bool) -> Result<Admitted, Denied> {
        let connection = &admitted.connection;
        match self.catch_up.subscribe(connection, is_resume).await {
            Ok(first) => {
                let (cursor, resumed) = (first.cursor(), first.resumed);
                connection.set_head(self.hub.connected(connection, cursor, resumed));
                let transport = connection.client.transport.name();
                tracing::debug!(transport, resumed, "connection opened");
                self.catch_up.start_first(first);
                Ok(admitted)
            }
            Err(LinkDown) => Err(Denied {
                error: AdmissionError::Busy(BusyReason::RedisAway),
                new_secret: admitted.new_secret.take(),
            }),
        }
    }

    /// Checks `limits.connects_per_address_per_minute`.
    fn check_rate(&self, address: Option<IpAddr>) -> Result<(), AdmissionError> {
        let StreamContext { clock, limits, .. } = &*self.context;
        let has_allowance =
            |address| limits.connects_by_address.take(site(address), clock.now_ms());
        match address.is_none_or(has_allowance) {
            true => Ok(()),
            false => Err(AdmissionError::Busy(BusyReason::TooOften)),
        }
    }

    async fn verify(&self, ticket: Option<&str>) -> Result<Ticket, AdmissionError> {
        let ticket = ticket.ok_or_else(|| {
            TicketError::new(
                TicketRejection::Missing,
                "there is no ticket; send it as ?ticket= or as Authorization: Bearer",
            )
        })?;
        self.auth.verify(ticket, unix_ms() / 1000).await.map_err(|error| match error {
            AuthError::Rejected(rejected) => AdmissionError::Ticket(rejected),
            AuthError::IssuerUnavailable => AdmissionError::Busy(BusyReason::KeysAway),
        })
    }

    /// Checks the limits of the instance and of the user.
    fn permit(
        &self,
        ticket: &Ticket,
        client: &dyn RequestClient,
    ) -> Result<ConnectionPermit, AdmissionError> {
        self.check_user(ticket, client)?;
        let connections = &self.context.limits.connections;
        connections.enter(&ticket.user, &ticket.digest).map_err(AdmissionError::Busy)
    }

    /// Checks the phase of the instance, and `limits.connects_per_user_per_minute`.
    fn check_user(
        &self,
        ticket: &Ticket,
        client: &dyn RequestClient,
    ) -> Result<(), AdmissionError> {
        if self.lifecycle.is_closed() {
            client.retire();
            return Err(AdmissionError::Busy(BusyReason::Draining));
        }
        let StreamContext { clock, limits, .. } = &*self.context;
        match limits.connects_by_user.take(ticket.user.clone(), clock.now_ms()) {
            true => Ok(()),
            false => Err(AdmissionError::Busy(BusyReason::TooOften)),
        }
    }
}

/// The span of the lines about an admission, which all have the level debug. Without that level
/// there is no span, because it costs 3 % of an admission.
fn admission_span(id: &str, user: &str, request_id: &str) -> Span {
    match LevelFilter::current() >= LevelFilter::DEBUG {
        true => connection_span(id, user, request_id),
        false => Span::none(),
    }
}

fn requested_topics(wanted: Option<&str>, ticket: &Ticket) -> Result<Topics, AdmissionError> {
    let Some(list) = wanted else { return Ok(ticket.topics.clone()) };
    let wanted = Topics::parse(list.split(',').filter(|name| !name.is_empty()));
    wanted.map(|wanted| ticket.topics.narrow(&wanted)).map_err(|_| AdmissionError::Topics)
}

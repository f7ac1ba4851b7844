//! Which clients are admitted: rate, ticket, limits, session, subscription, and the first frame.
//! The same for streams and polls. Knows nothing of HTTP.

mod anonymous;
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
    auth::{Auth, AuthError, Credential, Ticket, TicketError},
    core::{
        address::site,
        catch_up,
        filter::Filter,
        id::StreamPosition,
        part::Part,
        presence,
        reasons::{BusyReason, CloseReason, TicketRejection},
        topics::Topics,
    },
    redis::{call_pipeline::CallPipeline, catch_up::CatchUpDriver, link::LinkDown, routes::Routes},
    state::{
        client::{Client, Session, connection_span, random_id},
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

/// A client that is within all limits and has a session, if it needs one.
struct Accepted {
    /// Id of the connection.
    id: String,
    /// `None`: an anonymous client.
    session: Option<Session>,
    topics: Topics,
    filter: Option<Arc<Filter>>,
    /// The id from which the stream continues; `None`: the client named none that can be used.
    cursor: Option<StreamPosition>,
    permit: ConnectionPermit,
    new_secret: Option<Box<NewSecret>>,
}

impl Admission {
    /// Admits a client. On success its subscription is confirmed, its first frame is queued, and
    /// its catch-up has begun. A denial is counted in the metrics.
    ///
    /// # Errors
    /// See [`AdmissionError`].
    pub async fn admit(&self, request: &AdmissionRequest<'_>) -> Result<Admitted, Denied> {
        let admitted = self.try_admit(request).await;
        if let Err(denied) = &admitted {
            self.count(&denied.error);
        }
        admitted
    }

    /// Counts a denial in the metrics.
    pub fn count(&self, error: &AdmissionError) {
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

    async fn try_admit(&self, request: &AdmissionRequest<'_>) -> Result<Admitted, Denied> {
        // First, because everything after it costs more.
        self.check_rate(request.address)?;
        let Some(ticket) = self.authenticate(request.credential).await? else {
            return Box::pin(self.admit_anonymous(request)).await;
        };
        let now_ms = unix_ms();
        let topics = requested_topics(request.topics, &ticket.topics)?;
        let permit = self.permit(&ticket, request)?;
        if self.routes.user_when_up(&ticket.user).await.is_none() {
            return Err(AdmissionError::Busy(BusyReason::RedisAway).into());
        }
        // Futures of more than 1 KiB cost time for every client: they are copied.
        Box::pin(self.open(request, &ticket, topics, permit, now_ms)).await
    }

    /// Opens the session and the connection of a client that is within all limits.
    async fn open(
        &self,
        request: &AdmissionRequest<'_>,
        ticket: &Ticket,
        topics: Topics,
        permit: ConnectionPermit,
        now_ms: u64,
    ) -> Result<Admitted, Denied> {
        let id = random_id();
        let is_resume = request.cursor.is_some();
        let named = request.begins_at().or(request.named().map(|cursor| cursor.position));
        let presented = request.client.session_secret(&ticket.digest);
        let is_shared = request.is_session_shared();
        // A ticket that comes from a cookie is bound to the browser already, and two tabs may open
        // its session at the same time.
        let has_cookie = self.context.settings.sessions.cookie && !is_shared;
        let new_secret = has_cookie.then(|| Box::new(NewSecret::new(&ticket.digest)));
        let new_proof = new_secret.as_ref().map(|secret| secret.proof()).unwrap_or_default();
        let opening = Opening {
            ticket,
            connection: &id,
            cursor: named,
            is_shared,
            proof: &presented.as_deref().map(proof).unwrap_or_default(),
            new_proof: &new_proof,
            now_ms,
        };
        let span = admission_span(&id, Some(&ticket.user), &request.request_id);
        let session = Box::pin(self.open_session(&opening)).instrument(span.clone()).await?;
        // Only the connection that opened the session gets its secret.
        let new_secret = new_secret.filter(|_| session.proof == new_proof);
        // No resume reaches back before the session's first cursor; the client gets a gap instead.
        let server_ms = self.context.clock.server_ms();
        let cursor = catch_up::resumable(named, session.resumable_from(), server_ms);
        let (session, filter) = (Some(session), ticket.filter.clone());
        let accepted = Accepted { id, session, topics, filter, cursor, permit, new_secret };
        let admitted = self.add(request, accepted);
        Box::pin(self.connect(admitted, is_resume)).instrument(span).await
    }

    /// Creates the connection of a client, and adds it to the hub.
    fn add(&self, request: &AdmissionRequest<'_>, accepted: Accepted) -> Admitted {
        let Accepted { id, session, topics, filter, cursor, permit, new_secret } = accepted;
        let is_incomplete = request.named().is_some_and(|cursor| cursor.is_incomplete);
        let since = request.begins_at().map(|position| position.to_string());
        let cursor_text = request.cursor.as_deref().or(since.as_deref());
        let has_cursor = cursor_text.is_some();
        let stream = request.client.begin_stream();
        let (transport, request_id) = (request.transport, request.request_id.clone());
        let connection = Connection::new(Parts {
            context: self.context.clone(),
            client: Client { session, topics, filter, id, transport, request_id },
            cursor,
            cursor_text: cursor_text.map(|text| text.chars().take(MAX_CURSOR_CHARS).collect()),
            permit,
            liveness: stream.liveness(),
        });
        if is_incomplete {
            connection.require_snapshot(Part::Whole);
        }
        self.hub.add(&connection);
        Admitted { connection, has_cursor, new_secret, hub: self.hub.clone(), stream }
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

    /// Verifies the ticket of a client. `None`: it has none, and is admitted without one to
    /// `tickets.anonymous_topics`. A client with a ticket never is, even if the ticket is empty.
    ///
    /// # Errors
    /// The ticket is missing or rejected, or cannot be verified now.
    pub async fn authenticate(
        &self,
        credential: Option<Credential<'_>>,
    ) -> Result<Option<Ticket>, AdmissionError> {
        let Some(credential) = credential.filter(|credential| !credential.token.is_empty()) else {
            let is_anonymous = credential.is_none();
            return match is_anonymous && !self.context.settings.anonymous_topics.is_empty() {
                true => Ok(None),
                false => Err(missing_ticket().into()),
            };
        };
        let verified = self.auth.verify(credential, unix_ms() / 1000).await;
        verified.map(Some).map_err(|error| match error {
            AuthError::Rejected(rejected) => AdmissionError::Ticket(rejected),
            AuthError::IssuerUnavailable => AdmissionError::Busy(BusyReason::KeysAway),
        })
    }

    /// Checks that the instance is not closed.
    fn check_lifecycle(&self, client: &dyn RequestClient) -> Result<(), AdmissionError> {
        if self.lifecycle.is_closed() {
            client.retire();
            return Err(AdmissionError::Busy(BusyReason::Draining));
        }
        Ok(())
    }

    /// Checks the limits of the instance and of the user.
    fn permit(
        &self,
        ticket: &Ticket,
        request: &AdmissionRequest<'_>,
    ) -> Result<ConnectionPermit, AdmissionError> {
        self.check_user(ticket, request.client)?;
        let session = (!request.is_session_shared()).then_some(&*ticket.digest);
        let connections = &self.context.limits.connections;
        connections.enter(&ticket.user, session).map_err(AdmissionError::Busy)
    }

    /// Checks the phase of the instance, and `limits.connects_per_user_per_minute`.
    fn check_user(
        &self,
        ticket: &Ticket,
        client: &dyn RequestClient,
    ) -> Result<(), AdmissionError> {
        self.check_lifecycle(client)?;
        let StreamContext { clock, limits, .. } = &*self.context;
        match limits.connects_by_user.take(ticket.user.clone(), clock.now_ms()) {
            true => Ok(()),
            false => Err(AdmissionError::Busy(BusyReason::TooOften)),
        }
    }
}

fn missing_ticket() -> TicketError {
    let message = "there is no ticket; send it as Authorization: Bearer, as ?ticket= or in the \
                   cookie of tickets.cookie";
    TicketError::new(TicketRejection::Missing, message)
}

/// The span of the lines about an admission, which all have the level debug. Without that level
/// there is no span, because it costs 3 % of an admission.
fn admission_span(id: &str, user: Option<&str>, request_id: &str) -> Span {
    match LevelFilter::current() >= LevelFilter::DEBUG {
        true => connection_span(id, user, request_id),
        false => Span::none(),
    }
}

fn requested_topics(wanted: Option<&str>, allowed: &Topics) -> Result<Topics, AdmissionError> {
    let Some(list) = wanted else { return Ok(allowed.clone()) };
    let names = || list.split(',').filter(|name| !name.is_empty());
    let wanted = Topics::parse(names()).map_err(|_| AdmissionError::Topics)?;
    Ok(allowed.narrow(&wanted.with_presence(names().any(|name| name == presence::TOPIC))))
}

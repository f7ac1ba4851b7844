//! Who is let in: ticket, bounds, session, subscription, and the first frame. Streams and polls go
//! the same way.

use std::{rc::Rc, sync::Arc, time::Duration};

use actix_web::{
    HttpRequest, HttpResponse,
    http::{
        StatusCode,
        header::{self, HeaderValue},
    },
    web::Query,
};
use tracing::Instrument;

use super::{
    api_keys::bearer,
    cookie::{self, Cookie},
    peer::{Peer, StreamOfPeer, client_address},
    request_id::RequestId,
    responses,
    worker::Worker,
};
use crate::{
    auth::{AuthError, Ticket, TicketError},
    core::{
        address::site,
        catch_up::{self, Start},
        id::EventId,
        system::{BusyReason, CatchUpCause, CloseReason, Connected, TicketRejection},
        topics::Topics,
    },
    redis::{
        link::UserSubscription,
        sessions::{self, SessionError, SessionRequest},
    },
    state::{
        clock::unix_ms,
        connection::{Client, Connection, Parts, Session, connection_span},
        hub::Hub,
        stream_context::StreamContext,
    },
};

/// So long after Redis was away, the instances have written their sessions again.
const SESSIONS_COME_BACK: Duration = Duration::from_secs(5);

/// A connection that was let in; dropping it ends it.
pub struct Admitted {
    /// The connection.
    pub connection: Rc<Connection>,
    /// Whether the client named a cursor.
    pub has_cursor: bool,
    /// `Set-Cookie` of the answer.
    pub set_cookie: Option<String>,
    hub: Rc<Hub>,
    _subscription: Option<UserSubscription>,
    stream: StreamOfPeer,
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
        // Another instance may serve it better.
        if matches!(self.connection.reason(), CloseReason::Draining | CloseReason::MaxAge) {
            self.stream.retire();
        }
    }
}

/// Why a client is not let in.
#[derive(Debug)]
pub enum AdmissionError {
    /// 401: this URL can never work again.
    Ticket(TicketError),
    /// 400: the request is wrong.
    BadRequest(&'static str, String),
    /// It should come back.
    Busy(BusyReason),
    /// The same, after its session was opened: without this `Set-Cookie` the way back would be
    /// closed to it.
    Opened(Box<AdmissionError>, String),
}

impl AdmissionError {
    /// The answer; `busy` says how this endpoint tells the client to come back.
    pub fn answer(&self, worker: &Worker, busy: fn(BusyReason) -> HttpResponse) -> HttpResponse {
        let metrics = &worker.context.metrics;
        match self {
            Self::Ticket(refused) => {
                metrics.refused.with_label_values(&[refused.code.name()]).inc();
                responses::error(StatusCode::UNAUTHORIZED, refused.code.name(), &refused.message)
            }
            Self::BadRequest(code, message) => {
                responses::error(StatusCode::BAD_REQUEST, code, message)
            }
            Self::Busy(reason) => {
                metrics.busy.with_label_values(&[reason.name()]).inc();
                busy(*reason)
            }
            Self::Opened(denied, cookie) => {
                let mut answer = denied.answer(worker, busy);
                if let Ok(cookie) = HeaderValue::from_str(cookie) {
                    answer.headers_mut().insert(header::SET_COOKIE, cookie);
                }
                answer
            }
        }
    }
}

fn refused(code: TicketRejection, message: &str) -> AdmissionError {
    AdmissionError::Ticket(TicketError::new(code, message))
}

/// The members of the query, decoded; of one that stands twice the first counts.
pub struct Params(Vec<(String, String)>);

impl Params {
    /// The query of a request.
    ///
    /// # Errors
    /// It cannot be decoded.
    pub fn of(request: &HttpRequest) -> Result<Self, AdmissionError> {
        Query::<Vec<(String, String)>>::from_query(request.query_string())
            .map(|q| Self(q.into_inner()))
            .map_err(|_| {
                AdmissionError::BadRequest(
                    "bad-request",
                    "the query cannot be decoded; percent-encode its values as UTF-8".to_owned(),
                )
            })
    }

    /// A member.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// A member that is not empty.
    fn given(&self, name: &str) -> Option<&str> {
        self.get(name).filter(|value| !value.is_empty())
    }
}

/// The client's cursor as it came: header first, then either name in the query.
fn last_event_id(request: &HttpRequest, params: &Params) -> Option<String> {
    let header = request
        .headers()
        .get("last-event-id")
        .map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned());
    let named = || params.given("lastEventId").or_else(|| params.given("last_event_id"));
    header.filter(|id| !id.is_empty()).or_else(|| named().map(str::to_owned))
}

fn requested_topics(params: &Params, ticket: &Ticket) -> Result<Topics, AdmissionError> {
    let Some(list) = params.get("topics") else { return Ok(ticket.topics.clone()) };
    let names = list.split(',').filter(|name| !name.is_empty());
    match Topics::parse(names) {
        Ok(names) if names.prefixes().next().is_none() => Ok(ticket.topics.narrow(&names)),
        _ => Err(AdmissionError::BadRequest(
            "bad-topics",
            "topics must be at most 256 exact names, with commas between".to_owned(),
        )),
    }
}

/// Lets a client in. Its subscription is confirmed, its first frame is queued, and its catch-up is
/// under way.
///
/// # Errors
/// Why not.
pub async fn admit(
    worker: &Worker,
    request: &HttpRequest,
    transport: &'static str,
) -> Result<Admitted, AdmissionError> {
    let StreamContext { settings, clock, limits, .. } = &*worker.context;
    let address = client_address(request, &settings.server);
    // Before anything that costs.
    if !address.is_none_or(|address| limits.connects_by_address.take(site(address), clock.now_ms()))
    {
        return Err(AdmissionError::Busy(BusyReason::TooOften));
    }
    let params = Params::of(request)?;
    let token = params.given("ticket").or_else(|| bearer(request));
    let token = token.ok_or_else(|| {
        refused(
            TicketRejection::Missing,
            "there is no ticket; give it as ?ticket= or as Authorization: Bearer",
        )
    })?;
    let ticket = verified(worker, token).await?;
    let now_ms = unix_ms();
    let topics = requested_topics(&params, &ticket)?;
    if worker.lifecycle.is_closed() {
        if let Some(peer) = Peer::of_request(request) {
            peer.retire();
        }
        return Err(AdmissionError::Busy(BusyReason::Draining));
    }
    if !limits.connects_by_user.take(ticket.user.clone(), clock.now_ms()) {
        return Err(AdmissionError::Busy(BusyReason::TooOften));
    }
    let permit =
        limits.connections.enter(&ticket.user, &ticket.digest).map_err(AdmissionError::Busy)?;
    if !worker.link_state.wait_until_up().await {
        return Err(AdmissionError::Busy(BusyReason::RedisAway));
    }
    let id = uuid::Uuid::new_v4().to_string();
    let cursor_text = last_event_id(request, &params);
    let given = cursor_text.as_deref().map(EventId::parse);
    let proof = cookie::shown(request, &ticket.digest);
    let new_cookie = settings.tickets.session_cookie.then(|| Cookie::new(&ticket.digest));
    let new_proof = new_cookie.as_ref().map(Cookie::proof).unwrap_or_default();
    let request_id: Box<str> =
        RequestId::of_request(request).map(|id| id.as_str().into()).unwrap_or_default();
    let span = connection_span(&id, &ticket.user, &request_id);
    let session = open_session(worker, &ticket, &id, given.flatten(), now_ms, [&proof, &new_proof])
        .instrument(span.clone())
        .await?;
    // Only the connection that opened the session gets one.
    let set_cookie = new_cookie.filter(|_| session.proof == new_proof);
    let set_cookie = set_cookie.map(|cookie| cookie.header(settings.tickets.max_session));
    // No resume reaches back before the session's first cursor; the client gets a gap instead.
    let cursor = catch_up::resumable(given.flatten(), session.first, clock.server_ms());
    let stream = StreamOfPeer::new(Peer::of_request(request));
    let connection = Connection::new(Parts {
        context: worker.context.clone(),
        client: Client { user: ticket.user.clone(), topics, session, id, transport, request_id },
        cursor,
        cursor_text: cursor_text.map(|text| text.chars().take(512).collect()),
        permit,
        socket: stream.socket(),
    });
    worker.hub.add(&connection);
    let mut admitted = Admitted {
        connection,
        has_cursor: given.is_some(),
        set_cookie,
        hub: worker.hub.clone(),
        _subscription: None,
        stream,
    };
    match join(worker, &mut admitted, given.is_some(), cursor).instrument(span).await {
        Ok(()) => Ok(admitted),
        Err(denied) => Err(match admitted.set_cookie.take() {
            Some(cookie) => AdmissionError::Opened(Box::new(denied), cookie),
            None => denied,
        }),
    }
}

async fn verified(worker: &Worker, token: &str) -> Result<Ticket, AdmissionError> {
    worker.api.auth.verify(token, unix_ms() / 1000).await.map_err(|error| match error {
        AuthError::Rejected(rejected) => AdmissionError::Ticket(rejected),
        AuthError::IssuerUnavailable => AdmissionError::Busy(BusyReason::KeysAway),
    })
}

async fn open_session(
    worker: &Worker,
    ticket: &Ticket,
    connection: &str,
    cursor: Option<EventId>,
    now_ms: u64,
    [proof, new_proof]: [&str; 2],
) -> Result<Session, AdmissionError> {
    let settings = &worker.context.settings.tickets;
    if ticket.session_exp_ms.is_some_and(|end| end <= now_ms) {
        return Err(refused(
            TicketRejection::SessionOver,
            "the ticket's session_exp has passed; get a new ticket",
        ));
    }
    let longest_ms = now_ms + settings.max_session.as_millis() as u64;
    let redeem = SessionRequest {
        digest: &ticket.digest,
        connection,
        user: &ticket.user,
        expired: ticket.expired,
        left_ms: ticket.expires_ms.saturating_add(1000).saturating_sub(now_ms),
        until_ms: ticket.session_exp_ms.map_or(longest_ms, |end| end.min(longest_ms)),
        issued_ms: ticket.issued_ms,
        cursor,
        proof,
        new_proof,
    };
    let is_back = || worker.link_state.recovered_within(SESSIONS_COME_BACK);
    sessions::open(&worker.commands, settings.reconnect_grace, &redeem).await.map_err(|no| match no
    {
        // The session may be one that ended while Redis was away, and that its holder has yet to
        // write again.
        SessionError::Expired if is_back() => AdmissionError::Busy(BusyReason::RedisAway),
        SessionError::Expired => refused(
            TicketRejection::Expired,
            "the ticket has expired and has no session; get a new ticket",
        ),
        SessionError::Used => refused(
            TicketRejection::Used,
            "the ticket was used, and tickets.reconnect_grace is 0; get a new ticket",
        ),
        SessionError::Over => {
            refused(TicketRejection::SessionOver, "the session has ended; get a new ticket")
        }
        SessionError::CookieMissing => refused(
            TicketRejection::CookieMissing,
            "the session belongs to the browser that has its cookie (tickets.session_cookie); \
             get a new ticket",
        ),
        SessionError::Revoked => refused(
            TicketRejection::SessionRevoked,
            "the user's sessions were revoked; get a new ticket",
        ),
        SessionError::Away(error) => {
            let address = &*worker.commands.address;
            tracing::debug!(%address, %error, "session could not be opened");
            AdmissionError::Busy(BusyReason::RedisAway)
        }
    })
}

/// Subscription, mark, first frame, join.
async fn join(
    worker: &Worker,
    admitted: &mut Admitted,
    has_cursor: bool,
    cursor: Option<EventId>,
) -> Result<(), AdmissionError> {
    let connection = &admitted.connection;
    let (generation, _) = connection.begin_catch_up();
    let (clock, subscription) = worker
        .link
        .subscribe(&connection.client.user)
        .await
        .map_err(|_| AdmissionError::Busy(BusyReason::RedisAway))?;
    admitted._subscription = Some(subscription);
    let retention_ms = worker.context.settings.history.retention.as_millis() as u64;
    let goes_on = matches!(catch_up::start(cursor, &clock, retention_ms), Start::Read { .. });
    let resumed = has_cursor && goes_on;
    connection.set_head(head(
        worker,
        connection,
        if has_cursor { cursor } else { Some(clock.h) },
        resumed,
    ));
    if !has_cursor {
        connection.start_at(clock.h);
    }
    if !connection.is_catching_up(generation) {
        // The link broke meanwhile: the catch-up begins anew, now or when the link is back.
        worker.hub.catch_up_again(connection.clone(), CatchUpCause::Link);
    } else if has_cursor {
        let (catch_up, connection) = (worker.catch_up.clone(), connection.clone());
        actix_rt::spawn(async move {
            catch_up.go_on(connection, CatchUpCause::Resume, generation, cursor, clock).await
        });
    } else if let Some(cause) = connection.finish_catch_up(clock.h) {
        worker.hub.catch_up_again(connection.clone(), cause);
    }
    tracing::debug!(transport = connection.client.transport, resumed, "connection opened");
    Ok(())
}

fn head(
    worker: &Worker,
    connection: &Connection,
    id: Option<EventId>,
    resumed: bool,
) -> bytes::Bytes {
    let topics = connection.client.topics.patterns().collect();
    let user: Arc<str> = connection.client.user.clone();
    Connected {
        retry_ms: worker.hub.retry_ms(),
        id,
        connection: &connection.client.id,
        user: &user,
        topics,
        resumed,
    }
    .frame()
}

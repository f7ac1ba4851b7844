//! Translates requests for streams and polls into [`AdmissionRequest`]s, and denials into
//! responses.

use actix_web::{
    HttpMessage, HttpRequest, HttpResponse,
    http::{
        StatusCode,
        header::{self, HeaderName, HeaderValue},
    },
};

use super::{
    access::OpenedConnection,
    client_address::client_address,
    client_stream::{StreamOfPeer, StreamSocket},
    cookie,
    credentials::{ForeignPage, credential},
    params::{BadRequest, Params},
    request_id::RequestId,
    responses,
    since::since,
    worker::Worker,
};
use crate::{
    admission::{AdmissionError, AdmissionRequest, Admitted, ClientStream, Denied, RequestClient},
    core::{reasons::BusyReason, transport::Transport},
};

static LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Why a request gets no stream.
#[derive(Debug)]
pub enum Denial {
    /// The query is malformed.
    BadRequest(BadRequest),
    /// The ticket is in a cookie, and the page may not use it.
    ForeignPage(ForeignPage),
    /// The client is not admitted.
    Admission(Denied),
}

impl From<BadRequest> for Denial {
    fn from(error: BadRequest) -> Self {
        Self::BadRequest(error)
    }
}

impl From<ForeignPage> for Denial {
    fn from(page: ForeignPage) -> Self {
        Self::ForeignPage(page)
    }
}

impl From<Denied> for Denial {
    fn from(denied: Denied) -> Self {
        Self::Admission(denied)
    }
}

impl Denial {
    /// The response; `busy` makes the one that lets a client of this endpoint retry.
    pub fn response(&self, worker: &Worker, busy: fn(BusyReason) -> HttpResponse) -> HttpResponse {
        match self {
            Self::BadRequest(error) => error.response(),
            Self::ForeignPage(page) => page.response(),
            Self::Admission(denied) => {
                let cookie = denied.new_secret.as_ref().map(|secret| worker.set_cookie(secret));
                denied_response(&denied.error, cookie.as_deref(), busy)
            }
        }
    }
}

/// The response to a client that is not admitted; `busy` as above.
pub fn denied_response(
    error: &AdmissionError,
    set_cookie: Option<&str>,
    busy: fn(BusyReason) -> HttpResponse,
) -> HttpResponse {
    let mut response = match error {
        AdmissionError::Ticket(rejected) => {
            let code = rejected.code.name();
            responses::error(StatusCode::UNAUTHORIZED, code, &rejected.message)
        }
        AdmissionError::Topics => {
            responses::error(StatusCode::BAD_REQUEST, "bad-topics", &error.to_string())
        }
        AdmissionError::Busy(reason) => busy(*reason),
    };
    if let Some(Ok(cookie)) = set_cookie.map(HeaderValue::from_str) {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    response
}

/// Admits the client of a request.
///
/// # Errors
/// See [`Denial`].
pub async fn admit(
    worker: &Worker,
    request: &HttpRequest,
    transport: Transport,
) -> Result<Admitted, Denial> {
    let params = Params::of(request)?;
    let wanted = AdmissionRequest {
        address: client_address(request, &worker.context.settings.server),
        credential: credential(request, &params, &worker.ticket_cookie)?,
        topics: params.get("topics"),
        cursor: last_event_id(request, &params),
        since_ms: since(&params, worker.context.clock.server_ms())?,
        request_id: RequestId::of_request(request).map(|id| id.as_str().into()).unwrap_or_default(),
        transport,
        client: &HttpClient::of(request),
    };
    let admitted = worker.admission.admit(&wanted).await?;
    let client = &admitted.connection.client;
    let opened = OpenedConnection { id: client.id.clone(), user: client.user().cloned() };
    request.extensions_mut().insert(opened);
    Ok(admitted)
}

/// The last event id: from the header, otherwise from either name in the query.
fn last_event_id(request: &HttpRequest, params: &Params) -> Option<String> {
    let header = request.headers().get(&LAST_EVENT_ID);
    let header = header.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let named = || params.non_empty("lastEventId").or_else(|| params.non_empty("last_event_id"));
    header.filter(|id| !id.is_empty()).or_else(|| named().map(str::to_owned))
}

/// The client of a request.
pub struct HttpClient<'a> {
    request: &'a HttpRequest,
    socket: StreamSocket,
}

impl<'a> HttpClient<'a> {
    /// The client of this request.
    pub fn of(request: &'a HttpRequest) -> Self {
        Self { request, socket: StreamSocket::of_request(request) }
    }
}

impl RequestClient for HttpClient<'_> {
    fn session_secret(&self, ticket_digest: &str) -> Option<String> {
        cookie::presented(self.request, ticket_digest)
    }

    fn begin_stream(&self) -> Box<dyn ClientStream> {
        Box::new(StreamOfPeer::new(self.socket.clone()))
    }

    fn retire(&self) {
        self.socket.retire();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{auth::TicketError, core::reasons::TicketRejection};

    fn status(error: impl Into<AdmissionError>, busy: fn(BusyReason) -> HttpResponse) -> u16 {
        denied_response(&error.into(), None, busy).status().as_u16()
    }

    #[test]
    fn only_a_rejected_ticket_or_request_is_fatal_for_a_browser() {
        let rejected = TicketError::new(TicketRejection::Expired, "get a new ticket");
        assert_eq!(status(rejected.clone(), responses::busy_stream), 401);
        assert_eq!(status(AdmissionError::Topics, responses::busy_stream), 400);
        for reason in BusyReason::ALL {
            let busy = AdmissionError::Busy(*reason);
            assert_eq!(status(busy.clone(), responses::busy_stream), 200);
            let expected = if *reason == BusyReason::TooOften { 429 } else { 503 };
            assert_eq!(status(busy, responses::busy_poll), expected);
        }
    }

    #[test]
    fn denial_after_the_session_was_opened_sets_its_cookie() {
        let busy = AdmissionError::Busy(BusyReason::RedisAway);
        let response = denied_response(&busy, Some("a=b; Secure"), responses::busy_stream);
        assert_eq!(response.headers().get(header::SET_COOKIE).unwrap(), "a=b; Secure");
    }
}

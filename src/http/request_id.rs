//! The id of a request (`x-request-id`): taken from a trusted proxy or generated, written to the
//! log, and returned with the response.
//!
//! [`WithRequestId`] wraps the app of a listener, so every response of the app has the header over
//! both versions of HTTP, and every log line of a handler has the id. Lines about an admitted
//! stream or poll have it from the connection's span instead (`state/connection.rs`). A request
//! whose head is malformed has no id: its fields are not read.

use std::{marker::PhantomData, net::IpAddr, task::Poll};

use actix_http::{HttpMessage, Request, Response, body::BoxBody};
use actix_service::Service;
use actix_web::{
    HttpRequest,
    http::header::{HeaderMap, HeaderName, HeaderValue},
};
use futures_util::future::LocalBoxFuture;
use ipnet::IpNet;
use tracing::{Instrument, Span, level_filters::LevelFilter};

use super::events::is_for_stream;
use crate::{core::address::is_trusted, state::client::random_id};

/// The header field, in requests and in responses.
pub static X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Maximum length of an id from a proxy, in bytes.
const MAX_BYTES: usize = 128;

/// An id of 1 to 128 bytes of visible ASCII.
#[derive(Clone, Debug)]
pub struct RequestId(HeaderValue);

impl RequestId {
    /// The id of a request that passed through [`WithRequestId`].
    pub fn of_request(request: &HttpRequest) -> Option<Self> {
        request.extensions().get().cloned()
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }

    /// The span of log lines about the request. Those about a stream have the level debug, and
    /// without that level there is no span for them, because it costs 5 % of a connect.
    fn span(&self, is_for_stream: bool) -> Span {
        if is_for_stream && LevelFilter::current() < LevelFilter::DEBUG {
            return Span::none();
        }
        tracing::error_span!(
            parent: None,
            "request",
            request_id = self.as_str(),
            // Of a publish.
            trace_id = tracing::field::Empty,
        )
    }

    /// The proxy's id, if the request has exactly one and it is well-formed.
    fn of_headers(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(&X_REQUEST_ID);
        let value = values.next().filter(|value| is_well_formed(value.as_bytes()))?;
        values.next().is_none().then(|| Self(value.clone()))
    }

    fn generate() -> Self {
        Self(HeaderValue::try_from(random_id()).unwrap_or(HeaderValue::from_static("-")))
    }
}

fn is_well_formed(id: &[u8]) -> bool {
    (1..=MAX_BYTES).contains(&id.len()) && id.iter().all(u8::is_ascii_graphic)
}

/// An app whose requests have an id, and whose responses return it.
pub struct WithRequestId<S, B> {
    app: S,
    /// The networks whose ids are accepted.
    trusted_proxies: Vec<IpNet>,
    bodies: PhantomData<fn() -> B>,
}

impl<S, B> WithRequestId<S, B> {
    /// Wraps an app.
    pub fn new(app: S, trusted_proxies: Vec<IpNet>) -> Self {
        Self { app, trusted_proxies, bodies: PhantomData }
    }

    fn id(&self, request: &Request) -> RequestId {
        let is_proxy = |peer: IpAddr| is_trusted(peer, &self.trusted_proxies);
        let proxy = request.peer_addr().filter(|peer| is_proxy(peer.ip()));
        let named = proxy.and_then(|_| RequestId::of_headers(request.headers()));
        named.unwrap_or_else(RequestId::generate)
    }
}

impl<S, B> Service<Request> for WithRequestId<S, B>
where
    S: Service<Request>,
    S::Future: 'static,
    S::Response: Into<Response<B>>,
    S::Error: Into<Response<BoxBody>>,
    B: 'static,
{
    type Response = Response<B>;
    type Error = Response<BoxBody>;
    type Future = LocalBoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&self, cx: &mut std::task::Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.app.poll_ready(cx).map_err(Into::into)
    }

    fn call(&self, request: Request) -> Self::Future {
        let id = self.id(&request);
        request.extensions_mut().insert(id.clone());
        let span = id.span(is_for_stream(&request));
        let call = span.in_scope(|| self.app.call(request));
        let result = async move {
            let mut result = call.await.map(Into::into).map_err(Into::into);
            let headers = match &mut result {
                Ok(response) => response.headers_mut(),
                Err(response) => response.headers_mut(),
            };
            headers.insert(X_REQUEST_ID.clone(), id.0);
            result
        };
        Box::pin(result.instrument(span))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(values: &[&[u8]]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(X_REQUEST_ID.clone(), HeaderValue::from_bytes(value).unwrap());
        }
        RequestId::of_headers(&headers).map(|id| id.as_str().to_owned())
    }

    #[test]
    fn one_visible_value_of_limited_length_is_accepted() {
        let all: Vec<u8> = (b'!'..=b'~').collect();
        for value in [&b"a"[..], &all, &[b'x'; 128]] {
            assert_eq!(named(&[value]).as_deref(), std::str::from_utf8(value).ok());
        }
        for value in [&b""[..], &[b'x'; 129], b"a b", b" a", b"a\tb", b"\xe4", "ä".as_bytes()] {
            assert_eq!(named(&[value]), None, "{value:?}");
        }
        assert_eq!(named(&[]), None);
        assert_eq!(named(&[b"a", b"a"]), None);
    }

    #[test]
    fn generated_ids_are_random_uuids() {
        let [a, b] = [(); 2].map(|()| RequestId::generate());
        assert_ne!(a.as_str(), b.as_str());
        assert_eq!(uuid::Uuid::try_parse(a.as_str()).unwrap().get_version_num(), 4);
    }
}

//! Converts requests from h2 to actix, which use two versions of the `http` crate, and checks the
//! rules of RFC 9113 that h2 does not. h2 itself rejects upper-case names, connection-specific
//! fields, `te` other than `trailers`, missing, repeated or misplaced pseudo-header fields, and a
//! body whose length differs from `content-length`.

use std::{
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll, ready},
};

use actix_http::{Payload, Request, Version, error::PayloadError};
use actix_web::http::{
    Method, Uri,
    header::{self, HeaderMap, HeaderName, HeaderValue},
};
use bytes::Bytes;
use futures_util::Stream;
use h2::RecvStream;

use crate::http::front::http1::host;

/// Converts a request of this client; `None` if it is malformed (RFC 9113 section 8.1.1).
pub fn convert(request: http::Request<RecvStream>, address: SocketAddr) -> Option<Request> {
    let (parts, body) = request.into_parts();
    let payload: Payload = match body.is_end_stream() {
        true => Payload::None,
        false => Payload::Stream { payload: Box::pin(Body(body)) },
    };
    let mut converted = Request::with_payload(payload);
    let head = converted.head_mut();
    head.method = Method::from_bytes(parts.method.as_str().as_bytes()).ok()?;
    head.uri = uri(&parts.uri)?;
    head.version = Version::HTTP_2;
    head.headers = headers(&parts.headers)?;
    head.peer_addr = Some(address);
    if !names_one_host(&head.uri, &head.headers) {
        return None;
    }
    Some(converted)
}

fn uri(uri: &http::Uri) -> Option<Uri> {
    // Without an authority h2 drops the scheme, so that only the path remains.
    uri.to_string().parse().ok()
}

fn headers(fields: &http::HeaderMap) -> Option<HeaderMap> {
    let mut headers = HeaderMap::with_capacity(fields.len());
    for (name, value) in fields {
        let name = HeaderName::from_bytes(name.as_str().as_bytes()).ok()?;
        headers.append(name, HeaderValue::from_bytes(value.as_bytes()).ok()?);
    }
    join_cookies(&mut headers)?;
    Some(headers)
}

/// Joins cookies, which a client may split over several fields (RFC 9113 section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) -> Option<()> {
    let pairs: Vec<&[u8]> = headers.get_all(header::COOKIE).map(HeaderValue::as_bytes).collect();
    if pairs.len() > 1 {
        let joined = HeaderValue::from_bytes(&pairs.join(&b"; "[..])).ok()?;
        headers.insert(header::COOKIE, joined);
    }
    Some(())
}

/// Whether `:authority` or `host` contains a host, and they do not differ (RFC 9113 section 8.3.1).
/// The same hosts are valid as over HTTP/1.1, so user information is not allowed.
fn names_one_host(uri: &Uri, headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(header::HOST).map(HeaderValue::as_bytes);
    let (first, second) = (hosts.next(), hosts.next());
    let authority = uri.authority().map(|authority| authority.as_str().as_bytes());
    let differs = authority.zip(first).is_some_and(|(a, host)| !a.eq_ignore_ascii_case(host));
    second.is_none() && !differs && authority.or(first).is_some_and(host::is_valid)
}

/// The body of a request. Reading it reopens the client's flow-control window.
struct Body(RecvStream);

impl Stream for Body {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(data) = ready!(self.0.poll_data(cx)) else { return Poll::Ready(None) };
        let read = data.and_then(|bytes| {
            self.0.flow_control().release_capacity(bytes.len())?;
            Ok(bytes)
        });
        // Handlers do not distinguish the causes of an incomplete body.
        Poll::Ready(Some(read.map_err(|_| PayloadError::Incomplete(None))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_accepted(uri: &str, hosts: &[&str]) -> bool {
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(header::HOST, HeaderValue::from_str(host).unwrap());
        }
        names_one_host(&uri.parse().unwrap(), &headers)
    }

    #[test]
    fn request_has_exactly_one_host() {
        assert!(is_accepted("http://a.example/", &[]));
        assert!(is_accepted("http://a.example:80/", &["A.example:80"]));
        assert!(is_accepted("/", &["a.example"]));
        assert!(!is_accepted("/", &[]));
        assert!(!is_accepted("/", &[""]));
        assert!(!is_accepted("/", &["a b/c"]));
        assert!(!is_accepted("http://u@a.example/", &[]));
        assert!(!is_accepted("/", &["a.example", "a.example"]));
        assert!(!is_accepted("http://a.example/", &["b.example"]));
        assert!(!is_accepted("http://a.example/", &["a.example", "a.example"]));
    }

    #[test]
    fn split_cookies_become_one_field() {
        let mut fields = http::HeaderMap::new();
        for pair in ["a=1", "b=2; c=3"] {
            fields.append("cookie", http::HeaderValue::from_static(pair));
        }
        let headers = headers(&fields).unwrap();
        let cookies: Vec<_> = headers.get_all(header::COOKIE).collect();
        assert_eq!(cookies, ["a=1; b=2; c=3"]);
    }
}

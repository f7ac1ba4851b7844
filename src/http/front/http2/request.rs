//! Requests from h2 to actix: two versions of the `http` crate, and what RFC 9113 asks beside what
//! h2 validates. h2 itself refuses upper-case names, connection-specific fields, `te` other than
//! `trailers`, missing, repeated or misplaced pseudo-header fields, and a body that differs from
//! `content-length`.

use std::{
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll, ready},
};

use actix_http::{HttpMessage, Payload, Request, Version, error::PayloadError};
use actix_web::http::{
    Method, Uri,
    header::{self, HeaderMap, HeaderName, HeaderValue},
};
use bytes::Bytes;
use futures_util::Stream;
use h2::RecvStream;

use crate::http::{front::http1::host, peer::Peer};

/// The request as actix takes it, from this client; `None`: it is malformed (RFC 9113 section
/// 8.1.1).
pub fn convert(
    request: http::Request<RecvStream>,
    address: SocketAddr,
    peer: Peer,
) -> Option<Request> {
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
    converted.extensions_mut().insert(peer);
    Some(converted)
}

fn uri(uri: &http::Uri) -> Option<Uri> {
    // Without an authority h2 drops the scheme: what is left is the path.
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

/// A client may split its cookies over several fields (RFC 9113 section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) -> Option<()> {
    let pairs: Vec<&[u8]> = headers.get_all(header::COOKIE).map(HeaderValue::as_bytes).collect();
    if pairs.len() > 1 {
        let joined = HeaderValue::from_bytes(&pairs.join(&b"; "[..])).ok()?;
        headers.insert(header::COOKIE, joined);
    }
    Some(())
}

/// Whether there is a host, in `:authority` or in `host`, and no second one that differs from it
/// (RFC 9113 section 8.3.1). Valid as over HTTP/1.1; so no user information.
fn names_one_host(uri: &Uri, headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(header::HOST).map(HeaderValue::as_bytes);
    let (first, second) = (hosts.next(), hosts.next());
    let authority = uri.authority().map(|authority| authority.as_str().as_bytes());
    let differs = authority.zip(first).is_some_and(|(a, host)| !a.eq_ignore_ascii_case(host));
    second.is_none() && !differs && authority.or(first).is_some_and(host::is_valid)
}

/// The body of a request: what was read is given back to the client's window.
struct Body(RecvStream);

impl Stream for Body {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(data) = ready!(self.0.poll_data(cx)) else { return Poll::Ready(None) };
        let read = data.and_then(|bytes| {
            self.0.flow_control().release_capacity(bytes.len())?;
            Ok(bytes)
        });
        // How it broke off is of no interest to a handler.
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
    fn a_request_names_one_host() {
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

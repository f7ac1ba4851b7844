//! What does a new connection want? Looks at what came first without taking it, so that whoever serves it finds everything.

use std::io;

use actix_http::{Protocol, Request, Version};
use actix_web::http::{
    Method, Uri,
    header::{self, HeaderName, HeaderValue},
};
use futures_util::FutureExt;

use super::{
    framing::{Framing, MAX_HEAD_BYTES, starts_stream},
    paced::Paced,
    socket::Socket,
};

const MAX_HEADERS: usize = 64;
/// The start of HTTP/2 by prior knowledge (RFC 9113 section 3.4).
const H2: &[u8] = b"PRI * HTTP/2";

/// What a connection wants.
pub enum Wanted {
    /// An event stream over HTTP/1.1 or HTTP/1.0.
    Stream(Box<Request>, Socket),
    /// Something else, of which nothing was taken.
    Other(Protocol, Paced),
    /// A head that is too long.
    TooLong(Socket),
}

/// Waits for as much of a request as it takes to know, and for the whole of its head.
///
/// # Errors
/// The connection is over.
pub async fn wanted(mut io: Paced) -> io::Result<Wanted> {
    if io.socket().is_http2() {
        return Ok(Wanted::Other(Protocol::Http2, io));
    }
    loop {
        match judge(io.held()) {
            None if io.held().len() >= MAX_HEAD_BYTES => return Ok(Wanted::TooLong(io.into_socket())),
            None if io.read_more().await? == 0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            None => {}
            Some(Judged::Stream(request)) => {
                // A client that has gone while its request waited must not take over the stream with which it came back.
                return match io.read_more().now_or_never() {
                    Some(Ok(0) | Err(_)) => Err(io::ErrorKind::UnexpectedEof.into()),
                    _ => Ok(Wanted::Stream(request, io.into_socket())),
                };
            }
            Some(Judged::Other(protocol)) => {
                // Of HTTP/1.1 it is the first request, also where others came before.
                let framing = if protocol == Protocol::Http1 { Framing::new() } else { Framing::free() };
                return Ok(Wanted::Other(protocol, io.framed(framing)));
            }
        }
    }
}

enum Judged {
    Stream(Box<Request>),
    Other(Protocol),
}

/// What these first bytes want; None: it cannot be known yet.
fn judge(seen: &[u8]) -> Option<Judged> {
    let other = |protocol| Some(Judged::Other(protocol));
    if H2.starts_with(&seen[..seen.len().min(H2.len())]) {
        return if seen.len() < H2.len() { None } else { other(Protocol::Http2) };
    }
    if !starts_stream(seen)? {
        return whole(seen);
    }
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut head = httparse::Request::new(&mut headers);
    match head.parse(seen) {
        Ok(httparse::Status::Complete(len)) if len <= MAX_HEAD_BYTES => match request(&head) {
            Some(request) => Some(Judged::Stream(Box::new(request))),
            None => whole(seen),
        },
        Ok(_) => None,
        // What is wrong with it, actix says.
        Err(_) => whole(seen),
    }
}

/// Only who has sent a whole head has sent a request.
fn whole(seen: &[u8]) -> Option<Judged> {
    (Framing::new().pass(seen) > 0).then_some(Judged::Other(Protocol::Http1))
}

/// A request as actix would make it; None: it has something to it that only actix knows.
fn request(parsed: &httparse::Request<'_, '_>) -> Option<Request> {
    let mut request = Request::new();
    let head = request.head_mut();
    head.method = Method::GET;
    head.version = if parsed.version? == 0 { Version::HTTP_10 } else { Version::HTTP_11 };
    head.uri = parsed.path?.parse::<Uri>().ok()?;
    for field in parsed.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
        if [header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::UPGRADE, header::EXPECT].contains(&name) {
            return None;
        }
        head.headers.append(name, HeaderValue::from_bytes(field.value).ok()?);
    }
    Some(request)
}

#[cfg(test)]
mod tests {
    use actix_http::HttpMessage;

    use super::*;

    fn judged(bytes: &[u8]) -> String {
        match judge(bytes) {
            None => "more".to_owned(),
            Some(Judged::Other(protocol)) => format!("{protocol:?}"),
            Some(Judged::Stream(request)) => format!("{} {}", request.uri(), request.headers().len()),
        }
    }

    #[test]
    fn a_stream_is_taken_when_its_head_is_whole() {
        let head = b"GET /events?ticket=a&topics= HTTP/1.1\r\nHost: x\r\nLast-Event-ID: 1-0\r\n\r\n";
        for end in 1..head.len() {
            assert_eq!(judged(&head[..end]), "more", "{end}");
        }
        let stream = "/events?ticket=a&topics= 2";
        assert_eq!(judged(head), stream);
        assert_eq!(judged(&[head, &b"GET /more"[..]].concat()), stream);
        assert_eq!(judged(b"GET /events HTTP/1.0\r\n\r\n"), "/events 0");
    }

    #[test]
    fn all_else_is_left_as_it_came() {
        for other in [
            "POST /publish HTTP/1.1\r\n\r\n",
            "\x16\x03\x01",
            "GET /events/poll?ticket=a HTTP/1.1\r\n\r\n",
            "GET /eventsource HTTP/1.1\r\n\r\n",
            "GET /events HTTP/2.0\r\nHost: x\r\n\r\n",
            "GET /events HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello",
            "GET /events HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "GET /events HTTP/1.1\r\nUpgrade: h2c\r\n\r\n",
            "GET /events HTTP/1.1\r\nno header\r\n\r\n",
            "GET /events\x01 HTTP/1.1\r\n\r\n",
        ] {
            assert_eq!(judged(other.as_bytes()), "Http1", "{other}");
        }
        let fill = MAX_HEAD_BYTES - "GET /events? HTTP/1.1\r\n\r\n".len();
        let long = |fill| judged(format!("GET /events?{} HTTP/1.1\r\n\r\n", "x".repeat(fill)).as_bytes());
        assert!(long(fill).starts_with("/events?xx"));
        assert_eq!(long(fill + 1), "more");
        let many = format!("GET /events HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(MAX_HEADERS + 1));
        assert_eq!(judged(many.as_bytes()), "Http1");
        assert_eq!(judged(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), "Http2");
        for start in
            ["PRI * HT", "GET /ev", "G", "POST /publish HTTP/1.1\r\nHost: x\r\n", "GET /eventsource HTTP/1.1\r\n"]
        {
            assert_eq!(judged(start.as_bytes()), "more", "{start}");
        }
    }
}

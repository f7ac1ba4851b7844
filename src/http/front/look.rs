//! What does a new connection want? Looks without taking, so that whoever serves it finds everything.

use std::{cell::RefCell, io, mem::MaybeUninit};

use actix_http::{Protocol, Request, Version};
use actix_web::{
    http::{
        Method, Uri,
        header::{self, HeaderName, HeaderValue},
    },
    rt::net::TcpStream,
};
use socket2::SockRef;
use tokio::io::Interest;

/// A longer head is left to actix.
const LOOK_BYTES: usize = 16 << 10;
const MAX_HEADERS: usize = 64;
/// The start of HTTP/2 by prior knowledge (RFC 9113 section 3.4).
const H2: &[u8] = b"PRI * HTTP/2";
const STREAM: &[u8] = b"GET /events";

thread_local! {
    /// One for all connections of a worker: a look is over before the next begins.
    static BUFFER: RefCell<Vec<MaybeUninit<u8>>> = RefCell::new(vec![MaybeUninit::uninit(); LOOK_BYTES]);
}

/// What a connection wants.
pub enum Wanted {
    /// An event stream over HTTP/1.1. Its head was taken from the socket.
    Stream(Box<Request>),
    /// Something else, of which nothing was taken.
    Other(Protocol),
}

/// Waits for as much of a request as it takes to know.
///
/// # Errors
/// The connection is over.
pub async fn wanted(io: &TcpStream) -> io::Result<Wanted> {
    loop {
        let ready = io.ready(Interest::READABLE).await?;
        // "Would block" until enough is there: only then tokio waits for more than what was seen.
        let looked = io.try_io(Interest::READABLE, || {
            BUFFER.with_borrow_mut(|buffer| {
                let socket = SockRef::from(io);
                let count = socket.peek(buffer)?;
                // SAFETY: so many bytes were just written.
                let seen = unsafe { std::slice::from_raw_parts(buffer.as_ptr().cast::<u8>(), count) };
                let (wanted, taken) = judge(seen)?.ok_or(io::ErrorKind::WouldBlock)?;
                if taken > 0 {
                    socket.recv(&mut buffer[..taken])?;
                    // A client that has gone while its request waited must not take over the stream with which it came back.
                    if matches!(socket.peek(&mut buffer[..1]), Ok(0)) {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                Ok(wanted)
            })
        });
        match looked {
            // The client has ended its side: no more will come, and tokio would say "ready" for ever.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && ready.is_read_closed() => {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            other => return other,
        }
    }
}

/// What these first bytes want, and how many of them are ours; None: it cannot be known yet.
fn judge(seen: &[u8]) -> io::Result<Option<(Wanted, usize)>> {
    if seen.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let other = |protocol| Ok(Some((Wanted::Other(protocol), 0)));
    if H2.starts_with(&seen[..seen.len().min(H2.len())]) {
        return if seen.len() < H2.len() { Ok(None) } else { other(Protocol::Http2) };
    }
    if !STREAM.starts_with(&seen[..seen.len().min(STREAM.len())]) {
        return other(Protocol::Http1);
    }
    match seen.get(STREAM.len()) {
        None => return Ok(None),
        Some(b' ' | b'?') => {}
        Some(_) => return other(Protocol::Http1),
    }
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut head = httparse::Request::new(&mut headers);
    match head.parse(seen) {
        Ok(httparse::Status::Complete(len)) => match request(&head) {
            Some(request) => Ok(Some((Wanted::Stream(Box::new(request)), len))),
            None => other(Protocol::Http1),
        },
        Ok(httparse::Status::Partial) if seen.len() < LOOK_BYTES => Ok(None),
        // What is wrong with it, actix says.
        _ => other(Protocol::Http1),
    }
}

/// A request as actix would make it; None: it has something to it that only actix knows.
fn request(parsed: &httparse::Request<'_, '_>) -> Option<Request> {
    if parsed.version != Some(1) {
        return None;
    }
    let mut request = Request::new();
    let head = request.head_mut();
    (head.method, head.version) = (Method::GET, Version::HTTP_11);
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
        match judge(bytes).unwrap() {
            None => "more".to_owned(),
            Some((Wanted::Other(protocol), taken)) => format!("{protocol:?} {taken}"),
            Some((Wanted::Stream(request), taken)) => {
                format!("{} {} {taken}", request.uri(), request.headers().len())
            }
        }
    }

    #[test]
    fn a_stream_is_taken_when_its_head_is_whole() {
        let head = b"GET /events?ticket=a&topics= HTTP/1.1\r\nHost: x\r\nLast-Event-ID: 1-0\r\n\r\n";
        for end in 1..head.len() {
            assert_eq!(judged(&head[..end]), "more", "{end}");
        }
        let taken = format!("/events?ticket=a&topics= 2 {}", head.len());
        assert_eq!(judged(head), taken);
        assert_eq!(judged(&[head, &b"GET /more"[..]].concat()), taken);
    }

    #[test]
    fn all_else_is_left_as_it_came() {
        for other in [
            "POST /publish HTTP/1.1\r\n",
            "G /",
            "\x16\x03\x01",
            "GET /events/poll?ticket=a HTTP/1.1\r\n\r\n",
            "GET /eventsource HTTP/1.1\r\n\r\n",
            "GET /events HTTP/1.0\r\nHost: x\r\n\r\n",
            "GET /events HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello",
            "GET /events HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "GET /events HTTP/1.1\r\nUpgrade: h2c\r\n\r\n",
            "GET /events HTTP/1.1\r\nno header\r\n\r\n",
            "GET /events\x01 HTTP/1.1\r\n\r\n",
        ] {
            assert_eq!(judged(other.as_bytes()), "Http1 0", "{other}");
        }
        let long = format!("GET /events?{} HTTP/1.1\r\n\r\n", "x".repeat(LOOK_BYTES));
        assert_eq!(judged(&long.as_bytes()[..LOOK_BYTES]), "Http1 0");
        let many = format!("GET /events HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(MAX_HEADERS + 1));
        assert_eq!(judged(many.as_bytes()), "Http1 0");
        assert_eq!(judged(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), "Http2 0");
        assert_eq!((judged(b"PRI * HT"), judged(b"GET /ev")), ("more".to_owned(), "more".to_owned()));
    }
}

//! Detects the protocol of a new connection by its first bytes, and keeps these bytes.

use std::{future::poll_fn, io};

use bytes::BytesMut;

use super::{prefixed::Prefixed, read::poll_read_more};
use crate::http::sockets::tcp::ClientTcp;

/// The start of HTTP/2 by prior knowledge (RFC 9113 section 3.4).
const H2: &[u8] = b"PRI * HTTP/2";

/// A protocol of the public listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1, HTTP/1.0, or any other bytes.
    Http1,
    /// HTTP/2.
    Http2,
}

/// Reads until the protocol is known.
///
/// # Errors
/// The connection has ended.
pub async fn detect(mut socket: ClientTcp) -> io::Result<(Protocol, Prefixed)> {
    let mut held = BytesMut::new();
    // A client that negotiated HTTP/2 and sends something else is an HTTP/2 client with an error.
    if socket.has_agreed_on_http2() {
        return Ok((Protocol::Http2, Prefixed { held, socket }));
    }
    loop {
        if poll_fn(|cx| poll_read_more(&mut socket, &mut held, cx)).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(protocol) = protocol_of(&held) {
            return Ok((protocol, Prefixed { held, socket }));
        }
    }
}

/// The protocol of the first bytes; `None` if more bytes are needed.
pub fn protocol_of(seen: &[u8]) -> Option<Protocol> {
    match seen.starts_with(H2) {
        true => Some(Protocol::Http2),
        false if H2.starts_with(seen) => None,
        false => Some(Protocol::Http1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols_are_detected_by_their_first_bytes() {
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        for end in 1..preface.len() {
            let expected = (end >= H2.len()).then_some(Protocol::Http2);
            assert_eq!(protocol_of(&preface[..end]), expected, "{end}");
        }
        for other in ["G", "POST / HTTP/1.1\r\n", "PRI * HTTP/1.1\r\n", "\x16\x03\x01", "\r\n"] {
            assert_eq!(protocol_of(other.as_bytes()), Some(Protocol::Http1), "{other}");
        }
    }
}

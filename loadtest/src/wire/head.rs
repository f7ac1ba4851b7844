//! Head of an HTTP/1.1 response.

use std::fmt;

/// Maximum size of a response head in bytes.
const MAX_HEAD_BYTES: usize = 16 * 1024;

/// Delimitation of a response body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// `transfer-encoding: chunked`.
    Chunked,
    /// `content-length`; never used by a stream.
    Length(u64),
    /// The body ends when the connection closes.
    Close,
}

/// Head of a response.
#[derive(Debug, PartialEq, Eq)]
pub struct Head {
    /// Status code.
    pub status: u16,
    /// Delimitation of the body.
    pub framing: Framing,
    /// Whether `content-type` is `text/event-stream`.
    pub event_stream: bool,
    /// Size of the head in bytes.
    pub len: usize,
}

/// Error for a response head that is not valid HTTP/1.1 or too large.
#[derive(Debug, PartialEq, Eq)]
pub struct BadHead;

impl fmt::Display for BadHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the response is not HTTP/1.1")
    }
}

/// Parses the head of a response. Returns `None` if it is still incomplete.
pub fn parse(bytes: &[u8]) -> Result<Option<Head>, BadHead> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    let len = match response.parse(bytes).map_err(|_| BadHead)? {
        httparse::Status::Complete(len) => len,
        httparse::Status::Partial if bytes.len() < MAX_HEAD_BYTES => return Ok(None),
        httparse::Status::Partial => return Err(BadHead),
    };
    let value = |name: &str| {
        let header = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
        header.map(|header| header.value.to_ascii_lowercase()).unwrap_or_default()
    };
    let length = || std::str::from_utf8(&value("content-length")).ok()?.parse().ok();
    let framing = match value("transfer-encoding").ends_with(b"chunked") {
        true => Framing::Chunked,
        false => length().map_or(Framing::Close, Framing::Length),
    };
    let event_stream = value("content-type").starts_with(b"text/event-stream");
    Ok(Some(Head { status: response.code.unwrap_or_default(), framing, event_stream, len }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n\
          Transfer-Encoding: chunked\r\n\r\nrest";

    #[test]
    fn partial_head_is_incomplete_at_every_length() {
        let len = HEAD.len() - 4;
        for end in 0..len {
            assert_eq!(parse(&HEAD[..end]), Ok(None), "{end}");
        }
        let head = Head { status: 200, framing: Framing::Chunked, event_stream: true, len };
        assert_eq!(parse(HEAD), Ok(Some(head)));
    }

    #[test]
    fn head_determines_the_body_framing() {
        let framing = |head: &str| {
            parse(format!("HTTP/1.1 401 No\r\n{head}\r\n").as_bytes()).unwrap().unwrap().framing
        };
        assert_eq!(framing("Content-Length: 17\r\n"), Framing::Length(17));
        assert_eq!(
            framing("Content-Length: 17\r\nTransfer-Encoding: chunked\r\n"),
            Framing::Chunked
        );
        assert_eq!(framing("Content-Length: x\r\n"), Framing::Close);
        assert_eq!(framing(""), Framing::Close);
    }

    #[test]
    fn invalid_or_oversized_heads_are_rejected() {
        assert_eq!(parse(b"SSH-2.0-OpenSSH\r\n"), Err(BadHead));
        assert_eq!(
            parse(&[&b"HTTP/1.1 200 OK\r\nx: "[..], &[b'y'; MAX_HEAD_BYTES]].concat()),
            Err(BadHead)
        );
    }
}

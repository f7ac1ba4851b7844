//! The head of a response (RFC 9112 section 4), and the framing of its body (section 6).

use std::{
    cell::RefCell,
    io::Write,
    time::{SystemTime, UNIX_EPOCH},
};

use actix_http::{Response, Version};
use actix_web::{
    body::{BodySize, MessageBody},
    http::{StatusCode, header},
};

/// How a client finds the end of the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// No content can follow this status.
    None,
    /// Content-Length.
    Length(u64),
    /// Chunks.
    Chunked,
    /// The end of the connection: HTTP/1.0 does not support chunks (RFC 9112 section 6.1).
    UntilClose,
}

impl Framing {
    /// The framing of a response to a request of `version`.
    pub fn of<B: MessageBody>(response: &Response<B>, version: Version) -> Self {
        let status = response.status();
        if status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED {
            return Self::None;
        }
        match response.body().size() {
            BodySize::None => Self::Length(0),
            BodySize::Sized(bytes) => Self::Length(bytes),
            BodySize::Stream if version == Version::HTTP_10 => Self::UntilClose,
            BodySize::Stream => Self::Chunked,
        }
    }
}

/// Encodes the head of `response`; with `closes`, the connection is not reused.
pub fn head<B>(response: &Response<B>, framing: Framing, closes: bool) -> Vec<u8> {
    let status = response.status();
    let reason = status.canonical_reason().unwrap_or_default();
    let mut head = Vec::with_capacity(512);
    for part in ["HTTP/1.1 ", status.as_str(), " ", reason, "\r\n"] {
        head.extend_from_slice(part.as_bytes());
    }
    let own = [header::CONNECTION, header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::DATE];
    for (name, value) in response.headers().iter().filter(|(name, _)| !own.contains(name)) {
        let parts = [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"];
        parts.iter().for_each(|part| head.extend_from_slice(part));
    }
    // Writing into a Vec cannot fail.
    let _ = match framing {
        Framing::Length(bytes) => write!(head, "content-length: {bytes}\r\n"),
        Framing::Chunked => head.write_all(b"transfer-encoding: chunked\r\n"),
        Framing::None | Framing::UntilClose => Ok(()),
    };
    if closes {
        head.extend_from_slice(b"connection: close\r\n");
    }
    write_date(&mut head);
    head.extend_from_slice(b"\r\n");
    head
}

thread_local! {
    /// The time of the last response in seconds, and its date as text.
    static DATE: RefCell<(u64, String)> = const { RefCell::new((0, String::new())) };
}

fn write_date(head: &mut Vec<u8>) {
    let now = SystemTime::now();
    let second = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    DATE.with_borrow_mut(|(of, text)| {
        if *of != second || text.is_empty() {
            *text = httpdate::fmt_http_date(now);
            *of = second;
        }
        ["date: ", text, "\r\n"].iter().for_each(|part| head.extend_from_slice(part.as_bytes()));
    });
}

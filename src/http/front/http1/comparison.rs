//! Compares our parser with actix's: `actix_http::h1::Codec` must read every request that we accept
//! in the same way, byte for byte, up to the start of the next request. We may be stricter.
//!
//! One exception: actix reads everything after `Upgrade: websocket` as the body. We ignore Upgrade,
//! as RFC 9110 section 7.8 allows, and the comparison ends there.

use actix_codec::Decoder as _;
use actix_http::{
    ServiceConfig,
    h1::{Codec, Message, MessageType},
};
use bytes::BytesMut;

use super::{
    body::Step,
    head::{self, Head},
};
use crate::http::{malformed::Malformed, raw_query::RawQuery};

/// A request as read by a parser, and the number of remaining bytes.
#[derive(Debug, PartialEq, Eq)]
pub struct Read {
    method: String,
    target: String,
    fields: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
    left: usize,
}

fn read_of(request: &actix_http::Request, body: Vec<u8>, left: usize) -> Read {
    use actix_http::HttpMessage;
    let fields = request.headers().iter();
    let mut fields: Vec<_> =
        fields.map(|(name, value)| (name.to_string(), value.as_bytes().to_vec())).collect();
    fields.sort();
    Read {
        method: request.method().to_string(),
        // The app gets path and query of the absolute form.
        target: RawQuery::target_of(request),
        fields,
        body,
        left,
    }
}

/// The next request as we read it; `None` if more bytes are needed.
///
/// # Errors
/// The request is malformed.
pub fn ours(held: &mut BytesMut) -> Result<Option<Read>, Malformed> {
    let Some(Head { request, body: mut decoder, .. }) = head::parse(held)? else { return Ok(None) };
    let mut body = Vec::new();
    loop {
        match decoder.decode(held)? {
            Step::Data(bytes) => body.extend_from_slice(&bytes),
            Step::More => return Ok(None),
            Step::Ended => return Ok(Some(read_of(&request, body, held.len()))),
        }
    }
}

/// The next request as actix reads it.
fn theirs(codec: &mut Codec, held: &mut BytesMut) -> Result<Option<Read>, String> {
    let mut decode = |held: &mut BytesMut| {
        let message = codec.decode(held).map_err(|error| error.to_string())?;
        Ok::<_, String>((message, codec.message_type()))
    };
    let (message, kind) = decode(held)?;
    let Some(Message::Item(request)) = message else { return Ok(None) };
    let mut body = Vec::new();
    if kind != MessageType::None {
        loop {
            match decode(held)?.0 {
                Some(Message::Chunk(Some(bytes))) => body.extend_from_slice(&bytes),
                Some(Message::Chunk(None)) => break,
                _ => return Ok(None),
            }
        }
    }
    Ok(Some(read_of(&request, body, held.len())))
}

fn is_websocket(read: &Read) -> bool {
    let is = |(name, value): &(String, Vec<u8>)| {
        name == "upgrade" && value.eq_ignore_ascii_case(b"websocket")
    };
    read.fields.iter().any(is)
}

/// Reads all requests with both parsers and returns the number of those that we accept.
///
/// # Errors
/// We accept a request that actix reads differently. The text contains both results.
pub fn compare(config: &ServiceConfig, text: &[u8]) -> Result<usize, String> {
    let (mut own, mut other) = (BytesMut::from(text), BytesMut::from(text));
    let mut codec = Codec::new(config.clone());
    let mut accepted = 0;
    while let Ok(Some(read)) = ours(&mut own) {
        accepted += 1;
        if is_websocket(&read) {
            return Ok(accepted);
        }
        let expected = Ok(Some(read));
        let read = theirs(&mut codec, &mut other);
        if read != expected {
            return Err(format!("we read {expected:?}, actix reads {read:?}"));
        }
    }
    Ok(accepted)
}

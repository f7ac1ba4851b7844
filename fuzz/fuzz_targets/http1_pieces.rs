//! HTTP/1.1: the way in which requests are split into pieces must not change how they are read.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use sse_gateway::fuzzing::http1::{Decoder, MAX_HEAD_BYTES, MAX_HEADERS, Step, parse};

/// The result: for each request its method, target and number of fields, then its body.
#[derive(Debug, Default, PartialEq)]
struct Read {
    requests: Vec<(String, String, usize, Vec<u8>)>,
    is_malformed: bool,
}

/// Reads everything, `step` bytes at a time.
fn read(text: &[u8], step: usize) -> Read {
    let (mut read, mut held) = (Read::default(), BytesMut::new());
    let mut body: Option<Decoder> = None;
    let mut pieces = text.chunks(step);
    loop {
        let has_progress = match &mut body {
            None => match parse(&mut held) {
                Ok(Some(head)) => {
                    use actix_http::HttpMessage;
                    let (request, target) = (&head.request, head.request.uri().to_string());
                    let fields = request.headers().len();
                    assert!(fields <= MAX_HEADERS);
                    read.requests.push((request.method().to_string(), target, fields, Vec::new()));
                    body = Some(head.body);
                    true
                }
                Ok(None) => {
                    assert!(held.len() < MAX_HEAD_BYTES, "a head grows without bound");
                    false
                }
                Err(_) => break,
            },
            Some(decoder) => match decoder.decode(&mut held) {
                Ok(Step::Data(bytes)) => {
                    assert!(!bytes.is_empty());
                    if let Some(request) = read.requests.last_mut() {
                        request.3.extend_from_slice(&bytes);
                    }
                    true
                }
                Ok(Step::Ended) => {
                    body = None;
                    true
                }
                Ok(Step::More) => false,
                Err(_) => break,
            },
        };
        if !has_progress {
            match pieces.next() {
                Some(piece) => held.extend_from_slice(piece),
                None => return read,
            }
        }
    }
    read.is_malformed = true;
    read
}

fuzz_target!(|input: &[u8]| {
    let Some((step, text)) = input.split_first() else { return };
    // The connection reads a head of this length at once, or rejects it.
    if text.len() >= MAX_HEAD_BYTES {
        return;
    }
    assert_eq!(read(text, usize::from(*step).max(1)), read(text, text.len().max(1)));
});

//! Protocol detection: the result never changes when more bytes arrive, and there always is one.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sse_gateway::fuzzing::{Protocol, protocol_of};

const PREFACE: &[u8] = b"PRI * HTTP/2";

fuzz_target!(|seen: &[u8]| {
    let mut verdict = None;
    for end in 1..=seen.len().min(64) {
        let now = protocol_of(&seen[..end]);
        assert!(verdict.is_none() || verdict == now, "the verdict changed at byte {end}");
        assert!(now.is_some() || end < PREFACE.len(), "no verdict after {end} bytes");
        verdict = now;
    }
    assert_eq!(verdict == Some(Protocol::Http2), seen.starts_with(PREFACE));
});

//! Key sets (JWKS): no document panics, and accepted ones have a usable key with a `kid`.
#![no_main]

use std::collections::HashSet;

use libfuzzer_sys::fuzz_target;
use sse_gateway::fuzzing::parse_key_set;

fuzz_target!(|document: &[u8]| {
    let Ok(set) = parse_key_set(document) else { return };
    assert!(!set.keys.is_empty());
    let kids: HashSet<_> = set.keys.iter().filter_map(|key| key.kid.as_deref()).collect();
    assert_eq!(kids.len(), set.keys.len(), "each key has a kid of its own");
    assert!(!kids.contains("") && set.keys.iter().all(|key| key.secret.is_none()));
});

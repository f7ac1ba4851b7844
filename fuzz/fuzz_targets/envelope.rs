//! Envelopes: accepted ones satisfy the limits, and their frames parse to the same payload.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sse_gateway::core::{channel::Channel, envelope, event::Event, parser::Parser};

const MAX_BYTES: usize = 512;

fuzz_target!(|message: &[u8]| {
    let Ok(envelope) = envelope::decode(message, MAX_BYTES) else { return };
    let within = message.as_ptr_range();
    let payload = envelope.payload.as_bytes().as_ptr_range();
    assert!(within.start <= payload.start && payload.end <= within.end, "a copy of the payload");
    assert!(envelope.payload.len() <= MAX_BYTES);
    assert!(envelope.retry_ms.is_none_or(|ms| ms <= envelope::MAX_RETRY_MS));
    assert!(envelope.key.iter().all(|key| (1..=envelope::MAX_KEY_BYTES).contains(&key.len())));
    assert_eq!(envelope::check_type(&envelope.kind), Ok(()));

    let channel = Channel::parse("broadcast:a").expect("a channel");
    let event = Event::relayed(channel, &envelope);
    let (mut parser, mut events) = (Parser::default(), Vec::new());
    parser.push(&event.frame, |event| events.push(event));
    assert_eq!(events.len(), 1, "one frame is one event");
    assert_eq!(events[0].kind, envelope.kind);
    assert_eq!(events[0].data, envelope.payload.replace("\r\n", "\n").replace('\r', "\n"));
    assert_eq!((parser.retry_ms, event.data()), (envelope.retry_ms, (&*events[0].data).into()));
});

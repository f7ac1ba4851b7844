//! Live messages: every accepted one is an event with the id and payload of the message.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sse_gateway::core::{channel::Channel, event::Event, id::EventId, parser::Parser};

fuzz_target!(|message: &[u8]| {
    check(Channel::parse("user:a:events"), message);
    check(None, message);
});

fn check(user: Option<Channel>, message: &[u8]) {
    let Some(event) = Event::from_live(user, message) else { return };
    let id = event.id.expect("a live event has an id");
    assert!(event.predecessor < id);
    let text = std::str::from_utf8(message).expect("UTF-8");
    let (head, payload) = text.split_once('\n').expect("a head and a payload");
    let (mut parser, mut events) = (Parser::default(), Vec::new());
    parser.push(&event.frame, |event| events.push(event));
    assert_eq!(events.len(), 1, "one frame is one event");
    assert_eq!(EventId::parse(&events[0].id), Some(id));
    assert_eq!((&*events[0].kind, &*events[0].data), (event.kind(), &*event.data()));
    assert!(head.ends_with(event.kind()));
    assert_eq!(events[0].data, payload.replace("\r\n", "\n").replace('\r', "\n"));
}

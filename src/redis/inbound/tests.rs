use redis::Value;

use super::*;
use crate::{
    redis::{link_context::testing::link_context, recorder::inbox},
    state::{mailbox, testing::id},
};

/// The inbound side of a link with a worker, a recorder, and the stream of rejected messages.
struct Parts {
    inbound: Inbound,
    worker: mailbox::Inbox,
    recorder: inbox::Inbox,
    rejected: mpsc::Receiver<Rejected>,
}

fn parts(changes: &[(&str, &str)]) -> Parts {
    let context = link_context(changes);
    context.clock.set_server_ms(1_000_000);
    let worker = context.delivery.mailboxes.open();
    let keys = Arc::new(KeyNames::new(&context.settings.redis));
    let (sender, recorder) = inbox::channel();
    let (rejected_sender, rejected) = mpsc::channel(8);
    let inbound = Inbound::new(context, keys, sender, rejected_sender);
    Parts { inbound, worker, recorder, rejected }
}

impl Parts {
    fn push(&self, link: u64, channel: &str, message: &str) {
        let data = [channel, message].map(|text| Value::BulkString(text.into())).to_vec();
        self.inbound.push(link, PushInfo { kind: PushKind::Message, data });
    }

    fn messages(&mut self) -> Vec<String> {
        use futures_util::FutureExt;
        let mut all = Vec::new();
        let _ = self.worker.receive(&mut all, 100).now_or_never();
        all.iter().map(|message| format!("{message:?}")).collect()
    }

    fn malformed(&self) -> u64 {
        self.inbound.context.metrics.live_malformed.get()
    }
}

#[test]
fn pushes_of_a_previous_link_are_ignored() {
    let mut parts = parts(&[]);
    let old = parts.inbound.next_link();
    let current = parts.inbound.next_link();
    parts.push(old, "sse:live:tick", "9-0 1-0 0-0");
    assert_eq!((parts.messages().len(), parts.inbound.context.state.highest_id()), (0, id(0)));
    parts.push(current, "sse:live:tick", "9-0 1-0 0-0");
    assert_eq!(parts.messages(), ["Tick(EventId { ms: 9, seq: 0 })"]);
    assert_eq!(parts.inbound.context.state.highest_id(), id(9));
}

#[test]
fn messages_not_written_by_the_library_change_nothing() {
    let mut parts = parts(&[]);
    let link = parts.inbound.next_link();
    let far = "99999999999999-0";
    let forged = [
        ("tick", format!("{far} 1-0 0-0")),
        ("tick", "5-0 6-0 0-0".to_owned()),
        ("tick", "5-0 1-0 6-0".to_owned()),
        ("tick", "5-0".to_owned()),
        ("seam", format!("{far} reset")),
        ("seam", "5-0".to_owned()),
        ("control", "revoke a 99999999999999".to_owned()),
        ("control", "taken-over 0a x 1".to_owned()),
        ("marker", "x".repeat(MAX_MARKER_BYTES + 1)),
        ("broadcast:a", format!("{far} 1-0 - t\nx")),
        ("broadcast:a", "5-0 4-0 - sse.gap\nx".to_owned()),
        ("other", "5-0 4-0 - t\nx".to_owned()),
    ];
    for (name, message) in &forged {
        parts.push(link, &format!("sse:live:{name}"), message);
    }
    assert_eq!(parts.malformed(), forged.len() as u64);
    assert_eq!(parts.messages(), Vec::<String>::new());
    assert_eq!(parts.inbound.context.state.highest_id(), id(0));
    let mut inputs = Vec::new();
    parts.recorder.receive_ready(&mut inputs);
    assert!(inputs.is_empty(), "{inputs:?}");
}

#[test]
fn unknown_control_messages_are_ignored() {
    let mut parts = parts(&[]);
    let link = parts.inbound.next_link();
    parts.push(link, "sse:live:control", "something a later version sends");
    assert_eq!((parts.messages().len(), parts.malformed()), (0, 0));
}

#[test]
fn later_epoch_is_reported_to_streams_once() {
    let mut parts = parts(&[]);
    let link = parts.inbound.next_link();
    for tick in ["9-0 1-0 0-0", "20-0 15-0 0-0", "21-0 15-0 0-0"] {
        parts.push(link, "sse:live:tick", tick);
    }
    let messages = parts.messages();
    let breaks: Vec<_> = messages.iter().filter(|m| m.starts_with("HistoryBreak")).collect();
    assert_eq!(breaks, ["HistoryBreak { id: EventId { ms: 15, seq: 0 }, reason: Reset }"]);
}

#[test]
fn relayed_message_goes_live_and_invalid_one_is_reported() {
    let mut parts = parts(&[("PUBLISHERS__PLAIN", "relay"), ("REDIS__CHANNEL_PREFIX", "app:")]);
    let link = parts.inbound.next_link();
    parts.push(link, "app:broadcast:a", "hello");
    parts.push(link, "app:broadcast:a", r#"{"type":"sse.gap","payload":1}"#);
    parts.push(link, "app:nothing", "hello");
    let messages = parts.messages();
    assert!(messages.len() == 1 && messages[0].contains("data: hello"), "{messages:?}");
    let mut refusals = Vec::new();
    while let Ok(rejected) = parts.rejected.try_recv() {
        refusals.push((String::from_utf8(rejected.channel.into()).unwrap(), rejected.reason));
    }
    let expected = [("broadcast:a", Rejection::ReservedType), ("nothing", Rejection::BadChannel)];
    assert_eq!(refusals, expected.map(|(channel, refusal)| (channel.to_owned(), refusal)));
}

#[test]
fn recorded_messages_go_to_the_recorder_only() {
    let mut parts = parts(&[]);
    let link = parts.inbound.next_link();
    parts.push(link, "broadcast:a", "hello");
    let mut inputs = Vec::new();
    parts.recorder.receive_ready(&mut inputs);
    assert!(matches!(&inputs[..], [RecorderInput::Plain(plain)] if plain.message == b"hello"));
    assert_eq!(parts.messages().len(), 0);
}

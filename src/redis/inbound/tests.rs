use super::*;
use crate::{
    core::{part::ServerIndex, topics::Topics},
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
    /// A message of a public channel.
    fn push(&self, link: u64, channel: &str, message: &str) {
        let (channel, message) = (channel.as_bytes(), message.as_bytes());
        self.inbound.push(link, Push::Plain { channel, message });
    }

    /// A message of a live channel.
    fn live(&self, link: u64, slot: &str, message: &str) {
        let channel = format!("sse:live:{{{slot}}}");
        let (channel, message) = (channel.as_bytes(), message.as_bytes());
        self.inbound.push(link, Push::Live { channel, message });
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

fn id_of(text: &str) -> EventId {
    EventId::parse(text).unwrap()
}

#[test]
fn pushes_of_a_previous_link_are_ignored() {
    let mut parts = parts(&[]);
    let old = parts.inbound.next_link();
    let current = parts.inbound.next_link();
    parts.live(old, "broadcast", "9-0.a 0-0.0 - news t\nx");
    assert_eq!((parts.messages().len(), parts.inbound.context.state.highest_id()), (0, id(0)));
    parts.live(current, "broadcast", "9-0.a 0-0.0 - news t\nx");
    assert_eq!(parts.messages().len(), 1);
    assert_eq!(parts.inbound.context.state.highest_id(), id_of("9-0.a"));
}

#[test]
fn messages_not_written_by_the_library_change_nothing() {
    let mut parts = parts(&[]);
    let link = parts.inbound.next_link();
    let far = "99999999999999-0.a";
    let forged = [
        ("broadcast", format!("epoch {far}")),
        ("broadcast", "epoch 5-0".to_owned()),
        ("broadcast", "epoch 5-0.zzzzzzzzz".to_owned()),
        ("broadcast", format!("unrecorded {far}")),
        ("broadcast", format!("marker {}", "x".repeat(MAX_MARKER_BYTES + 1))),
        ("broadcast", format!("{far} 1-0.a - news t\nx")),
        ("broadcast", "5-0.zzzzzzzzz 1-0.a - news t\nx".to_owned()),
        ("broadcast", "5-0.a 4-0.a - news sse.gap\nx".to_owned()),
        ("broadcast", "5-0.a 4-0.a - a,b t\nx".to_owned()),
        ("broadcast", "x".repeat(MAX_CONTROL_BYTES + 1)),
        ("user:a:events", "revoke 99999999999999".to_owned()),
        ("user:a:events", "taken-over 0a x 1".to_owned()),
        ("user:a:events", format!("{far} 1-0.a - t\nx")),
        ("other", "5-0.a 4-0.a - t\nx".to_owned()),
    ];
    for (slot, message) in &forged {
        parts.live(link, slot, message);
    }
    assert_eq!(parts.malformed(), forged.len() as u64);
    assert_eq!(parts.messages(), Vec::<String>::new());
    assert_eq!(parts.inbound.context.state.highest_id(), id(0));
    let mut inputs = Vec::new();
    parts.recorder.receive_ready(&mut inputs);
    assert!(inputs.is_empty(), "{inputs:?}");
}

#[test]
fn unknown_live_messages_are_ignored() {
    let mut parts = parts(&[]);
    let link = parts.inbound.next_link();
    for slot in ["broadcast", "user:a:events"] {
        parts.live(link, slot, "something a later version sends");
    }
    assert_eq!((parts.messages().len(), parts.malformed()), (0, 0));
}

#[test]
fn later_epoch_reaches_streams_once_and_first() {
    let mut parts = parts(&[]);
    let link = parts.inbound.next_link();
    parts.inbound.set_broadcasts(true);
    parts.inbound.watermark(id_of("9-0.a"));
    // The event is the first sign of the new epoch; its position may be lower.
    parts.live(link, "broadcast", "5-0.b 0-0.0 - news t\nx");
    parts.live(link, "broadcast", "epoch 4-0.b");
    parts.inbound.watermark(id_of("6-0.b"));
    let kinds = parts.messages().into_iter();
    let kinds: Vec<_> = kinds.map(|m| m.split(['(', ' ']).next().unwrap().to_owned()).collect();
    assert_eq!(kinds, ["Watermark", "NewEpoch", "Event", "Watermark"]);
    let mut inputs = Vec::new();
    parts.recorder.receive_ready(&mut inputs);
    let expected = [RecorderInput::Link(ServerIndex(0), true), RecorderInput::Reset];
    assert_eq!(format!("{inputs:?}"), format!("{expected:?}"));
}

#[test]
fn event_that_begins_an_epoch_is_cached_once() {
    let parts = parts(&[]);
    let link = parts.inbound.next_link();
    parts.inbound.watermark(id_of("9-0.a"));
    // The event arrives after the watermark of the new link, but is handled before it.
    parts.live(link, "broadcast", "5-0.b 0-0.0 - news t\nx");
    parts.inbound.watermark(id_of("4-0.b"));
    let delivery = &parts.inbound.context.delivery;
    delivery.link_up(parts.inbound.context.server.index, id_of("4-0.b"));
    let cache = &delivery.replay_cache;
    assert_eq!(cache.start(), Some(id_of("4-0.b")), "a fill up to here does not read the event");
    let all = Topics::parse(["*"].into_iter()).unwrap();
    let (events, _) = cache.read(id_of("4-0.b"), id_of("6-0.b"), &all, 9).unwrap();
    assert_eq!(events.iter().map(|e| e.id).collect::<Vec<_>>(), [EventId::parse("5-0.b")]);
}

#[test]
fn late_watermark_of_the_previous_epoch_hides_no_event() {
    let parts = parts(&[]);
    let link = parts.inbound.next_link();
    parts.inbound.watermark(id_of("9-0.a"));
    parts.live(link, "broadcast", "5-0.b 0-0.0 - news t\nx");
    // The supervisor handles this reply after the event that followed it on the link.
    parts.inbound.watermark(id_of("9-1.a"));
    parts.live(link, "broadcast", "6-0.b 5-0.b - news t\nx");
    parts.inbound.watermark(id_of("7-0.b"));
    let start = parts.inbound.context.delivery.replay_cache.start();
    assert!(start >= Some(id_of("5-0.b")), "the cache lost an event that it claims: {start:?}");
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
    let mut rejections = Vec::new();
    while let Ok(rejected) = parts.rejected.try_recv() {
        rejections.push((String::from_utf8(rejected.channel.into()).unwrap(), rejected.reason));
    }
    let expected = [("broadcast:a", Rejection::ReservedType), ("nothing", Rejection::BadChannel)];
    assert_eq!(rejections, expected.map(|(channel, rejection)| (channel.to_owned(), rejection)));
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

use std::{sync::atomic::Ordering, task::Wake};

use futures_util::FutureExt;

use super::*;
use crate::core::{event::Event, reasons::CatchUpCause};
use crate::state::testing::{self, TestClient, client, context, event, id, make_live, written};

fn live(test_client: TestClient) -> Rc<Connection> {
    let connection = testing::connection(&context(&[]), client("a", &["*"], "0a", 1), test_client);
    make_live(&connection);
    connection
}

fn large_event(ms: u64, payload_bytes: usize) -> Arc<Event> {
    let channel = crate::core::channel::Channel::parse("broadcast:a").unwrap();
    Arc::new(Event::new(id(ms), id(ms - 1), channel, None, "t", &"x".repeat(payload_bytes)))
}

fn offer(connection: &Connection, event: &Arc<Event>) -> Outcome {
    connection.offer(&Item::Event(event.clone()), 0)
}

struct CountedWakes(std::sync::atomic::AtomicUsize);

impl Wake for CountedWakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn single_frame_is_shared_and_more_are_joined() {
    let connection = live(TestClient::default());
    let first = event("broadcast:a", 1, 0);
    offer(&connection, &first);
    let Poll::Ready(Some(bytes)) = connection.poll_bytes(Waker::noop()) else { panic!("empty") };
    assert_eq!(bytes.as_ptr(), first.frame.as_ptr(), "one frame was copied");
    for ms in 2..40 {
        offer(&connection, &large_event(ms, 1000));
    }
    let Poll::Ready(Some(bytes)) = connection.poll_bytes(Waker::noop()) else { panic!("empty") };
    assert!((CHUNK_BYTES..CHUNK_BYTES + 1100).contains(&bytes.len()), "{}", bytes.len());
}

#[test]
fn waiting_writer_is_woken_once_per_empty_queue() {
    let connection = live(TestClient::default());
    let wakes = Arc::new(CountedWakes(0.into()));
    let waker = Waker::from(wakes.clone());
    assert!(connection.poll_bytes(&waker).is_pending());
    offer(&connection, &event("broadcast:a", 1, 0));
    offer(&connection, &event("broadcast:a", 2, 1));
    assert_eq!(wakes.0.load(Ordering::Relaxed), 1);
    written(&connection);
    assert!(connection.poll_bytes(&waker).is_pending());
    connection.close(CloseReason::MaxAge, "end".into());
    assert_eq!(wakes.0.load(Ordering::Relaxed), 2);
}

#[test]
fn closing_frame_follows_queued_events_and_first_reason_counts() {
    let connection = live(TestClient::default());
    offer(&connection, &event("broadcast:a", 1, 0));
    connection.close(CloseReason::MaxAge, "first".into());
    connection.close(CloseReason::Draining, "second".into());
    let text = written(&connection);
    assert!(text.starts_with("id: 1-0") && text.ends_with("first"), "{text}");
    assert_eq!(connection.poll_bytes(Waker::noop()), Poll::Ready(None));
    assert_eq!(connection.reason(), CloseReason::MaxAge);
}

#[test]
fn evicted_connection_frees_its_queue_and_disconnects_its_client() {
    let client = TestClient::default();
    let connection = live(client.clone());
    offer(&connection, &event("broadcast:a", 1, 0));
    assert!(connection.context.limits.queued_bytes.total() > 0);
    connection.evict(CloseReason::Stalled);
    assert_eq!(connection.context.limits.queued_bytes.total(), 0);
    assert!(client.is_disconnected.get() && connection.reason() == CloseReason::Stalled);
    assert_eq!(connection.poll_bytes(Waker::noop()), Poll::Ready(None));
}

#[test]
fn catch_up_waits_until_the_writer_has_room() {
    let connection = live(TestClient::default());
    connection.begin_catch_up(Part::Whole);
    let first = large_event(1, REPLAY_BYTES / 2);
    connection.replay(Part::Whole, &first);
    assert!(connection.room().now_or_never().is_some(), "there is room");
    connection.replay(Part::Whole, &large_event(2, REPLAY_BYTES / 2));
    let mut room = Box::pin(connection.room());
    assert!((&mut room).now_or_never().is_none(), "the queue is full");
    assert!(connection.poll_bytes(Waker::noop()).is_ready());
    assert!(room.now_or_never().is_some(), "the writer took some");
}

#[test]
fn new_stream_catches_up_from_its_first_frame_after_a_link_failure() {
    let context = context(&[]);
    let mut parts = testing::parts(&context, client("a", &[], "0a", 1), TestClient::default());
    parts.cursor = None;
    let connection = Connection::new(parts);
    connection.begin_catch_up(Part::Whole);
    assert!(!connection.has_cursor());
    connection.start_at(id(5).into());
    connection.detach(Part::Whole, EventId::ZERO);
    assert_eq!(connection.begin_catch_up(Part::Whole).1, Some(id(5)));
}

#[test]
fn overflow_drops_the_queue_and_keeps_the_cursor() {
    let connection = live(TestClient::default());
    let limit = connection.context.settings.limits.queue_bytes;
    let mut outcomes = (1..).map(|ms| offer(&connection, &large_event(ms, limit / 3)));
    let overflow = outcomes.find(|outcome| *outcome != Outcome::Queued);
    assert_eq!(overflow, Some(Outcome::CatchUp(Part::Whole, CatchUpCause::Overflow)));
    assert_eq!((connection.queued_bytes(), connection.position()), (0, StreamPosition::ZERO));
    assert_eq!(connection.context.limits.queued_bytes.total(), 0);
}

/// ARCHITECTURE.md#what-a-stream-holds lists what else a stream holds.
#[test]
fn connection_takes_at_most_its_budget() {
    let sizes = [size_of::<Connection>(), size_of::<Client>(), size_of::<StreamState>()];
    assert_eq!(sizes, [432, 224, 168], "update the table");
}

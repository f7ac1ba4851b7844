use std::{cell::RefCell, rc::Rc};

use futures_util::FutureExt;

use super::*;
use crate::{
    core::{channel::Channel, envelope, event::Event},
    state::heartbeats::Heartbeats,
    state::testing::{TestClient, client, connection, context, event, id, make_live, written},
};

const SERVER: ServerIndex = ServerIndex(0);

fn hub(changes: &[(&str, &str)]) -> (Rc<Hub>, HubRequests, Inbox) {
    let delivery = Arc::new(Delivery::new(0));
    let inbox = delivery.mailboxes.open();
    let (hub, requests) = Hub::new(context(changes), delivery, &inbox, &[]);
    (hub, requests, inbox)
}

/// A live connection of the hub.
fn live(hub: &Hub, user: &str, topics: &[&str], digest: &str) -> Rc<Connection> {
    let connection =
        connection(&hub.context, client(user, topics, digest, 2), TestClient::default());
    hub.add(&connection);
    make_live(&connection);
    connection
}

/// Handles what is in the mailbox now.
fn handle_all(hub: &Rc<Hub>, inbox: &mut Inbox) {
    let mut messages = Vec::new();
    inbox.receive(&mut messages, 100).now_or_never();
    messages.drain(..).for_each(|message| hub.handle(message, 0));
}

#[test]
fn event_reaches_each_matching_connection_once() {
    let (hub, _requests, _inbox) = hub(&[]);
    let by_three_patterns = live(&hub, "a", &["news", "n*", "*"], "0a");
    let by_prefix = live(&hub, "b", &["n*", "ne*"], "0b");
    let other_topic = live(&hub, "c", &["sport"], "0c");
    let channel = Channel::parse("broadcast:news").unwrap();
    let plain = envelope::decode(b"plain", 100).unwrap();
    hub.handle(Message::Event(SERVER, event("broadcast:news", 5, 0), None), 0);
    hub.handle(Message::Event(SERVER, Arc::new(Event::relayed(channel, &plain)), None), 0);
    hub.handle(Message::Event(SERVER, event("user:a:events", 6, 0), None), 0);
    let count = |c: &Connection| {
        let text = written(c);
        ["id: 5-0", "data: plain", "id: 6-0"].map(|part| text.matches(part).count())
    };
    assert_eq!(count(&by_three_patterns), [1, 1, 1]);
    assert_eq!(count(&by_prefix), [1, 1, 0]);
    assert_eq!(count(&other_topic), [0, 0, 0]);
}

/// A live connection whose client takes everything at once, and what that was, by call.
fn ready(hub: &Hub, user: &str) -> (Rc<Connection>, Rc<RefCell<Vec<String>>>) {
    let written = Rc::new(RefCell::default());
    let test_client = TestClient { written: Some(written.clone()), ..TestClient::default() };
    let connection = connection(&hub.context, client(user, &["*"], user, 2), test_client);
    hub.add(&connection);
    make_live(&connection);
    (connection, written)
}

fn batch(events: impl IntoIterator<Item = Arc<Event>>) -> Round {
    let mut round = Round::default();
    events.into_iter().for_each(|event| round.push(SERVER, Item::Event(event), None));
    round
}

#[test]
fn events_of_a_batch_are_written_in_one_call() {
    let (hub, _requests, _inbox) = hub(&[]);
    let (a, to_a) = ready(&hub, "a");
    let (b, to_b) = ready(&hub, "b");
    let events = [("broadcast:x", 1, 0), ("user:a:events", 2, 0), ("broadcast:y", 3, 0)]
        .map(|e| event(e.0, e.1, e.2));
    let chunks = events.each_ref().map(|event| String::from_utf8(event.chunk.to_vec()).unwrap());
    hub.deliver(&mut batch(events), 0);
    assert_eq!(*to_a.borrow(), [chunks.concat()]);
    assert_eq!(*to_b.borrow(), [chunks[0].clone() + &chunks[2]]);
    for c in [a, b] {
        assert_eq!((c.cursor(), c.position(), c.is_idle()), (id(3).into(), id(3).into(), true));
    }
    assert_eq!(hub.context.metrics.deliveries.get(), 5);
    assert_eq!(hub.servers.watermark(SERVER), id(3));
}

#[test]
fn event_that_does_not_follow_makes_the_stream_catch_up() {
    let (hub, mut requests, _inbox) = hub(&[]);
    hub.servers.set_linked(SERVER, true);
    let (connection, written) = ready(&hub, "a");
    // The event at 2 is missing; the one at 1 arrives twice.
    hub.deliver(
        &mut batch([(1, 0), (1, 0), (3, 2), (4, 3)].map(|e| event("broadcast:x", e.0, e.1))),
        0,
    );
    assert_eq!(written.borrow().len(), 1);
    assert_eq!((connection.cursor(), connection.is_live()), (id(1).into(), false));
    let (_, part, cause) = requests.catch_ups.try_recv().unwrap();
    assert_eq!((part, cause), (Part::Whole, CatchUpCause::Predecessor));
}

#[test]
fn event_behind_queued_frames_is_queued() {
    let (hub, _requests, _inbox) = hub(&[]);
    let (connection, to_client) = ready(&hub, "a");
    connection.offer(&Item::Event(event("broadcast:x", 1, 0)), 0);
    hub.deliver(&mut batch([event("broadcast:x", 2, 1)]), 0);
    assert!(to_client.borrow().is_empty());
    let text = written(&connection);
    assert_eq!(text.matches("id: ").count(), 2, "{text}");
    hub.deliver(&mut batch([event("broadcast:x", 3, 2)]), 0);
    assert_eq!(to_client.borrow().len(), 1);
}

#[test]
fn heartbeats_of_a_group_share_their_frame_and_move_cursors() {
    let (hub, _requests, _inbox) = hub(&[]);
    let all = [ready(&hub, "a"), ready(&hub, "b")];
    let mut frames = Heartbeats::default();
    for (connection, _) in &all {
        connection.heartbeat(|_| id(9), &mut frames);
        assert_eq!((connection.cursor(), connection.is_idle()), (id(9).into(), true));
    }
    assert!(all[0].1.borrow()[0].contains("\r\nid: 9-0."));
    assert_eq!(all[0].1, all[1].1, "with the same time");
}

#[test]
fn removed_connections_leave_nothing_in_the_hub() {
    let (hub, mut requests, _inbox) = hub(&[]);
    // A catch-up may still hold a connection that has ended.
    let mut held = Vec::new();
    for _ in 0..3 {
        let connection = live(&hub, "a", &["news", "n*"], "0a");
        held.push(connection.clone());
        connection.offer(&Item::Event(event("broadcast:news", 5, 0)), 0);
        hub.remove(&connection);
        hub.remove(&connection);
        assert!(requests.ended.try_recv().is_ok() && requests.ended.try_recv().is_err());
    }
    assert!(hub.index.borrow().is_empty());
    assert_eq!(hub.context.limits.connections.count(), 0);
    assert_eq!(hub.context.limits.queued_bytes.total(), 0);
}

#[test]
fn takeover_ends_older_connections_even_late_ones() {
    let (hub, _requests, mut inbox) = hub(&[]);
    let old = live(&hub, "a", &[], "0a");
    let other = live(&hub, "a", &[], "0b");
    let mut take_over = |generation| {
        hub.delivery.taken_over(&"a".into(), "0a", generation, 1);
        handle_all(&hub, &mut inbox);
    };
    take_over(2);
    assert!(!old.is_ending(), "its own generation");
    take_over(3);
    assert_eq!((old.reason(), other.is_ending()), (CloseReason::TakenOver, false));
    assert!(written(&old).contains("retry: 60000"));
    // The notice may arrive before the connection that it is about.
    hub.remove(&old);
    assert_eq!(live(&hub, "a", &[], "0a").reason(), CloseReason::TakenOver);
}

#[test]
fn revocation_ends_sessions_opened_until_then() {
    let (hub, _requests, mut inbox) = hub(&[]);
    let (revoked, other) = (live(&hub, "a", &[], "0a"), live(&hub, "b", &[], "0b"));
    // Sessions of these tests were opened at 1000.
    let mut revoke = |revoked_ms| {
        hub.delivery.revoked(&"a".into(), revoked_ms);
        handle_all(&hub, &mut inbox);
    };
    revoke(999);
    assert!(!revoked.is_ending());
    revoke(1000);
    assert_eq!((revoked.reason(), other.is_ending()), (CloseReason::Revoked, false));
    hub.remove(&revoked);
    assert_eq!(live(&hub, "a", &[], "0c").reason(), CloseReason::Revoked, "a late connection");
}

#[tokio::test]
async fn notice_about_a_session_reaches_only_workers_with_that_user() {
    let (hub, _requests, mut inbox) = hub(&[]);
    let mut other = hub.delivery.mailboxes.open();
    let _connection = live(&hub, "a", &[], "0a");
    hub.delivery.taken_over(&"a".into(), "0a", 3, 1);
    hub.delivery.revoked(&"a".into(), 1000);
    hub.delivery.taken_over(&"b".into(), "0b", 3, 1);
    hub.delivery.mailboxes.send(|| Message::LinkUp(SERVER));
    let mut got = Vec::new();
    assert_eq!(inbox.receive(&mut got, 9).await, 3);
    assert_eq!(other.receive(&mut got, 9).await, 1);
}

#[test]
fn link_break_makes_admitted_connections_catch_up() {
    let (hub, mut requests, _inbox) = hub(&[]);
    let admitted = live(&hub, "a", &["*"], "0a");
    let connecting = connection(&hub.context, client("b", &[], "0b", 1), TestClient::default());
    hub.add(&connecting);
    hub.handle(Message::LinkDown(SERVER), 0);
    hub.handle(Message::Event(SERVER, event("broadcast:news", 5, 0), None), 0);
    assert!(!admitted.is_live());
    let elsewhere = requests.catch_ups.try_recv().unwrap();
    assert!(elsewhere.2 == CatchUpCause::Moved, "for the case that its channel has moved");
    hub.handle(Message::LinkUp(SERVER), 0);
    let (connection, _, cause) = requests.catch_ups.try_recv().unwrap();
    assert!(Rc::ptr_eq(&connection, &admitted) && cause == CatchUpCause::Link);
    assert!(requests.catch_ups.try_recv().is_err(), "its admission starts that catch-up");
}

#[test]
fn unrecorded_break_reaches_every_live_connection() {
    let (hub, _requests, _inbox) = hub(&[]);
    let connection = live(&hub, "a", &[], "0a");
    hub.handle(Message::Unrecorded(SERVER, id(7)), 0);
    assert!(written(&connection).contains("\"reason\":\"unrecorded\""));
    assert_eq!((connection.cursor(), hub.servers.watermark(SERVER)), (id(7).into(), id(7)));
}

#[test]
fn new_epoch_makes_connections_catch_up_from_their_position() {
    let (hub, mut requests, _inbox) = hub(&[]);
    let connection = live(&hub, "a", &["*"], "0a");
    hub.handle(Message::LinkUp(SERVER), 0);
    hub.handle(Message::Event(SERVER, event("broadcast:x", 5, 0), None), 0);
    hub.handle(Message::Watermark(SERVER, id(6)), 0);
    hub.handle(Message::NewEpoch(SERVER), 0);
    assert!(!connection.is_live());
    assert_eq!(
        (connection.position(), hub.servers.watermark(SERVER)),
        (id(6).into(), EventId::ZERO)
    );
    assert_eq!(requests.catch_ups.try_recv().unwrap().2, CatchUpCause::Epoch);
}

#[test]
fn shedding_drops_the_largest_queue_only() {
    let (hub, mut requests, _inbox) = hub(&[]);
    hub.handle(Message::LinkUp(SERVER), 0);
    let (small, large) = (live(&hub, "a", &["*"], "0a"), live(&hub, "b", &["*"], "0b"));
    hub.handle(Message::Event(SERVER, event("broadcast:x", 5, 0), None), 0);
    hub.handle(Message::Event(SERVER, event("user:b:events", 6, 0), None), 0);
    hub.command(Command::Shed);
    assert_eq!((small.queued_bytes() > 0, large.queued_bytes()), (true, 0));
    let (connection, _, cause) = requests.catch_ups.try_recv().unwrap();
    assert!(Rc::ptr_eq(&connection, &large) && cause == CatchUpCause::Overflow);
}

/// A live connection whose broadcasts are on another server than its user's channel.
fn live_split(hub: &Hub, user: &str, server: u16, broadcasts: u16) -> Rc<Connection> {
    let connection = connection(&hub.context, client(user, &["*"], "0a", 2), TestClient::default());
    hub.add(&connection);
    connection.split();
    connection.set_server(Part::User, ServerIndex(server));
    connection.set_server(Part::Broadcasts, ServerIndex(broadcasts));
    make_live(&connection);
    connection
}

/// The requested catch-ups: the user, the part, the cause.
fn requested(requests: &mut HubRequests) -> Vec<(String, Part, &'static str)> {
    std::iter::from_fn(|| requests.catch_ups.try_recv().ok())
        .map(|(c, part, cause)| (c.client.user().unwrap().to_string(), part, cause.name()))
        .collect()
}

fn request(user: &str, part: Part, cause: &'static str) -> (String, Part, &'static str) {
    (user.to_owned(), part, cause)
}

#[test]
fn server_that_is_lost_affects_only_what_is_read_from_it() {
    let (hub, mut requests, _inbox) = hub(&[]);
    let (a, b) = (live_split(&hub, "a", 1, 0), live_split(&hub, "b", 2, 0));
    (0..3).for_each(|n| hub.handle(Message::LinkUp(ServerIndex(n)), 0));
    hub.handle(Message::Watermark(ServerIndex(1), id(9)), 0);
    hub.handle(Message::Watermark(ServerIndex(0), id(3)), 0);
    hub.handle(Message::LinkDown(ServerIndex(1)), 0);
    assert!(a.is_detached(Part::User) && a.is_part_live(Part::Broadcasts) && b.is_live());
    assert_eq!(
        a.position(),
        crate::core::id::StreamPosition { user: id(9), broadcasts: EventId::ZERO }
    );
    assert_eq!(hub.last_watermark(ServerIndex(1)), Some(id(9)));
    // Another server may have what was read from the lost one, at once or later.
    let moved = || [request("a", Part::User, "moved")];
    assert_eq!(requested(&mut requests), moved());
    hub.handle(Message::SlotsArrived, 0);
    assert_eq!(requested(&mut requests), moved());
    hub.handle(Message::LinkUp(ServerIndex(2)), 0);
    assert_eq!(requested(&mut requests), [request("a", Part::User, "link")]);
    hub.handle(Message::NewEpoch(ServerIndex(0)), 0);
    let epoch = |user| request(user, Part::Broadcasts, "epoch");
    assert_eq!(requested(&mut requests), [epoch("a"), epoch("b")]);
    assert_eq!(hub.servers.watermark(ServerIndex(0)), EventId::ZERO);
}

#[test]
fn moved_users_and_broadcasts_catch_up() {
    let (hub, mut requests, _inbox) = hub(&[]);
    let (a, _b) = (live_split(&hub, "a", 1, 0), live_split(&hub, "b", 1, 0));
    let whole = live(&hub, "c", &["*"], "0c");
    hub.handle(Message::UsersMoved(["a".into(), "c".into(), "nobody".into()].into()), 0);
    assert!(a.is_detached(Part::User) && a.is_part_live(Part::Broadcasts));
    assert!(whole.is_detached(Part::Whole));
    let moved = |user, part| request(user, part, "moved");
    assert_eq!(requested(&mut requests), [moved("a", Part::User), moved("c", Part::User)]);
    hub.handle(Message::BroadcastsMoved, 0);
    let expected = ["a", "b", "c"].map(|user| moved(user, Part::Broadcasts));
    assert_eq!(requested(&mut requests), expected);
}

#[test]
fn dropped_events_make_all_parts_catch_up_when_they_resume() {
    let (hub, mut requests, _inbox) = hub(&[]);
    let a = live_split(&hub, "a", 1, 0);
    hub.handle(Message::EventsDropped, 0);
    assert!(!a.is_part_live(Part::User) && !a.is_part_live(Part::Broadcasts));
    hub.handle(Message::LinkUp(ServerIndex(1)), 0);
    assert_eq!(requested(&mut requests), [], "a catch-up would have to be repeated");
    hub.handle(Message::EventsResumed, 0);
    let link = |part| request("a", part, "link");
    assert_eq!(requested(&mut requests), [link(Part::User), link(Part::Broadcasts)]);
}

#[test]
fn frames_of_a_split_stream_show_both_positions() {
    let (hub, _requests, _inbox) = hub(&[]);
    let connection = live_split(&hub, "a", 1, 0);
    hub.handle(Message::Event(ServerIndex(0), event("broadcast:x", 5, 0), None), 0);
    hub.handle(Message::Event(ServerIndex(1), event("user:a:events", 3, 0), None), 0);
    hub.handle(Message::Event(ServerIndex(0), event("broadcast:x", 6, 5), None), 0);
    let text = written(&connection);
    let ids: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("id: ")).collect();
    assert_eq!(ids, ["0-0.0~5-0.0", "3-0.0~5-0.0", "3-0.0~6-0.0"]);
    assert!(text.contains("id: 3-0.0~5-0.0\nevent: t\ndata: 3\n\n"), "{text}");
}

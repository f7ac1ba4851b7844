use std::rc::Rc;

use super::*;
use crate::{
    core::{channel::Channel, envelope},
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

#[test]
fn event_reaches_each_matching_connection_once() {
    let (hub, _requests, _inbox) = hub(&[]);
    let by_three_patterns = live(&hub, "a", &["news", "n*", "*"], "0a");
    let by_prefix = live(&hub, "b", &["n*", "ne*"], "0b");
    let other_topic = live(&hub, "c", &["sport"], "0c");
    let channel = Channel::parse("broadcast:news").unwrap();
    let plain = envelope::decode(b"plain", 100).unwrap();
    hub.event(SERVER, event("broadcast:news", 5, 0), 0);
    hub.event(SERVER, Arc::new(Event::relayed(channel, &plain)), 0);
    hub.event(SERVER, event("user:a:events", 6, 0), 0);
    let count = |c: &Connection| {
        let text = written(c);
        ["id: 5-0", "data: plain", "id: 6-0"].map(|part| text.matches(part).count())
    };
    assert_eq!(count(&by_three_patterns), [1, 1, 1]);
    assert_eq!(count(&by_prefix), [1, 1, 0]);
    assert_eq!(count(&other_topic), [0, 0, 0]);
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
    let (hub, _requests, _inbox) = hub(&[]);
    let old = live(&hub, "a", &[], "0a");
    let other = live(&hub, "a", &[], "0b");
    let take_over = |generation| {
        let digest = "0a".to_owned();
        hub.command(Command::TakenOver { digest, generation, times: 1 });
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
    let (hub, _requests, _inbox) = hub(&[]);
    let (revoked, other) = (live(&hub, "a", &[], "0a"), live(&hub, "b", &[], "0b"));
    // Sessions of these tests were opened at 1000.
    hub.command(Command::Revoke { user: "a".to_owned(), revoked_ms: 999 });
    assert!(!revoked.is_ending());
    hub.command(Command::Revoke { user: "a".to_owned(), revoked_ms: 1000 });
    assert_eq!((revoked.reason(), other.is_ending()), (CloseReason::Revoked, false));
}

#[test]
fn link_break_makes_admitted_connections_catch_up() {
    let (hub, mut requests, _inbox) = hub(&[]);
    let admitted = live(&hub, "a", &["*"], "0a");
    let connecting = connection(&hub.context, client("b", &[], "0b", 1), TestClient::default());
    hub.add(&connecting);
    hub.handle(Message::LinkDown(SERVER), 0);
    hub.event(SERVER, event("broadcast:news", 5, 0), 0);
    assert!(!admitted.is_live() && requests.catch_ups.try_recv().is_err(), "the link is down");
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
    hub.event(SERVER, event("broadcast:x", 5, 0), 0);
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
    hub.event(SERVER, event("broadcast:x", 5, 0), 0);
    hub.event(SERVER, event("user:b:events", 6, 0), 0);
    hub.command(Command::Shed);
    assert_eq!((small.queued_bytes() > 0, large.queued_bytes()), (true, 0));
    let (connection, _, cause) = requests.catch_ups.try_recv().unwrap();
    assert!(Rc::ptr_eq(&connection, &large) && cause == CatchUpCause::Overflow);
}

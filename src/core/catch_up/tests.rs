use super::*;
use crate::core::channel::Channel;
use crate::core::page::{Entry, Received};

fn id(ms: u64) -> EventId {
    in_epoch(7, ms)
}

fn in_epoch(epoch: u64, ms: u64) -> EventId {
    if ms == 0 { EventId::ZERO } else { EventId { epoch, ms, seq: 0 } }
}

fn page(events: &[(u64, u64)], more: bool, last_ever: u64) -> Page {
    let channel = Channel::parse("broadcast:a").unwrap();
    let event = |(ms, pred): &(u64, u64)| {
        Arc::new(Event::new(id(*ms), id(*pred), channel.clone(), None, "t", ""))
    };
    Page {
        events: events.iter().map(event).collect(),
        more,
        last_ever: id(last_ever),
        ..Page::default()
    }
}

fn merge(logs: usize) -> Merge<usize> {
    Merge::new(
        id(1),
        Order::ByEpoch,
        &ClockSnapshot { h: id(10), ..ClockSnapshot::default() },
        0..logs,
    )
}

fn all(merge: &mut Merge<usize>) -> Vec<u64> {
    std::iter::from_fn(|| merge.pop()).map(|e| e.id.unwrap().ms).collect()
}

const CLOCK: ClockSnapshot = ClockSnapshot {
    h: EventId { epoch: 7, ms: 5100, seq: 0 },
    start: EventId { epoch: 7, ms: 5050, seq: 0 },
    previous_epoch: 5,
    continues: Continued([0; MAX_CONTINUED]),
    unrecorded: EventId { epoch: 7, ms: 5060, seq: 0 },
    raised_ms: 0,
    shorter_ms: 0,
    now_ms: 5900,
};

fn reading(cursor: EventId, clock: &ClockSnapshot, retention_ms: u64) -> (bool, bool, bool) {
    match start(Some(cursor), clock, retention_ms) {
        Start::Read { reset, unrecorded, stale } => (reset, unrecorded, stale),
        Start::Restart(reason) => panic!("{reason:?}"),
    }
}

#[test]
fn ids_past_h_restart_the_stream() {
    let unknown = Start::Restart(GapReason::UnknownId);
    for cursor in [None, Some(id(5101)), Some(in_epoch(8, 1))] {
        assert_eq!(start(cursor, &CLOCK, 9000), unknown, "{cursor:?}");
    }
}

#[test]
fn epochs_that_lost_nothing_are_not_reset() {
    let continued = ClockSnapshot { continues: [5, 3].into_iter().collect(), ..CLOCK };
    let is_reset = |epoch| reading(in_epoch(epoch, 5040), &continued, 9000).0;
    assert_eq!([7, 5, 4, 3, 2].map(is_reset), [false, false, true, false, true]);
    // Zero fills the list, and is the epoch of no cursor.
    assert!(is_reset(0));
    let many: Continued = (1..=9).collect();
    assert!(many.contains(8) && !many.contains(9));
}

#[test]
fn older_epoch_or_break_or_age_is_reported() {
    let (reset, unrecorded, stale) = (true, true, true);
    assert_eq!(reading(id(5060), &CLOCK, 9000), (!reset, !unrecorded, !stale));
    assert_eq!(reading(id(5059), &CLOCK, 9000), (!reset, unrecorded, !stale));
    assert_eq!(reading(in_epoch(6, 5100), &CLOCK, 9000), (reset, unrecorded, !stale));
    // The time of Redis decides; H may be older.
    assert_eq!(reading(id(5100), &CLOCK, 1801), (!reset, !unrecorded, !stale));
    assert_eq!(reading(id(5100), &CLOCK, 1799), (!reset, !unrecorded, stale));
    // A time that was set back proves nothing: ids run ahead of it.
    let set_back = ClockSnapshot { now_ms: 0, ..CLOCK };
    assert_eq!(reading(id(5060), &set_back, 1030), (!reset, !unrecorded, stale));
}

#[test]
fn events_before_a_raise_of_the_retention_expire_as_before() {
    let raised = ClockSnapshot { raised_ms: 5070, shorter_ms: 100, ..CLOCK };
    assert_eq!(reading(id(5070), &raised, 9000), (false, false, true));
    assert_eq!(reading(id(5071), &raised, 9000), (false, false, false));
}

#[test]
fn entries_of_a_later_epoch_are_read_whatever_their_ids() {
    // In the current epoch ids are comparable; after one change, its start is known.
    assert_eq!(CLOCK.read_after(id(5090), Order::ByEpoch), id(5090));
    assert_eq!(CLOCK.read_after(in_epoch(5, 5090), Order::ByEpoch), id(5050));
    assert_eq!(CLOCK.read_after(in_epoch(5, 5040), Order::ByEpoch), in_epoch(5, 5040));
    assert_eq!(CLOCK.read_after(in_epoch(4, 5090), Order::ByEpoch), EventId::ZERO);
}

#[test]
fn cursors_before_the_session_or_far_ahead_do_not_resume() {
    let named = |ms| resumable(Some(id(ms).into()), id(5).into(), false, 1000);
    assert_eq!((named(5), named(9)), (Some(id(5).into()), Some(id(9).into())));
    assert_eq!((named(4), named(0), named(u64::MAX)), (None, None, None));
    assert_eq!(resumable(None, id(0).into(), false, 1000), None);
}

#[test]
fn gap_is_reported_only_if_events_may_be_missing() {
    let c = id(5);
    assert_eq!(gap(c, Order::ByEpoch, false, &page(&[(7, 5)], false, 0)), None);
    assert_eq!(
        gap(c, Order::ByEpoch, false, &page(&[(7, 4)], false, 0)),
        None,
        "trimming did not pass the cursor"
    );
    assert_eq!(gap(c, Order::ByEpoch, false, &page(&[(7, 6)], false, 0)), Some(GapReason::Trimmed));
    assert_eq!(gap(c, Order::ByEpoch, false, &page(&[], false, 5)), None);
    assert_eq!(
        gap(c, Order::ByEpoch, false, &page(&[], false, 6)),
        Some(GapReason::Trimmed),
        "all remaining events were trimmed"
    );
    assert_eq!(
        gap(c, Order::ByEpoch, false, &page(&[], false, 0)),
        None,
        "a recent cursor and no log: there were no events"
    );
    assert_eq!(gap(c, Order::ByEpoch, true, &page(&[], false, 0)), Some(GapReason::Expired));
    assert_eq!(gap(c, Order::ByEpoch, true, &page(&[(7, 0)], false, 0)), Some(GapReason::Expired));
    assert_eq!(
        gap(c, Order::ByEpoch, true, &page(&[(7, 5)], false, 0)),
        None,
        "the chain proves it"
    );
    assert_eq!(gap(c, Order::ByEpoch, true, &page(&[], false, 4)), None);
}

#[test]
fn logs_are_merged_by_id_up_to_h() {
    let mut m = merge(2);
    m.feed(0, page(&[(2, 0), (5, 2), (11, 5)], true, 0), true).unwrap();
    assert_eq!(m.pop(), None, "the other log may contain an earlier one");
    m.feed(1, page(&[(3, 0), (4, 3)], true, 0), true).unwrap();
    assert_eq!(all(&mut m), [2, 3, 4]);
    assert_eq!(m.wants().map(|(n, _, from)| (n, from.position)).collect::<Vec<_>>(), [(1, id(4))]);
    m.feed(1, page(&[(10, 4)], false, 0), false).unwrap();
    assert_eq!(all(&mut m), [5, 10]);
    assert_eq!(m.wants().count(), 0);
}

#[test]
fn event_trimmed_between_pages_is_detected() {
    let mut m = merge(1);
    m.feed(0, page(&[(2, 0)], true, 0), true).unwrap();
    assert_eq!(all(&mut m), [2]);
    assert_eq!(m.feed(0, page(&[(5, 4)], false, 0), false), Err(Trimmed));
}

#[test]
fn trimming_after_a_page_is_detected() {
    // The rest of the log up to H was trimmed, and nothing follows.
    let mut m = merge(1);
    m.feed(0, page(&[(2, 0)], true, 0), true).unwrap();
    assert_eq!(m.feed(0, page(&[], false, 6), false), Err(Trimmed));
    // The same, and the only remaining event is past H.
    let mut m = merge(1);
    m.feed(0, page(&[(2, 0)], true, 0), true).unwrap();
    assert_eq!(m.feed(0, page(&[(12, 6)], false, 0), false), Err(Trimmed));
    // Nothing was trimmed.
    let mut m = merge(1);
    m.feed(0, page(&[(2, 0)], true, 0), true).unwrap();
    assert_eq!(m.feed(0, page(&[], false, 2), false), Ok(()));
    assert_eq!(m.feed(0, page(&[(12, 2)], false, 0), false), Ok(()));
}

#[test]
fn full_pages_of_foreign_entries_are_not_a_gap() {
    let foreign = |upto, more| Page { upto: id(upto), ..page(&[], more, 9) };
    assert_eq!(gap(id(1), Order::ByEpoch, false, &foreign(4, true)), None);
    let mut m = merge(1);
    m.feed(0, foreign(4, true), true).unwrap();
    assert_eq!(m.feed(0, foreign(6, true), false), Ok(()));
    assert_eq!(m.feed(0, foreign(8, false), false), Err(Trimmed));
    assert_eq!(m.feed(0, foreign(9, false), false), Ok(()));
}

#[test]
fn events_before_a_hole_are_delivered_first() {
    let mut m = merge(1);
    m.feed(0, page(&[(2, 0), (3, 2), (6, 5)], false, 0), true).unwrap();
    assert_eq!(all(&mut m), [2, 3]);
    assert_eq!(m.wants().count(), 1);
    assert_eq!(m.feed(0, page(&[(6, 5)], false, 0), false), Err(Trimmed));
}

#[test]
fn cursor_of_another_server_is_ordered_by_entry() {
    let (cursor, h) = (in_epoch(9, 5100), CLOCK.h);
    let unknown = Order::ByEntry { skew_ms: 0 };
    let moved = Order::ByEntry { skew_ms: CLOCK_SKEW_MS };
    assert_eq!(order(Part::User, cursor, &CLOCK, false), unknown);
    assert_eq!(order(Part::User, cursor, &CLOCK, true), moved);
    assert_eq!(order(Part::Whole, cursor, &CLOCK, false), Order::ByEpoch, "one server");
    let split = Order::Split { epoch: 7 };
    assert_eq!(order(Part::User, in_epoch(6, 5100), &CLOCK, false), split);
    assert_eq!(order(Part::Whole, in_epoch(6, 5100), &CLOCK, true), moved);
    assert_eq!(order(Part::User, h, &CLOCK, true), split);
    let start = |has_moved| start_part(Part::User, Some(cursor), &CLOCK, 9000, has_moved).1;
    let read = |reset| Start::Read { reset, unrecorded: false, stale: false };
    assert_eq!((start(false), start(true)), (read(true), read(false)));
    let own = start_part(Part::User, Some(id(5060)), &CLOCK, 9000, false);
    assert_eq!(own, (split, read(false)), "as on one server");
    assert_eq!(CLOCK.read_after(cursor, unknown), in_epoch(0, 5100));
    assert_eq!(CLOCK.read_after(in_epoch(9, 90_000), moved), in_epoch(0, 30_000));
}

#[test]
fn moved_log_is_read_behind_what_was_received() {
    let event = |id, predecessor| {
        let channel = Channel::parse("user:1:events").unwrap();
        Arc::new(Event::new(id, predecessor, channel, None, "t", ""))
    };
    // The server before had epoch 9, and its clock was ahead.
    let (old, new) = (|ms| in_epoch(9, ms), |ms| in_epoch(7, ms));
    let events = [
        event(old(5080), old(5070)),
        event(old(5085), old(5080)),
        event(new(5090), old(5085)),
        event(new(5095), new(5090)),
        event(new(5200), new(5095)),
    ];
    let cursor = old(5100);
    let order = order(Part::User, cursor, &CLOCK, true);
    let mut page = Page { events: events.to_vec(), ..Page::default() };
    page.skip(&Received::new(vec![cursor], 7));
    assert_eq!(gap(cursor, order, false, &page), None);
    let mut merge = Merge::new(cursor, order, &CLOCK, 0..1);
    merge.feed(0, page, true).unwrap();
    assert_eq!(all(&mut merge), [5090, 5095], "5200 is past H");
    // What the server before assigned after the cursor has no H.
    let mut page = Page { events: events[..3].to_vec(), ..Page::default() };
    let cursor = old(5080);
    page.skip(&Received::new(vec![cursor], 7));
    let clock = ClockSnapshot { h: new(5082), ..CLOCK };
    let mut merge = Merge::new(cursor, order, &clock, 0..1);
    merge.feed(0, page, true).unwrap();
    assert_eq!(all(&mut merge), [5085], "5090 is past H");
}

#[test]
fn log_that_was_on_other_servers_is_received_up_to_the_position() {
    // Epoch 5, and then 9, at which the stream began; the log moved to a server of epoch 12.
    let channel = || Channel::parse("user:1:events").unwrap();
    let page = |ids: &[EventId]| {
        let event = |id: &EventId| Event::new(*id, EventId::ZERO, channel(), None, "t", "");
        Page { events: ids.iter().map(event).map(Arc::new).collect(), ..Page::default() }
    };
    let left = |received: &Received, ids: &[EventId]| {
        let mut page = page(ids);
        page.skip(received);
        page.events.iter().map(|event| event.id.unwrap()).collect::<Vec<_>>()
    };
    let received = Received::new(vec![in_epoch(9, 5100)], 12);
    assert_eq!(left(&received, &[in_epoch(5, 4000), in_epoch(5, 4001)]), [], "a page of its own");
    let new = [in_epoch(9, 5101), in_epoch(12, 5050)];
    assert_eq!(left(&received, &[in_epoch(5, 4000), in_epoch(9, 5100), new[0], new[1]]), new);
    // What follows a received event is not trimmed, even if that event is past the cursor.
    let chained = |id, predecessor| Arc::new(Event::new(id, predecessor, channel(), None, "t", ""));
    let (ahead, next) = (in_epoch(5, 5200), in_epoch(12, 5201));
    let mut two = Page { events: vec![chained(ahead, id(1)), chained(next, ahead)], ..page(&[]) };
    two.skip(&Received::new(vec![ahead, in_epoch(9, 5100)], 12));
    let by_entry = Order::ByEntry { skew_ms: 0 };
    assert_eq!((two.events.len(), gap(in_epoch(9, 5100), by_entry, false, &two)), (1, None));
    // An adoption without knowledge of epoch 9: what may be new is not skipped.
    let unaware = Received::new(vec![in_epoch(9, 5100)], 7);
    assert_eq!(left(&unaware, &[in_epoch(7, 5099)]), [in_epoch(7, 5099)]);
    assert_eq!(left(&unaware, &[in_epoch(5, 5101)]), [in_epoch(5, 5101)]);
}

#[test]
fn resume_of_a_split_stream_is_checked_for_each_part() {
    let position = |user, broadcasts| StreamPosition { user, broadcasts };
    let first = position(id(5), in_epoch(3, 50));
    let named =
        |user, broadcasts| resumable(Some(position(user, broadcasts)), first, true, 1000).is_some();
    assert!(named(id(5), in_epoch(3, 50)) && !named(id(4), in_epoch(3, 50)));
    assert!(!named(id(5), in_epoch(3, 49)));
    // Another server may have a lower epoch, and its clock may differ.
    let first = position(id(90_000), in_epoch(3, 50));
    let named =
        |user| resumable(Some(position(user, first.broadcasts)), first, true, 90_000).is_some();
    assert!(named(in_epoch(2, 90_000)) && named(in_epoch(2, 30_000)));
    assert!(!named(in_epoch(9, 29_999)) && !named(id(89_999)));
    assert!(named(in_epoch(9, 150_000)) && !named(in_epoch(9, 150_001)), "ahead of both clocks");
    let one_server = |user: EventId| resumable(Some(user.into()), id(5).into(), false, 1000);
    assert_eq!(one_server(in_epoch(2, 5)), None);
}

#[test]
fn session_begins_in_the_broadcasts_where_the_client_is_if_possible() {
    let (h, now) = (id(90_000), 90_000);
    let first = |named| first_of_broadcasts(Some(named), h, now);
    for possible in [id(1), h, in_epoch(3, 99_999), in_epoch(9, 150_000)] {
        assert_eq!(first(possible), possible);
    }
    for ahead in [id(90_001), in_epoch(9, 150_001), in_epoch(u64::MAX, 1)] {
        assert_eq!(first(ahead), h, "{ahead}");
    }
    assert_eq!(first_of_broadcasts(None, h, now), h);
}

#[test]
fn entries_from_before_a_move_prove_nothing_is_missing_behind_it() {
    // The cursor is of this server, and the log begins with events of a server with later epochs.
    let of_log = |id, predecessor| {
        let channel = Channel::parse("user:1:events").unwrap();
        Event::new(id, predecessor, channel, None, "t", "")
    };
    let (old, new) = (|ms| in_epoch(9, ms), |ms| in_epoch(7, ms));
    let cursor = new(5060);
    let order = order(Part::User, cursor, &CLOCK, false);
    let from = ReadFrom { position: cursor, entry: cursor, order, ..ReadFrom::default() };
    let page =
        |entries: Vec<Event>| Page::of(from, entries.into_iter().map(Entry::Event).collect(), 9).0;
    let read = |page: Page| {
        let mut merge = Merge::new(cursor, order, &CLOCK, 0..1);
        merge.feed(0, page, true).unwrap();
        all(&mut merge)
    };
    let next = page(vec![of_log(new(5070), old(5050))]);
    assert_eq!(gap(cursor, order, false, &next), None, "5050 is before the cursor");
    assert_eq!(gap(cursor, Order::ByEpoch, false, &next), Some(GapReason::Trimmed));
    let trimmed = page(vec![of_log(new(5070), old(5065))]);
    assert_eq!(gap(cursor, order, false, &trimmed), Some(GapReason::Trimmed));
    let both = vec![of_log(old(5065), old(5050)), of_log(new(5070), old(5065))];
    assert_eq!(read(page(both)), [5065, 5070]);
}

#[test]
fn predecessor_of_another_servers_later_epoch_is_not_missing() {
    // The log came from a server whose epoch is 8; this one was in epoch 7, and is in 9 now.
    let order = Order::Split { epoch: 9 };
    let cursor = in_epoch(7, 100);
    assert!(!is_missing(order, in_epoch(8, 90), cursor), "written before the log came");
    assert!(is_missing(order, in_epoch(8, 110), cursor));
    assert!(is_missing(order, in_epoch(9, 90), cursor), "of this server, after the cursor");
    assert!(is_missing(order, in_epoch(7, 101), cursor) && !is_missing(order, id(100), cursor));
}

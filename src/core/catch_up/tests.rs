use super::*;
use crate::core::channel::Channel;
use crate::core::page::Entry;

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
    Merge::new(id(1), &ClockSnapshot { h: id(10), ..ClockSnapshot::default() }, 0..logs)
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
    retentions: None,
    now_ms: 5900,
    may_have_values: false,
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
    assert!(!continued.continues.contains(0), "zero fills the list, and is no epoch");
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

/// A time, as a cursor.
fn time(ms: u64) -> EventId {
    EventId::before_time(ms)
}

#[test]
fn time_is_a_cursor_of_no_epoch() {
    // Later epochs are no reset, and everything else is decided by the time.
    let (unrecorded, stale) = (true, true);
    assert_eq!(reading(time(2), &CLOCK, 9000), (false, unrecorded, !stale));
    assert_eq!(reading(time(5061), &CLOCK, 9000), (false, !unrecorded, !stale));
    assert_eq!(reading(time(2), &CLOCK, 4000), (false, unrecorded, stale));
    assert_eq!(CLOCK.read_after(time(5090)), time(5090));
    // By a clock that is slightly ahead, but not by one that cannot be.
    assert!(matches!(start(Some(time(65_900)), &CLOCK, 9000), Start::Read { .. }));
    let ahead = start(Some(time(65_902)), &CLOCK, 9000);
    assert_eq!(ahead, Start::Restart(GapReason::UnknownId));
}

#[test]
fn time_within_the_current_epoch_is_a_position_in_it() {
    assert_eq!(CLOCK.in_epoch(time(5051)), EventId { epoch: 7, ..time(5051) });
    assert_eq!(CLOCK.in_epoch(time(5050)), time(5050), "events of an earlier epoch may follow");
    assert_eq!(CLOCK.in_epoch(time(9000)), CLOCK.h);
    assert_eq!(CLOCK.in_epoch(id(5060)), id(5060));
    let unknown = ClockSnapshot { start: EventId::ZERO, ..CLOCK };
    assert_eq!(unknown.in_epoch(time(5060)), time(5060));
}

#[test]
fn gap_behind_a_time_is_decided_by_the_ids_of_entries() {
    let event = |id, predecessor| {
        let channel = Channel::parse("user:1:events").unwrap();
        Entry::Event(Event::new(id, predecessor, channel, None, "t", ""))
    };
    let from = |ms| ReadFrom { position: time(ms), entry: time(ms), behind_foreign: false };
    let first = |ms, predecessor| {
        let page = Page::of(from(ms), vec![event(in_epoch(3, 70), predecessor)], 9).0;
        gap(time(ms), true, &page)
    };
    assert_eq!(first(60, in_epoch(2, 59)), None);
    assert_eq!(first(60, in_epoch(2, 60)), Some(GapReason::Trimmed), "that ms is included");
    assert_eq!(first(60, EventId::ZERO), Some(GapReason::Expired));
    let empty = |ms, last: u64| {
        let last_ever = from(ms).assume_epoch(in_epoch(0, last));
        gap(time(ms), false, &Page { last_ever, ..Page::default() })
    };
    assert_eq!((empty(60, 59), empty(60, 60)), (None, Some(GapReason::Trimmed)));
}

#[test]
fn log_is_read_from_a_time_through_all_epochs() {
    let event = |epoch, ms, (before, predecessor)| {
        let channel = Channel::parse("user:1:events").unwrap();
        let (id, predecessor) = (in_epoch(epoch, ms), in_epoch(before, predecessor));
        Entry::Event(Event::new(id, predecessor, channel, None, "t", ""))
    };
    let log = [
        vec![Entry::Foreign(in_epoch(0, 60)), Entry::Foreign(in_epoch(0, 61))],
        vec![event(3, 62, (0, 61)), event(3, 63, (3, 62))],
        vec![event(7, 64, (3, 63))],
    ];
    let mut merge = Merge::new(time(60), &CLOCK, 0..1);
    for (n, entries) in log.into_iter().enumerate() {
        let from = merge.wants().next().unwrap().2;
        let page = Page::of(from, entries, 2).0;
        assert_eq!(merge.feed(0, page, n == 0), Ok(()));
        assert_eq!(all(&mut merge).len(), [0, 2, 1][n]);
    }
    assert_eq!(merge.wants().count(), 0);
}

#[test]
fn entries_of_a_later_epoch_are_read_whatever_their_ids() {
    // In the current epoch ids are comparable; after one change, its start is known.
    assert_eq!(CLOCK.read_after(id(5090)), id(5090));
    assert_eq!(CLOCK.read_after(in_epoch(5, 5090)), id(5050));
    assert_eq!(CLOCK.read_after(in_epoch(5, 5040)), in_epoch(5, 5040));
    assert_eq!(CLOCK.read_after(in_epoch(4, 5090)), EventId::ZERO);
}

#[test]
fn cursors_before_the_session_or_far_ahead_do_not_resume() {
    let named = |ms| resumable(Some(id(ms).into()), id(5).into(), 1000);
    assert_eq!((named(5), named(9)), (Some(id(5).into()), Some(id(9).into())));
    assert_eq!((named(4), named(0), named(u64::MAX)), (None, None, None));
    assert_eq!(resumable(None, id(0).into(), 1000), None);
}

#[test]
fn gap_is_reported_only_if_events_may_be_missing() {
    let c = id(5);
    assert_eq!(gap(c, false, &page(&[(7, 5)], false, 0)), None);
    assert_eq!(gap(c, false, &page(&[(7, 4)], false, 0)), None, "trimming did not pass the cursor");
    assert_eq!(gap(c, false, &page(&[(7, 6)], false, 0)), Some(GapReason::Trimmed));
    assert_eq!(gap(c, false, &page(&[], false, 5)), None);
    assert_eq!(
        gap(c, false, &page(&[], false, 6)),
        Some(GapReason::Trimmed),
        "all remaining events were trimmed"
    );
    assert_eq!(
        gap(c, false, &page(&[], false, 0)),
        None,
        "a recent cursor and no log: there were no events"
    );
    assert_eq!(gap(c, true, &page(&[], false, 0)), Some(GapReason::Expired));
    assert_eq!(gap(c, true, &page(&[(7, 0)], false, 0)), Some(GapReason::Expired));
    assert_eq!(gap(c, true, &page(&[(7, 5)], false, 0)), None, "the chain proves it");
    assert_eq!(gap(c, true, &page(&[], false, 4)), None);
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
    assert_eq!(gap(id(1), false, &foreign(4, true)), None);
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
fn log_that_moved_is_read_from_before_the_cursor() {
    // This server continues epoch 5 of another one for the slot, and its clock may be behind.
    let clock =
        ClockSnapshot { continues: Continued::default().with([5]), previous_epoch: 4, ..CLOCK };
    assert_eq!(clock.read_after(in_epoch(5, 90_000)), in_epoch(5, 30_000));
    assert_eq!(clock.read_after(in_epoch(3, 5100)), EventId::ZERO, "not continued");
    let event = |id, predecessor| {
        let channel = Channel::parse("user:1:events").unwrap();
        Event::new(id, predecessor, channel, None, "t", "")
    };
    let (old, new) = (|ms| in_epoch(5, ms), id);
    let log = vec![
        event(old(5080), old(5070)),
        event(old(5085), old(5080)),
        event(new(5090), old(5085)),
        event(new(5101), new(5090)),
    ];
    let cursor = old(5080);
    let mut merge = Merge::new(cursor, &clock, 0..1);
    let from = merge.wants().next().unwrap().2;
    let page = Page::of(from, log.into_iter().map(Entry::Event).collect(), 9).0;
    assert_eq!(gap(cursor, false, &page), None);
    merge.feed(0, page, true).unwrap();
    assert_eq!(all(&mut merge), [5085, 5090], "5101 is past H");
}

#[test]
fn resume_of_a_split_stream_is_checked_for_each_part() {
    let position = |user, broadcasts| StreamPosition { user, broadcasts };
    let first = position(id(5), in_epoch(3, 50));
    let named =
        |user, broadcasts| resumable(Some(position(user, broadcasts)), first, 1000).is_some();
    assert!(named(id(5), in_epoch(3, 50)) && !named(id(4), in_epoch(3, 50)));
    assert!(!named(id(5), in_epoch(3, 49)) && named(id(5), in_epoch(4, 1)));
    assert!(!named(in_epoch(6, 9), in_epoch(3, 50)), "an earlier epoch");
}

#[test]
fn session_begins_in_the_broadcasts_where_the_client_is_if_possible() {
    let h = id(90_000);
    let first = |named| first_of_broadcasts(Some(named), Some(h), 90_000);
    for possible in [id(1), h, in_epoch(3, 99_999)] {
        assert_eq!(first(possible), possible);
    }
    for ahead in [id(90_001), in_epoch(9, 90_000), in_epoch(u64::MAX, 1)] {
        assert_eq!(first(ahead), h, "{ahead}");
    }
    assert_eq!(first_of_broadcasts(None, Some(h), 90_000), h);
    // Nothing but the time is known.
    let unknown = |named| first_of_broadcasts(named, None, 90_000);
    assert_eq!(unknown(Some(in_epoch(9, 150_000))), in_epoch(9, 150_000));
    let now = EventId { ms: 90_000, ..EventId::ZERO };
    assert_eq!((unknown(None), unknown(Some(in_epoch(9, 150_001)))), (now, now));
    let begins = StreamPosition { user: id(5), broadcasts: now };
    let resumes = |ms| {
        let named = StreamPosition { user: id(5), broadcasts: in_epoch(3, ms) };
        resumable(Some(named), begins, 90_000).is_some()
    };
    assert!(resumes(30_000) && !resumes(29_999), "not before the session");
}

use super::*;
use crate::core::page::Entry;

fn in_epoch(epoch: u64, ms: u64) -> EventId {
    EventId { epoch, ms, seq: 0 }
}

/// Epoch 7 of the server began after 40-0 and epoch 3; H is 1000-0.
fn clock() -> ClockSnapshot {
    let (h, start) = (in_epoch(7, 1000), in_epoch(7, 40));
    ClockSnapshot { h, start, previous_epoch: 3, ..ClockSnapshot::default() }
}

fn channel() -> Channel {
    Channel::parse("broadcast:a").unwrap()
}

/// A log whose entry at each ms is an event of that epoch, or foreign with epoch 0. The data of an
/// event has 100 bytes.
fn log(entries: &[(u64, u64)]) -> Vec<Entry> {
    let mut predecessor = EventId::ZERO;
    let entry = |(epoch, ms): &(u64, u64)| {
        let id = in_epoch(*epoch, *ms);
        let before = std::mem::replace(&mut predecessor, id);
        match *epoch {
            0 => Entry::Foreign(id),
            _ => Entry::Event(Event::new(id, before, channel(), None, "t", &"x".repeat(100))),
        }
    };
    entries.iter().map(entry).collect()
}

/// Reads from a log as Redis does. Returns the ms of the events, `next`, and how many entries were
/// read; events at odd ms are invisible.
fn read_log(
    entries: &[(u64, u64)],
    after: EventId,
    limit: usize,
    limit_bytes: usize,
) -> (Vec<u64>, Option<EventId>, usize) {
    let (clock, range) =
        (clock(), HistoryRange { channel: channel(), after, until: None, limit, limit_bytes });
    let is_visible = |event: &Event| event.id.unwrap().ms.is_multiple_of(2);
    let mut reading = Reading::new(&range, &clock, is_visible);
    let mut read = 0;
    loop {
        let count = reading.wanted();
        let entry = (reading.from.entry.ms, reading.from.entry.seq);
        let rest = entries.iter().filter(|(_, ms)| (*ms, 0) > entry).take(count);
        let page = log(&rest.copied().collect::<Vec<_>>());
        read += page.len();
        if reading.add(Page::of(reading.from, page, count).0, count) {
            let HistoryPage { events, next, .. } = reading.found;
            return (events.iter().map(|e| e.id.unwrap().ms).collect(), next, read);
        }
    }
}

/// Reads all pages.
fn read_all(entries: &[(u64, u64)], after: EventId, limit: usize) -> Vec<Vec<u64>> {
    let (mut pages, mut after) = (Vec::new(), Some(after));
    while let Some(from) = after {
        let (page, next, _) = read_log(entries, from, limit, usize::MAX);
        pages.push(page);
        after = next;
    }
    pages
}

#[test]
fn last_page_says_that_nothing_follows() {
    let entries = [(7, 50), (7, 52), (7, 54), (7, 56)];
    assert_eq!(read_all(&entries, EventId::ZERO, 2), [[50, 52], [54, 56]]);
    assert_eq!(read_all(&entries, EventId::ZERO, 3), [vec![50, 52, 54], vec![56]]);
    assert_eq!(read_all(&[], EventId::ZERO, 2), [Vec::<u64>::new()]);
    // Foreign entries, events that the client may not see, and those past H do not follow.
    let entries = [(7, 50), (7, 52), (7, 53), (0, 54), (7, 1000), (7, 1002), (8, 1004)];
    assert_eq!(read_all(&entries, EventId::ZERO, 3), [[50, 52, 1000]]);
    assert_eq!(read_all(&entries[..4], EventId::ZERO, 2), [[50, 52]]);
}

#[test]
fn pages_cross_epochs_and_foreign_entries() {
    let entries = [(0, 30), (3, 32), (3, 33), (0, 34), (3, 36), (3, 60), (7, 62), (0, 63), (7, 64)];
    for limit in 1..6 {
        let pages = read_all(&entries, EventId::before_time(32), limit);
        assert_eq!(pages.concat(), [32, 36, 60, 62, 64], "{pages:?}");
        assert!(pages.iter().all(|page| (1..=limit).contains(&page.len())), "{pages:?}");
        // An id of an earlier epoch, of this log or of another one of the server.
        assert_eq!(read_all(&entries, in_epoch(3, 36), limit).concat(), [60, 62, 64]);
        assert_eq!(read_all(&entries, in_epoch(3, 61), limit).concat(), [62, 64]);
        assert_eq!(read_all(&entries, in_epoch(2, 99), limit).concat(), [32, 36, 60, 62, 64]);
        // A later epoch had lower ids.
        assert_eq!(read_all(&entries, in_epoch(3, 900), limit).concat(), [62, 64]);
        assert_eq!(read_all(&entries, in_epoch(5, 1), limit).concat(), [62, 64]);
    }
    assert_eq!(read_all(&entries, EventId::before_time(33), 9).concat(), [36, 60, 62, 64]);
}

#[test]
fn size_and_work_of_a_response_are_limited() {
    let entries: Vec<_> = (0..20).map(|n| (7, 50 + 2 * n)).collect();
    let (page, next, _) = read_log(&entries, EventId::ZERO, 100, 350);
    // The event that exceeds the limit is the last one.
    assert_eq!((page, next), (vec![50, 52, 54], Some(in_epoch(0, 54))));
    let entries: Vec<_> = (0..3 * MAX_ENTRIES as u64).map(|n| (0, 50 + n)).collect();
    for after in [EventId::ZERO, in_epoch(7, 45)] {
        let (page, next, read) = read_log(&entries, after, 100, 350);
        let last = in_epoch(after.epoch, 49 + read as u64);
        assert!(page.is_empty() && read < MAX_ENTRIES + 2 * PAGE_ENTRIES, "{read}");
        assert_eq!(next, Some(last));
    }
    // What is before the range is not read again by the next request.
    let mut entries: Vec<_> = (0..2 * MAX_ENTRIES as u64).map(|n| (2, 50 + 2 * n)).collect();
    entries.extend([(5, 90_000), (5, 90_002)]);
    let (page, next, _) = read_log(&entries, in_epoch(4, 1), 1, 350);
    assert_eq!((page, next), (vec![90_000], Some(in_epoch(0, 90_000))));
}

//! The catch-up: missed events are read from the logs over (cursor, H] and merged by id
//! (ARCHITECTURE.md#catch-up).
//!
//! This module decides; `redis::catch_up` reads. Without the bound H, an event of one log could
//! overtake an event of another log, which would then be lost.

use std::{collections::VecDeque, sync::Arc};

use super::{
    event::Event,
    id::{EventId, Order, StreamPosition},
    page::{Page, ReadFrom},
    part::Part,
    reasons::GapReason,
};

/// Maximum number of epochs that an epoch continues.
const MAX_CONTINUED: usize = 8;

/// Earlier epochs that an epoch continues without loss, for example after a restart that lost
/// nothing. At most 8.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Continued([u64; MAX_CONTINUED]);

impl Continued {
    /// Whether this epoch is one of them.
    pub fn contains(&self, epoch: u64) -> bool {
        epoch != 0 && self.0.contains(&epoch)
    }
}

impl FromIterator<u64> for Continued {
    /// Further epochs than the first 8 are left out.
    fn from_iter<I: IntoIterator<Item = u64>>(epochs: I) -> Self {
        let mut continued = Self::default();
        continued.0.iter_mut().zip(epochs).for_each(|(slot, epoch)| *slot = epoch);
        continued
    }
}

/// The state of the clock at one moment of the link: everything up to `h` has arrived on the link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClockSnapshot {
    /// The last assigned id.
    pub h: EventId,
    /// The start of the epoch of `h`: its events have later ids.
    pub start: EventId,
    /// The epoch before that of `h`; zero if there was none.
    pub previous_epoch: u64,
    /// The epochs of which nothing was lost when later ones began, up to that of `h`.
    pub continues: Continued,
    /// The last break of reason `unrecorded`; zero if there was none.
    pub unrecorded: EventId,
    /// When the retention was last increased, in ms; zero if it never was.
    pub raised_ms: u64,
    /// The retention of events until `raised_ms`, in ms.
    pub shorter_ms: u64,
    /// The time of Redis when the snapshot was taken, in ms. It decides which events have expired;
    /// H may be older.
    pub now_ms: u64,
}

/// The logs are read shortly after the snapshot; events that expire in between count as expired.
const READ_MARGIN_MS: u64 = 1000;
/// Maximum difference between the clocks of two servers, ms. Behind a move, a log is read from this
/// long before the cursor.
const CLOCK_SKEW_MS: u64 = 60_000;
/// The order of positions of two servers.
const BY_ENTRY: Order = Order::ByEntry { skew_ms: 0 };

/// How a catch-up begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// The stream continues from H, and the client gets the reason.
    Restart(GapReason),
    /// The logs are read.
    Read {
        /// Whether a new epoch began after the cursor that may have lost events.
        reset: bool,
        /// Whether a break of reason `unrecorded` follows the cursor.
        unrecorded: bool,
        /// Whether the cursor is older than the retention: then a missing log proves nothing.
        stale: bool,
    },
}

/// The cursor from which a client may resume: its last event id, unless that is malformed (`None`),
/// implausibly far in the future, or older than `first`, the session's first cursor, in one of its
/// parts. Without a cursor, the client gets `sse.gap` (`unknown-id`) and continues live.
///
/// `is_split`: the sources may be on two servers, or have moved, so that only the time orders
/// positions of different epochs.
pub fn resumable(
    named: Option<StreamPosition>,
    first: StreamPosition,
    is_split: bool,
    server_ms: u64,
) -> Option<StreamPosition> {
    let reaches = |id: EventId, first: EventId| match is_split && id.epoch != first.epoch {
        true => !BY_ENTRY.is_after(first, id),
        false => id >= first,
    };
    named.filter(|named| {
        let is_late =
            reaches(named.user, first.user) && reaches(named.broadcasts, first.broadcasts);
        is_late && named.is_plausible(server_ms)
    })
}

/// What orders the ids of a catch-up of `part` from `cursor`. `has_moved`: the part was moved to
/// this server, and the stream has received everything up to the cursor from the server before.
pub fn order(part: Part, cursor: EventId, clock: &ClockSnapshot, has_moved: bool) -> Order {
    // A part of a split stream may have a position of a server that it was moved from.
    let is_of_other = part != Part::Whole && cursor.epoch > clock.h.epoch;
    match is_of_other || (has_moved && cursor.epoch != clock.h.epoch) {
        true => Order::ByEntry { skew_ms: if has_moved { CLOCK_SKEW_MS } else { 0 } },
        false => Order::ByEpoch,
    }
}

/// Decides how a catch-up from `cursor` begins; `None`: the client's id could not be parsed.
pub fn start(cursor: Option<EventId>, clock: &ClockSnapshot, retention_ms: u64) -> Start {
    match cursor {
        None => Start::Restart(GapReason::UnknownId),
        Some(cursor) if cursor > clock.h => Start::Restart(GapReason::UnknownId),
        Some(cursor) => Start::Read {
            reset: cursor.epoch != clock.h.epoch && !clock.continues.contains(cursor.epoch),
            unrecorded: cursor < clock.unrecorded,
            stale: is_stale(cursor, clock, retention_ms),
        },
    }
}

/// As [`start`], from a cursor of another server ([`Order::ByEntry`]). Without a move that this
/// instance has seen (`has_moved`), events may have been lost between the two.
pub fn start_moved(
    cursor: EventId,
    clock: &ClockSnapshot,
    retention_ms: u64,
    has_moved: bool,
) -> Start {
    Start::Read {
        reset: !has_moved,
        unrecorded: BY_ENTRY.is_after(clock.unrecorded, cursor),
        stale: is_stale(cursor, clock, retention_ms),
    }
}

fn is_stale(cursor: EventId, clock: &ClockSnapshot, retention_ms: u64) -> bool {
    // If the time was set back, ids run ahead of it.
    let now_ms = clock.now_ms.max(clock.h.ms).saturating_add(READ_MARGIN_MS);
    let kept_ms = if cursor.ms <= clock.raised_ms {
        retention_ms.min(clock.shorter_ms)
    } else {
        retention_ms
    };
    cursor.ms.saturating_add(kept_ms) < now_ms
}

impl ClockSnapshot {
    /// The stream id after which a log is read for the events after `cursor`. Ids of a later epoch,
    /// or of another server, may be lower than the cursor's.
    pub fn read_after(&self, cursor: EventId, order: Order) -> EventId {
        if let Order::ByEntry { skew_ms } = order {
            return EventId { epoch: 0, ms: cursor.ms.saturating_sub(skew_ms), ..cursor };
        }
        match cursor.epoch {
            epoch if epoch == self.h.epoch => cursor,
            epoch if epoch == self.previous_epoch && entry(self.start) > entry(cursor) => cursor,
            epoch if epoch == self.previous_epoch => self.start,
            // More than one epoch has begun since.
            _ => EventId::ZERO,
        }
    }
}

/// What orders the entries of one log.
fn entry(id: EventId) -> (u64, u64) {
    (id.ms, id.seq)
}

/// Whether the first page of a log shows a gap after `cursor`.
pub fn gap(cursor: EventId, order: Order, stale: bool, page: &Page) -> Option<GapReason> {
    let is_past = |id, limit| order.is_after(id, limit);
    match page.events.first() {
        Some(first) if is_past(first.predecessor, cursor) => Some(GapReason::Trimmed),
        // The first event of a log: an older log may have expired before it.
        Some(first) if stale && first.predecessor == EventId::ZERO => Some(GapReason::Expired),
        Some(_) => None,
        // A page of only foreign entries, with more to read, shows nothing yet.
        None if page.more => None,
        None if is_past(page.last_ever, order.later(cursor, page.upto)) => Some(GapReason::Trimmed),
        None if stale && page.last_ever == EventId::ZERO => Some(GapReason::Expired),
        None => None,
    }
}

/// One log that is being read; `L` identifies it.
#[derive(Debug)]
struct LogReader<L> {
    log: L,
    buffer: VecDeque<Arc<Event>>,
    from: ReadFrom,
    more: bool,
}

/// Events of several logs, merged by id.
#[derive(Debug)]
pub struct Merge<L> {
    h: EventId,
    order: Order,
    sources: Vec<LogReader<L>>,
}

/// Events were removed from a log while it was read: the catch-up must start again from the last
/// delivered event.
#[derive(Debug, PartialEq, Eq)]
pub struct Trimmed;

impl<L> Merge<L> {
    /// Reads `logs` over (cursor, H] of a snapshot.
    pub fn new(
        cursor: EventId,
        order: Order,
        clock: &ClockSnapshot,
        logs: impl IntoIterator<Item = L>,
    ) -> Self {
        let entry = clock.read_after(cursor, order);
        let from = ReadFrom { position: cursor, entry, behind_foreign: false, order };
        let source = |log| LogReader { log, buffer: VecDeque::new(), from, more: true };
        Self { h: clock.h, order, sources: logs.into_iter().map(source).collect() }
    }

    /// Whether an event comes after H, so that the link brings it. Events that another server
    /// assigned before a move never do.
    fn is_past_h(order: Order, h: EventId, id: EventId) -> bool {
        id > h && (order == Order::ByEpoch || id.epoch == h.epoch)
    }

    /// The logs that must be read next: their numbers, and where the pages begin.
    pub fn wants(&self) -> impl Iterator<Item = (usize, &L, ReadFrom)> {
        let wanting = |s: &LogReader<L>| s.more && s.buffer.is_empty();
        self.sources
            .iter()
            .enumerate()
            .filter(move |(_, s)| wanting(s))
            .map(|(n, s)| (n, &s.log, s.from))
    }

    /// Adds a page of log `n` and checks the chain of predecessors, except before the `first` page,
    /// which [`gap`] checks. A hole within the page ends the page, so that the events before the
    /// hole are delivered first. The chain is also checked after `h`: if a log was trimmed while it
    /// was read, the next event may be the only evidence.
    ///
    /// # Errors
    /// Events are missing before the page.
    pub fn feed(&mut self, n: usize, page: Page, first: bool) -> Result<(), Trimmed> {
        let (order, h) = (self.order, self.h);
        let is_past_h = |id| Self::is_past_h(order, h, id);
        let source = &mut self.sources[n];
        source.more = page.more;
        // A page of only foreign entries may be followed by events.
        let is_end = page.events.is_empty() && !page.more;
        let last = order.later(source.from.position, page.upto);
        if !first && is_end && order.is_after(page.last_ever, last) {
            return Err(Trimmed);
        }
        for (i, event) in page.events.into_iter().enumerate() {
            let id = event.id.unwrap_or(EventId::ZERO);
            let is_missing = order.is_after(event.predecessor, source.from.position);
            if is_missing && !(first && i == 0) {
                source.more = true;
                source.from.entry = source.from.position;
                source.from.behind_foreign = false;
                return if i == 0 { Err(Trimmed) } else { Ok(()) };
            }
            if is_past_h(id) {
                source.more = false;
                return Ok(());
            }
            source.from.position = id;
            source.buffer.push_back(event);
        }
        if page.upto > EventId::ZERO {
            source.from.entry = page.upto;
        }
        source.from.behind_foreign = page.ends_foreign;
        source.from.position = order.later(source.from.position, page.upto);
        Ok(())
    }

    /// The next event in the order of all logs; `None` if a log must be read first, or no event
    /// remains.
    pub fn pop(&mut self) -> Option<Arc<Event>> {
        if self.wants().next().is_some() {
            return None;
        }
        let (order, epoch) = (self.order, self.h.epoch);
        // After a move, what the server before assigned comes first.
        let rank = |id: EventId| match order {
            Order::ByEpoch => id,
            Order::ByEntry { .. } => EventId { epoch: u64::from(id.epoch == epoch), ..id },
        };
        let next = self
            .sources
            .iter_mut()
            .filter(|s| !s.buffer.is_empty())
            .min_by_key(|s| s.buffer[0].id.map(rank))?;
        next.buffer.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::channel::Channel;

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
        assert_eq!(
            gap(c, Order::ByEpoch, false, &page(&[(7, 6)], false, 0)),
            Some(GapReason::Trimmed)
        );
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
        assert_eq!(
            gap(c, Order::ByEpoch, true, &page(&[(7, 0)], false, 0)),
            Some(GapReason::Expired)
        );
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
        assert_eq!(
            m.wants().map(|(n, _, from)| (n, from.position)).collect::<Vec<_>>(),
            [(1, id(4))]
        );
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
}

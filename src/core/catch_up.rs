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

impl Continued {
    /// Adds epochs; those beyond 8 are left out.
    pub fn with(self, epochs: impl IntoIterator<Item = u64>) -> Self {
        self.0.into_iter().filter(|epoch| *epoch > 0).chain(epochs).collect()
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
/// `is_cluster`: the sources may have moved between servers, so that only the time orders positions
/// of different epochs.
pub fn resumable(
    named: Option<StreamPosition>,
    first: StreamPosition,
    is_cluster: bool,
    server_ms: u64,
) -> Option<StreamPosition> {
    let reaches = |id: EventId, first: EventId| match is_cluster && id.epoch != first.epoch {
        true => {
            let latest_ms = first.ms.max(server_ms).saturating_add(CLOCK_SKEW_MS);
            id.ms.saturating_add(CLOCK_SKEW_MS) >= first.ms && id.ms <= latest_ms
        }
        false => id >= first,
    };
    named.filter(|named| {
        let is_late =
            reaches(named.user, first.user) && reaches(named.broadcasts, first.broadcasts);
        is_late && named.is_plausible(server_ms)
    })
}

/// Where a new session begins in the broadcasts of a split stream: at the client's cursor if that
/// is possible, otherwise at `h`, the last known position of their server. A cursor ahead of `h`
/// would keep the session from ever resuming. One of a later epoch is possible, because the
/// broadcasts may have moved from another server: then only the time decides.
pub fn first_of_broadcasts(named: Option<EventId>, h: EventId, server_ms: u64) -> EventId {
    let is_possible = |id: &EventId| match id.epoch > h.epoch {
        true => id.ms <= h.ms.max(server_ms).saturating_add(CLOCK_SKEW_MS),
        false => *id <= h,
    };
    named.filter(|id| id.is_plausible(server_ms) && is_possible(id)).unwrap_or(h)
}

/// What orders the ids of a catch-up of `part` from `cursor`. `has_moved`: the part was moved to
/// this server, and the stream has received everything up to the cursor from the server before.
pub fn order(part: Part, cursor: EventId, clock: &ClockSnapshot, has_moved: bool) -> Order {
    // A part of a split stream may have a position of a server that it was moved from.
    let is_of_other = part != Part::Whole && cursor.epoch > clock.h.epoch;
    match is_of_other || (has_moved && cursor.epoch != clock.h.epoch) {
        true => Order::ByEntry { skew_ms: if has_moved { CLOCK_SKEW_MS } else { 0 } },
        false if part == Part::Whole => Order::ByEpoch,
        false => Order::Split { epoch: clock.h.epoch },
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

/// Decides what orders the ids of a catch-up of `part` from `cursor`, and how it begins, as
/// [`start`]. `has_moved`: see [`order`]. Without a move that this instance has seen, events may
/// have been lost between the server of the cursor and another one.
pub fn start_part(
    part: Part,
    cursor: Option<EventId>,
    clock: &ClockSnapshot,
    retention_ms: u64,
    has_moved: bool,
) -> (Order, Start) {
    let order = order(part, cursor.unwrap_or(EventId::ZERO), clock, has_moved);
    let start = match (order, cursor) {
        (Order::ByEntry { .. }, Some(cursor)) => Start::Read {
            reset: !has_moved && !clock.continues.contains(cursor.epoch),
            unrecorded: clock.unrecorded.is_entry_after(cursor),
            stale: is_stale(cursor, clock, retention_ms),
        },
        _ => start(cursor, clock, retention_ms),
    };
    (order, start)
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

/// Whether a predecessor is past the cursor. One that another server assigned, before the log moved
/// to this one, must be past it in the log, too: the epochs of the two are not ordered, and the
/// cursor may be in an earlier epoch of this server.
fn is_missing(order: Order, predecessor: EventId, cursor: EventId) -> bool {
    let may_be_of_other = match order {
        Order::Split { epoch } => predecessor.epoch != cursor.epoch && predecessor.epoch != epoch,
        Order::ByEpoch | Order::ByEntry { .. } => false,
    };
    order.is_after(predecessor, cursor) && (!may_be_of_other || predecessor.is_entry_after(cursor))
}

/// Whether the first page of a log shows a gap after `cursor`.
pub fn gap(cursor: EventId, order: Order, stale: bool, page: &Page) -> Option<GapReason> {
    let is_past = |id, limit| order.is_after(id, limit);
    match page.events.first() {
        Some(first) if is_missing(order, first.predecessor, cursor) => Some(GapReason::Trimmed),
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
        match order {
            Order::ByEntry { .. } => id.epoch == h.epoch && id > h,
            order => order.is_after(id, h),
        }
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
            Order::Split { epoch } if id.epoch > epoch => EventId { epoch: 0, ..id },
            Order::Split { .. } => id,
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
mod tests;

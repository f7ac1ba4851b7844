//! The catch-up: missed events are read from the logs over (cursor, H] and merged by id
//! (ARCHITECTURE.md#catch-up).
//!
//! This module decides; `redis::catch_up` reads. Without the bound H, an event of one log could
//! overtake an event of another log, which would then be lost.

use std::{collections::VecDeque, sync::Arc};

use super::{
    channel_rules::Retentions,
    event::Event,
    id::{EventId, StreamPosition},
    page::{Page, ReadFrom},
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
    /// The shortest retention of events until `raised_ms`, in ms.
    pub shorter_ms: u64,
    /// The retentions of the function library; `None`: an earlier version, which does not say.
    pub retentions: Option<Retentions>,
    /// The time of Redis when the snapshot was taken, in ms. It decides which events have expired;
    /// H may be older.
    pub now_ms: u64,
    /// Whether channels of the server may have retained values.
    pub may_have_values: bool,
}

/// The logs are read shortly after the snapshot; events that expire in between count as expired.
const READ_MARGIN_MS: u64 = 1000;
/// Maximum difference between two clocks, ms. Behind a move, a log is read from this long before
/// the cursor.
pub const CLOCK_SKEW_MS: u64 = 60_000;

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
        /// Whether the cursor is older than the longest retention: then a missing log proves
        /// nothing. A channel may have a shorter retention, see [`is_stale`].
        stale: bool,
    },
}

/// The cursor from which a client may resume: its last event id, unless that is malformed (`None`),
/// implausibly far in the future, or older than `first`, the session's first cursor, in one of its
/// parts. Without a cursor, the client gets `sse.gap` (`unknown-id`) and continues live.
pub fn resumable(
    named: Option<StreamPosition>,
    first: StreamPosition,
    server_ms: u64,
) -> Option<StreamPosition> {
    // Without an epoch, only the time is known: see `first_of_broadcasts`.
    let reaches = |id: EventId, first: EventId| match first.epoch {
        0 => id.ms.saturating_add(CLOCK_SKEW_MS) >= first.ms,
        _ => id >= first,
    };
    named.filter(|named| {
        reaches(named.user, first.user)
            && reaches(named.broadcasts, first.broadcasts)
            && named.is_plausible(server_ms)
    })
}

/// Where a new session begins in the broadcasts of a split stream: at the client's cursor, or at
/// `h`, the last known position of their server, if that is earlier. A cursor that no server has
/// assigned would keep the session from ever resuming. `None`: nothing but the time is known, and
/// without a cursor the session begins at a position without an epoch.
pub fn first_of_broadcasts(named: Option<EventId>, h: Option<EventId>, server_ms: u64) -> EventId {
    let Some(h) = h else {
        let latest_ms = server_ms.saturating_add(CLOCK_SKEW_MS);
        let is_possible = |id: &EventId| id.is_plausible(server_ms) && id.ms <= latest_ms;
        return named.filter(is_possible).unwrap_or(EventId { ms: server_ms, ..EventId::ZERO });
    };
    named.map_or(h, |named| named.min(h))
}

/// Decides how a catch-up from `cursor` begins; `None`: the client's id could not be parsed.
/// `retention_ms` is the longest one of the channels that are read.
pub fn start(cursor: Option<EventId>, clock: &ClockSnapshot, retention_ms: u64) -> Start {
    match cursor {
        None => Start::Restart(GapReason::UnknownId),
        Some(cursor) if is_ahead(cursor, clock) => Start::Restart(GapReason::UnknownId),
        Some(cursor) => Start::Read {
            // A time is in no epoch, so a new one loses nothing that the client knew of.
            reset: !cursor.is_time()
                && cursor.epoch != clock.h.epoch
                && !clock.continues.contains(cursor.epoch),
            unrecorded: is_before(cursor, clock.unrecorded),
            stale: is_stale(cursor, clock, retention_ms),
        },
    }
}

/// Whether no server can have assigned anything after `cursor` yet. A time may be slightly ahead,
/// because it is by another clock.
fn is_ahead(cursor: EventId, clock: &ClockSnapshot) -> bool {
    match cursor.is_time() {
        true => cursor.ms > clock.now_ms.max(clock.h.ms).saturating_add(CLOCK_SKEW_MS),
        false => cursor > clock.h,
    }
}

/// Whether a position follows a cursor. The positions must be of one log or server.
pub fn is_before(cursor: EventId, position: EventId) -> bool {
    match cursor.is_time() {
        true => entry(position) > entry(cursor),
        false => position > cursor,
    }
}

/// Whether the log of a channel with this retention may have expired since the cursor.
pub fn is_stale(cursor: EventId, clock: &ClockSnapshot, retention_ms: u64) -> bool {
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
    /// A time within the epoch of H as a position in it: then a later epoch is noticed. An earlier
    /// time stays one, and so does every position.
    pub fn in_epoch(&self, cursor: EventId) -> EventId {
        let is_known = self.start.epoch == self.h.epoch;
        match cursor.is_time() && is_known && entry(cursor) >= entry(self.start) {
            true => EventId { epoch: self.h.epoch, ..cursor }.min(self.h),
            false => cursor,
        }
    }

    /// The stream id after which a log is read for the events after `cursor`. Ids of a later epoch
    /// may be lower than the cursor's.
    pub fn read_after(&self, cursor: EventId) -> EventId {
        match cursor.epoch {
            _ if cursor.is_time() => cursor,
            epoch if epoch == self.h.epoch => cursor,
            epoch if epoch == self.previous_epoch && entry(self.start) > entry(cursor) => cursor,
            epoch if epoch == self.previous_epoch => self.start,
            // Nothing was lost, so only the clocks of two servers may differ.
            epoch if self.continues.contains(epoch) => {
                EventId { ms: cursor.ms.saturating_sub(CLOCK_SKEW_MS), seq: 0, ..cursor }
            }
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
pub fn gap(cursor: EventId, stale: bool, page: &Page) -> Option<GapReason> {
    match page.events.first() {
        Some(first) if is_before(cursor, first.predecessor) => Some(GapReason::Trimmed),
        // The first event of a log: an older log may have expired before it.
        Some(first) if stale && first.predecessor == EventId::ZERO => Some(GapReason::Expired),
        Some(_) => None,
        // A page of only foreign entries, with more to read, shows nothing yet.
        None if page.more => None,
        None if page.last_ever > cursor.max(page.upto) => Some(GapReason::Trimmed),
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
    sources: Vec<LogReader<L>>,
}

/// Events were removed from a log while it was read: the catch-up must start again from the last
/// delivered event.
#[derive(Debug, PartialEq, Eq)]
pub struct Trimmed;

impl<L> Merge<L> {
    /// Reads `logs` over (cursor, H] of a snapshot.
    pub fn new(cursor: EventId, clock: &ClockSnapshot, logs: impl IntoIterator<Item = L>) -> Self {
        let entry = clock.read_after(cursor);
        let from = ReadFrom { position: cursor, entry, behind_foreign: false };
        let source = |log| LogReader { log, buffer: VecDeque::new(), from, more: true };
        Self { h: clock.h, sources: logs.into_iter().map(source).collect() }
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
        let source = &mut self.sources[n];
        source.more = page.more;
        // A page of only foreign entries may be followed by events.
        let is_end = page.events.is_empty() && !page.more;
        let last = source.from.position.max(page.upto);
        if !first && is_end && page.last_ever > last {
            return Err(Trimmed);
        }
        for (i, event) in page.events.into_iter().enumerate() {
            let id = event.id.unwrap_or(EventId::ZERO);
            let is_missing = event.predecessor > source.from.position;
            if is_missing && !(first && i == 0) {
                source.more = true;
                source.from.entry = source.from.position;
                source.from.behind_foreign = false;
                return if i == 0 { Err(Trimmed) } else { Ok(()) };
            }
            if id > self.h {
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
        source.from.position = source.from.position.max(page.upto);
        Ok(())
    }

    /// The next event in the order of all logs; `None` if a log must be read first, or no event
    /// remains.
    pub fn pop(&mut self) -> Option<Arc<Event>> {
        if self.wants().next().is_some() {
            return None;
        }
        let next = self
            .sources
            .iter_mut()
            .filter(|s| !s.buffer.is_empty())
            .min_by_key(|s| s.buffer[0].id)?;
        next.buffer.pop_front()
    }
}

#[cfg(test)]
mod tests;

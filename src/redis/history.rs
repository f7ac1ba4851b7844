//! Reads the stored events of one channel, for `GET /events/history`. The logs are read as by a
//! catch-up, but without a stream.

use std::sync::Arc;

use super::{
    commands::{CommandError, Commands},
    log,
};
use crate::core::{
    catch_up::{ClockSnapshot, is_before},
    channel::Channel,
    event::Event,
    id::EventId,
    page::{Page, ReadFrom},
};

/// Maximum number of entries in one reply of Redis.
const PAGE_ENTRIES: usize = 128;
/// Maximum number of entries that one request reads to find events that its client may see.
const MAX_ENTRIES: usize = 10_000;

/// What a client wants to read.
pub struct HistoryRange {
    /// The channel.
    pub channel: Channel,
    /// The events after this position or time.
    pub after: EventId,
    /// The events up to this position or time; `None`: all that are stored.
    pub until: Option<EventId>,
    /// Maximum number of events.
    pub limit: usize,
    /// Approximate maximum size of the events, in bytes.
    pub limit_bytes: usize,
}

/// Stored events of a channel, oldest first.
#[derive(Debug, Default)]
pub struct HistoryPage {
    /// The events.
    pub events: Vec<Arc<Event>>,
    /// A cursor behind the last entry that was read, which may not be an event. It has no epoch:
    /// in one log, the ids of entries rise through all of them. `None`: nothing follows in the
    /// range up to H.
    pub next: Option<EventId>,
    /// The event at which the page ends because its epoch is later than that of H.
    pub ahead: Option<EventId>,
}

/// What has been read so far.
struct Reading<'a, V> {
    range: &'a HistoryRange,
    clock: &'a ClockSnapshot,
    is_visible: V,
    from: ReadFrom,
    found: HistoryPage,
    bytes: usize,
    entries: usize,
    /// Whether every later entry is in the range: an earlier entry of it was read.
    has_begun: bool,
}

/// Reads the events of a range up to H of `clock`, a snapshot that was taken before, for which
/// `is_visible` is true.
///
/// # Errors
/// Redis does not respond, or the key does not contain a log.
pub async fn read(
    commands: &Commands,
    range: &HistoryRange,
    clock: &ClockSnapshot,
    is_visible: impl Fn(&Event) -> bool,
) -> Result<HistoryPage, CommandError> {
    let mut reading = Reading::new(range, clock, is_visible);
    loop {
        let count = reading.wanted();
        let log = [(range.channel.clone(), reading.from)];
        // A foreign key counts as no log on a first read, and as an error later.
        let is_first = reading.entries == 0;
        let page = log::pages(commands, &log, count, is_first).await?.pop().unwrap_or_default();
        if reading.add(page, count) {
            return Ok(reading.found);
        }
    }
}

impl<'a, V: Fn(&Event) -> bool> Reading<'a, V> {
    fn new(range: &'a HistoryRange, clock: &'a ClockSnapshot, is_visible: V) -> Self {
        let after = range.after;
        Self {
            range,
            clock,
            is_visible,
            from: ReadFrom {
                position: after,
                entry: clock.read_after(after),
                behind_foreign: false,
            },
            found: HistoryPage::default(),
            bytes: 0,
            entries: 0,
            has_begun: after.is_time(),
        }
    }

    /// The number of entries to read next. One more than are missing shows whether any follow.
    fn wanted(&self) -> usize {
        if !self.has_begun {
            return PAGE_ENTRIES;
        }
        let missing = self.range.limit.saturating_sub(self.found.events.len());
        missing.saturating_add(1).min(PAGE_ENTRIES)
    }

    /// Adds the events of a page of up to `count` entries. Returns whether the result is complete.
    fn add(&mut self, page: Page, count: usize) -> bool {
        for event in page.events {
            let id = event.id.unwrap_or(EventId::ZERO);
            let is_past = self.range.until.is_some_and(|until| is_before(until, id));
            if id > self.clock.h || is_past {
                let is_ahead = !is_past && id.epoch > self.clock.h.epoch;
                self.found.ahead = is_ahead.then_some(id);
                return true;
            }
            if (self.is_visible)(&event) {
                if self.is_full() {
                    self.found.next = self.reached();
                    return true;
                }
                self.bytes += event.frame.len();
                self.found.events.push(event);
            }
            self.from.entry = id;
            self.from.position = id;
            self.has_begun = true;
        }
        if !page.more {
            return true;
        }
        self.from.entry = page.upto;
        self.from.behind_foreign = page.ends_foreign;
        self.from.position = self.from.position.max(page.upto);
        self.entries += count;
        self.found.next = if self.entries >= MAX_ENTRIES { self.reached() } else { None };
        self.found.next.is_some()
    }

    /// The cursor from which another request continues. `None`: it would read the same entries
    /// again, because a later epoch has lower ids than the position of the range.
    fn reached(&self) -> Option<EventId> {
        let ReadFrom { position, entry, .. } = self.from;
        let next = if self.has_begun { EventId { epoch: 0, ..entry } } else { position };
        let begins = self.clock.read_after(next);
        ((begins.ms, begins.seq) == (entry.ms, entry.seq)).then_some(next)
    }

    fn is_full(&self) -> bool {
        let HistoryRange { limit, limit_bytes, .. } = *self.range;
        self.found.events.len() >= limit || self.bytes > limit_bytes
    }
}

#[cfg(test)]
mod tests;

//! A page of a log: which of its entries are events after a position, and what the other entries
//! prove about events that are missing (ARCHITECTURE.md#catch-up).
//!
//! The entries of a log are ordered by their ids, and its events also by epoch. Across logs, ids
//! of a later epoch may be lower. An entry that another client wrote (a foreign entry) has no
//! epoch.

use std::sync::Arc;

use super::{event::Event, id::EventId};

/// Where the next page of a log begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadFrom {
    /// Only events after this id are wanted.
    pub position: EventId,
    /// The entries after this one are read: see `ClockSnapshot::read_after`. Its epoch has no
    /// meaning.
    pub entry: EventId,
    /// Whether `entry` is a foreign entry.
    pub behind_foreign: bool,
}

impl ReadFrom {
    /// The id of an entry whose epoch is not known: that of the position is assumed. If the entry
    /// is of a later epoch, the id is too low, which proves less than it could.
    pub fn assume_epoch(&self, entry: EventId) -> EventId {
        EventId { epoch: self.position.epoch, ..entry }
    }
}

/// An entry of a log.
#[derive(Debug)]
pub enum Entry {
    /// An event, with the predecessor that the library stored.
    Event(Event),
    /// An entry that the library did not write, with its id. The epoch is ignored.
    Foreign(EventId),
}

/// The remaining part of a log after a position.
#[derive(Debug, Default)]
pub struct Page {
    /// Events after the position, in order.
    pub events: Vec<Arc<Event>>,
    /// Whether the log may contain more.
    pub more: bool,
    /// The last id that was read, including entries up to the position and foreign ones, whose
    /// epoch is that of the last event before them or else of the position.
    pub upto: EventId,
    /// Whether the last entry that was read is foreign.
    pub ends_foreign: bool,
    /// If there is no event: the last id that the log ever had ([`ReadFrom::assume_epoch`]), or
    /// zero if the log does not exist.
    pub last_ever: EventId,
}

impl Page {
    /// The page that consists of these entries after `from`, the whole result of a read of up to
    /// `count` entries; and how many of them are foreign. The last id that the log ever had is not
    /// known yet.
    pub fn of(from: ReadFrom, entries: Vec<Entry>, count: usize) -> (Self, usize) {
        let more = entries.len() == count;
        let mut page = Self { more, ends_foreign: from.behind_foreign, ..Self::default() };
        let mut foreign = 0;
        for entry in entries {
            match entry {
                Entry::Event(event) => page.add(event, &from),
                Entry::Foreign(id) => {
                    foreign += 1;
                    page.pass(EventId { epoch: 0, ..id }, from.position);
                    page.ends_foreign = true;
                }
            }
        }
        (page, foreign)
    }

    /// The ids of events of later epochs than this one.
    pub fn in_later_epochs(&self, epoch: u64) -> impl Iterator<Item = EventId> {
        self.events.iter().filter_map(|event| event.id).filter(move |id| id.epoch > epoch)
    }

    fn add(&mut self, mut event: Event, from: &ReadFrom) {
        let id = event.id.unwrap_or(EventId::ZERO);
        self.pass(id, from.position);
        let is_behind_foreign = std::mem::take(&mut self.ends_foreign);
        if id <= from.position {
            return;
        }
        if is_behind_foreign {
            // The predecessor is a foreign entry, so no event is missing before this one.
            event.predecessor = EventId::ZERO;
        }
        self.events.push(Arc::new(event));
    }

    fn pass(&mut self, id: EventId, position: EventId) {
        let epoch = id.epoch.max(self.upto.epoch).max(position.epoch);
        self.upto = EventId { epoch, ..id };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::{
        catch_up::{ClockSnapshot, Merge, Trimmed, gap},
        channel::Channel,
        reasons::GapReason,
    };

    fn id(text: &str) -> EventId {
        EventId::parse(text).unwrap()
    }

    fn event(own: &str, predecessor: &str) -> Entry {
        let channel = Channel::parse("broadcast:a").unwrap();
        Entry::Event(Event::new(id(own), id(predecessor), channel, None, "t", ""))
    }

    fn foreign(ms: u64) -> Entry {
        Entry::Foreign(EventId { ms, ..EventId::ZERO })
    }

    fn from(position: &str) -> ReadFrom {
        ReadFrom { position: id(position), ..ReadFrom::default() }
    }

    fn shown(page: &Page) -> Vec<String> {
        let show = |e: &Arc<Event>| format!("{} after {}", e.id.unwrap(), e.predecessor);
        page.events.iter().map(show).collect()
    }

    #[test]
    fn lower_ids_of_later_epoch_are_after_the_position() {
        let entries =
            vec![event("4-0.1", "3-0.1"), event("6-0.1", "4-0.1"), event("7-0.2", "6-0.1")];
        let (page, foreign) = Page::of(from("9-0.1"), entries, 3);
        assert_eq!(shown(&page), ["7-0.2 after 6-0.1"]);
        assert_eq!((page.upto, page.more, foreign), (id("7-0.2"), true, 0));
    }

    #[test]
    fn entries_up_to_the_position_count_as_read_in_its_epoch() {
        let (page, _) = Page::of(from("5-0.2"), vec![event("7-0.1", "6-0.1")], 3);
        assert_eq!((page.events.len(), page.upto, page.more), (0, id("7-0.2"), false));
        let (page, _) = Page::of(from("5-0.2"), vec![], 3);
        assert_eq!(page.upto, EventId::ZERO);
    }

    #[test]
    fn nothing_is_missing_behind_foreign_entries() {
        let entries =
            vec![event("6-0.1", "5-0.1"), foreign(7), foreign(8), event("9-0.2", "8-0.2")];
        let (page, foreign_entries) = Page::of(from("5-0.1"), entries, 9);
        assert_eq!(shown(&page), ["6-0.1 after 5-0.1", "9-0.2 after 0-0.0"]);
        assert_eq!((page.upto, foreign_entries), (id("9-0.2"), 2));
        // An event up to the position separates a foreign entry from what follows.
        let entries = vec![foreign(3), event("4-0.1", "3-0.1"), event("7-0.1", "6-0.1")];
        let (page, _) = Page::of(from("5-0.1"), entries, 9);
        assert_eq!(gap(id("5-0.1"), false, &page), Some(GapReason::Trimmed));
    }

    #[test]
    fn foreign_entries_are_of_the_epoch_read_before_them() {
        let (page, _) = Page::of(from("5-0.1"), vec![foreign(7)], 9);
        assert_eq!((page.upto, page.ends_foreign), (id("7-0.1"), true));
        let (page, _) = Page::of(from("5-0.1"), vec![event("6-0.2", "5-0.1"), foreign(7)], 9);
        assert_eq!((page.upto, page.ends_foreign), (id("7-0.2"), true));
    }

    #[test]
    fn event_behind_foreign_entry_of_the_page_before_is_read() {
        // The library names an entry without an epoch in its own epoch.
        let clock = ClockSnapshot { h: id("9-0.2"), ..ClockSnapshot::default() };
        let mut merge = Merge::new(id("5-0.1"), &clock, [()]);
        let mut feed = |entries: Vec<Entry>, first| {
            let next = merge.wants().next().unwrap().2;
            let count = entries.len();
            merge.feed(0, Page::of(next, entries, count).0, first)
        };
        assert_eq!(feed(vec![foreign(6), foreign(7)], true), Ok(()));
        assert_eq!(feed(vec![event("8-0.2", "7-0.2")], false), Ok(()));
        assert_eq!(merge.pop().unwrap().id, Some(id("8-0.2")));
        let next = merge.wants().next().unwrap().2;
        let (page, _) = Page::of(next, vec![event("9-0.2", "8-1.2")], 9);
        assert_eq!(merge.feed(0, page, false), Err(Trimmed), "only the one behind it");
    }
}

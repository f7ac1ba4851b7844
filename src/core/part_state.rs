//! How far one part of a stream has come, and what waits for the end of its catch-up.

use std::collections::VecDeque;

use super::{
    id::EventId,
    queue::{Item, QueueLoad},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Needs a catch-up.
    Detached,
    /// A catch-up is running.
    CatchingUp,
    /// Receives events from the hub.
    Live,
}

/// The state of one part of a stream.
#[derive(Debug)]
pub(super) struct PartState {
    pub phase: Phase,
    /// Number of the current catch-up, so that an outdated one can be recognised.
    pub catch_up_number: u32,
    /// Everything up to here was handed to the writer.
    pub cursor: EventId,
    /// Everything up to here was handed over or is queued.
    pub position: EventId,
    /// Whether the client has not got all retained values that it needs.
    pub needs_snapshot: bool,
    /// Counts up when values are needed or queued, so that the end of outdated ones can be
    /// recognised.
    pub snapshot_number: u16,
    /// Live items that arrived during the catch-up. Boxed because most parts are live.
    pending: Option<Box<Pending>>,
}

#[derive(Debug, Default)]
struct Pending {
    items: VecDeque<Item>,
    load: QueueLoad,
    are_lost: bool,
}

/// The load if nothing is pending.
static NOTHING: QueueLoad = QueueLoad::NOTHING;

impl PartState {
    /// Detached at `cursor`.
    pub fn new(cursor: EventId) -> Self {
        Self {
            phase: Phase::Detached,
            catch_up_number: 0,
            cursor,
            position: cursor,
            needs_snapshot: false,
            snapshot_number: 0,
            pending: None,
        }
    }

    /// Another part that has come as far as this one, with nothing pending.
    pub fn fork(&self) -> Self {
        Self {
            phase: self.phase,
            catch_up_number: self.catch_up_number,
            position: self.position,
            needs_snapshot: self.needs_snapshot,
            snapshot_number: self.snapshot_number,
            ..Self::new(self.cursor)
        }
    }

    /// Everything up to `watermark` has arrived. In another epoch that says nothing about the
    /// events after the position.
    pub fn raise_to(&mut self, watermark: EventId) {
        if self.phase == Phase::Live && watermark.epoch == self.position.epoch {
            self.position = self.position.max(watermark);
        }
    }

    /// From now on the client needs retained values, whatever it got before.
    pub fn require_snapshot(&mut self) {
        self.needs_snapshot = true;
        self.snapshot_number = self.snapshot_number.wrapping_add(1);
    }

    /// The client has the values with this number, unless others have been required since.
    pub fn end_snapshot(&mut self, number: u16) {
        self.needs_snapshot &= number != self.snapshot_number;
    }

    /// Cancels a running catch-up.
    pub fn detach(&mut self) {
        self.phase = Phase::Detached;
        self.catch_up_number = self.catch_up_number.wrapping_add(1);
        self.pending = None;
    }

    /// The bytes of the pending items.
    pub fn pending_load(&self) -> &QueueLoad {
        self.pending.as_ref().map_or(&NOTHING, |pending| &pending.load)
    }

    /// Goes back to the cursor: what was received after it was dropped.
    pub fn go_back(&mut self) {
        self.position = self.cursor;
    }

    /// Everything up to `h` was received.
    pub fn reach(&mut self, h: EventId) {
        self.position = self.position.max(h);
    }

    /// Holds an item back until the end of the catch-up. `others` is what else is pending.
    pub fn hold(&mut self, item: &Item, limit_bytes: usize, others: &QueueLoad) {
        let pending = self.pending.get_or_insert_default();
        if !pending.load.has_room_beside(others, item, limit_bytes) {
            // The catch-up continues; a second one reads the dropped items.
            **pending = Pending { are_lost: true, ..Pending::default() };
        } else if !pending.are_lost {
            pending.load.add_item(item, limit_bytes);
            pending.items.push_back(item.clone());
        }
    }

    /// Makes the part live, and returns the pending items; `None` if some were dropped, so that it
    /// is detached.
    pub fn go_live(&mut self) -> Option<VecDeque<Item>> {
        let pending = self.pending.take().unwrap_or_default();
        if pending.are_lost {
            self.detach();
            return None;
        }
        self.phase = Phase::Live;
        Some(pending.items)
    }
}

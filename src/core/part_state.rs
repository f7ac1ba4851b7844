//! How far one part of a stream has come, and what waits for the end of its catch-up.

use std::{collections::VecDeque, mem};

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
    pub catch_up_number: u64,
    /// Everything up to here was handed to the writer.
    pub cursor: EventId,
    /// Everything up to here was handed over or is queued.
    pub position: EventId,
    /// Live items that arrived during the catch-up.
    pending: VecDeque<Item>,
    pub pending_load: QueueLoad,
    pending_lost: bool,
}

impl PartState {
    /// Detached at `cursor`.
    pub fn new(cursor: EventId) -> Self {
        Self {
            phase: Phase::Detached,
            catch_up_number: 0,
            cursor,
            position: cursor,
            pending: VecDeque::new(),
            pending_load: QueueLoad::default(),
            pending_lost: false,
        }
    }

    /// Another part that has come as far as this one, with nothing pending.
    pub fn fork(&self) -> Self {
        Self {
            phase: self.phase,
            catch_up_number: self.catch_up_number,
            position: self.position,
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

    /// Cancels a running catch-up.
    pub fn detach(&mut self) {
        self.phase = Phase::Detached;
        self.catch_up_number += 1;
        self.pending = VecDeque::new();
        self.pending_load = QueueLoad::default();
        self.pending_lost = false;
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
        if !self.pending_load.has_room_beside(others, item, limit_bytes) {
            // The catch-up continues; a second one reads the dropped items.
            self.pending.clear();
            self.pending_load = QueueLoad::default();
            self.pending_lost = true;
        } else if !self.pending_lost {
            self.pending_load.add_item(item, limit_bytes);
            self.pending.push_back(item.clone());
        }
    }

    /// Makes the part live, and returns the pending items; `None` if some were dropped, so that it
    /// is detached.
    pub fn go_live(&mut self) -> Option<VecDeque<Item>> {
        if self.pending_lost {
            self.detach();
            return None;
        }
        self.phase = Phase::Live;
        self.pending_load = QueueLoad::default();
        Some(mem::take(&mut self.pending))
    }
}

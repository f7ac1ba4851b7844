//! What the driver of catch-ups needs of a connection.

use std::sync::Arc;

use super::{Connection, FirstCursor, REPLAY_BYTES};
use crate::core::{
    event::Event,
    id::{EventId, StreamPosition},
    part::Part,
    reasons::{CatchUpCause, GapReason},
    stream_state::Outcome,
};

impl Connection {
    /// Begins a catch-up of a part. Returns its number and the cursor from which it reads; `None`
    /// if the client named no usable id.
    pub fn begin_catch_up(&self, part: Part) -> (u64, Option<EventId>) {
        let (number, from) = self.with(|state| state.begin_catch_up(part));
        match self.first_cursor.borrow().as_deref() {
            Some(FirstCursor { id: None, .. }) => (number, None),
            _ => (number, Some(from)),
        }
    }

    /// Whether the catch-up of a part with that number is still needed.
    pub fn is_catching_up(&self, part: Part, number: u64) -> bool {
        !self.gone.get() && !self.is_ending() && self.state.borrow().is_catching_up(part, number)
    }

    /// Whether the client named an id from which its stream continues; asked before the first
    /// catch-up has finished.
    pub fn has_cursor(&self) -> bool {
        let first = self.first_cursor.borrow();
        first.as_ref().is_none_or(|first| first.id.is_some() || first.text.is_some())
    }

    /// Makes `h` the cursor of a connection without one. From now on it is as if the client had
    /// named it: the first frame contains it, so a later catch-up must begin there.
    pub fn start_at(&self, h: StreamPosition) {
        self.first_cursor.replace(Some(Box::new(FirstCursor { id: Some(h), text: None })));
        self.with(|state| state.start_at(h));
    }

    /// Makes `id` the cursor of a part that has received nothing yet.
    pub fn start_part_at(&self, part: Part, id: EventId) {
        self.with(|state| state.start_part_at(part, id));
    }

    /// Queues `sse.gap` with this reason; the part continues from `h`.
    pub fn restart(&self, part: Part, reason: GapReason, h: StreamPosition) {
        self.count_gap(reason);
        let text = self.first_cursor.take().and_then(|first| first.text);
        let channels = self.client.channels(part).collect();
        self.with(|state| state.restart(part, reason, channels, text.as_deref(), h));
    }

    /// Queues `sse.gap`; the replay of the part follows.
    pub fn queue_gap(&self, part: Part, reason: GapReason, channels: Vec<String>) {
        self.count_gap(reason);
        self.with(|state| state.queue_gap(part, reason, channels));
    }

    /// Queues an event that a catch-up of a part has read.
    pub fn replay(&self, part: Part, event: &Arc<Event>) {
        self.context.metrics.replayed.inc();
        self.with(|state| state.replay(part, event));
    }

    /// Waits until the queue has room for the next page, or the connection ends.
    pub async fn room(&self) {
        while !self.has_room() {
            let room = self.room.borrow_mut().get_or_insert_default().clone();
            // Nothing changes until it waits, because the connection belongs to this thread.
            room.notified().await;
        }
    }

    fn has_room(&self) -> bool {
        self.gone.get() || self.is_ending() || self.state.borrow().ready_bytes() < REPLAY_BYTES
    }

    /// Ends a catch-up that has queued everything of a part up to `h`. The part is live, unless the
    /// result names the part that must catch up again, and the cause.
    pub fn finish_catch_up(&self, part: Part, h: EventId) -> Option<(Part, CatchUpCause)> {
        self.first_cursor.take();
        match self.with(|state| state.finish_catch_up(part, h)) {
            Outcome::CatchUp(part, cause) => Some((part, cause)),
            _ => {
                self.liveness.set_live();
                // A poll waits for the end of the catch-up, even if it delivered nothing.
                self.wake();
                None
            }
        }
    }
}

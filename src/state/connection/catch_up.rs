//! What the driver of catch-ups needs of a connection.

use std::sync::Arc;

use super::{Connection, FirstCursor, REPLAY_BYTES};
use crate::{
    core::{
        control_events::{SnapshotKeys, heartbeat},
        event::Event,
        id::{EventId, StreamPosition},
        part::Part,
        reasons::{CatchUpCause, GapReason},
        stream_state::Outcome,
    },
    state::clock::unix_ms,
};

impl Connection {
    /// Begins a catch-up of a part. Returns its number and the cursor from which it reads; `None`
    /// if the client named no usable id.
    pub fn begin_catch_up(&self, part: Part) -> (u32, Option<EventId>) {
        let (number, from) = self.with(|state| state.begin_catch_up(part));
        match self.first_cursor.borrow().as_deref() {
            Some(FirstCursor { id: None, .. }) => (number, None),
            _ => (number, Some(from)),
        }
    }

    /// Whether the catch-up of a part with that number is still needed.
    pub fn is_catching_up(&self, part: Part, number: u32) -> bool {
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

    /// Queues `sse.gap` with this reason; the part continues from `h`. If retained values repair
    /// all of it, a heartbeat says where it continues.
    pub fn restart(&self, part: Part, reason: GapReason, h: StreamPosition) {
        let text = self.first_cursor.take().and_then(|first| first.text);
        let all: Vec<_> = self.client.channels(part).collect();
        let mut channels = self.unrepaired(part, reason, all.clone());
        if channels.is_empty() && !self.is_split() {
            let now_ms = unix_ms();
            return self.with(|state| state.continue_at(h.user, |id| heartbeat(id, now_ms).frame));
        }
        if channels.is_empty() {
            channels = all;
        }
        self.count_gap(reason);
        self.with(|state| state.restart(part, reason, channels, text.as_deref(), h));
    }

    /// Queues `sse.gap`, unless retained values repair all of it; the replay of the part follows.
    pub fn queue_gap(&self, part: Part, reason: GapReason, channels: Vec<String>) {
        let channels = self.unrepaired(part, reason, channels);
        if channels.is_empty() {
            return;
        }
        self.count_gap(reason);
        self.with(|state| state.queue_gap(part, reason, channels));
    }

    /// From now on, the client needs the retained values of a part.
    pub fn require_snapshot(&self, part: Part) {
        self.with(|state| state.require_snapshot(part));
    }

    /// Whether the client needs retained values of some of a part.
    pub fn needs_snapshot(&self, part: Part) -> bool {
        self.state.borrow().needs_snapshot(part)
    }

    /// Queues `sse.snapshot`; the retained values of the part follow.
    pub fn queue_snapshot(&self, part: Part, keys: SnapshotKeys) {
        self.with(|state| state.queue_snapshot(part, keys));
    }

    /// Queues a retained value of a part.
    pub fn queue_value(&self, part: Part, event: &Arc<Event>) {
        self.context.metrics.values_sent.inc();
        self.with(|state| state.replay(part, event));
    }

    /// Whether the client's filter lets an event pass.
    pub fn sees(&self, event: &Event) -> bool {
        let filter = self.client.filter.as_ref();
        filter.is_none_or(|filter| filter.allows(event.options.as_deref()))
    }

    /// Queues `sse.gap` for channels whose retained values the client does not get.
    pub fn queue_own_gap(&self, part: Part, channels: Vec<String>) {
        self.count_gap(GapReason::Trimmed);
        self.with(|state| state.queue_gap(part, GapReason::Trimmed, channels));
    }

    /// The channels and patterns of which a gap may lose something that their retained values do
    /// not restore. Plain messages that were not recorded are in no value either.
    fn unrepaired(&self, part: Part, reason: GapReason, mut channels: Vec<String>) -> Vec<String> {
        // Only if the values follow: there may be none any more.
        if reason != GapReason::Unrecorded && self.needs_snapshot(part) {
            let rules = &self.context.settings.channels;
            channels.retain(|name| !rules.name_requires_keep(name));
        }
        channels
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
        let now_ms = unix_ms();
        let outcome = self.with(|state| {
            // The catch-up has queued the values.
            if state.needs_snapshot(part) {
                state.end_snapshot(part, h, |id| heartbeat(id, now_ms).frame);
            }
            state.finish_catch_up(part, h)
        });
        match outcome {
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

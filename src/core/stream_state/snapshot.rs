//! The retained values that a client needs before its events, also in place of a gap.

use bytes::Bytes;

use super::StreamState;
use crate::core::{
    control_events::SnapshotKeys,
    id::{Cursor, EventId, StreamPosition},
    part::Part,
    queue::{Content, Queued, SnapshotFrame},
};

impl StreamState {
    /// The cursor as the client may see it.
    pub fn named_cursor(&self) -> Cursor {
        Cursor { position: self.cursor(), is_incomplete: self.needs_snapshot(Part::Whole) }
    }

    /// Whether some of `part` needs retained values.
    pub fn needs_snapshot(&self, part: Part) -> bool {
        self.parts(part).any(|part| self.part(part).needs_snapshot)
    }

    /// Whether the ids that the client gets differ from those of the shared frames.
    pub fn has_own_ids(&self) -> bool {
        self.is_split() || self.main.needs_snapshot
    }

    /// From now on, the client needs the retained values of a part.
    pub fn require_snapshot(&mut self, part: Part) {
        self.parts(part).for_each(|part| self.part_mut(part).require_snapshot());
    }

    /// Queues `sse.snapshot`; the retained values of the part follow.
    pub fn queue_snapshot(&mut self, part: Part, keys: SnapshotKeys) {
        // The end of values that were queued before, and not all taken, says nothing of these.
        self.require_snapshot(part);
        let frame = keys.frame();
        let content = Content::Snapshot(Box::new(SnapshotFrame { keys, frame }));
        self.push(Queued::new(content, part, None));
    }

    /// Queues a heartbeat behind the retained values of a part and the events up to their `h`: once
    /// it is taken, the client has them all, and its id says so. Before, a client that resumes must
    /// get the values again: earlier events than these would follow.
    pub fn end_snapshot(&mut self, part: Part, h: EventId, encode: impl FnOnce(Cursor) -> Bytes) {
        let state = self.part_mut(part);
        state.reach(h);
        let (upto, number) = (state.position, state.snapshot_number);
        let content = Content::Control(encode(self.position().into()));
        self.push(Queued::new(content, part, Some(upto)).ending_snapshot(number));
    }

    /// Continues a whole stream from `h` without a gap: a heartbeat tells the client.
    pub fn continue_at(&mut self, h: EventId, encode: impl FnOnce(Cursor) -> Bytes) {
        self.main.position = h;
        let content = Content::Control(encode(Cursor::from(StreamPosition::from(h))));
        self.push(Queued::new(content, Part::Whole, Some(h)));
    }
}

//! The retained values that a client needs before its events, also in place of a gap.

use bytes::Bytes;

use super::StreamState;
use crate::core::{
    control_events::SnapshotKeys,
    id::{Cursor, EventId},
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

    /// From now on, the client needs the retained values of a part.
    pub fn require_snapshot(&mut self, part: Part) {
        self.parts(part).for_each(|part| self.part_mut(part).needs_snapshot = true);
    }

    /// Queues `sse.snapshot`; the retained values of the part follow.
    pub fn queue_snapshot(&mut self, part: Part, keys: SnapshotKeys) {
        let frame = keys.frame();
        let content = Content::Snapshot(Box::new(SnapshotFrame { keys, frame }));
        self.push(Queued::new(content, part, None));
    }

    /// Queues a heartbeat behind the retained values of a part: once it is taken, the client has
    /// them, and its id says so.
    pub fn end_snapshot(&mut self, part: Part, encode: impl FnOnce(Cursor) -> Bytes) {
        let others = self.parts(Part::Whole).any(|p| p != part && self.part(p).needs_snapshot);
        let id = Cursor { position: self.position(), is_incomplete: others };
        let content = Content::Control(encode(id));
        self.push(Queued::new(content, part, None).ending_snapshot());
    }

    /// Continues a whole stream from `h` without a gap: a heartbeat tells the client.
    pub fn continue_at(&mut self, h: EventId, encode: impl FnOnce(Cursor) -> Bytes) {
        self.main.position = h;
        let is_incomplete = self.needs_snapshot(Part::Whole);
        let id = Cursor { position: h.into(), is_incomplete };
        self.push(Queued::new(Content::Control(encode(id)), Part::Whole, Some(h)));
    }
}

//! The frames of heartbeats. Streams that have come equally far share one.

use super::clock::unix_ms;
use crate::core::{control_events, frame::Encoded, id::Cursor};

/// The last heartbeat that was encoded.
#[derive(Default)]
pub(super) struct Heartbeats(Option<(Cursor, Encoded)>);

impl Heartbeats {
    /// The heartbeat with this id; its time is that at which the first stream needed it.
    pub fn at(&mut self, id: Cursor) -> &Encoded {
        let encode = |id| (id, control_events::heartbeat(id, unix_ms()));
        let kept = self.0.take().filter(|(kept, _)| *kept == id);
        &self.0.insert(kept.unwrap_or_else(|| encode(id))).1
    }
}

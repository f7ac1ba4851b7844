//! What waits for one connection, and how much of it may.

use std::sync::Arc;

use bytes::Bytes;

use super::{event::Event, id::EventId, system::GapReason};

/// What the hub sends to a connection.
#[derive(Clone, Debug)]
pub enum Item {
    /// An event of one of its channels.
    Event(Arc<Event>),
    /// A point at which the order or the record may have been broken.
    Seam {
        /// Its place in the order.
        id: EventId,
        /// `reset` or `unrecorded`.
        reason: GapReason,
    },
}

impl Item {
    /// Its place; `None`: it is live only.
    pub fn id(&self) -> Option<EventId> {
        match self {
            Self::Event(event) => event.id,
            Self::Seam { id, .. } => Some(*id),
        }
    }

    fn cost(&self) -> usize {
        match self {
            Self::Event(event) => cost(&event.frame),
            Self::Seam { .. } => OVERHEAD_BYTES,
        }
    }
}

/// What a queued frame costs beside its bytes.
const OVERHEAD_BYTES: usize = 64;

fn cost(frame: &Bytes) -> usize {
    frame.len() + OVERHEAD_BYTES
}

/// A frame in the queue.
#[derive(Debug)]
pub struct Queued {
    /// The bytes.
    pub frame: Bytes,
    /// The cursor once it is taken.
    pub upto: Option<EventId>,
    /// For a live event: when it was published, in ms since 1970.
    pub published_ms: Option<u64>,
    /// Whether it is the one that may be larger than the bound.
    large: bool,
}

impl Queued {
    /// A frame that is no live event.
    pub fn new(frame: Bytes, upto: Option<EventId>) -> Self {
        Self { frame, upto, published_ms: None, large: false }
    }

    /// A live event.
    pub fn live(event: &Event, limit_bytes: usize) -> Self {
        let published_ms = event.id.map(|id| id.ms);
        let large = is_large(event.id, cost(&event.frame), limit_bytes);
        Self { frame: event.frame.clone(), upto: event.id, published_ms, large }
    }
}

/// Whether no queue of this bound would ever take it, and no log has it: a join would not bring it.
fn is_large(id: Option<EventId>, cost: usize, limit_bytes: usize) -> bool {
    id.is_none() && cost > limit_bytes
}

/// How much waits. Beside what is bounded there may be one event that is too large for the bound and that no log has: it would be
/// lost to clients that read as fast as they can.
#[derive(Debug, Default)]
pub struct Load {
    bounded: usize,
    large: usize,
}

impl Load {
    /// All bytes.
    pub fn bytes(&self) -> usize {
        self.bounded + self.large
    }

    /// Whether the item has room.
    pub fn has_room(&self, item: &Item, limit_bytes: usize) -> bool {
        let cost = item.cost();
        match is_large(item.id(), cost, limit_bytes) {
            true => self.large == 0,
            false => self.bounded + cost <= limit_bytes,
        }
    }

    /// An item waits; it has room.
    pub fn add_item(&mut self, item: &Item, limit_bytes: usize) {
        let cost = item.cost();
        *self.part(is_large(item.id(), cost, limit_bytes)) += cost;
    }

    /// A frame waits.
    pub fn add(&mut self, frame: &Queued) {
        *self.part(frame.large) += cost(&frame.frame);
    }

    /// A frame was taken.
    pub fn remove(&mut self, frame: &Queued) {
        *self.part(frame.large) -= cost(&frame.frame);
    }

    fn part(&mut self, large: bool) -> &mut usize {
        if large { &mut self.large } else { &mut self.bounded }
    }
}

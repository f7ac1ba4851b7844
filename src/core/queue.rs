//! The queue of one connection: its items, their cost, and the limit.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    control_events::{Gap, SnapshotKeys},
    event::Event,
    id::{EventId, StreamPosition},
    part::Part,
};

/// An item that the hub sends to a connection.
#[derive(Clone, Debug)]
pub enum Item {
    /// An event of one of its channels.
    Event(Arc<Event>),
    /// One that the filter of the stream does not let pass. It shows whether an event before it is
    /// missing.
    Filtered(Arc<Event>),
    /// Plain messages before this position may be missing.
    Unrecorded(EventId),
}

impl Item {
    /// Position of the item; `None` if it is live only.
    pub fn id(&self) -> Option<EventId> {
        match self {
            Self::Event(event) | Self::Filtered(event) => event.id,
            Self::Unrecorded(id) => Some(*id),
        }
    }

    /// The part of a split stream to which it belongs.
    pub fn part(&self) -> Part {
        match self {
            Self::Event(event) | Self::Filtered(event) => Part::of(&event.channel),
            // The server of the broadcasts has the recorder.
            Self::Unrecorded(_) => Part::Broadcasts,
        }
    }

    /// Whether it is delivered live only, and dropped first.
    pub fn is_ephemeral(&self) -> bool {
        matches!(self, Self::Event(event) if event.is_ephemeral())
    }

    fn cost(&self) -> usize {
        match self {
            Self::Event(event) => cost(&event.frame),
            Self::Filtered(_) | Self::Unrecorded(_) => OVERHEAD_BYTES,
        }
    }
}

/// Memory of a queued frame in addition to its bytes.
const OVERHEAD_BYTES: usize = 64;

fn cost(frame: &Bytes) -> usize {
    frame.len() + OVERHEAD_BYTES
}

/// The content of a queued frame.
#[derive(Clone, Debug)]
pub enum Content {
    /// An event of a publisher.
    Event(Arc<Event>),
    /// `sse.gap`.
    Gap(Box<GapFrame>),
    /// `sse.snapshot`.
    Snapshot(Box<SnapshotFrame>),
    /// Another event of the gateway: `sse.connected`, `sse.heartbeat`, `sse.closing`.
    Control(Bytes),
}

impl Content {
    /// The encoded SSE frame.
    pub fn frame(&self) -> &Bytes {
        match self {
            Self::Event(event) => &event.frame,
            Self::Gap(gap) => &gap.frame,
            Self::Snapshot(snapshot) => &snapshot.frame,
            Self::Control(frame) => frame,
        }
    }
}

/// An `sse.gap`.
#[derive(Clone, Debug)]
pub struct GapFrame {
    /// What may be missing.
    pub gap: Gap,
    /// The encoded SSE frame.
    pub frame: Bytes,
    /// Where the stream, or its part, continues without a replay.
    pub restart: Option<StreamPosition>,
}

/// An `sse.snapshot`.
#[derive(Clone, Debug)]
pub struct SnapshotFrame {
    /// Which values follow.
    pub keys: SnapshotKeys,
    /// The encoded SSE frame.
    pub frame: Bytes,
}

/// A frame in the queue.
#[derive(Debug)]
pub struct Queued {
    /// The content.
    pub content: Content,
    /// The part of the stream to which it belongs.
    pub part: Part,
    /// The cursor of that part after the frame has been taken; `None`: it does not change.
    pub upto: Option<EventId>,
    /// For a live event: the time of publishing, in ms since 1970.
    pub published_ms: Option<u64>,
    /// Number of the retained values of the part that precede it, with all events up to their H.
    pub ends_snapshot: Option<u16>,
    /// Whether this is the one frame that may exceed the limit.
    large: bool,
}

impl Queued {
    /// Creates a frame that is not a live event.
    pub fn new(content: Content, part: Part, upto: Option<EventId>) -> Self {
        Self { content, part, upto, published_ms: None, ends_snapshot: None, large: false }
    }

    /// The same, behind all retained values of its part with this number.
    pub fn ending_snapshot(self, number: u16) -> Self {
        Self { ends_snapshot: Some(number), ..self }
    }

    /// Whether it is an ephemeral event.
    pub fn is_ephemeral(&self) -> bool {
        matches!(&self.content, Content::Event(event) if event.is_ephemeral())
    }

    /// Creates the frame of a live event.
    pub fn live(event: &Arc<Event>, part: Part, limit_bytes: usize) -> Self {
        let published_ms = event.id.map(|id| id.ms);
        let large = is_large(event.id, cost(&event.frame), limit_bytes);
        Self {
            content: Content::Event(event.clone()),
            part,
            upto: event.id,
            published_ms,
            ends_snapshot: None,
            large,
        }
    }
}

/// Whether an item exceeds the limit of the queue and is in no log, so that a catch-up could not
/// deliver it.
fn is_large(id: Option<EventId>, cost: usize, limit_bytes: usize) -> bool {
    id.is_none() && cost > limit_bytes
}

/// The bytes in a queue. In addition to the limit, one event may be queued that exceeds the limit
/// by itself and is in no log: otherwise even the fastest client would never receive it.
#[derive(Debug, Default)]
pub struct QueueLoad {
    bounded: usize,
    large: usize,
}

impl QueueLoad {
    /// The load of an empty queue.
    pub const NOTHING: Self = Self { bounded: 0, large: 0 };

    /// All queued bytes.
    pub fn bytes(&self) -> usize {
        self.bounded + self.large
    }

    /// Whether there is room for the item.
    pub fn has_room(&self, item: &Item, limit_bytes: usize) -> bool {
        let cost = item.cost();
        match is_large(item.id(), cost, limit_bytes) {
            true => self.large == 0,
            false => self.bounded + cost <= limit_bytes,
        }
    }

    /// Whether there is room for the item if other bytes share the limit.
    pub fn has_room_beside(&self, others: &Self, item: &Item, limit_bytes: usize) -> bool {
        let bounded = self.bounded + others.bounded;
        Self { bounded, large: self.large + others.large }.has_room(item, limit_bytes)
    }

    /// Adds an item for which there is room.
    pub fn add_item(&mut self, item: &Item, limit_bytes: usize) {
        let cost = item.cost();
        *self.part(is_large(item.id(), cost, limit_bytes)) += cost;
    }

    /// Adds a frame.
    pub fn add(&mut self, frame: &Queued) {
        *self.part(frame.large) += cost(frame.content.frame());
    }

    /// Removes a frame.
    pub fn remove(&mut self, frame: &Queued) {
        *self.part(frame.large) -= cost(frame.content.frame());
    }

    fn part(&mut self, large: bool) -> &mut usize {
        if large { &mut self.large } else { &mut self.bounded }
    }
}

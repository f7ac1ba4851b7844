//! A connection is a cursor: what one client gets, in which order, and when it must catch up again
//! (ARCHITECTURE.md#stream-rules).
//!
//! Invariant: everything of the client's channels up to `cursor` was handed to the writer,
//! everything up to `position` was handed over or stands in the queue, in id order, once. Nothing
//! in here waits or looks at a clock.

use std::{collections::VecDeque, mem, sync::Arc};

use bytes::Bytes;

use super::{
    event::Event,
    id::EventId,
    queue::{Content, Item, Load, Queued},
    system::{CatchUpCause, Gap, GapReason},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Waits for a catch-up.
    Detached,
    /// A catch-up is under way.
    CatchingUp,
    /// Events come from the hub.
    Live,
}

/// What an item did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The queue has changed.
    Queued,
    /// Nothing to do.
    Ignored,
    /// The connection must catch up again.
    CatchUp(CatchUpCause),
}

/// The state of one connection.
#[derive(Debug)]
pub struct StreamState {
    phase: Phase,
    /// Counts joins, so that one that was overtaken notices.
    generation: u64,
    cursor: EventId,
    position: EventId,
    head: Option<Bytes>,
    queue: VecDeque<Queued>,
    queue_load: Load,
    /// Live items that came while catching up.
    pending: VecDeque<Item>,
    pending_load: Load,
    pending_lost: bool,
    last: Option<Bytes>,
    limit_bytes: usize,
    channels: Arc<[String]>,
}

impl StreamState {
    /// A detached connection at `cursor`; `channels` is what its gaps name.
    pub fn new(cursor: EventId, limit_bytes: usize, channels: Arc<[String]>) -> Self {
        Self {
            phase: Phase::Detached,
            generation: 0,
            cursor,
            position: cursor,
            head: None,
            queue: VecDeque::new(),
            queue_load: Load::default(),
            pending: VecDeque::new(),
            pending_load: Load::default(),
            pending_lost: false,
            last: None,
            limit_bytes,
            channels,
        }
    }

    /// Sets the first frame; it survives every overflow.
    pub fn set_head(&mut self, frame: Bytes) {
        self.head = Some(frame);
    }

    /// Sets the frame that ends the stream, behind what is queued. The first one counts.
    pub fn close(&mut self, frame: Bytes) {
        self.last.get_or_insert(frame);
        self.detach(EventId::ZERO);
    }

    /// Whether `close` was called.
    pub fn is_closing(&self) -> bool {
        self.last.is_some()
    }

    /// Bytes that are queued or pending.
    pub fn bytes(&self) -> usize {
        self.queue_load.bytes() + self.pending_load.bytes()
    }

    /// Bytes that a writer can take; what waits for the end of a catch-up is not among them.
    pub fn ready_bytes(&self) -> usize {
        self.queue_load.bytes()
    }

    /// Whether a writer would find nothing.
    pub fn is_empty(&self) -> bool {
        self.head.is_none() && self.queue.is_empty() && self.last.is_none()
    }

    /// Everything up to here was handed to the writer.
    pub fn cursor(&self) -> EventId {
        self.cursor
    }

    /// Everything up to here was handed over or is queued.
    pub fn position(&self) -> EventId {
        self.position
    }

    /// Whether events come from the hub.
    pub fn is_live(&self) -> bool {
        self.phase == Phase::Live
    }

    /// The next frame, if any; the flag says that it is the last one of the stream.
    pub fn take(&mut self) -> Option<(Queued, bool)> {
        let control = |frame| Queued::new(Content::Control(frame), None);
        if let Some(frame) = self.head.take() {
            return Some((control(frame), false));
        }
        if let Some(item) = self.queue.pop_front() {
            self.queue_load.remove(&item);
            if let Some(id) = item.upto {
                self.cursor = id;
            }
            if self.queue.is_empty() && self.queue.capacity() > 32 {
                self.queue = VecDeque::new();
            }
            return Some((item, false));
        }
        self.last.take().map(|frame| (control(frame), true))
    }

    /// An item of the hub. Items come in id order; those before the position were delivered
    /// already.
    pub fn offer(&mut self, item: &Item) -> Outcome {
        match self.phase {
            Phase::Live => self.offer_live(item),
            Phase::CatchingUp => {
                if !self.pending_load.has_room(item, self.limit_bytes) {
                    // The catch-up goes on; what came meanwhile is read again after it.
                    self.pending.clear();
                    self.pending_load = Load::default();
                    self.pending_lost = true;
                } else if !self.pending_lost {
                    self.pending_load.add_item(item, self.limit_bytes);
                    self.pending.push_back(item.clone());
                }
                Outcome::Ignored
            }
            Phase::Detached => Outcome::Ignored,
        }
    }

    fn offer_live(&mut self, item: &Item) -> Outcome {
        if item.id().is_some_and(|id| id <= self.position) {
            return Outcome::Ignored;
        }
        if !self.queue_load.has_room(item, self.limit_bytes) {
            self.drop_queue();
            return Outcome::CatchUp(CatchUpCause::Overflow);
        }
        match item {
            Item::Event(event) => {
                if event.predecessor > self.position {
                    self.detach(EventId::ZERO);
                    return Outcome::CatchUp(CatchUpCause::Predecessor);
                }
                self.push(Queued::live(event, self.limit_bytes));
            }
            Item::HistoryBreak { id, reason } => self.seam(*id, *reason),
        }
        Outcome::Queued
    }

    fn seam(&mut self, id: EventId, reason: GapReason) {
        let restart = matches!(reason, GapReason::Reset).then_some(id);
        let gap = self.gap_of(reason, self.channels.to_vec());
        self.push_gap(gap, restart, Some(id));
    }

    fn push_gap(&mut self, gap: Gap, restart: Option<EventId>, upto: Option<EventId>) {
        let frame = gap.frame(restart);
        self.push(Queued::new(Content::Gap(Box::new((gap, frame))), upto));
    }

    fn gap_of(&self, reason: GapReason, channels: Vec<String>) -> Gap {
        Gap { reason, channels, from: self.position.to_string() }
    }

    fn push(&mut self, item: Queued) {
        self.queue_load.add(&item);
        if let Some(id) = item.upto {
            self.position = self.position.max(id);
        }
        self.queue.push_back(item);
    }

    /// Drops what is queued; the connection catches up again from its cursor. Nothing is lost: the
    /// log has it.
    pub fn drop_queue(&mut self) {
        self.queue = VecDeque::new();
        self.queue_load = Load::default();
        self.position = self.cursor;
        self.detach(EventId::ZERO);
    }

    /// The link broke: what is queued stays, everything up to `watermark` had come; a running
    /// catch-up is void.
    pub fn detach(&mut self, watermark: EventId) {
        if self.phase == Phase::Live {
            self.position = self.position.max(watermark);
        }
        self.phase = Phase::Detached;
        self.generation += 1;
        self.pending = VecDeque::new();
        self.pending_load = Load::default();
        self.pending_lost = false;
    }

    /// A connection without a cursor starts at `h`.
    pub fn start_at(&mut self, h: EventId) {
        self.cursor = h;
        self.position = h;
    }

    /// Starts a catch-up: from now on live items wait. Gives the catch-up's number and where it
    /// starts.
    pub fn begin_catch_up(&mut self) -> (u64, EventId) {
        self.detach(EventId::ZERO);
        self.phase = Phase::CatchingUp;
        (self.generation, self.position)
    }

    /// Whether the catch-up of that number is still the current one.
    pub fn is_catching_up(&self, generation: u64) -> bool {
        self.phase == Phase::CatchingUp && self.generation == generation
    }

    /// An event that the catch-up has read.
    pub fn replay(&mut self, event: &Arc<Event>) {
        self.push(Queued::new(Content::Event(event.clone()), event.id));
    }

    /// The catch-up tells a gap; the replay follows it.
    pub fn tell_gap(&mut self, reason: GapReason, channels: Vec<String>) {
        self.push_gap(self.gap_of(reason, channels), None, None);
    }

    /// The catch-up tells that the stream goes on from `h` only; `from` is the cursor as the client
    /// sent it.
    pub fn restart(&mut self, reason: GapReason, from: Option<&str>, h: EventId) {
        let mut gap = self.gap_of(reason, self.channels.to_vec());
        if let Some(from) = from {
            gap.from = from.to_owned();
        }
        self.position = h;
        self.push_gap(gap, Some(h), Some(h));
    }

    /// The catch-up has read everything up to `h`: what waited and lies behind it follows, and the
    /// connection is live.
    pub fn finish_catch_up(&mut self, h: EventId) -> Outcome {
        self.position = self.position.max(h);
        if self.queue.is_empty() {
            self.cursor = self.position;
        }
        if mem::take(&mut self.pending_lost) {
            self.detach(EventId::ZERO);
            return Outcome::CatchUp(CatchUpCause::Overflow);
        }
        self.phase = Phase::Live;
        self.pending_load = Load::default();
        for item in mem::take(&mut self.pending) {
            if let again @ Outcome::CatchUp(_) = self.offer_live(&item) {
                return again;
            }
        }
        Outcome::Queued
    }

    /// Queues a frame that proves the stream alive; its id is the watermark when live, else the
    /// position.
    pub fn heartbeat(&mut self, watermark: EventId, encode: impl FnOnce(EventId) -> Bytes) {
        if self.phase == Phase::Live {
            self.position = self.position.max(watermark);
        }
        let id = self.position;
        self.push(Queued::new(Content::Control(encode(id)), Some(id)));
    }
}

#[cfg(test)]
mod tests;

//! A stream is a cursor: the events that a client receives, their order, and when the stream must
//! catch up (ARCHITECTURE.md#stream-rules).
//!
//! Invariant: all events of the client's channels up to `cursor` were handed to the writer, and all
//! events up to `position` were handed over or are queued, in id order, exactly once. This module
//! neither waits nor reads a clock.

use std::{collections::VecDeque, mem, sync::Arc};

use bytes::Bytes;

use super::{
    control_events::Gap,
    event::Event,
    id::EventId,
    queue::{Content, Item, QueueLoad, Queued},
    reasons::{CatchUpCause, GapReason},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Needs a catch-up.
    Detached,
    /// A catch-up is running.
    CatchingUp,
    /// Receives events from the hub.
    Live,
}

/// The effect of an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The queue has changed.
    Queued,
    /// The item has no effect now.
    Ignored,
    /// The connection must catch up again.
    CatchUp(CatchUpCause),
}

/// The state of one connection.
#[derive(Debug)]
pub struct StreamState {
    phase: Phase,
    /// Number of the current catch-up, so that an outdated one can be recognised.
    catch_up_number: u64,
    cursor: EventId,
    position: EventId,
    head: Option<Bytes>,
    queue: VecDeque<Queued>,
    queue_load: QueueLoad,
    /// Live items that arrived during the catch-up.
    pending: VecDeque<Item>,
    pending_load: QueueLoad,
    pending_lost: bool,
    last: Option<Bytes>,
    limit_bytes: usize,
    channels: Arc<[String]>,
}

impl StreamState {
    /// Creates a detached stream at `cursor`; `channels` are named in its gaps.
    pub fn new(cursor: EventId, limit_bytes: usize, channels: Arc<[String]>) -> Self {
        Self {
            phase: Phase::Detached,
            catch_up_number: 0,
            cursor,
            position: cursor,
            head: None,
            queue: VecDeque::new(),
            queue_load: QueueLoad::default(),
            pending: VecDeque::new(),
            pending_load: QueueLoad::default(),
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

    /// Sets the frame that ends the stream, after all queued frames. Later calls have no effect.
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

    /// Bytes that a writer can take, without items that are pending during a catch-up.
    pub fn ready_bytes(&self) -> usize {
        self.queue_load.bytes()
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.head.is_none() && self.queue.is_empty() && self.last.is_none()
    }

    /// The id up to which everything was handed to the writer.
    pub fn cursor(&self) -> EventId {
        self.cursor
    }

    /// The id up to which everything was handed over or is queued.
    pub fn position(&self) -> EventId {
        self.position
    }

    /// Whether the stream receives events from the hub.
    pub fn is_live(&self) -> bool {
        self.phase == Phase::Live
    }

    /// Takes the next frame; the flag is true for the last one of the stream.
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

    /// Handles an item from the hub. Items arrive in id order; items at or before the position have
    /// been delivered already.
    pub fn offer(&mut self, item: &Item) -> Outcome {
        match self.phase {
            Phase::Live => self.offer_live(item),
            Phase::CatchingUp => {
                if !self.pending_load.has_room(item, self.limit_bytes) {
                    // The catch-up continues; a second one reads the dropped items.
                    self.pending.clear();
                    self.pending_load = QueueLoad::default();
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
        if item.id().is_some_and(|id| id.epoch != self.position.epoch) {
            self.detach(EventId::ZERO);
            return Outcome::CatchUp(CatchUpCause::Epoch);
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
            Item::Unrecorded(id) => {
                let gap = self.gap_of(GapReason::Unrecorded, self.channels.to_vec());
                self.push_gap(gap, None, Some(*id));
            }
        }
        Outcome::Queued
    }

    /// Everything up to `watermark` has arrived. In another epoch that says nothing about the
    /// events after the position.
    fn raise_to(&mut self, watermark: EventId) {
        if self.phase == Phase::Live && watermark.epoch == self.position.epoch {
            self.position = self.position.max(watermark);
        }
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

    /// Drops the queue; the stream then catches up from its cursor. No event is lost, because the
    /// log contains them all.
    pub fn drop_queue(&mut self) {
        self.queue = VecDeque::new();
        self.queue_load = QueueLoad::default();
        self.position = self.cursor;
        self.detach(EventId::ZERO);
    }

    /// Detaches the stream because the link broke. The queue remains, everything up to `watermark`
    /// had arrived, and a running catch-up is cancelled.
    pub fn detach(&mut self, watermark: EventId) {
        self.raise_to(watermark);
        self.phase = Phase::Detached;
        self.catch_up_number += 1;
        self.pending = VecDeque::new();
        self.pending_load = QueueLoad::default();
        self.pending_lost = false;
    }

    /// Starts a stream without a cursor at `h`.
    pub fn start_at(&mut self, h: EventId) {
        self.cursor = h;
        self.position = h;
    }

    /// Starts a catch-up, during which live items are held back. Returns the number of the catch-up
    /// and the position from which to read.
    pub fn begin_catch_up(&mut self) -> (u64, EventId) {
        self.detach(EventId::ZERO);
        self.phase = Phase::CatchingUp;
        (self.catch_up_number, self.position)
    }

    /// Whether the catch-up with this number is still the current one.
    pub fn is_catching_up(&self, number: u64) -> bool {
        self.phase == Phase::CatchingUp && self.catch_up_number == number
    }

    /// Queues an event that the catch-up has read.
    pub fn replay(&mut self, event: &Arc<Event>) {
        self.push(Queued::new(Content::Event(event.clone()), event.id));
    }

    /// Queues `sse.gap` before the replayed events.
    pub fn queue_gap(&mut self, reason: GapReason, channels: Vec<String>) {
        self.push_gap(self.gap_of(reason, channels), None, None);
    }

    /// Queues `sse.gap` and continues from `h`, without a replay. `from` is the cursor as the
    /// client sent it.
    pub fn restart(&mut self, reason: GapReason, from: Option<&str>, h: EventId) {
        let mut gap = self.gap_of(reason, self.channels.to_vec());
        if let Some(from) = from {
            gap.from = from.to_owned();
        }
        self.position = h;
        self.push_gap(gap, Some(h), Some(h));
    }

    /// Ends a catch-up that has read everything up to `h`: pending items after `h` follow, and the
    /// stream is live.
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
        self.pending_load = QueueLoad::default();
        for item in mem::take(&mut self.pending) {
            if let again @ Outcome::CatchUp(_) = self.offer_live(&item) {
                return again;
            }
        }
        Outcome::Queued
    }

    /// Queues a heartbeat; its id is the watermark if the stream is live, otherwise the position.
    pub fn heartbeat(&mut self, watermark: EventId, encode: impl FnOnce(EventId) -> Bytes) {
        self.raise_to(watermark);
        let id = self.position;
        self.push(Queued::new(Content::Control(encode(id)), Some(id)));
    }
}

#[cfg(test)]
mod tests;

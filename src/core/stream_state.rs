//! A stream is a cursor: the events that a client receives, their order, and when the stream must
//! catch up (ARCHITECTURE.md#stream-rules).
//!
//! Invariant: all events of the client's channels up to `cursor` were handed to the writer, and all
//! events up to `position` were handed over or are queued, in id order, exactly once. If the stream
//! is split, that is so for each of its parts, and the order between them is unspecified. This
//! module neither waits nor reads a clock.

mod snapshot;

use std::{collections::VecDeque, rc::Rc, sync::Arc};

use bytes::Bytes;

use super::{
    control_events::Gap,
    event::Event,
    id::{Cursor, EventId, StreamPosition},
    part::Part,
    part_state::{PartState, Phase},
    queue::{Content, GapFrame, Item, QueueLoad, Queued},
    reasons::{CatchUpCause, GapReason},
};

/// The effect of an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The queue has changed.
    Queued,
    /// The item has no effect now.
    Ignored,
    /// This part of the stream must catch up again.
    CatchUp(Part, CatchUpCause),
}

/// Names the channels of a stream, for a gap that concerns all of them. A list of its own would
/// take more memory in each connection.
pub trait GapChannels {
    /// All channels, as `sse.gap` names them.
    fn all(&self) -> Vec<String>;
}

impl GapChannels for Vec<String> {
    fn all(&self) -> Vec<String> {
        self.clone()
    }
}

/// The state of one connection.
pub struct StreamState {
    /// The whole stream, or the user's part of a split one.
    main: PartState,
    /// The other part of a split stream.
    broadcasts: Option<Box<PartState>>,
    /// The first frame; boxed because most streams have sent it.
    head: Option<Box<Bytes>>,
    queue: VecDeque<Queued>,
    queue_load: QueueLoad,
    last: Option<Box<Bytes>>,
    /// Ephemeral events that were dropped to make room, and not counted yet.
    ephemeral_dropped: u32,
    limit_bytes: usize,
    channels: Rc<dyn GapChannels>,
}

impl StreamState {
    /// Creates a detached, whole stream at `cursor`; `channels` are named in its gaps.
    pub fn new(cursor: EventId, limit_bytes: usize, channels: Rc<dyn GapChannels>) -> Self {
        Self {
            main: PartState::new(cursor),
            broadcasts: None,
            head: None,
            queue: VecDeque::new(),
            queue_load: QueueLoad::default(),
            last: None,
            ephemeral_dropped: 0,
            limit_bytes,
            channels,
        }
    }

    /// Splits the stream, because its sources are on two servers. Both parts have come as far as
    /// the whole; if a catch-up was running, both are detached.
    pub fn split(&mut self) {
        if self.broadcasts.is_none() {
            if self.main.phase == Phase::CatchingUp {
                self.main.detach();
            }
            self.broadcasts = Some(Box::new(self.main.fork()));
        }
    }

    /// Whether it is split.
    pub fn is_split(&self) -> bool {
        self.broadcasts.is_some()
    }

    /// The existing parts that `part` includes.
    pub fn parts(&self, part: Part) -> impl Iterator<Item = Part> + use<> {
        let parts = match (self.is_split(), part) {
            (false, _) => [Some(Part::Whole), None],
            (true, Part::Whole) => [Some(Part::User), Some(Part::Broadcasts)],
            (true, part) => [Some(part), None],
        };
        parts.into_iter().flatten()
    }

    fn part(&self, part: Part) -> &PartState {
        match &self.broadcasts {
            Some(broadcasts) if part == Part::Broadcasts => broadcasts,
            _ => &self.main,
        }
    }

    fn part_mut(&mut self, part: Part) -> &mut PartState {
        match &mut self.broadcasts {
            Some(broadcasts) if part == Part::Broadcasts => broadcasts,
            _ => &mut self.main,
        }
    }

    /// Sets the first frame; it survives every overflow.
    pub fn set_head(&mut self, frame: Bytes) {
        self.head = Some(Box::new(frame));
    }

    /// Sets the frame that ends the stream, after all queued frames. Later calls have no effect.
    pub fn close(&mut self, frame: Bytes) {
        self.last.get_or_insert(Box::new(frame));
        self.detach(Part::Whole, EventId::ZERO);
    }

    /// Whether `close` was called.
    pub fn is_closing(&self) -> bool {
        self.last.is_some()
    }

    /// Bytes that are queued or pending.
    pub fn bytes(&self) -> usize {
        let broadcasts = self.broadcasts.as_ref().map_or(0, |part| part.pending_load().bytes());
        self.queue_load.bytes() + self.main.pending_load().bytes() + broadcasts
    }

    /// Bytes that a writer can take, without items that are pending during a catch-up.
    pub fn ready_bytes(&self) -> usize {
        self.queue_load.bytes()
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.head.is_none() && self.queue.is_empty() && self.last.is_none()
    }

    fn pair(&self, of: impl Fn(&PartState) -> EventId) -> StreamPosition {
        let user = of(&self.main);
        StreamPosition { user, broadcasts: self.broadcasts.as_ref().map_or(user, |part| of(part)) }
    }

    /// The ids up to which everything was handed to the writer.
    pub fn cursor(&self) -> StreamPosition {
        self.pair(|part| part.cursor)
    }

    /// The ids up to which everything was handed over or is queued.
    pub fn position(&self) -> StreamPosition {
        self.pair(|part| part.position)
    }

    /// The number of ephemeral events that were dropped since the last call.
    pub fn take_ephemeral_dropped(&mut self) -> u32 {
        std::mem::take(&mut self.ephemeral_dropped)
    }

    /// Whether all of `part` receives events from the hub.
    pub fn is_live(&self, part: Part) -> bool {
        self.parts(part).all(|part| self.part(part).phase == Phase::Live)
    }

    /// Whether some of `part` needs a catch-up, and none is running.
    pub fn is_detached(&self, part: Part) -> bool {
        self.parts(part).any(|part| self.part(part).phase == Phase::Detached)
    }

    /// Takes the next frame; the flag is true for the last one of the stream. The writer replaces
    /// the frame's id with [`StreamState::named_cursor`] if [`StreamState::has_own_ids`].
    pub fn take(&mut self) -> Option<(Queued, bool)> {
        let control = |frame: Box<Bytes>| Queued::new(Content::Control(*frame), Part::Whole, None);
        if let Some(frame) = self.head.take() {
            return Some((control(frame), false));
        }
        if let Some(item) = self.queue.pop_front() {
            self.queue_load.remove(&item);
            if let Some(number) = item.ends_snapshot {
                self.parts(item.part).for_each(|part| self.part_mut(part).end_snapshot(number));
            }
            if self.broadcasts.is_some() {
                self.move_cursors(&item);
            } else if let Some(id) = item.upto {
                self.main.cursor = id;
            }
            // Most streams have nothing queued most of the time.
            if self.queue.is_empty() {
                self.queue = VecDeque::new();
            }
            return Some((item, false));
        }
        self.last.take().map(|frame| (control(frame), true))
    }

    /// Moves the cursors of a split stream past a frame. One that was queued before the split is
    /// past the same id in both parts.
    fn move_cursors(&mut self, item: &Queued) {
        let restart = match &item.content {
            Content::Gap(gap) => gap.restart,
            _ => None,
        };
        let Some(upto) = restart.or(item.upto.map(Into::into)) else { return };
        for part in self.parts(item.part) {
            self.part_mut(part).cursor = id_of(upto, part);
        }
    }

    /// The position after which an event may be handed to the writer without the queue: the stream
    /// is whole and live, and nothing is queued. `None` if the queue must be used.
    pub fn open_position(&self) -> Option<EventId> {
        let is_open = !self.is_split() && self.main.phase == Phase::Live && self.is_empty();
        is_open.then_some(self.main.position)
    }

    /// The id of a heartbeat that may be handed to the writer without the queue; as
    /// [`StreamState::open_position`].
    pub fn open_heartbeat(&self, watermark: EventId) -> Option<EventId> {
        let position = self.open_position()?;
        let is_later = watermark.epoch == position.epoch && watermark > position;
        Some(if is_later { watermark } else { position })
    }

    /// Records that everything up to `id` was handed to the writer without the queue, which
    /// [`StreamState::open_position`] has allowed.
    pub fn pass(&mut self, id: EventId) {
        self.main.position = id;
        self.main.cursor = id;
    }

    /// Handles an item from the hub. Items of a part arrive in id order; items at or before its
    /// position have been delivered already.
    pub fn offer(&mut self, item: &Item) -> Outcome {
        let (part, state, other) = match &mut self.broadcasts {
            None => (Part::Whole, &mut self.main, None),
            Some(broadcasts) if item.part() == Part::User => {
                (Part::User, &mut self.main, Some(broadcasts.pending_load()))
            }
            Some(broadcasts) => {
                (Part::Broadcasts, &mut **broadcasts, Some(self.main.pending_load()))
            }
        };
        match state.phase {
            Phase::Live => self.offer_live(part, item),
            Phase::CatchingUp | Phase::Detached if item.is_ephemeral() => {
                self.ephemeral_dropped += 1;
                Outcome::Ignored
            }
            Phase::CatchingUp => {
                state.hold(item, self.limit_bytes, other.unwrap_or(&QueueLoad::default()));
                Outcome::Ignored
            }
            Phase::Detached => Outcome::Ignored,
        }
    }

    fn offer_live(&mut self, part: Part, item: &Item) -> Outcome {
        let position = self.part(part).position;
        if let Some(id) = item.id() {
            if id.epoch > position.epoch {
                self.part_mut(part).detach();
                return Outcome::CatchUp(part, CatchUpCause::Epoch);
            }
            if id <= position {
                return Outcome::Ignored;
            }
        }
        if let Item::Event(event) | Item::Filtered(event) = item
            && event.predecessor > position
        {
            self.part_mut(part).detach();
            return Outcome::CatchUp(part, CatchUpCause::Predecessor);
        }
        if let Item::Filtered(_) = item {
            return Outcome::Ignored;
        }
        if !self.make_room(item) {
            if item.is_ephemeral() {
                self.ephemeral_dropped += 1;
                return Outcome::Ignored;
            }
            let dropped = self.drop_queue_for(part);
            return Outcome::CatchUp(dropped, CatchUpCause::Overflow);
        }
        match item {
            Item::Event(event) => self.push(Queued::live(event, part, self.limit_bytes)),
            Item::Filtered(_) => {}
            Item::Unrecorded(id) => {
                let gap = self.gap_of(GapReason::Unrecorded, self.channels.all());
                self.push_gap(gap, None, part, Some(*id));
            }
        }
        Outcome::Queued
    }

    /// Whether there is room in the queue for an item; ephemeral events are dropped for others.
    fn make_room(&mut self, item: &Item) -> bool {
        let has_room = |load: &QueueLoad| load.has_room(item, self.limit_bytes);
        if has_room(&self.queue_load) || item.is_ephemeral() {
            return has_room(&self.queue_load);
        }
        let load = &mut self.queue_load;
        let before = self.queue.len();
        self.queue.retain(|queued| {
            let is_dropped =
                matches!(&queued.content, Content::Event(event) if event.is_ephemeral());
            if is_dropped {
                load.remove(queued);
            }
            !is_dropped
        });
        self.ephemeral_dropped += (before - self.queue.len()) as u32;
        self.queue_load.has_room(item, self.limit_bytes)
    }

    fn push_gap(
        &mut self,
        gap: Gap,
        restart: Option<StreamPosition>,
        part: Part,
        upto: Option<EventId>,
    ) {
        let frame = gap.frame(restart.map(Cursor::from));
        let content = Content::Gap(Box::new(GapFrame { gap, frame, restart }));
        self.push(Queued::new(content, part, upto));
    }

    fn gap_of(&self, reason: GapReason, channels: Vec<String>) -> Gap {
        Gap { reason, channels, from: self.position().to_string() }
    }

    fn push(&mut self, item: Queued) {
        self.queue_load.add(&item);
        if let Some(id) = item.upto {
            self.part_mut(item.part).position = id;
        }
        self.queue.push_back(item);
    }

    /// Drops the queue; all parts then catch up from their cursors. No event is lost, because the
    /// logs contain them all.
    pub fn drop_queue(&mut self) {
        self.drop_queue_for(Part::Whole);
    }

    /// Drops the queue, and returns which part must catch up from its cursor: `part`, and those of
    /// which frames were queued.
    fn drop_queue_for(&mut self, part: Part) -> Part {
        let dropped = self.queue.iter().fold(part, |dropped, item| dropped.with(item.part));
        self.queue = VecDeque::new();
        self.queue_load = QueueLoad::default();
        for part in self.parts(dropped) {
            let state = self.part_mut(part);
            state.go_back();
            state.detach();
        }
        dropped
    }

    /// Detaches a part because its link broke. The queue remains, everything of it up to
    /// `watermark` had arrived, and a running catch-up is cancelled.
    pub fn detach(&mut self, part: Part, watermark: EventId) {
        for part in self.parts(part) {
            let state = self.part_mut(part);
            state.raise_to(watermark);
            state.detach();
        }
    }

    /// Starts a stream without a cursor at `h`.
    pub fn start_at(&mut self, h: StreamPosition) {
        for part in self.parts(Part::Whole) {
            self.start_part_at(part, id_of(h, part));
        }
    }

    /// Starts a part that has received nothing at `id`.
    pub fn start_part_at(&mut self, part: Part, id: EventId) {
        let state = self.part_mut(part);
        (state.cursor, state.position) = (id, id);
    }

    /// Starts a catch-up of a part, during which its live items are held back. Returns the number
    /// of the catch-up and the position from which to read.
    pub fn begin_catch_up(&mut self, part: Part) -> (u32, EventId) {
        let state = self.part_mut(part);
        state.detach();
        state.phase = Phase::CatchingUp;
        (state.catch_up_number, state.position)
    }

    /// Whether the catch-up of a part with this number is still the current one.
    pub fn is_catching_up(&self, part: Part, number: u32) -> bool {
        let state = self.part(part);
        state.phase == Phase::CatchingUp && state.catch_up_number == number
    }

    /// Queues an event that the catch-up of a part has read.
    pub fn replay(&mut self, part: Part, event: &Arc<Event>) {
        self.push(Queued::new(Content::Event(event.clone()), part, event.id));
    }

    /// Queues `sse.gap` before the replayed events of a part.
    pub fn queue_gap(&mut self, part: Part, reason: GapReason, channels: Vec<String>) {
        self.push_gap(self.gap_of(reason, channels), None, part, None);
    }

    /// Queues `sse.gap` and continues a part from `h`, without a replay. `from` is the cursor as
    /// the client sent it.
    pub fn restart(
        &mut self,
        part: Part,
        reason: GapReason,
        channels: Vec<String>,
        from: Option<&str>,
        h: StreamPosition,
    ) {
        let mut gap = self.gap_of(reason, channels);
        if let Some(from) = from {
            gap.from = from.to_owned();
        }
        for part in self.parts(part) {
            self.part_mut(part).position = id_of(h, part);
        }
        let upto = (!self.is_split()).then_some(h.user);
        self.push_gap(gap, Some(h), part, upto);
    }

    /// Ends the catch-up of a part that has read everything up to `h`: its pending items after `h`
    /// follow, and it is live.
    pub fn finish_catch_up(&mut self, part: Part, h: EventId) -> Outcome {
        let is_idle = self.queue.is_empty();
        let state = self.part_mut(part);
        state.reach(h);
        if is_idle {
            state.cursor = state.position;
        }
        let Some(pending) = state.go_live() else {
            return Outcome::CatchUp(part, CatchUpCause::Overflow);
        };
        for item in pending {
            if let again @ Outcome::CatchUp(..) = self.offer_live(part, &item) {
                return again;
            }
        }
        Outcome::Queued
    }

    /// Queues a heartbeat; its id is the watermark for each part that is live, otherwise the
    /// position.
    pub fn heartbeat(&mut self, watermark: StreamPosition, encode: impl FnOnce(Cursor) -> Bytes) {
        let is_idle = self.queue.is_empty();
        for part in self.parts(Part::Whole) {
            let state = self.part_mut(part);
            state.raise_to(id_of(watermark, part));
            // Behind frames of both parts, it does not move the cursors.
            if is_idle && part != Part::Whole {
                state.cursor = state.position;
            }
        }
        let position = self.position();
        let upto = (!self.is_split()).then_some(position.user);
        self.push(Queued::new(Content::Control(encode(position.into())), Part::Whole, upto));
    }
}

/// Whether a live event is the next one of its channel for a stream at `position`.
pub fn follows(event: &Event, position: EventId) -> bool {
    let is_next = |id: EventId| id.epoch == position.epoch && id > position;
    event.id.is_none_or(is_next) && event.predecessor <= position
}

/// What a position of a stream is for one part.
fn id_of(position: StreamPosition, part: Part) -> EventId {
    match part {
        Part::Whole | Part::User => position.user,
        Part::Broadcasts => position.broadcasts,
    }
}

#[cfg(test)]
mod tests;

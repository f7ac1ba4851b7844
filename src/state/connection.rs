//! One connection on its worker: its queue of frames, and when and why it ends. A writer takes the
//! bytes (`poll_bytes`). Knows nothing of HTTP.

mod catch_up;
mod direct;
mod parts;

use std::{
    any::Any,
    cell::{Cell, RefCell},
    num::NonZeroU64,
    rc::Rc,
    sync::Arc,
    task::{Poll, Waker},
};

use bytes::{Bytes, BytesMut};
use tokio::sync::Notify;
use tracing::Span;

use super::{
    client::{Client, connection_span},
    client_liveness::{ClientLiveness, StallClock},
    clock::unix_ms,
    limits::connections::ConnectionPermit,
    stream_context::StreamContext,
};
use crate::core::{
    event::Event,
    frame,
    id::{Cursor, EventId, StreamPosition},
    part::{Part, ServerIndex},
    queue::{Content, Item, Queued},
    reasons::{CloseReason, GapReason},
    stream_state::{Outcome, StreamState},
};

/// Queued frames are combined into one write up to this size.
const CHUNK_BYTES: usize = 16 << 10;
/// One in this many deliveries is timed.
const TIMED_ONE_IN: u32 = 16;
/// A catch-up fills the queue up to here and then waits for the writer.
const REPLAY_BYTES: usize = 64 << 10;

/// What a connection is made of.
pub struct Parts {
    /// What it needs from the instance.
    pub context: Arc<StreamContext>,
    /// The client.
    pub client: Client,
    /// The id from which it continues; `None` if the client named none, or one that cannot be used.
    pub cursor: Option<StreamPosition>,
    /// The id as the client sent it, for `sse.gap`; `None` if it sent none.
    pub cursor_text: Option<String>,
    /// Counts it in `limits.max_connections`.
    pub permit: ConnectionPermit,
    /// The client's side of the connection.
    pub liveness: Box<dyn ClientLiveness>,
}

/// Keeps the channel of a connection's user subscribed until it is dropped.
pub type Subscription = Box<dyn Any>;

/// The id that a client named.
struct FirstCursor {
    /// `None`: none that can be used.
    id: Option<StreamPosition>,
    /// As the client sent it; `None`: it sent none.
    text: Option<String>,
}

/// A connection of one worker. Everything that changes it runs on that worker's thread.
pub struct Connection {
    /// What it needs from the instance.
    pub context: Arc<StreamContext>,
    /// The client.
    pub client: Rc<Client>,
    /// When it was opened, monotonic ms of the instance.
    pub opened_ms: u64,
    state: RefCell<StreamState>,
    waker: RefCell<Option<Waker>>,
    /// The catch-ups that wait for room in the queue.
    room: RefCell<Option<Rc<Notify>>>,
    reason: Cell<Option<CloseReason>>,
    /// What the client named, until the first catch-up has finished.
    first_cursor: RefCell<Option<Box<FirstCursor>>>,
    /// The server of the whole stream or of its user's part, and that of the other part.
    servers: Cell<[ServerIndex; 2]>,
    /// Keeps the user's channel subscribed on the server of that part.
    subscription: RefCell<Option<Subscription>>,
    pub(super) key: Cell<usize>,
    /// Since when frames have waited for the writer. A dropped queue does not reset it: a client
    /// that reads nothing has stalled.
    pub(super) waiting_since_ms: Cell<Option<NonZeroU64>>,
    pub(super) queued_ms: Cell<u64>,
    pub(super) beat_ms: Cell<u64>,
    pub(super) ends_ms: Cell<(u64, CloseReason)>,
    deliveries: Cell<u32>,
    gone: Cell<bool>,
    admitted: Cell<bool>,
    stall: Cell<StallClock>,
    liveness: Box<dyn ClientLiveness>,
    permit: RefCell<Option<ConnectionPermit>>,
}

impl Connection {
    /// A connection that receives no events until it is added to the hub (`Hub::add`).
    pub fn new(parts: Parts) -> Rc<Self> {
        let now = parts.context.clock.now_ms();
        let limit = parts.context.settings.limits.queue_bytes;
        let client = Rc::new(parts.client);
        let mut state = StreamState::new(EventId::ZERO, limit, client.clone());
        let cursor = parts.cursor.unwrap_or(StreamPosition::ZERO);
        if cursor.user != cursor.broadcasts {
            state.split();
        }
        state.start_at(cursor);
        Rc::new(Self {
            client,
            opened_ms: now,
            state: RefCell::new(state),
            waker: RefCell::default(),
            room: RefCell::default(),
            reason: Cell::new(None),
            first_cursor: RefCell::new(Some(Box::new(FirstCursor {
                id: parts.cursor,
                text: parts.cursor_text,
            }))),
            servers: Cell::default(),
            subscription: RefCell::default(),
            key: Cell::new(usize::MAX),
            waiting_since_ms: Cell::new(None),
            queued_ms: Cell::new(now),
            beat_ms: Cell::new(0),
            ends_ms: Cell::new((u64::MAX, CloseReason::MaxAge)),
            deliveries: Cell::new(0),
            gone: Cell::new(false),
            admitted: Cell::new(false),
            stall: Cell::default(),
            liveness: parts.liveness,
            permit: RefCell::new(Some(parts.permit)),
            context: parts.context,
        })
    }

    /// Its key in the index of its hub.
    pub(super) fn key(&self) -> u32 {
        self.key.get() as u32
    }

    /// See [`connection_span`].
    pub fn span(&self) -> Span {
        let Client { id, request_id, .. } = &*self.client;
        connection_span(id, self.client.user().map(|user| &**user), request_id)
    }

    /// Changes the state, counts the queued bytes and wakes the writer.
    fn with<R>(&self, f: impl FnOnce(&mut StreamState) -> R) -> R {
        let mut state = self.state.borrow_mut();
        let before = state.bytes() as i64;
        let was_empty = state.is_empty();
        let result = f(&mut state);
        let delta = state.bytes() as i64 - before;
        if delta != 0 {
            self.context.limits.queued_bytes.add(delta);
        }
        if !state.is_empty() {
            if was_empty && self.waiting_since_ms.get().is_none() {
                self.waiting_since_ms.set(NonZeroU64::new(self.context.clock.now_ms()));
            }
            drop(state);
            self.wake();
            self.liveness.resume_writer();
        }
        result
    }

    /// Wakes the catch-ups that wait for room in the queue.
    fn notify_room(&self) {
        if let Some(room) = &*self.room.borrow() {
            room.notify_waiters();
        }
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    /// Offers an event or break from the hub.
    pub fn offer(&self, item: &Item, now_ms: u64) -> Outcome {
        let (outcome, dropped) =
            self.with(|state| (state.offer(item), state.take_ephemeral_dropped()));
        if dropped > 0 {
            self.context.metrics.ephemeral_dropped.inc_by(dropped.into());
        }
        if outcome == Outcome::Queued {
            if let Item::Unrecorded(_) = item {
                self.count_gap(GapReason::Unrecorded);
            }
            self.queued_ms.set(now_ms);
        }
        outcome
    }

    /// The bytes to send next; `None` ends the stream. Registers the waker if nothing is queued.
    pub fn poll_bytes(&self, waker: &Waker) -> Poll<Option<Bytes>> {
        self.poll_queue(waker, |state| {
            let bytes = self.take_chunk(state);
            let len = bytes.len();
            (bytes, len)
        })
    }

    /// The next queued frame, for a response that is not an event stream; otherwise like
    /// [`Connection::poll_bytes`].
    pub fn poll_frame(&self, waker: &Waker) -> Poll<Option<Queued>> {
        let next = self.poll_queue(waker, |state| {
            let frame = self.take(state);
            let len = frame.as_ref().map_or(0, |frame| frame.content.frame().len());
            (frame, len)
        });
        next.map(Option::flatten)
    }

    /// Takes from the queue; `take` also returns the number of bytes.
    fn poll_queue<T>(
        &self,
        waker: &Waker,
        take: impl FnOnce(&mut StreamState) -> (T, usize),
    ) -> Poll<Option<T>> {
        if self.gone.get() {
            return Poll::Ready(None);
        }
        if self.state.borrow().is_empty() {
            self.waiting_since_ms.set(None);
            let mut kept = self.waker.borrow_mut();
            if !kept.as_ref().is_some_and(|k| k.will_wake(waker)) {
                *kept = Some(waker.clone());
            }
            return Poll::Pending;
        }
        let (taken, bytes) = self.with(take);
        let is_empty = self.state.borrow().is_empty();
        let since_ms = (!is_empty).then(|| NonZeroU64::new(self.context.clock.now_ms()));
        self.waiting_since_ms.set(since_ms.flatten());
        if self.state.borrow().ready_bytes() < REPLAY_BYTES {
            self.notify_room();
        }
        self.sent(bytes, || self.context.clock.now_ms());
        Poll::Ready(Some(taken))
    }

    /// Records that bytes were handed to the writer or the client.
    fn sent(&self, bytes: usize, now_ms: impl FnOnce() -> u64) {
        let mut stall = self.stall.get();
        stall.sent(now_ms, self.stall_ms());
        self.stall.set(stall);
        self.context.metrics.bytes_sent.inc_by(bytes as u64);
    }

    fn take(&self, state: &mut StreamState) -> Option<Queued> {
        let (item, last) = state.take()?;
        if let Some(ms) = item.published_ms {
            self.delivered(1, ms);
        }
        if let Content::Event(event) = &item.content {
            self.handed_over(event);
        }
        self.gone.set(self.gone.get() || last);
        Some(item)
    }

    fn take_chunk(&self, state: &mut StreamState) -> Bytes {
        if state.has_own_ids() {
            return self.take_own_chunk(state);
        }
        let mut next = || self.take(state).map(|item| item.content);
        let Some(first) = next() else { return Bytes::new() };
        // One frame, the common case, is not copied.
        let Some(second) = next() else { return first.frame().clone() };
        let (first, second) = (first.frame(), second.frame());
        let mut chunk = BytesMut::with_capacity(CHUNK_BYTES.max(first.len() + second.len()));
        chunk.extend_from_slice(first);
        chunk.extend_from_slice(second);
        while chunk.len() < CHUNK_BYTES {
            let Some(content) = next() else { break };
            chunk.extend_from_slice(content.frame());
        }
        chunk.freeze()
    }

    /// As [`Self::take_chunk`]. The frames are shared with streams that have come as far in the
    /// same part, but not in the other one, or that lack no values, so each gets its own id.
    fn take_own_chunk(&self, state: &mut StreamState) -> Bytes {
        let mut chunk = BytesMut::new();
        while chunk.len() < CHUNK_BYTES {
            let Some(item) = self.take(state) else { break };
            frame::put_with_id(&mut chunk, item.content.frame(), state.named_cursor());
        }
        chunk.freeze()
    }

    /// Counts live events, of which the last one was published at that time.
    fn delivered(&self, count: u32, published_ms: u64) {
        let before = self.deliveries.get();
        self.deliveries.set(before.wrapping_add(count));
        self.context.metrics.deliveries.inc_by(u64::from(count));
        let since_timed = before % TIMED_ONE_IN;
        if since_timed == 0 || since_timed + count > TIMED_ONE_IN {
            let age_ms = unix_ms().saturating_sub(published_ms);
            self.context.metrics.publish_to_write.observe(age_ms as f64 / 1000.0);
        }
    }

    /// An event was handed to the client.
    fn handed_over(&self, event: &Event) {
        let must_be_seen = event.options.as_ref().is_some_and(|o| o.unseen_ms.is_some());
        if let (Some(id), Some(user)) = (event.id.filter(|_| must_be_seen), self.client.user()) {
            self.context.sightings.add(user, id);
        }
    }

    /// Whether it has its first frame. Before that it has no cursor, and only its admission may
    /// begin a catch-up.
    pub fn is_admitted(&self) -> bool {
        self.admitted.get()
    }

    /// Sets the first frame.
    pub fn set_head(&self, frame: Bytes) {
        self.admitted.set(true);
        self.with(|state| state.set_head(frame));
    }

    /// Ends the stream with a last frame; of several reasons the first counts.
    pub fn close(&self, reason: CloseReason, frame: Bytes) {
        if self.reason.get().is_none() {
            self.reason.set(Some(reason));
            self.with(|state| state.close(frame));
            self.notify_room();
        }
    }

    /// Ends the connection at once, without what is queued: the writer finds the end of the stream,
    /// and the client is disconnected if possible.
    pub fn evict(&self, reason: CloseReason) {
        self.set_reason(reason);
        self.gone.set(true);
        self.with(StreamState::drop_queue);
        self.liveness.disconnect();
        self.wake();
        self.notify_room();
    }

    /// Whether the client has acknowledged nothing for `limits.stall` although bytes are
    /// outstanding. If its progress is unknown, the time that frames wait counts instead, unless
    /// the writer has a timer. The progress is read only if bytes may be outstanding
    /// ([`StallClock::is_due`]).
    pub(super) fn has_stalled(&self, now_ms: u64) -> bool {
        let stall_ms = self.stall_ms();
        let since_ms = self.waiting_since_ms.get().map(NonZeroU64::get);
        let mut stall = self.stall.get();
        let is_due = stall.is_due(since_ms.is_some(), now_ms, stall_ms);
        self.stall.set(stall);
        if !is_due {
            return false;
        }
        let Some(progress) = self.liveness.progress() else {
            let waits_long = since_ms.is_some_and(|since| now_ms.saturating_sub(since) > stall_ms);
            return waits_long && !self.liveness.has_stall_timer();
        };
        let has_stalled = stall.check(progress, now_ms, stall_ms);
        self.stall.set(stall);
        has_stalled
    }

    fn stall_ms(&self) -> u64 {
        self.context.settings.limits.stall.as_millis() as u64
    }

    /// Sets the reason of the end, unless it has one.
    pub fn set_reason(&self, reason: CloseReason) {
        self.reason.set(self.reason.get().or(Some(reason)));
    }

    /// Why it ended; without a reason, the client has gone.
    pub fn reason(&self) -> CloseReason {
        self.reason.get().unwrap_or(CloseReason::ClientGone)
    }

    /// Whether it has a reason to end.
    pub fn is_ending(&self) -> bool {
        self.reason.get().is_some()
    }

    /// The number of queued bytes.
    pub fn queued_bytes(&self) -> usize {
        self.state.borrow().bytes()
    }

    /// Whether nothing is queued.
    pub fn is_idle(&self) -> bool {
        self.state.borrow().is_empty()
    }

    /// Everything up to here was handed to the writer.
    pub fn cursor(&self) -> StreamPosition {
        self.state.borrow().cursor()
    }

    /// The cursor as the client may see it.
    pub fn named_cursor(&self) -> Cursor {
        self.state.borrow().named_cursor()
    }

    /// Everything up to here was handed to the writer or is queued.
    pub fn position(&self) -> StreamPosition {
        self.state.borrow().position()
    }

    /// Whether all of it receives events from the hub.
    pub fn is_live(&self) -> bool {
        self.is_part_live(Part::Whole)
    }

    pub(super) fn drop_queue(&self) {
        self.with(StreamState::drop_queue);
    }

    /// Drops the queue and the permit of a connection that the hub has removed.
    pub(super) fn forget(&self) {
        self.permit.take();
        self.subscription.take();
        self.gone.set(true);
        self.with(StreamState::drop_queue);
        self.notify_room();
    }

    fn count_gap(&self, reason: GapReason) {
        self.context.metrics.gaps.with_label_values(&[reason.name()]).inc();
    }
}

#[cfg(test)]
mod tests;

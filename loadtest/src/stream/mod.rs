//! One stream: connects, reads, records events, and reconnects like a browser: after the delay
//! given by `retry:`, to the same URL, with the last event id.
//!
//! An idle stream takes well under 1 KiB: the read buffer belongs to the thread, and the state for
//! connecting is boxed and freed.

mod centrifugo;
mod http1;
mod http2;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sse_gateway::core::parser::{Block, BlockParser};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

pub use self::http2::Connections;
use crate::refusal::Refusal;
use crate::sequence::{Arrival, PublishedSequences, SequenceTracker};
use crate::stamp::{BROADCAST, Stamp, now_ns};
use crate::stats::{BUSY_PREFIX, Stats, add, count};
use crate::target::{Protocol, ServerKind, Target};
use crate::tickets::{TicketError, TicketSource};

/// Reconnect delay in ms if the server gives none.
const RETRY_MS: u32 = 1000;

/// Data shared by all streams of a run, on one thread.
pub struct Env {
    /// Server under test.
    pub target: Target,
    /// Source of tickets.
    pub tickets: TicketSource,
    /// Broadcast topic.
    pub topic: String,
    /// Prefix of user names, followed by the user's number.
    pub user_prefix: String,
    /// Number of the run in its stamps.
    pub run: u16,
    /// Streams per user.
    pub streams_per_user: u32,
    /// Sequence numbers published so far.
    pub published: Arc<PublishedSequences>,
    /// Counters of the run.
    pub stats: Stats,
    /// Limits the number of concurrent connection attempts.
    pub connecting: Arc<Semaphore>,
    /// Open HTTP/2 connections.
    pub connections: Connections,
    /// Start of the reconnects after a disconnect or stall, in ns; 0 if there was none.
    pub disrupted_ns: Cell<u64>,
    /// Wakes stalled streams.
    pub wake: Notify,
}

/// State of a stream that outlives its connections.
#[derive(Default)]
pub struct StreamState {
    index: u32,
    /// Last event id, or Centrifugo's position as the members of a JSON object; empty if there is
    /// none.
    cursor: Vec<u8>,
    broadcasts: SequenceTracker,
    own: SequenceTracker,
    retry_ms: u32,
    issued_s: u64,
    generation: u32,
    ticket: Option<Box<str>>,
    /// Time of the last opening in ns; 0 if the stream is not open.
    open_ns: u64,
    /// Whether the stream broke and has not been opened since.
    broken: bool,
    /// Whether the stream was cut and has not caught up since.
    needs_catch_up: bool,
    /// Sequence numbers of broadcasts and user events to reach until the stream has caught up.
    catch_up_target: Option<(u32, u32)>,
    /// Reason given by the server for closing the stream.
    end_reason: Option<Box<str>>,
    /// Whether the stream must not read.
    stalled: bool,
}

/// End of a connection or of an attempt to connect.
enum ConnectionEnd {
    /// The response was not a stream.
    Refused(Refusal),
    /// The connection could not be opened, or it broke.
    Failed(String),
    /// The server closed the stream.
    Ended,
}

impl StreamState {
    /// Creates the state of stream `index`.
    pub fn new(index: u32) -> Self {
        Self { index, retry_ms: RETRY_MS, ..Self::default() }
    }

    /// Returns whether the stream is open.
    pub fn is_open(&self) -> bool {
        self.open_ns > 0
    }

    /// Records that the stream was cut.
    pub fn cut(&mut self) {
        (self.needs_catch_up, self.catch_up_target) = (true, None);
    }

    /// Makes the stream stop reading, or read again. Events that were due while it did not read
    /// count as replayed, because they say nothing about the server's latency.
    pub fn stall(&mut self, stalled: bool) {
        self.stalled = stalled;
        if !stalled && self.is_open() {
            self.open_ns = now_ns();
        }
    }

    /// Returns the `Last-Event-ID` of the next request; empty before the first id.
    fn last_event_id(&self, kind: ServerKind) -> &[u8] {
        if kind == ServerKind::Centrifugo { &[] } else { &self.cursor }
    }

    /// Returns the number of (expected, lost) events so far.
    pub fn expected_and_lost(&self, env: &Env) -> (u64, u64) {
        env.published.expected_and_lost(&self.broadcasts, &self.own, env.source_of(self.index))
    }

    fn event(&mut self, env: &Env, event: &Block<'_>) {
        if let Some(ms) = event.retry_ms {
            self.retry_ms = u32::try_from(ms).unwrap_or(u32::MAX);
        }
        if let Some(id) = event.id {
            self.cursor.clear();
            self.cursor.extend_from_slice(id);
        }
        match event.name {
            _ if env.target.kind == ServerKind::Centrifugo && event.data_lines > 0 => {
                self.centrifugo_message(env, event.first_line);
            }
            b"sse.connected" => self.opened(env),
            b"sse.gap" => count(&env.stats.gaps, reason(event.first_line)),
            b"sse.closing" | b"sse.busy" => {
                let name = String::from_utf8_lossy(&event.name[4..]);
                self.end_reason = Some(format!("{name}: {}", reason(event.first_line)).into());
            }
            name if name.starts_with(b"sse.") => {}
            // AnyCable's own events.
            b"welcome" | b"confirm_subscription" | b"confirm_history" | b"ping" => {}
            b"reject_history" => count(&env.stats.gaps, "reject_history"),
            _ if event.data_lines > 0 => self.receive(env, event.first_line),
            _ => {}
        }
    }

    fn receive(&mut self, env: &Env, data: &[u8]) {
        let stats = &env.stats;
        let stamp = Stamp::read(data).filter(|stamp| stamp.run == env.run);
        let own = env.source_of(self.index);
        let arrival = match stamp {
            Some(Stamp { source: BROADCAST, sequence, .. }) => self.broadcasts.receive(sequence),
            Some(Stamp { source, sequence, .. }) if source == own => self.own.receive(sequence),
            _ => return add(&stats.foreign),
        };
        match arrival {
            Arrival::NotExpected => return,
            Arrival::Duplicate => return add(&stats.doubled),
            Arrival::OutOfOrder => add(&stats.out_of_order),
            Arrival::InOrder => {}
        }
        add(&stats.delivered);
        let now_ns = now_ns();
        stats.last_ns.set(now_ns);
        let due_ns = stamp.map_or(0, |stamp| stamp.due_ns);
        if due_ns < self.open_ns && env.disrupted_ns.get() > 0 {
            add(&stats.replayed);
        } else {
            stats.latency_us.borrow_mut().saturating_record(now_ns.saturating_sub(due_ns) / 1000);
        }
        self.check_caught_up(env);
    }

    /// Records that the stream is open, and expects events from now on if this is the first time.
    fn opened(&mut self, env: &Env) {
        if self.is_open() {
            // A repeated `sse.connected` on the same connection does not count.
            return;
        }
        let (broadcasts, own) =
            (env.published.sent(BROADCAST), env.published.sent(env.source_of(self.index)));
        self.broadcasts.open(broadcasts);
        self.own.open(own);
        self.open_ns = now_ns();
        let stats = &env.stats;
        stats.held.set(stats.held.get() + 1);
        add(&stats.opened);
        if std::mem::take(&mut self.broken) {
            add(&stats.reopened);
        }
        if self.needs_catch_up {
            self.catch_up_target = Some((broadcasts, own));
            self.check_caught_up(env);
        }
        stats.changed.notify_waiters();
    }

    fn check_caught_up(&mut self, env: &Env) {
        if let Some((broadcasts, own)) = self.catch_up_target
            && env.published.complete(&self.broadcasts, BROADCAST, broadcasts)
            && env.published.complete(&self.own, env.source_of(self.index), own)
        {
            // Counts once per cut: a stream that reconnects twice must not stand in for one that
            // does not.
            (self.needs_catch_up, self.catch_up_target) = (false, None);
            env.stats
                .caught_up_us
                .borrow_mut()
                .saturating_record((now_ns() - env.disrupted_ns.get()) / 1000);
            env.stats.changed.notify_waiters();
        }
    }
}

impl Env {
    /// Returns the user name of a stream.
    pub fn user_of(&self, index: u32) -> String {
        format!("{}{}", self.user_prefix, index / self.streams_per_user)
    }

    fn source_of(&self, index: u32) -> u32 {
        index / self.streams_per_user + 1
    }

    async fn path(&self, state: &RefCell<StreamState>) -> Result<String, ConnectionEnd> {
        let (index, generation, issued_s, kept) = {
            let mut state = state.borrow_mut();
            if state.issued_s == 0 {
                state.issued_s =
                    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            }
            (state.index, state.generation, state.issued_s, state.ticket.clone())
        };
        let user = self.user_of(index);
        let ticket = match kept {
            Some(kept) => Some(kept.into_string()),
            None => {
                self.tickets.ticket(&user, &self.topic, index, generation, issued_s).await.map_err(
                    |why| match why {
                        TicketError::Refused(refusal) => ConnectionEnd::Refused(refusal),
                        TicketError::Failed(error) => ConnectionEnd::Failed(error),
                    },
                )?
            }
        };
        if !self.tickets.reproducible() {
            state.borrow_mut().ticket = ticket.as_deref().map(Into::into);
        }
        let position = state.borrow();
        let position = match self.target.kind {
            ServerKind::Centrifugo => position.cursor.as_slice(),
            _ => &[],
        };
        Ok(self.target.path_for(&user, &self.topic, ticket.as_deref(), position))
    }
}

/// Keeps a stream open until it is aborted.
pub async fn run(env: Rc<Env>, state: Rc<RefCell<StreamState>>) {
    loop {
        let permit = env.connecting.clone().acquire_owned().await.ok();
        let guard = OpenGuard { env: &env, state: &state };
        let end = match env.target.protocol {
            Protocol::Http1 => http1::run_connection(&env, &state, permit).await,
            Protocol::Http2 => Box::pin(http2::run_connection(&env, &state, permit)).await,
        };
        let wait_ms = record_end(&env, &state, end);
        drop(guard);
        // Boxed, like everything that an idle stream does not need.
        Box::pin(tokio::time::sleep(Duration::from_millis(wait_ms.into()))).await;
    }
}

/// Records the end of a connection. Returns the delay before the next attempt in ms.
fn record_end(env: &Env, state: &RefCell<StreamState>, end: ConnectionEnd) -> u32 {
    let stats = &env.stats;
    let mut state = state.borrow_mut();
    let end_reason = state.end_reason.take();
    if state.is_open() {
        state.broken = true;
        add(&stats.broken);
    }
    let wait_ms = match end {
        ConnectionEnd::Refused(refusal) => {
            stats.refuse(refusal);
            // A refused ticket is useless; the next attempt uses a new one, as a page would.
            state.generation += 1;
            (state.issued_s, state.ticket) = (0, None);
            RETRY_MS + fastrand::u32(0..RETRY_MS)
        }
        ConnectionEnd::Failed(error) => {
            count(&stats.failed, error);
            RETRY_MS + fastrand::u32(0..RETRY_MS)
        }
        ConnectionEnd::Ended => {
            match end_reason.as_deref() {
                Some(busy) if busy.starts_with(BUSY_PREFIX) => stats.refuse(Refusal::busy(busy)),
                end_reason => count(&stats.ended, end_reason.unwrap_or("no reason given")),
            }
            state.retry_ms
        }
    };
    stats.changed.notify_waiters();
    wait_ms
}

/// Parser and permit of an open connection. The permit to connect is held until the stream is open.
struct StreamReader<'a> {
    env: &'a Env,
    state: &'a RefCell<StreamState>,
    parser: BlockParser,
    permit: Option<OwnedSemaphorePermit>,
}

impl<'a> StreamReader<'a> {
    /// Starts after the response head of a stream.
    fn start(
        env: &'a Env,
        state: &'a RefCell<StreamState>,
        permit: Option<OwnedSemaphorePermit>,
    ) -> Self {
        let mut reader = Self { env, state, parser: BlockParser::default(), permit };
        let mut state = state.borrow_mut();
        if !state.cursor.is_empty() {
            add(&env.stats.resumed);
        }
        if env.target.kind == ServerKind::Plain {
            state.opened(env);
            reader.permit = None;
        }
        drop(state);
        reader
    }

    fn feed(&mut self, bytes: &[u8]) {
        let (env, mut state) = (self.env, self.state.borrow_mut());
        self.parser.feed(bytes, |event| state.event(env, &event));
        if self.permit.is_some() && state.is_open() {
            self.permit = None;
        }
    }

    /// Waits until the stream may read again.
    async fn wait_while_stalled(&self) {
        loop {
            let notified = self.env.wake.notified();
            if !self.state.borrow().stalled {
                return;
            }
            notified.await;
        }
    }

    fn stalled(&self) -> bool {
        self.state.borrow().stalled
    }
}

/// Marks the stream as closed when its connection ends, including by an abort.
struct OpenGuard<'a> {
    env: &'a Env,
    state: &'a RefCell<StreamState>,
}

impl Drop for OpenGuard<'_> {
    fn drop(&mut self) {
        let mut state = self.state.borrow_mut();
        if std::mem::take(&mut state.open_ns) > 0 {
            self.env.stats.held.set(self.env.stats.held.get() - 1);
        }
    }
}

/// Returns the `reason` of a system event.
fn reason(data: &[u8]) -> String {
    let value = serde_json::from_slice::<serde_json::Value>(data).unwrap_or_default();
    value["reason"].as_str().unwrap_or("no reason given").to_owned()
}
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_stream_takes_at_most_400_bytes() {
        fn size_of_future<F>(_: impl Fn(Rc<Env>, Rc<RefCell<StreamState>>) -> F) -> usize {
            size_of::<F>()
        }
        assert!(
            size_of_future(run) + size_of::<StreamState>() <= 400,
            "{} + {}",
            size_of_future(run),
            size_of::<StreamState>()
        );
    }
}

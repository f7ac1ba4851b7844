//! What the streams of a run counted together.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use tokio::sync::Notify;

/// Times are kept from 1 µs to an hour, and longer ones as an hour and more, with three digits.
const MAX_US: u64 = 2 * 3600 * 1_000_000;

/// Counts by name.
pub type Counts = BTreeMap<String, u64>;

/// All streams of a run count here; they share one thread.
#[derive(Debug)]
pub struct Tally {
    /// Streams that are open now.
    pub held: Cell<u32>,
    /// Streams that were opened.
    pub opened: Cell<u64>,
    /// Streams that were opened again with the id of their last event.
    pub resumed: Cell<u64>,
    /// Attempts that were answered with another status than 200, or 200 without an event stream, by status.
    pub refused: RefCell<Counts>,
    /// Attempts that failed before an answer, and streams that broke, by error.
    pub failed: RefCell<Counts>,
    /// Streams that the server ended, with its reason where it gave one.
    pub ended: RefCell<Counts>,
    /// `sse.gap` by reason.
    pub gaps: RefCell<Counts>,
    /// Events that came for the first time and were owed.
    pub delivered: Cell<u64>,
    /// When the last of them came, ns.
    pub last_ns: Cell<u64>,
    /// Of those, events that were due before their stream was open again, or read again.
    pub replayed: Cell<u64>,
    /// Events that came once too often.
    pub doubled: Cell<u64>,
    /// Events that came behind a later one of their source.
    pub out_of_order: Cell<u64>,
    /// Events that this run did not publish or that are not for this user.
    pub foreign: Cell<u64>,
    /// µs from when an event was due to when it was read, replayed ones aside.
    pub latency_us: RefCell<Histogram<u64>>,
    /// µs from a storm's start until a stream had all that was sent before it was open again.
    pub caught_up_us: RefCell<Histogram<u64>>,
    /// Wakes those who wait for a count.
    pub changed: Notify,
}

impl Tally {
    /// Nothing counted yet.
    pub fn new() -> Self {
        Self {
            held: Cell::default(),
            opened: Cell::default(),
            resumed: Cell::default(),
            refused: RefCell::default(),
            failed: RefCell::default(),
            ended: RefCell::default(),
            gaps: RefCell::default(),
            delivered: Cell::default(),
            last_ns: Cell::default(),
            replayed: Cell::default(),
            doubled: Cell::default(),
            out_of_order: Cell::default(),
            foreign: Cell::default(),
            latency_us: RefCell::new(times()),
            caught_up_us: RefCell::new(times()),
            changed: Notify::new(),
        }
    }

    /// Waits until `done` is true of the counts of open streams.
    pub async fn until(&self, done: impl Fn(&Self) -> bool) {
        loop {
            let changed = self.changed.notified();
            if done(self) {
                return;
            }
            changed.await;
        }
    }
}

impl Default for Tally {
    fn default() -> Self {
        Self::new()
    }
}

/// An empty histogram of µs.
pub fn times() -> Histogram<u64> {
    let mut histogram = Histogram::new_with_max(MAX_US, 3).unwrap_or_else(|error| unreachable!("constants: {error}"));
    histogram.auto(false);
    histogram
}

/// One more.
pub fn add(cell: &Cell<u64>) {
    cell.set(cell.get() + 1);
}

/// One more of `name`.
pub fn count(counts: &RefCell<Counts>, name: impl Into<String>) {
    *counts.borrow_mut().entry(name.into()).or_default() += 1;
}

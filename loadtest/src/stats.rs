//! Counters and histograms shared by all streams of a run.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use tokio::sync::Notify;

use crate::refusal::Refusal;

/// Longest recorded duration; longer ones are recorded as this. The resolution is three digits.
const MAX_US: u64 = 2 * 3600 * 1_000_000;

/// Prefix of the code of a gateway that lacks capacity or Redis.
pub const BUSY_PREFIX: &str = "busy: ";

/// Counts by name.
pub type Counts = BTreeMap<String, u64>;

/// Counters of a run. All streams run on one thread, so no locks are needed.
#[derive(Debug)]
pub struct Stats {
    /// Streams open now.
    pub held: Cell<u32>,
    /// Streams opened, including reconnects.
    pub opened: Cell<u64>,
    /// Streams opened with a last event id.
    pub resumed: Cell<u64>,
    /// Open streams that broke or that the server closed. Those that this tool disconnects do not
    /// count.
    pub broken: Cell<u64>,
    /// Streams in `broken` that were opened again.
    pub reopened: Cell<u64>,
    /// Attempts answered without a stream, by status and the gateway's error code, or by the reason
    /// of `sse.busy`.
    pub refused: RefCell<Counts>,
    /// Attempts in `refused` that would be refused again.
    pub permanently_refused: Cell<u32>,
    /// Code and message of the first refusal.
    pub first_refusal: RefCell<Option<String>>,
    /// Attempts that failed without a response and streams that broke, by error.
    pub failed: RefCell<Counts>,
    /// Streams closed by the server, by reason.
    pub ended: RefCell<Counts>,
    /// `sse.gap` events by reason.
    pub gaps: RefCell<Counts>,
    /// Expected events received for the first time.
    pub delivered: Cell<u64>,
    /// Time of the last delivery, in ns of CLOCK_MONOTONIC.
    pub last_ns: Cell<u64>,
    /// Deliveries of events that were due before their stream was reopened or resumed reading.
    pub replayed: Cell<u64>,
    /// Events received more than once.
    pub doubled: Cell<u64>,
    /// Events received after a later one of the same source.
    pub out_of_order: Cell<u64>,
    /// Events published by another run or for another user.
    pub foreign: Cell<u64>,
    /// Time from when an event was due until it was read, without replayed events. In µs.
    pub latency_us: RefCell<Histogram<u64>>,
    /// Time from the start of the reconnects until a stream had everything sent before it was
    /// reopened. In µs.
    pub caught_up_us: RefCell<Histogram<u64>>,
    /// Notified when a counter of open streams changes.
    pub changed: Notify,
}

impl Stats {
    /// Creates counters that are all zero.
    pub fn new() -> Self {
        Self {
            held: Cell::default(),
            opened: Cell::default(),
            resumed: Cell::default(),
            broken: Cell::default(),
            reopened: Cell::default(),
            refused: RefCell::default(),
            permanently_refused: Cell::default(),
            first_refusal: RefCell::default(),
            failed: RefCell::default(),
            ended: RefCell::default(),
            gaps: RefCell::default(),
            delivered: Cell::default(),
            last_ns: Cell::default(),
            replayed: Cell::default(),
            doubled: Cell::default(),
            out_of_order: Cell::default(),
            foreign: Cell::default(),
            latency_us: RefCell::new(histogram_us()),
            caught_up_us: RefCell::new(histogram_us()),
            changed: Notify::new(),
        }
    }

    /// Counts a refused attempt.
    pub fn refuse(&self, refusal: Refusal) {
        self.first_refusal.borrow_mut().get_or_insert_with(|| refusal.text());
        self.permanently_refused.set(self.permanently_refused.get() + u32::from(refusal.permanent));
        count(&self.refused, refusal.code);
    }

    /// Returns whether at least `minimum` attempts were refused permanently, all for the same
    /// reason, and nothing else happened: further attempts would be refused too.
    pub fn all_permanently_refused(&self, minimum: u32) -> bool {
        let nothing_else = self.opened.get() == 0
            && self.failed.borrow().is_empty()
            && self.ended.borrow().is_empty();
        nothing_else
            && self.refused.borrow().len() == 1
            && self.permanently_refused.get() >= minimum
    }

    /// Returns whether the server was not tested at all: no stream was ever open, and no gateway
    /// reported a lack of capacity, which is a valid result.
    pub fn untested(&self) -> bool {
        self.opened.get() == 0
            && !self.refused.borrow().keys().any(|code| code.starts_with(BUSY_PREFIX))
    }

    /// Waits until `done` returns true; checks again whenever `changed` is notified.
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

impl Default for Stats {
    fn default() -> Self {
        Self::new()
    }
}

/// Creates an empty histogram of durations in µs.
pub fn histogram_us() -> Histogram<u64> {
    let mut histogram = Histogram::new_with_max(MAX_US, 3)
        .unwrap_or_else(|error| unreachable!("the bounds are constant: {error}"));
    histogram.auto(false);
    histogram
}

/// Increments a counter.
pub fn add(cell: &Cell<u64>) {
    cell.set(cell.get() + 1);
}

/// Increments the counter of `name`.
pub fn count(counts: &RefCell<Counts>, name: impl Into<String>) {
    *counts.borrow_mut().entry(name.into()).or_default() += 1;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_uniform_permanent_refusals_stop_the_attempts() {
        let refused = |codes: &[(u16, &str)]| {
            let stats = Stats::new();
            for (status, body) in codes {
                stats.refuse(Refusal::new(*status, body.as_bytes()));
            }
            stats
        };
        assert!(refused(&[(401, ""), (401, "")]).all_permanently_refused(2));
        assert!(!refused(&[(401, "")]).all_permanently_refused(2));
        assert!(!refused(&[(401, ""), (404, "")]).all_permanently_refused(2));
        assert!(!refused(&[(503, ""), (503, "")]).all_permanently_refused(2));
        let stats = refused(&[(401, ""), (401, "")]);
        add(&stats.opened);
        assert!(!stats.all_permanently_refused(2));
        let stats = refused(&[(401, ""), (401, "")]);
        count(&stats.failed, "connection reset");
        assert!(!stats.all_permanently_refused(2));
    }

    #[test]
    fn full_gateway_counts_as_tested_unreachable_does_not() {
        let stats = Stats::new();
        count(&stats.failed, "connection refused");
        stats.refuse(Refusal::new(404, b""));
        assert!(stats.untested());
        stats.refuse(Refusal::busy("busy: full"));
        assert!(!stats.untested());
        let stats = Stats::new();
        add(&stats.opened);
        assert!(!stats.untested());
    }

    #[test]
    fn first_refusal_is_kept() {
        let stats = Stats::new();
        stats.refuse(Refusal::busy("busy: full"));
        stats.refuse(Refusal::new(404, b"away"));
        assert_eq!(stats.first_refusal.borrow().as_deref(), Some("busy: full"));
    }
}

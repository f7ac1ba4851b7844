//! What the streams of a run counted together.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use tokio::sync::Notify;

use crate::refusal::Refusal;

/// Times are kept from 1 µs to an hour, and longer ones as an hour and more, with three digits.
const MAX_US: u64 = 2 * 3600 * 1_000_000;

/// How the code of a gateway begins that has no room, or no Redis, now.
pub const BUSY: &str = "busy: ";

/// Counts by name.
pub type Counts = BTreeMap<String, u64>;

/// All streams of a run count here; they share one thread.
#[derive(Debug)]
pub struct Stats {
    /// Streams that are open now.
    pub held: Cell<u32>,
    /// Streams that were opened.
    pub opened: Cell<u64>,
    /// Streams that were opened again with the id of their last event.
    pub resumed: Cell<u64>,
    /// Attempts that were answered, but not with a stream, by status and the gateway's code, or its `sse.busy` by reason.
    pub refused: RefCell<Counts>,
    /// Of those, attempts that will be refused for ever.
    pub permanently_refused: Cell<u32>,
    /// What the first of them was told.
    pub first_refusal: RefCell<Option<String>>,
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

impl Stats {
    /// Nothing counted yet.
    pub fn new() -> Self {
        Self {
            held: Cell::default(),
            opened: Cell::default(),
            resumed: Cell::default(),
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

    /// An attempt was refused.
    pub fn refuse(&self, refusal: Refusal) {
        self.first_refusal.borrow_mut().get_or_insert_with(|| refusal.text());
        self.permanently_refused.set(self.permanently_refused.get() + u32::from(refusal.permanent));
        count(&self.refused, refusal.code);
    }

    /// Whether the first attempts, `enough` of them, were all refused for one and the same reason, and for good: the others would be too.
    pub fn all_permanently_refused(&self, minimum: u32) -> bool {
        let nothing_else = self.opened.get() == 0
            && self.failed.borrow().is_empty()
            && self.ended.borrow().is_empty();
        nothing_else
            && self.refused.borrow().len() == 1
            && self.permanently_refused.get() >= minimum
    }

    /// Whether nothing was tested: no stream was ever open, and no gateway said that it has no room, which would be an answer.
    pub fn untested(&self) -> bool {
        self.opened.get() == 0 && !self.refused.borrow().keys().any(|code| code.starts_with(BUSY))
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

impl Default for Stats {
    fn default() -> Self {
        Self::new()
    }
}

/// An empty histogram of µs.
pub fn histogram_us() -> Histogram<u64> {
    let mut histogram = Histogram::new_with_max(MAX_US, 3)
        .unwrap_or_else(|error| unreachable!("the bounds are constant: {error}"));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hopeless_is_only_what_was_refused_for_good_and_for_one_reason() {
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
    fn a_gateway_without_room_was_tested_one_that_was_never_open_was_not() {
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
    fn the_first_refusal_is_kept() {
        let stats = Stats::new();
        stats.refuse(Refusal::busy("busy: full"));
        stats.refuse(Refusal::new(404, b"away"));
        assert_eq!(stats.first_refusal.borrow().as_deref(), Some("busy: full"));
    }
}

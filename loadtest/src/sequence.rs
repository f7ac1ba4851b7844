//! Events expected and received by each stream, independent of event ids and of the gateway.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::{Mutex, MutexGuard};

use crate::stamp::BROADCAST;

/// Position of a received event relative to the earlier ones from the same source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// First receipt of this sequence number, after all lower ones received so far.
    InOrder,
    /// First receipt of this sequence number, but a higher one was received before.
    OutOfOrder,
    /// Sequence number received before.
    Duplicate,
    /// Sent before the stream was open for the first time: not expected and not counted.
    NotExpected,
}

/// Tracks which sequence numbers of one source a stream has received.
#[derive(Debug, Default)]
pub struct SequenceTracker {
    /// First expected sequence number; 0 until the stream is open for the first time.
    expected_from: u32,
    /// One past the highest sequence number received.
    next: u32,
    /// Missing sequence numbers below `next`, as inclusive ranges.
    missing: Vec<(u32, u32)>,
}

impl SequenceTracker {
    /// Expects all events after the sequence number `sent`. Later calls have no effect: a stream
    /// that reconnects is expected to receive what it missed.
    pub fn open(&mut self, sent: u32) {
        if self.expected_from == 0 {
            (self.expected_from, self.next) = (sent + 1, sent + 1);
        }
    }

    /// Records a received event.
    pub fn receive(&mut self, sequence: u32) -> Arrival {
        if sequence < self.expected_from || self.expected_from == 0 {
            return Arrival::NotExpected;
        }
        if sequence >= self.next {
            if sequence > self.next {
                self.missing.push((self.next, sequence - 1));
            }
            self.next = sequence + 1;
            return Arrival::InOrder;
        }
        let Some(at) =
            self.missing.iter().position(|&(first, last)| (first..=last).contains(&sequence))
        else {
            return Arrival::Duplicate;
        };
        let (first, last) = self.missing.remove(at);
        if first < sequence {
            self.missing.push((first, sequence - 1));
        }
        if sequence < last {
            self.missing.push((sequence + 1, last));
        }
        Arrival::OutOfOrder
    }

    /// Returns the number of (expected, lost) events up to the sequence number `sent`. `failed`
    /// returns how many numbers of an inclusive range were never published; these count as neither.
    pub fn expected_and_lost(&self, sent: u32, failed: impl Fn(u32, u32) -> u64) -> (u64, u64) {
        if self.expected_from == 0 {
            return (0, 0);
        }
        let count = |first: u32, last: u32| {
            if first > last { 0 } else { u64::from(last - first) + 1 - failed(first, last) }
        };
        let lost =
            self.missing.iter().map(|&(first, last)| count(first, last.min(sent))).sum::<u64>()
                + count(self.next, sent);
        (count(self.expected_from, sent), lost)
    }
}

/// Sequence numbers published so far by each source. The publisher's thread writes them, the thread
/// of the streams reads them.
#[derive(Debug)]
pub struct PublishedSequences {
    sent: Vec<AtomicU32>,
    failed: Mutex<BTreeSet<(u32, u32)>>,
}

impl PublishedSequences {
    /// Creates the sequences of broadcasts and of `users` users.
    pub fn new(users: u32) -> Self {
        Self { sent: (0..=users).map(|_| AtomicU32::new(0)).collect(), failed: Mutex::default() }
    }

    /// Returns the next sequence number of a source; it counts as sent from now on.
    pub fn next(&self, source: u32) -> u32 {
        self.sent[source as usize].fetch_add(1, Ordering::SeqCst) + 1
    }

    /// Returns the last sequence number of a source, or 0.
    pub fn sent(&self, source: u32) -> u32 {
        self.sent[source as usize].load(Ordering::SeqCst)
    }

    /// Excludes an event that was rejected or not acknowledged: no stream is expected to receive
    /// it.
    pub fn mark_failed(&self, source: u32, sequence: u32) {
        self.failed().insert((source, sequence));
    }

    /// Returns the number of (expected, lost) events of a stream, for broadcasts and its user
    /// together.
    pub fn expected_and_lost(
        &self,
        broadcast: &SequenceTracker,
        user: &SequenceTracker,
        user_source: u32,
    ) -> (u64, u64) {
        let each =
            |tracker, source| self.expected_and_lost_up_to(tracker, source, self.sent(source));
        let (a, b) = (each(broadcast, BROADCAST), each(user, user_source));
        (a.0 + b.0, a.1 + b.1)
    }

    /// Returns whether a stream has received everything expected from a source up to `sent`.
    pub fn complete(&self, tracker: &SequenceTracker, source: u32, sent: u32) -> bool {
        self.expected_and_lost_up_to(tracker, source, sent).1 == 0
    }

    fn expected_and_lost_up_to(
        &self,
        tracker: &SequenceTracker,
        source: u32,
        sent: u32,
    ) -> (u64, u64) {
        let failed = self.failed();
        tracker.expected_and_lost(sent, |first, last| {
            if failed.is_empty() {
                0
            } else {
                failed.range((source, first)..=(source, last)).count() as u64
            }
        })
    }

    fn failed(&self) -> MutexGuard<'_, BTreeSet<(u32, u32)>> {
        self.failed.lock()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tracker(sent: u32, numbers: &[u32]) -> (SequenceTracker, Vec<Arrival>) {
        let mut tracker = SequenceTracker::default();
        tracker.open(sent);
        let arrivals = numbers.iter().map(|sequence| tracker.receive(*sequence)).collect();
        (tracker, arrivals)
    }

    #[test]
    fn consecutive_events_arrive_in_order() {
        let (tracker, arrivals) = tracker(0, &[1, 2, 3]);
        assert_eq!(arrivals, [Arrival::InOrder; 3]);
        assert_eq!(tracker.expected_and_lost(3, |_, _| 0), (3, 0));
    }

    #[test]
    fn events_before_opening_are_not_expected() {
        let (tracker, arrivals) = tracker(5, &[4, 5, 6]);
        assert_eq!(arrivals, [Arrival::NotExpected, Arrival::NotExpected, Arrival::InOrder]);
        assert_eq!(tracker.expected_and_lost(6, |_, _| 0), (1, 0));
        assert_eq!(SequenceTracker::default().expected_and_lost(6, |_, _| 0), (0, 0));
    }

    #[test]
    fn holes_duplicates_and_swaps_are_distinguished() {
        let (mut tracker, arrivals) = tracker(0, &[1, 5, 3, 3, 5, 4, 2, 2, 9]);
        use Arrival::{Duplicate, InOrder, OutOfOrder};
        assert_eq!(
            arrivals,
            [
                InOrder, InOrder, OutOfOrder, Duplicate, Duplicate, OutOfOrder, OutOfOrder,
                Duplicate, InOrder
            ]
        );
        assert_eq!(tracker.expected_and_lost(10, |_, _| 0), (10, 4));
        assert_eq!(tracker.expected_and_lost(7, |_, _| 0), (7, 2));
        tracker.open(50);
        assert_eq!(tracker.receive(10), InOrder);
    }

    #[test]
    fn failed_events_are_not_expected() {
        let published = PublishedSequences::new(1);
        for _ in 0..4 {
            published.next(BROADCAST);
        }
        published.next(1);
        published.mark_failed(BROADCAST, 2);
        published.mark_failed(BROADCAST, 4);
        let (broadcasts, _) = tracker(0, &[1]);
        let (user, _) = tracker(0, &[]);
        assert_eq!(published.expected_and_lost(&broadcasts, &user, 1), (3, 2));
        // Only 3 is missing; 2 and 4 were never published.
        assert!(
            published.complete(&broadcasts, BROADCAST, 2)
                && !published.complete(&broadcasts, BROADCAST, 3)
        );
        let (broadcasts, _) = tracker(0, &[1, 3]);
        assert!(published.complete(&broadcasts, BROADCAST, 4) && !published.complete(&user, 1, 1));
    }
}

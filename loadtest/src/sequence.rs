//! What a stream is owed, and what of it came: the tool's own accounts, which know nothing of ids or of the gateway.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::stamp::BROADCAST;

/// How an event stands to those that came before it from the same source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// The first of its sequence, behind all that came.
    InOrder,
    /// The first of its sequence, but a later one came before it.
    OutOfOrder,
    /// Its sequence has come already.
    Duplicate,
    /// Sent before this stream was open for the first time: not owed, not counted.
    NotExpected,
}

/// The account of one stream with one source.
#[derive(Debug, Default)]
pub struct SequenceTracker {
    /// The first sequence owed, 0 while the stream was never open.
    expected_from: u32,
    /// One past the highest sequence that came.
    next: u32,
    /// Numbers below `next` that have not come, as ranges (first, last).
    missing: Vec<(u32, u32)>,
}

impl SequenceTracker {
    /// From now on the stream is owed what follows the sequence `sent`. Later calls change nothing: a stream that comes back is owed
    /// what it missed.
    pub fn open(&mut self, sent: u32) {
        if self.expected_from == 0 {
            (self.expected_from, self.next) = (sent + 1, sent + 1);
        }
    }

    /// Takes note of an event.
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

    /// (owed, lost) of the numbers up to `sent`; `failed` says how many of (first, last) count as neither.
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

/// What was published, by source. The publisher's thread writes, the streams' thread reads.
#[derive(Debug)]
pub struct PublishedSequences {
    sent: Vec<AtomicU32>,
    failed: Mutex<BTreeSet<(u32, u32)>>,
}

impl PublishedSequences {
    /// For broadcasts and `users` users.
    pub fn new(users: u32) -> Self {
        Self { sent: (0..=users).map(|_| AtomicU32::new(0)).collect(), failed: Mutex::default() }
    }

    /// The next sequence of a source; it counts as sent from here on.
    pub fn next(&self, source: u32) -> u32 {
        self.sent[source as usize].fetch_add(1, Ordering::SeqCst) + 1
    }

    /// The last sequence of a source, 0: none.
    pub fn sent(&self, source: u32) -> u32 {
        self.sent[source as usize].load(Ordering::SeqCst)
    }

    /// This sequence was refused, or nobody knows: no stream is owed it.
    pub fn mark_failed(&self, source: u32, sequence: u32) {
        self.failed().insert((source, sequence));
    }

    /// (owed, lost) of a stream of `user`, both sources together.
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

    /// Whether a stream has all that it is owed of a source up to the sequence `sent`.
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

    fn failed(&self) -> std::sync::MutexGuard<'_, BTreeSet<(u32, u32)>> {
        self.failed.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
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
    fn in_order() {
        let (tracker, arrivals) = tracker(0, &[1, 2, 3]);
        assert_eq!(arrivals, [Arrival::InOrder; 3]);
        assert_eq!(tracker.expected_and_lost(3, |_, _| 0), (3, 0));
    }

    #[test]
    fn a_stream_is_owed_only_what_follows_its_opening() {
        let (tracker, arrivals) = tracker(5, &[4, 5, 6]);
        assert_eq!(arrivals, [Arrival::NotExpected, Arrival::NotExpected, Arrival::InOrder]);
        assert_eq!(tracker.expected_and_lost(6, |_, _| 0), (1, 0));
        assert_eq!(SequenceTracker::default().expected_and_lost(6, |_, _| 0), (0, 0));
    }

    #[test]
    fn holes_doubles_and_swaps_are_told_apart() {
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
    fn void_numbers_are_not_owed() {
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
        // Only 3 is missing; 2 and 4 will never come.
        assert!(
            published.complete(&broadcasts, BROADCAST, 2)
                && !published.complete(&broadcasts, BROADCAST, 3)
        );
        let (broadcasts, _) = tracker(0, &[1, 3]);
        assert!(published.complete(&broadcasts, BROADCAST, 4) && !published.complete(&user, 1, 1));
    }
}

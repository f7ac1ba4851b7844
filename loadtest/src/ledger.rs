//! What a stream is owed, and what of it came: the tool's own accounts, which know nothing of ids or of the gateway.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::stamp::BROADCAST;

/// How an event stands to those that came before it from the same source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// The first of its number, behind all that came.
    InOrder,
    /// The first of its number, but a later one came before it.
    OutOfOrder,
    /// Its number has come already.
    Double,
    /// Sent before this stream was open for the first time: not owed, not counted.
    NotOwed,
}

/// The account of one stream with one source.
#[derive(Debug, Default)]
pub struct Book {
    /// The first number owed, 0 while the stream was never open.
    owed_from: u32,
    /// One past the highest number that came.
    next: u32,
    /// Numbers below `next` that have not come, as ranges (first, last).
    missing: Vec<(u32, u32)>,
}

impl Book {
    /// From now on the stream is owed what follows the number `sent`. Later calls change nothing: a stream that comes back is owed
    /// what it missed.
    pub fn open(&mut self, sent: u32) {
        if self.owed_from == 0 {
            (self.owed_from, self.next) = (sent + 1, sent + 1);
        }
    }

    /// Takes note of an event.
    pub fn receive(&mut self, number: u32) -> Arrival {
        if number < self.owed_from || self.owed_from == 0 {
            return Arrival::NotOwed;
        }
        if number >= self.next {
            if number > self.next {
                self.missing.push((self.next, number - 1));
            }
            self.next = number + 1;
            return Arrival::InOrder;
        }
        let Some(at) =
            self.missing.iter().position(|&(first, last)| (first..=last).contains(&number))
        else {
            return Arrival::Double;
        };
        let (first, last) = self.missing.remove(at);
        if first < number {
            self.missing.push((first, number - 1));
        }
        if number < last {
            self.missing.push((number + 1, last));
        }
        Arrival::OutOfOrder
    }

    /// (owed, lost) of the numbers up to `sent`; `voids` says how many of (first, last) count as neither.
    pub fn settle(&self, sent: u32, voids: impl Fn(u32, u32) -> u64) -> (u64, u64) {
        if self.owed_from == 0 {
            return (0, 0);
        }
        let count = |first: u32, last: u32| {
            if first > last { 0 } else { u64::from(last - first) + 1 - voids(first, last) }
        };
        let lost =
            self.missing.iter().map(|&(first, last)| count(first, last.min(sent))).sum::<u64>()
                + count(self.next, sent);
        (count(self.owed_from, sent), lost)
    }
}

/// What was published, by source. The publisher's thread writes, the streams' thread reads.
#[derive(Debug)]
pub struct Published {
    sent: Vec<AtomicU32>,
    void: Mutex<BTreeSet<(u32, u32)>>,
}

impl Published {
    /// For broadcasts and `users` users.
    pub fn new(users: u32) -> Self {
        Self { sent: (0..=users).map(|_| AtomicU32::new(0)).collect(), void: Mutex::default() }
    }

    /// The next number of a source; it counts as sent from here on.
    pub fn next(&self, source: u32) -> u32 {
        self.sent[source as usize].fetch_add(1, Ordering::SeqCst) + 1
    }

    /// The last number of a source, 0: none.
    pub fn sent(&self, source: u32) -> u32 {
        self.sent[source as usize].load(Ordering::SeqCst)
    }

    /// This number was refused, or nobody knows: no stream is owed it.
    pub fn void(&self, source: u32, number: u32) {
        self.voids().insert((source, number));
    }

    /// (owed, lost) of a stream of `user`, both sources together.
    pub fn settle(&self, broadcast: &Book, user: &Book, user_source: u32) -> (u64, u64) {
        let each = |book, source| self.settle_up_to(book, source, self.sent(source));
        let (a, b) = (each(broadcast, BROADCAST), each(user, user_source));
        (a.0 + b.0, a.1 + b.1)
    }

    /// Whether a stream has all that it is owed of a source up to the number `sent`.
    pub fn complete(&self, book: &Book, source: u32, sent: u32) -> bool {
        self.settle_up_to(book, source, sent).1 == 0
    }

    fn settle_up_to(&self, book: &Book, source: u32, sent: u32) -> (u64, u64) {
        let voids = self.voids();
        book.settle(sent, |first, last| {
            if voids.is_empty() {
                0
            } else {
                voids.range((source, first)..=(source, last)).count() as u64
            }
        })
    }

    fn voids(&self) -> std::sync::MutexGuard<'_, BTreeSet<(u32, u32)>> {
        self.void.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn book(sent: u32, numbers: &[u32]) -> (Book, Vec<Arrival>) {
        let mut book = Book::default();
        book.open(sent);
        let arrivals = numbers.iter().map(|number| book.receive(*number)).collect();
        (book, arrivals)
    }

    #[test]
    fn in_order() {
        let (book, arrivals) = book(0, &[1, 2, 3]);
        assert_eq!(arrivals, [Arrival::InOrder; 3]);
        assert_eq!(book.settle(3, |_, _| 0), (3, 0));
    }

    #[test]
    fn a_stream_is_owed_only_what_follows_its_opening() {
        let (book, arrivals) = book(5, &[4, 5, 6]);
        assert_eq!(arrivals, [Arrival::NotOwed, Arrival::NotOwed, Arrival::InOrder]);
        assert_eq!(book.settle(6, |_, _| 0), (1, 0));
        assert_eq!(Book::default().settle(6, |_, _| 0), (0, 0));
    }

    #[test]
    fn holes_doubles_and_swaps_are_told_apart() {
        let (mut book, arrivals) = book(0, &[1, 5, 3, 3, 5, 4, 2, 2, 9]);
        use Arrival::{Double, InOrder, OutOfOrder};
        assert_eq!(
            arrivals,
            [InOrder, InOrder, OutOfOrder, Double, Double, OutOfOrder, OutOfOrder, Double, InOrder]
        );
        assert_eq!(book.settle(10, |_, _| 0), (10, 4));
        assert_eq!(book.settle(7, |_, _| 0), (7, 2));
        book.open(50);
        assert_eq!(book.receive(10), InOrder);
    }

    #[test]
    fn void_numbers_are_not_owed() {
        let published = Published::new(1);
        for _ in 0..4 {
            published.next(BROADCAST);
        }
        published.next(1);
        published.void(BROADCAST, 2);
        published.void(BROADCAST, 4);
        let (broadcasts, _) = book(0, &[1]);
        let (user, _) = book(0, &[]);
        assert_eq!(published.settle(&broadcasts, &user, 1), (3, 2));
        // Only 3 is missing; 2 and 4 will never come.
        assert!(
            published.complete(&broadcasts, BROADCAST, 2)
                && !published.complete(&broadcasts, BROADCAST, 3)
        );
        let (broadcasts, _) = book(0, &[1, 3]);
        assert!(published.complete(&broadcasts, BROADCAST, 4) && !published.complete(&user, 1, 1));
    }
}

//! Limits for log lines that clients or publishers can cause: lines are rare, and contain the
//! number of suppressed ones.

use std::{
    collections::HashSet,
    sync::atomic::{AtomicU64, Ordering},
};

use parking_lot::Mutex;

/// At most one line per interval. Lock-free, because it is used in code that must not wait.
#[derive(Debug)]
pub struct LogLimit {
    interval_ms: u64,
    next_ms: AtomicU64,
    suppressed: AtomicU64,
}

impl LogLimit {
    /// A limit of one line per `interval_ms`.
    pub const fn new(interval_ms: u64) -> Self {
        Self { interval_ms, next_ms: AtomicU64::new(0), suppressed: AtomicU64::new(0) }
    }

    /// Whether a line may be written at `now_ms` (any clock that does not go back); if so, the
    /// number of lines that were suppressed since the last one.
    pub fn allow(&self, now_ms: u64) -> Option<u64> {
        let next_ms = self.next_ms.load(Ordering::Relaxed);
        let after_ms = now_ms.saturating_add(self.interval_ms);
        let is_due = now_ms >= next_ms
            && self
                .next_ms
                .compare_exchange(next_ms, after_ms, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        if is_due {
            Some(self.suppressed.swap(0, Ordering::Relaxed))
        } else {
            self.suppressed.fetch_add(1, Ordering::Relaxed);
            None
        }
    }
}

/// One line per name. Remembers a bounded number of names; further ones share a [`LogLimit`].
#[derive(Debug)]
pub struct LogOnce {
    names: Mutex<Option<HashSet<Box<[u8]>>>>,
    capacity: usize,
    rest: LogLimit,
}

impl LogOnce {
    /// Remembers up to `capacity` names; names beyond them get one line per `interval_ms` together.
    pub const fn new(capacity: usize, interval_ms: u64) -> Self {
        Self { names: Mutex::new(None), capacity, rest: LogLimit::new(interval_ms) }
    }

    /// Whether a line about `name` may be written at `now_ms`.
    pub fn allow(&self, name: &[u8], now_ms: u64) -> bool {
        let mut names = self.names.lock();
        let names = names.get_or_insert_default();
        if names.contains(name) {
            return false;
        }
        if names.len() < self.capacity {
            return names.insert(name.into());
        }
        self.rest.allow(now_ms).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limit_allows_one_line_per_interval_and_counts_the_rest() {
        let limit = LogLimit::new(10);
        assert_eq!(limit.allow(0), Some(0));
        assert_eq!((limit.allow(1), limit.allow(9)), (None, None));
        assert_eq!(limit.allow(10), Some(2));
        assert_eq!(limit.allow(19), None);
        assert_eq!(limit.allow(1000), Some(1));
        assert_eq!(limit.allow(u64::MAX), Some(0));
    }

    #[test]
    fn limit_allows_one_of_many_threads() {
        let limit = LogLimit::new(10);
        let allowed = std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..8).map(|_| scope.spawn(|| limit.allow(5).is_some())).collect();
            threads.into_iter().map(|t| t.join().unwrap()).filter(|a| *a).count()
        });
        assert_eq!(allowed, 1);
        assert_eq!(limit.allow(15), Some(7));
    }

    #[test]
    fn once_allows_each_name_once_and_is_bounded() {
        let once = LogOnce::new(2, 10);
        assert!(once.allow(b"a", 0) && once.allow(b"b", 0));
        assert!(!once.allow(b"a", 100) && !once.allow(b"b", 100));
        assert!(once.allow(b"c", 100), "one beyond the capacity");
        assert!(!once.allow(b"d", 101), "and no more within the interval");
        assert!(once.allow(b"d", 110));
    }
}

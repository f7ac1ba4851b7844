//! Limits how often one kind of event is logged, so that nobody can flood the log: pure, with the
//! clock passed in.

use std::sync::atomic::{AtomicU64, Ordering};

/// Allows one log line per interval and counts the events in between.
#[derive(Debug)]
pub struct LogLimit {
    interval_ms: u64,
    next_ms: AtomicU64,
    suppressed: AtomicU64,
}

impl LogLimit {
    /// One line in each `interval_ms` milliseconds; the first event is always logged.
    pub const fn new(interval_ms: u64) -> Self {
        Self { interval_ms, next_ms: AtomicU64::new(0), suppressed: AtomicU64::new(0) }
    }

    /// Whether an event at `now_ms` is to be logged: `Some` with the number of events suppressed
    /// since the last logged one, or `None`, and the event is counted as suppressed. `now_ms` is
    /// any monotonic clock in milliseconds, the same one for every call.
    pub fn allow(&self, now_ms: u64) -> Option<u64> {
        let next_ms = self.next_ms.load(Ordering::Relaxed);
        let claim = || {
            let after_ms = now_ms.saturating_add(self.interval_ms);
            self.next_ms.compare_exchange(next_ms, after_ms, Ordering::Relaxed, Ordering::Relaxed)
        };
        if now_ms < next_ms || claim().is_err() {
            self.suppressed.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some(self.suppressed.swap(0, Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_event_per_interval_is_logged_with_suppressed_count() {
        let limit = LogLimit::new(10_000);
        assert_eq!(limit.allow(5), Some(0));
        assert!((6..=1_005).all(|now_ms| limit.allow(now_ms).is_none()));
        assert_eq!(limit.allow(10_004), None);
        assert_eq!(limit.allow(10_005), Some(1_001));
        assert_eq!(limit.allow(10_006), None);
        assert_eq!(limit.allow(99_999), Some(1));
    }
}

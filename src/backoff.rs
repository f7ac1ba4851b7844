//! Delays between attempts: exponential, jittered, bounded.

use std::time::Duration;

/// Delays that double from one attempt to the next, up to a maximum. Each is drawn from the upper
/// half of its range, so that instances and streams that failed together do not return together.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    max: Duration,
    /// The upper end of the next delay's range.
    next: Duration,
}

impl Backoff {
    /// Delays of up to `first`, then of up to twice as much, and so on, never longer than `max`.
    pub const fn new(first: Duration, max: Duration) -> Self {
        Self { first, max, next: first }
    }

    /// The delay before the next attempt.
    pub fn delay(&mut self) -> Duration {
        let longest = self.next.min(self.max);
        self.next = longest.saturating_mul(2);
        longest.mul_f64(0.5 + 0.5 * fastrand::f64())
    }

    /// Restarts with the first delay, after a successful attempt.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_millis(100);
    const MAX: Duration = Duration::from_millis(500);

    /// Checks that a delay is in the upper half of the range up to `ms`.
    fn assert_in_range(delay: Duration, ms: u64) {
        let longest = Duration::from_millis(ms);
        assert!(delay >= longest / 2 && delay <= longest, "{delay:?} is not in range of {ms} ms");
    }

    #[test]
    fn delays_double_up_to_the_maximum() {
        let mut backoff = Backoff::new(FIRST, MAX);
        for ms in [100, 200, 400, 500, 500, 500] {
            assert_in_range(backoff.delay(), ms);
        }
    }

    #[test]
    fn reset_starts_with_the_first_delay() {
        let mut backoff = Backoff::new(FIRST, MAX);
        backoff.delay();
        backoff.delay();
        backoff.reset();
        assert_in_range(backoff.delay(), 100);
    }

    #[test]
    fn delays_of_several_callers_differ() {
        let delays: std::collections::HashSet<_> =
            (0..20).map(|_| Backoff::new(FIRST, MAX).delay()).collect();
        assert!(delays.len() > 10, "{delays:?}");
    }

    #[test]
    fn first_delay_above_the_maximum_is_bounded() {
        let mut backoff = Backoff::new(Duration::MAX, MAX);
        assert_in_range(backoff.delay(), 500);
        assert_in_range(Backoff::new(Duration::ZERO, MAX).delay(), 0);
    }
}

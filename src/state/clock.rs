//! The clock of an instance: its own monotonic time, and an estimate of the time of Redis.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Instant, SystemTime, UNIX_EPOCH},
};

/// Monotonic time since the start of the instance, and the time of Redis. The Redis layer sets the
/// latter; the clock counts on from there.
pub struct Clock {
    started: Instant,
    /// The time of Redis at the start of the instance, ms since 1970; 0 until it is set.
    server_start_ms: AtomicU64,
}

impl Clock {
    /// A clock that starts now and does not know the time of Redis.
    pub fn new() -> Self {
        Self { started: Instant::now(), server_start_ms: AtomicU64::new(0) }
    }

    /// A clock that started this long ago, for unit tests.
    #[cfg(test)]
    pub fn started_before(age: std::time::Duration) -> Self {
        let started = Instant::now().checked_sub(age).expect("the host runs for longer");
        Self { started, ..Self::new() }
    }

    /// Monotonic ms since the start of the instance.
    pub fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    /// The time of Redis in ms since 1970. Until it is set, the time of this host.
    pub fn server_ms(&self) -> u64 {
        match self.server_start_ms.load(Ordering::Relaxed) {
            0 => unix_ms(),
            start_ms => start_ms + self.now_ms(),
        }
    }

    /// Sets the time of Redis (ms since 1970). Returns how far it has jumped, in ms, compared with
    /// the time that this clock had counted on to; 0 the first time.
    pub fn set_server_ms(&self, server_ms: u64) -> u64 {
        let start_ms = server_ms.saturating_sub(self.now_ms());
        match self.server_start_ms.swap(start_ms, Ordering::Relaxed) {
            0 => 0,
            previous_ms => start_ms.abs_diff(previous_ms),
        }
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

/// The time of this host in ms since 1970.
pub fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_time_falls_back_to_the_host_until_it_is_set() {
        let clock = Clock::new();
        let before = unix_ms();
        let server_ms = clock.server_ms();
        assert!((before..=unix_ms()).contains(&server_ms), "{server_ms}");
        assert_eq!(clock.set_server_ms(1_000_000), 0, "the first time is no jump");
        let server_ms = clock.server_ms();
        let latest = 1_000_000 + clock.now_ms();
        assert!((1_000_000..=latest).contains(&server_ms), "{server_ms}");
    }

    #[test]
    fn jump_of_server_time_is_reported_in_both_directions() {
        let clock = Clock::new();
        clock.set_server_ms(1_000_000);
        for later in [5_000_000, 1_000_000] {
            // Only the time that has passed in between may be missing or added.
            let jump_ms = clock.set_server_ms(later);
            assert!(jump_ms.abs_diff(4_000_000) <= clock.now_ms(), "{jump_ms}");
        }
    }
}

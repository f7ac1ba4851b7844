//! A rate limit by key: a burst of at most the allowance, which is refilled evenly over a window
//! (the generic cell rate algorithm, ITU-T I.371: one number for each key).

use std::{collections::HashMap, hash::Hash, time::Duration};

use parking_lot::Mutex;

/// Maximum number of keys. If more are active, new ones are not limited: a flood of addresses must
/// not lock out the others.
const MAX_KEYS: usize = 100_000;

/// Limits the rate of each key.
pub struct RateLimit<K> {
    /// Time between two calls at the limit, µs; 0: no limit.
    period_us: u64,
    window_us: u64,
    /// When the allowance of each key is full again, monotonic µs of the instance.
    full_again_us: Mutex<HashMap<K, u64>>,
}

impl<K: Hash + Eq> RateLimit<K> {
    /// Allows `allowed` calls in each `window`; 0: any number.
    pub fn new(allowed: u64, window: Duration) -> Self {
        let window_us = window.as_micros() as u64;
        Self {
            period_us: window_us.checked_div(allowed).unwrap_or(0),
            window_us,
            full_again_us: Mutex::default(),
        }
    }

    /// Whether a call would be allowed at `now_ms`.
    pub fn has_room(&self, key: &K, now_ms: u64) -> bool {
        let full_again_us = self.full_again_us.lock().get(key).copied().unwrap_or(0);
        let now_us = now_ms * 1000;
        now_us.max(full_again_us) + self.period_us - now_us <= self.window_us
    }

    /// Whether a call is allowed at `now_ms`; if so, it is counted.
    pub fn take(&self, key: K, now_ms: u64) -> bool {
        if self.period_us == 0 {
            return true;
        }
        let now_us = now_ms * 1000;
        let mut keys = self.full_again_us.lock();
        if keys.len() >= MAX_KEYS && !keys.contains_key(&key) {
            keys.retain(|_, full_again_us| *full_again_us > now_us);
            if keys.len() >= MAX_KEYS {
                return true;
            }
        }
        let full_again_us = keys.entry(key).or_default();
        let after_us = now_us.max(*full_again_us) + self.period_us;
        let may = after_us - now_us <= self.window_us;
        if may {
            *full_again_us = after_us;
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(rate: &RateLimit<u32>, key: u32, now_ms: u64) -> usize {
        (0..1000).take_while(|_| rate.take(key, now_ms)).count()
    }

    #[test]
    fn allowance_is_used_up_and_refilled() {
        let rate = RateLimit::new(60, Duration::from_secs(60));
        assert!(rate.has_room(&1, 5));
        assert_eq!(taken(&rate, 1, 5), 60);
        assert!(!rate.has_room(&1, 1004) && rate.has_room(&1, 1005));
        assert_eq!(taken(&rate, 2, 5), 60, "each key has its own");
        assert_eq!(taken(&rate, 1, 1004), 0);
        assert_eq!(taken(&rate, 1, 1005), 1);
        assert_eq!(taken(&rate, 1, 11_005), 10);
        assert_eq!(taken(&rate, 1, 1_000_000), 60, "at most one window's allowance");
    }

    #[test]
    fn zero_means_no_limit_and_keys_are_limited() {
        assert_eq!(taken(&RateLimit::new(0, Duration::from_secs(1)), 1, 0), 1000);
        let rate = RateLimit::new(1, Duration::from_secs(1));
        for key in 0..MAX_KEYS as u32 {
            assert!(rate.take(key, 0));
        }
        assert_eq!(taken(&rate, u32::MAX, 500), 1000, "no room for the key");
        assert_eq!(taken(&rate, u32::MAX, 1000), 1, "keys with a full allowance are removed");
        assert_eq!(rate.full_again_us.lock().len(), 1);
    }
}

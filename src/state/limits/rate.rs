//! How often somebody may do something: so many at once, and as many again over a window's time
//! (the generic cell rate algorithm, ITU-T I.371: one number for each key).

use std::{collections::HashMap, hash::Hash, time::Duration};

use parking_lot::Mutex;

/// So many keys are remembered. With more that are all at work, new ones pass: a flood of addresses
/// must not lock the others out.
const MAX_KEYS: usize = 100_000;

/// A bound on how often.
pub struct RateLimit<K> {
    /// Between two, if they come evenly, µs; 0: no bound.
    period_us: u64,
    window_us: u64,
    /// When each key will have its whole allowance again, µs of the instance.
    full_again_us: Mutex<HashMap<K, u64>>,
}

impl<K: Hash + Eq> RateLimit<K> {
    /// `allowed` in each `window`; 0: any number.
    pub fn new(allowed: u64, window: Duration) -> Self {
        let window_us = window.as_micros() as u64;
        Self {
            period_us: window_us.checked_div(allowed).unwrap_or(0),
            window_us,
            full_again_us: Mutex::default(),
        }
    }

    /// Whether it may now; if so, it is counted.
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
    fn an_allowance_is_used_up_and_grows_again() {
        let rate = RateLimit::new(60, Duration::from_secs(60));
        assert_eq!(taken(&rate, 1, 5), 60);
        assert_eq!(taken(&rate, 2, 5), 60, "each key has its own");
        assert_eq!(taken(&rate, 1, 1004), 0);
        assert_eq!(taken(&rate, 1, 1005), 1);
        assert_eq!(taken(&rate, 1, 11_005), 10);
        assert_eq!(taken(&rate, 1, 1_000_000), 60, "never more than one window's");
    }

    #[test]
    fn nothing_is_bounded_by_0_and_keys_are_bounded() {
        assert_eq!(taken(&RateLimit::new(0, Duration::from_secs(1)), 1, 0), 1000);
        let rate = RateLimit::new(1, Duration::from_secs(1));
        for key in 0..MAX_KEYS as u32 {
            assert!(rate.take(key, 0));
        }
        assert_eq!(taken(&rate, u32::MAX, 500), 1000, "no room, so no bound");
        assert_eq!(
            taken(&rate, u32::MAX, 1000),
            1,
            "those who have their allowance again are forgotten"
        );
        assert_eq!(rate.full_again_us.lock().len(), 1);
    }
}

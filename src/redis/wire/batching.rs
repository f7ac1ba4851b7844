//! Batches of a busy link. Each time it is woken, the link wakes a worker in turn, and both cost
//! more than what they do with a message. On a busy link, a short pause before the next read lets
//! several messages share them.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

/// A link is busy if reads follow each other faster than this, or bring several frames.
const BUSY_GAP: Duration = Duration::from_micros(300);
/// The pause. Shorter than tokio's timers can wait, so it blocks the link's thread.
const PAUSE: Duration = Duration::from_micros(250);
/// A read that brings this much needs no pause: there is enough to share.
const FULL_BYTES: usize = 16 << 10;

thread_local! {
    /// The number of links of this thread.
    static LINKS: Cell<u32> = const { Cell::new(0) };
}

/// Decides when to pause.
pub(super) struct Batching {
    last_end: Option<Instant>,
}

impl Drop for Batching {
    fn drop(&mut self) {
        LINKS.set(LINKS.get().saturating_sub(1));
    }
}

impl Batching {
    /// For a link of this thread. The pauses of several links, as on a cluster, would add up: then
    /// there are none.
    pub(super) fn new() -> Self {
        LINKS.set(LINKS.get() + 1);
        Self { last_end: None }
    }

    /// The pause before the next read, after one that brought `frames` frames of `bytes` bytes and
    /// was handled by `now`.
    pub(super) fn pause(&mut self, frames: usize, bytes: usize, now: Instant) -> Option<Duration> {
        let gap = self.last_end.replace(now).map(|last| now.duration_since(last));
        let is_busy = frames > 1 || gap.is_some_and(|gap| gap < BUSY_GAP);
        (is_busy && bytes < FULL_BYTES && LINKS.get() == 1).then_some(PAUSE)
    }

    /// The pause has ended: it does not count as a gap.
    pub(super) fn paused(&mut self, now: Instant) {
        self.last_end = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_frequent_small_reads_are_followed_by_a_pause() {
        let (mut batching, start) = (Batching::new(), Instant::now());
        let at = |us| start + Duration::from_micros(us);
        assert_eq!(batching.pause(1, 300, at(0)), None, "the first one");
        assert_eq!(batching.pause(1, 300, at(1000)), None, "a quiet link");
        assert_eq!(batching.pause(1, 300, at(1100)), Some(PAUSE));
        batching.paused(at(1350));
        assert_eq!(batching.pause(1, 300, at(1400)), Some(PAUSE));
        assert_eq!(batching.pause(2, 600, at(9000)), Some(PAUSE), "several at once");
        assert_eq!(batching.pause(90, FULL_BYTES, at(9100)), None, "enough to share");
        let other = Batching::new();
        assert_eq!(batching.pause(2, 600, at(9200)), None, "pauses of two links would add up");
        drop(other);
        assert_eq!(batching.pause(2, 600, at(9300)), Some(PAUSE));
    }
}

//! The bytes that an instance holds for its clients: in the queues of streams, and in responses to
//! polls and histories until they are sent.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use super::Limits;

/// Counts these bytes, and compares them with `limits.queue_bytes_total`.
pub struct QueuedBytes {
    total: AtomicI64,
    /// Those of responses, which are part of the total.
    responses: AtomicI64,
    limit: i64,
}

impl QueuedBytes {
    /// Nothing queued yet, with that limit.
    pub fn new(limit_bytes: usize) -> Self {
        Self {
            total: AtomicI64::new(0),
            responses: AtomicI64::new(0),
            limit: i64::try_from(limit_bytes).unwrap_or(i64::MAX),
        }
    }

    /// Adds bytes of a queue, or removes them if negative.
    pub fn add(&self, bytes: i64) {
        self.total.fetch_add(bytes, Ordering::Relaxed);
    }

    fn add_response(&self, bytes: i64) {
        self.add(bytes);
        self.responses.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The bytes queued now.
    pub fn total(&self) -> i64 {
        self.total.load(Ordering::Relaxed)
    }

    /// Whether more is queued than the limit allows.
    pub fn is_exceeded(&self) -> bool {
        self.total() > self.limit
    }
}

/// The bytes of one response. They count until this is dropped.
pub struct ResponseBytes {
    limits: Arc<Limits>,
    is_anonymous: bool,
    bytes: i64,
}

impl ResponseBytes {
    /// Nothing yet. `is_anonymous`: the client has no user.
    pub fn new(limits: Arc<Limits>, is_anonymous: bool) -> Self {
        Self { limits, is_anonymous, bytes: 0 }
    }

    /// Whether other responses leave room for this one, of any size. Together they may use half of
    /// the limit, so that clients that do not read theirs cause no queue to be dropped; with those
    /// of clients without a user it is a quarter, so that users still get theirs.
    pub fn has_room(&self) -> bool {
        let QueuedBytes { responses, limit, .. } = &self.limits.queued_bytes;
        let share = if self.is_anonymous { limit / 4 } else { limit / 2 };
        responses.load(Ordering::Relaxed) - self.bytes < share
    }

    /// Counts this many bytes in place of those before.
    pub fn set(&mut self, bytes: usize) {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.limits.queued_bytes.add_response(bytes - self.bytes);
        self.bytes = bytes;
    }
}

impl Drop for ResponseBytes {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use crate::state::testing::context;

    use super::*;

    #[test]
    fn responses_use_at_most_a_part_of_the_limit() {
        let context = context(&[("LIMITS__QUEUE_BYTES_TOTAL", "1MiB")]);
        let queued = &context.limits.queued_bytes;
        let response = |is_anonymous| ResponseBytes::new(context.limits.clone(), is_anonymous);
        let rooms = || [true, false].map(|is_anonymous| response(is_anonymous).has_room());
        let mut large = response(true);
        assert_eq!(rooms(), [true, true]);
        large.set(256 << 10);
        assert_eq!(rooms(), [false, true]);
        large.set(512 << 10);
        assert_eq!((rooms(), queued.total()), ([false, false], 512 << 10));
        assert!(large.has_room(), "a single response may be larger");
        // Queues of streams take nothing from the responses.
        queued.add(600 << 10);
        large.set(100);
        assert_eq!((rooms(), queued.is_exceeded()), ([true, true], false));
        large.set(512 << 10);
        assert!(queued.is_exceeded());
        drop(large);
        assert_eq!((rooms(), queued.total()), ([true, true], 600 << 10));
    }
}

//! The bytes that are queued for all connections of an instance.

use std::sync::atomic::{AtomicI64, Ordering};

/// Counts queued bytes, and compares them with `limits.queue_bytes_total`.
pub struct QueuedBytes {
    total: AtomicI64,
    limit: i64,
}

impl QueuedBytes {
    /// Nothing queued yet, with that limit.
    pub fn new(limit_bytes: usize) -> Self {
        Self { total: AtomicI64::new(0), limit: i64::try_from(limit_bytes).unwrap_or(i64::MAX) }
    }

    /// Adds bytes, or removes them if negative.
    pub fn add(&self, bytes: i64) {
        self.total.fetch_add(bytes, Ordering::Relaxed);
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

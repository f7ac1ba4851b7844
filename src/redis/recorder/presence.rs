//! Whether plain publishes are recorded.

use std::sync::atomic::{AtomicBool, Ordering};

/// Whether this instance has seen that a recorder works, here or on another instance. From then on
/// a lost recorder is replaced within its lease, so readiness does not depend on it any more.
#[derive(Default)]
pub struct RecorderPresence(AtomicBool);

impl RecorderPresence {
    /// Records that a recorder works.
    pub fn confirm(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether a recorder was seen.
    pub fn is_confirmed(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

//! The phases of an instance: serving, draining, closed (ARCHITECTURE.md#shutdown).

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// The phase of an instance. It only moves forward.
#[derive(Default)]
pub struct Lifecycle {
    draining: AtomicBool,
    closed: AtomicBool,
    closing: Notify,
}

impl Lifecycle {
    /// Starts the drain: the instance is no longer ready, but still admits clients.
    pub fn start_draining(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Whether the drain has started.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Closes the instance after `drain.delay`: no client is admitted any more.
    pub fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.closing.notify_waiters();
    }

    /// Whether the instance is closed.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// Waits until the instance is closed.
    pub async fn closed(&self) {
        let closing = self.closing.notified();
        if !self.is_closed() {
            closing.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn draining_instance_is_not_closed_yet() {
        let lifecycle = Lifecycle::default();
        let mut waiting = Box::pin(lifecycle.closed());
        lifecycle.start_draining();
        assert!(lifecycle.is_draining() && !lifecycle.is_closed());
        assert!((&mut waiting).now_or_never().is_none());
        lifecycle.close();
        assert!(lifecycle.is_closed() && waiting.now_or_never().is_some());
        assert!(lifecycle.closed().now_or_never().is_some(), "closed before the wait");
    }
}

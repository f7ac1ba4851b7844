//! What a connection needs to know of its client, and when a client counts as stalled.

/// How much of what was sent the client has acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes that the client's system has acknowledged since the connection was opened.
    pub acknowledged_bytes: u64,
    /// Whether bytes are sent, or accepted for sending, and not yet acknowledged.
    pub is_outstanding: bool,
}

/// The client of a connection, implemented by the layer that writes to it. All calls come from the
/// worker that owns the connection.
pub trait ClientLiveness {
    /// The client's progress; `None` if it is unknown or the client has gone.
    fn progress(&self) -> Option<Progress>;

    /// Writes chunks of HTTP/1.1 to the client at once, if its writer has written everything before
    /// and can be passed over. Returns whether the chunks were taken: as with the writer, what the
    /// system does not accept yet is written later, before anything else.
    fn write_now(&self, chunks: &[u8]) -> bool;

    /// The stream is live for the first time: from now on, the writer may wait without a task.
    fn set_live(&self);

    /// Something is queued: a writer that waits without a task must take it.
    fn resume_writer(&self);

    /// Whether the writer has a timer of its own, and ends the stream if the client does not read
    /// (HTTP/2, where each stream has a flow control window).
    fn has_stall_timer(&self) -> bool;

    /// Ends the stream at once, without sending what is queued: closes the client's connection, or
    /// resets the stream if the connection carries several (HTTP/2). Returns `false` if the client
    /// has gone already.
    fn disconnect(&self) -> bool;
}

/// Decides whether a client has stalled: bytes are outstanding, and none was acknowledged for
/// `limits.stall`. Pure; all times are monotonic ms of the instance.
#[derive(Clone, Copy, Debug, Default)]
pub struct StallClock {
    is_armed: bool,
    acknowledged_bytes: u64,
    progress_ms: u64,
    next_check_ms: u64,
}

impl StallClock {
    /// Starts the clock when bytes are sent; does nothing while earlier bytes may be outstanding.
    pub fn sent(&mut self, now_ms: impl FnOnce() -> u64, stall_ms: u64) {
        if !self.is_armed {
            let now_ms = now_ms();
            *self = Self {
                is_armed: true,
                acknowledged_bytes: self.acknowledged_bytes,
                progress_ms: now_ms,
                next_check_ms: now_ms + stall_ms / 4,
            };
        }
    }

    /// Whether the progress must be checked: four times per `limits.stall` while bytes may be
    /// outstanding, never otherwise. While frames wait (`has_queue`), the writer may send the rest
    /// of earlier bytes without a call of [`StallClock::sent`].
    pub fn is_due(&mut self, has_queue: bool, now_ms: u64, stall_ms: u64) -> bool {
        if has_queue {
            self.sent(|| now_ms, stall_ms);
        }
        self.is_armed && now_ms >= self.next_check_ms
    }

    /// Takes the client's progress; returns whether it has stalled.
    pub fn check(&mut self, progress: Progress, now_ms: u64, stall_ms: u64) -> bool {
        self.next_check_ms = now_ms + stall_ms / 4;
        self.is_armed = progress.is_outstanding;
        if progress.acknowledged_bytes != self.acknowledged_bytes {
            self.acknowledged_bytes = progress.acknowledged_bytes;
            self.progress_ms = now_ms;
        }
        self.is_armed && now_ms.saturating_sub(self.progress_ms) > stall_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STALL_MS: u64 = 4000;

    fn progress(acknowledged_bytes: u64, is_outstanding: bool) -> Progress {
        Progress { acknowledged_bytes, is_outstanding }
    }

    #[test]
    fn client_without_progress_stalls_after_the_time() {
        let mut clock = StallClock::default();
        assert!(!clock.is_due(false, u64::MAX, STALL_MS));
        clock.sent(|| 10_000, STALL_MS);
        assert!(!clock.is_due(false, 10_999, STALL_MS) && clock.is_due(false, 11_000, STALL_MS));
        assert!(!clock.check(progress(5, true), 11_000, STALL_MS));
        assert!(!clock.check(progress(5, true), 15_000, STALL_MS));
        assert!(clock.check(progress(5, true), 15_001, STALL_MS));
    }

    #[test]
    fn one_byte_of_progress_restarts_the_time() {
        let mut clock = StallClock::default();
        clock.sent(|| 0, STALL_MS);
        for n in 1..100 {
            assert!(!clock.check(progress(n, true), n * STALL_MS, STALL_MS));
        }
    }

    #[test]
    fn time_without_outstanding_bytes_does_not_count() {
        let mut clock = StallClock::default();
        clock.sent(|| 0, STALL_MS);
        assert!(!clock.check(progress(7, false), 1000, STALL_MS));
        assert!(!clock.is_due(false, u64::MAX, STALL_MS));
        // An hour later the next bytes are sent, and nothing of them is acknowledged yet.
        clock.sent(|| 3_600_000, STALL_MS);
        assert!(!clock.check(progress(7, true), 3_601_000, STALL_MS));
        assert!(clock.check(progress(7, true), 3_605_000, STALL_MS));
    }

    #[test]
    fn rest_of_a_piece_counts_while_frames_wait() {
        let mut clock = StallClock::default();
        clock.sent(|| 0, STALL_MS);
        // Everything is acknowledged just when the writer is about to write the rest.
        assert!(!clock.check(progress(7, false), 1000, STALL_MS));
        assert!(!clock.is_due(true, 1500, STALL_MS) && clock.is_due(true, 2500, STALL_MS));
        assert!(!clock.check(progress(7, true), 2500, STALL_MS));
        assert!(clock.check(progress(7, true), 5501, STALL_MS));
    }
}

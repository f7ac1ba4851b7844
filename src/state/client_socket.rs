//! What the state layer needs of a client's socket, and when a client counts as stalled.

/// How far the client has taken what was sent to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// Bytes that the client's system has acknowledged since the connection was opened.
    pub acknowledged_bytes: u64,
    /// Whether bytes are sent, or accepted for sending, and not yet acknowledged.
    pub is_outstanding: bool,
}

/// The socket under a connection. All calls come from the worker that owns it.
pub trait ClientSocket {
    /// How far the client is; `None`: unknown, or the socket is closed.
    fn transfer(&self) -> Option<Transfer>;

    /// Whether the writer of the stream ends it by itself if the client lets nothing be sent
    /// (HTTP/2, where each stream has a flow control window).
    fn has_stall_timer(&self) -> bool;

    /// Closes the socket at once, unless other streams run over it; returns whether it did.
    fn abort(&self) -> bool;
}

/// Decides whether a client has stalled: bytes are outstanding, and none was acknowledged for a
/// time. Pure; all times are ms of the instance.
#[derive(Clone, Copy, Debug, Default)]
pub struct StallClock {
    is_armed: bool,
    acknowledged_bytes: u64,
    progress_ms: u64,
    next_check_ms: u64,
}

impl StallClock {
    /// Bytes are handed to the socket. Returns at once unless everything before is acknowledged.
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

    /// Whether it is time to ask the socket: four times per `limits.stall` while bytes may be
    /// outstanding, never otherwise. While frames wait (`has_queue`), the writer may hold the rest
    /// of earlier bytes, and hand it to the socket without [`StallClock::sent`].
    pub fn is_due(&mut self, has_queue: bool, now_ms: u64, stall_ms: u64) -> bool {
        if has_queue {
            self.sent(|| now_ms, stall_ms);
        }
        self.is_armed && now_ms >= self.next_check_ms
    }

    /// Takes the socket's answer; returns whether the client has stalled.
    pub fn check(&mut self, transfer: Transfer, now_ms: u64, stall_ms: u64) -> bool {
        self.next_check_ms = now_ms + stall_ms / 4;
        self.is_armed = transfer.is_outstanding;
        if transfer.acknowledged_bytes != self.acknowledged_bytes {
            self.acknowledged_bytes = transfer.acknowledged_bytes;
            self.progress_ms = now_ms;
        }
        self.is_armed && now_ms.saturating_sub(self.progress_ms) > stall_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STALL_MS: u64 = 4000;

    fn transfer(acknowledged_bytes: u64, is_outstanding: bool) -> Transfer {
        Transfer { acknowledged_bytes, is_outstanding }
    }

    #[test]
    fn client_without_progress_stalls_after_the_time() {
        let mut clock = StallClock::default();
        assert!(!clock.is_due(false, u64::MAX, STALL_MS));
        clock.sent(|| 10_000, STALL_MS);
        assert!(!clock.is_due(false, 10_999, STALL_MS) && clock.is_due(false, 11_000, STALL_MS));
        assert!(!clock.check(transfer(5, true), 11_000, STALL_MS));
        assert!(!clock.check(transfer(5, true), 15_000, STALL_MS));
        assert!(clock.check(transfer(5, true), 15_001, STALL_MS));
    }

    #[test]
    fn one_byte_of_progress_restarts_the_time() {
        let mut clock = StallClock::default();
        clock.sent(|| 0, STALL_MS);
        for n in 1..100 {
            assert!(!clock.check(transfer(n, true), n * STALL_MS, STALL_MS));
        }
    }

    #[test]
    fn time_without_outstanding_bytes_does_not_count() {
        let mut clock = StallClock::default();
        clock.sent(|| 0, STALL_MS);
        assert!(!clock.check(transfer(7, false), 1000, STALL_MS));
        assert!(!clock.is_due(false, u64::MAX, STALL_MS));
        // An hour later the next bytes are sent, and nothing of them is acknowledged yet.
        clock.sent(|| 3_600_000, STALL_MS);
        assert!(!clock.check(transfer(7, true), 3_601_000, STALL_MS));
        assert!(clock.check(transfer(7, true), 3_605_000, STALL_MS));
    }

    #[test]
    fn rest_of_a_piece_counts_while_frames_wait() {
        let mut clock = StallClock::default();
        clock.sent(|| 0, STALL_MS);
        // Everything is acknowledged just when the writer is about to write the rest.
        assert!(!clock.check(transfer(7, false), 1000, STALL_MS));
        assert!(!clock.is_due(true, 1500, STALL_MS) && clock.is_due(true, 2500, STALL_MS));
        assert!(!clock.check(transfer(7, true), 2500, STALL_MS));
        assert!(clock.check(transfer(7, true), 5501, STALL_MS));
    }
}

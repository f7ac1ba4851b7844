//! Limits the frames of a client in relation to the useful work that it requests, with a token
//! bucket.
//!
//! h2 bounds the memory of every flood, but it processes PING, SETTINGS, WINDOW_UPDATE, RST_STREAM
//! and similar frames as fast as they arrive. Each such frame costs a token. Tokens are regained
//! over time, and with each DATA frame and each complete response that the client accepts, so a
//! busy connection never runs out.

use std::time::Duration;

use super::frames::FrameHead;

/// Initial and maximum number of tokens of a connection, in addition to those for its streams.
const CAPACITY: u32 = 1000;
/// Additional tokens per concurrent stream: a client may open, reset and reopen all of them at
/// once.
const PER_STREAM: u32 = 8;
/// Tokens regained per second.
const PER_SECOND: u32 = 200;
/// DATA frames shorter than this cost a token, even the last one of a stream: h2 ignores any number
/// of DATA frames with END_STREAM on a stream that was reset recently.
const SMALL_DATA_BYTES: usize = 32;

/// Tokens for a DATA frame that the client accepted; it may send two WINDOW_UPDATE frames for it.
pub const FOR_DATA: u32 = 2;
/// Tokens for a complete response: its HEADERS and related frames.
pub const FOR_RESPONSE: u32 = 4;

/// A token bucket for the frames of one connection.
#[derive(Debug)]
pub struct Budget {
    tokens: u32,
    capacity: u32,
    /// Age of the connection up to which tokens were refilled.
    refilled: Duration,
}

impl Budget {
    /// Creates a full bucket for a connection with this many concurrent streams.
    pub fn new(max_streams: u32) -> Self {
        let capacity = CAPACITY + max_streams.saturating_mul(PER_STREAM);
        Self { tokens: capacity, capacity, refilled: Duration::ZERO }
    }

    /// Adds tokens for useful work.
    pub fn earn(&mut self, tokens: u32) {
        self.tokens = self.tokens.saturating_add(tokens).min(self.capacity);
    }

    /// Takes the tokens that a frame costs; `false` if there are not enough. `age` is the age of
    /// the connection.
    pub fn spend(&mut self, frame: FrameHead, age: Duration) -> bool {
        let cost = cost(frame);
        if cost > self.tokens {
            self.refill(age);
        }
        let left = self.tokens.checked_sub(cost);
        self.tokens = left.unwrap_or(0);
        left.is_some()
    }

    fn refill(&mut self, age: Duration) {
        let elapsed = age.saturating_sub(self.refilled);
        let tokens = elapsed.as_millis() * u128::from(PER_SECOND) / 1000;
        // The time of a partial token remains for the next refill.
        if tokens > 0 {
            self.refilled = age;
            self.earn(u32::try_from(tokens).unwrap_or(u32::MAX));
        }
    }
}

fn cost(frame: FrameHead) -> u32 {
    const DATA: u8 = 0;
    const SETTINGS: u8 = 4;
    match frame.kind {
        DATA if frame.length >= SMALL_DATA_BYTES => 0,
        // Changes the windows of all streams.
        SETTINGS => PER_STREAM,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, length: usize) -> FrameHead {
        FrameHead { length, kind }
    }

    const PING: u8 = 6;

    #[test]
    fn frames_beyond_the_budget_are_refused() {
        for (kind, expected) in [(PING, 1080), (4, 135), (0, 1080), (3, 1080), (0x2a, 1080)] {
            let mut budget = Budget::new(10);
            let taken = (0..9999).take_while(|_| budget.spend(frame(kind, 0), Duration::ZERO));
            assert_eq!(taken.count(), expected, "{kind}");
        }
    }

    #[test]
    fn data_frames_with_payload_are_free() {
        let mut budget = Budget::new(1);
        for _ in 0..10_000 {
            assert!(budget.spend(frame(0, SMALL_DATA_BYTES), Duration::ZERO));
        }
    }

    #[test]
    fn work_and_time_refill_the_bucket() {
        let mut budget = Budget::new(1);
        for _ in 0..10_000 {
            budget.earn(FOR_DATA);
            assert!(budget.spend(frame(8, 4), Duration::ZERO));
            assert!(budget.spend(frame(8, 4), Duration::ZERO));
        }
        // A saved token is never worth more than the capacity.
        budget.earn(u32::MAX);
        let flood = |budget: &mut Budget, age| {
            (0..9999).take_while(|_| budget.spend(frame(PING, 8), age)).count()
        };
        assert_eq!(flood(&mut budget, Duration::ZERO), 1008);
        assert_eq!(flood(&mut budget, Duration::from_millis(4)), 0);
        assert_eq!(flood(&mut budget, Duration::from_millis(500)), 100);
        assert_eq!(flood(&mut budget, Duration::from_millis(1500)), 200);
    }
}

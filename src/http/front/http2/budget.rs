//! How many frames a client may send in relation to the work it lets the gateway do: a token
//! bucket.
//!
//! h2 bounds the memory of every flood, but it processes PING, SETTINGS, WINDOW_UPDATE, RST_STREAM
//! and the like as fast as they come. Each such frame costs a token. Tokens come back with time,
//! and with each DATA frame and each complete response that the client takes, so a busy connection
//! never runs out.

use std::time::Duration;

use super::frames::FrameHead;

/// Tokens of a new connection, and the most it can save up, beside those for its streams.
const CAPACITY: u32 = 1000;
/// Additional tokens per concurrent stream: a client may open, reset and reopen all of them at
/// once.
const PER_STREAM: u32 = 8;
/// Tokens that come back per second.
const PER_SECOND: u32 = 200;
/// DATA frames shorter than this cost a token, the last of a stream, too: h2 ignores DATA on a
/// stream that was reset just before, with END_STREAM and however often it comes.
const SMALL_DATA_BYTES: usize = 32;

/// Tokens for a DATA frame that the client took: it may answer with two WINDOW_UPDATE frames.
pub const FOR_DATA: u32 = 2;
/// Tokens for a complete response: its HEADERS, and what belongs to it.
pub const FOR_RESPONSE: u32 = 4;

/// A token bucket for the frames of one connection.
#[derive(Debug)]
pub struct Budget {
    tokens: u32,
    capacity: u32,
    /// Age of the connection up to which tokens were given back.
    refilled: Duration,
}

impl Budget {
    /// A full bucket for a connection with this many concurrent streams.
    pub fn new(max_streams: u32) -> Self {
        let capacity = CAPACITY + max_streams.saturating_mul(PER_STREAM);
        Self { tokens: capacity, capacity, refilled: Duration::ZERO }
    }

    /// Gives tokens back for work that the client let the gateway do.
    pub fn earn(&mut self, tokens: u32) {
        self.tokens = self.tokens.saturating_add(tokens).min(self.capacity);
    }

    /// Takes the tokens that a frame costs; `false`: there are not enough. `age` is the
    /// connection's.
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
        // Where less than a token's time has passed, it is still to come.
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
    fn payload_costs_nothing() {
        let mut budget = Budget::new(1);
        for _ in 0..10_000 {
            assert!(budget.spend(frame(0, SMALL_DATA_BYTES), Duration::ZERO));
        }
    }

    #[test]
    fn work_and_time_give_tokens_back() {
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

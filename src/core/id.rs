//! Event ids. This is the only module that parses and compares them
//! (ARCHITECTURE.md#channels-events-ids).

use std::fmt;

/// The position of an event in the order of all channels, `<ms>-<seq>` like an id of a Redis
/// stream.
///
/// ```
/// use sse_gateway::core::id::EventId;
///
/// let id = EventId::parse("1763719000456-7").expect("an id");
/// assert!(id < EventId { ms: id.ms, seq: 10 }, "compared as numbers");
/// assert_eq!(id.to_string(), "1763719000456-7");
/// assert_eq!(EventId::parse("+1-0"), None);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId {
    /// Milliseconds since 1970 by the clock of Redis, or later if that clock was set back.
    pub ms: u64,
    /// Sequence number within the millisecond; numbers may be skipped.
    pub seq: u64,
}

/// Maximum time by which an id may be ahead of the time of Redis, in ms: 7 days, as in
/// `library.lua`.
pub const MAX_AHEAD_MS: u64 = 7 * 86_400_000;
/// Maximum sequence number: numbers in `library.lua` are doubles, which are exact up to 2^53 only.
const MAX_SEQ: u64 = (1 << 53) - 1;

impl EventId {
    /// The position before every event.
    pub const ZERO: Self = Self { ms: 0, seq: 0 };

    /// Whether the library can have assigned this id by `server_ms`, the time of Redis. Ids from
    /// other sources must be checked before they are compared: a forged id in the far future would
    /// move the clock and every cursor ahead.
    pub fn is_plausible(self, server_ms: u64) -> bool {
        self.ms <= server_ms.saturating_add(MAX_AHEAD_MS) && self.seq <= MAX_SEQ
    }

    /// Parses `<ms>-<seq>`: digits only, no sign, no spaces.
    pub fn parse(text: &str) -> Option<Self> {
        let (ms, seq) = text.split_once('-')?;
        Some(Self { ms: digits(ms)?, seq: digits(seq)? })
    }

    /// Parses an id received from Redis.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Self::parse(std::str::from_utf8(bytes).ok()?)
    }
}

fn digits(text: &str) -> Option<u64> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.seq)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_printed_ids_parse() {
        let id = EventId { ms: 1763719000456, seq: 7 };
        assert_eq!(EventId::parse(&id.to_string()), Some(id));
        for bad in [
            "",
            "-",
            "1",
            "1-",
            "-1",
            "+1-0",
            "1-+0",
            "1 -0",
            "1-0-0",
            "1-0\n",
            "99999999999999999999999-0",
            "a-b",
        ] {
            assert_eq!(EventId::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn ids_past_server_time_plus_seven_days_are_implausible() {
        let id = |ms, seq| EventId { ms, seq };
        let now = 1_763_719_000_456;
        assert!(
            EventId::ZERO.is_plausible(now) && id(now + MAX_AHEAD_MS, MAX_SEQ).is_plausible(now)
        );
        for forged in
            [id(now + MAX_AHEAD_MS + 1, 0), id(u64::MAX, 0), id(now, MAX_SEQ + 1), id(0, u64::MAX)]
        {
            assert!(!forged.is_plausible(now), "{forged}");
        }
        assert!(id(u64::MAX, 0).is_plausible(u64::MAX), "no overflow");
    }

    #[test]
    fn ids_are_ordered_numerically() {
        let id = |text| EventId::parse(text).unwrap();
        assert!(id("9-0") < id("10-0"));
        assert!(id("10-2") < id("10-10"));
    }
}

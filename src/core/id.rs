//! Event ids, and positions of streams. This is the only module that parses and compares them
//! (ARCHITECTURE.md#channels-events-ids).

use std::fmt;

/// The position of an event in the order of one Redis server, `<ms>-<seq>.<epoch>`.
///
/// An epoch is one uninterrupted history of a server. Epochs are ordered, so ids are compared by
/// epoch first.
///
/// ```
/// use sse_gateway::core::id::EventId;
///
/// let id = EventId::parse("1763719000456-7.k3f9x2").expect("an id");
/// assert!(id < EventId { seq: 10, ..id }, "compared as numbers");
/// assert!(id < EventId { ms: 0, epoch: id.epoch + 1, ..id }, "a later epoch is later");
/// assert_eq!(id.to_string(), "1763719000456-7.k3f9x2");
/// assert_eq!(EventId::parse("1763719000456-7"), None);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId {
    /// The epoch, written in base 36. `EPOCHS_PER_SECOND` times the second of its start, or
    /// later.
    pub epoch: u64,
    /// Milliseconds since 1970 by the clock of Redis, or later if that clock was set back.
    pub ms: u64,
    /// Sequence number within the millisecond; numbers may be skipped.
    pub seq: u64,
}

/// Maximum time by which an id may be ahead of the time of Redis, in ms: 7 days, as in
/// `library/positions.lua`.
pub const MAX_AHEAD_MS: u64 = 7 * 86_400_000;
/// Epochs that may start in one second, as in `library/positions.lua`.
const EPOCHS_PER_SECOND: u64 = 1296;
/// Maximum sequence number: numbers in the library are doubles, which are exact up to 2^53 only.
const MAX_SEQ: u64 = (1 << 53) - 1;
/// Maximum length of an epoch in bytes.
const MAX_EPOCH_LEN: usize = 9;

impl EventId {
    /// The position before every event.
    pub const ZERO: Self = Self { epoch: 0, ms: 0, seq: 0 };

    /// The position before everything that was assigned from this time on, in ms since 1970. It has
    /// no epoch, because only the time is known ([`EventId::is_time`]).
    pub fn before_time(ms: u64) -> Self {
        match ms.checked_sub(1) {
            Some(ms) => Self { epoch: 0, ms, seq: MAX_SEQ },
            None => Self::ZERO,
        }
    }

    /// Whether this is a time and not a position in an epoch: what follows it are the entries of a
    /// log with later ids, of whatever epoch. No server assigns ids of epoch 0.
    pub fn is_time(self) -> bool {
        self.epoch == 0
    }

    /// Whether the library can have assigned this id by `server_ms`, the time of Redis. Ids from
    /// other sources must be checked before they are compared: a forged id in the far future would
    /// move the clock and every cursor ahead.
    pub fn is_plausible(self, server_ms: u64) -> bool {
        let latest_ms = server_ms.saturating_add(MAX_AHEAD_MS);
        // One second later than the id: an epoch may begin just after the last possible id.
        let latest_epoch = (latest_ms / 1000).saturating_add(2).saturating_mul(EPOCHS_PER_SECOND);
        self.ms <= latest_ms && self.seq <= MAX_SEQ && self.epoch <= latest_epoch
    }

    /// Parses `<ms>-<seq>.<epoch>`: no signs, no spaces, lower case.
    pub fn parse(text: &str) -> Option<Self> {
        let (id, epoch) = text.split_once('.')?;
        Self::parse_entry(id, parse_epoch(epoch)?)
    }

    /// Parses the id of a log's entry, `<ms>-<seq>`, which was assigned in `epoch`.
    pub fn parse_entry(text: &str, epoch: u64) -> Option<Self> {
        let (ms, seq) = text.split_once('-')?;
        Some(Self { epoch, ms: digits(ms)?, seq: digits(seq)? })
    }

    /// Parses an id received from Redis.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Self::parse(std::str::from_utf8(bytes).ok()?)
    }

    /// The id of the log's entry, without the epoch.
    pub fn entry(self) -> String {
        format!("{}-{}", self.ms, self.seq)
    }
}

fn digits(text: &str) -> Option<u64> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// Parses an epoch: 1 to 9 digits of base 36 in lower case, without leading zeros.
pub fn parse_epoch(text: &str) -> Option<u64> {
    let is_digit = |b: u8| b.is_ascii_digit() || b.is_ascii_lowercase();
    let is_canonical = text == "0" || !text.starts_with('0');
    (text.len() <= MAX_EPOCH_LEN && is_canonical && text.bytes().all(is_digit))
        .then(|| u64::from_str_radix(text, 36).ok())
        .flatten()
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}.{}", self.ms, self.seq, Epoch(self.epoch))
    }
}

/// An epoch as it is written in ids: in base 36.
pub struct Epoch(pub u64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // 13 digits are enough for 64 bits.
        let (mut digits, mut at, mut rest) = ([0; 13], 13, self.0);
        loop {
            at -= 1;
            digits[at] = b"0123456789abcdefghijklmnopqrstuvwxyz"[(rest % 36) as usize];
            rest /= 36;
            if rest == 0 {
                break;
            }
        }
        f.write_str(std::str::from_utf8(&digits[at..]).unwrap_or_default())
    }
}

/// The position of a stream in its two sources, its user's channel and the broadcasts: the `id:`
/// that the client gets, `<id>` if both are equal, otherwise `<user's id>~<broadcasts' id>`.
///
/// If one server has both sources, both positions are always equal. Otherwise each is in the order
/// of its own server.
///
/// ```
/// use sse_gateway::core::id::StreamPosition;
///
/// let position = StreamPosition::parse("7-0.k3~9-1.k5").expect("a position");
/// assert_eq!(position.user.to_string(), "7-0.k3");
/// assert_eq!(position.to_string(), "7-0.k3~9-1.k5");
/// let whole = StreamPosition::parse("7-0.k3").expect("a position");
/// assert_eq!((whole, whole.to_string()), (position.user.into(), "7-0.k3".to_owned()));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct StreamPosition {
    /// The position in the user's channel.
    pub user: EventId,
    /// The position in the broadcasts.
    pub broadcasts: EventId,
}

impl StreamPosition {
    /// The position before every event.
    pub const ZERO: Self = Self { user: EventId::ZERO, broadcasts: EventId::ZERO };

    /// Parses what [`fmt::Display`] writes, and nothing else.
    pub fn parse(text: &str) -> Option<Self> {
        let Some((user, broadcasts)) = text.split_once('~') else {
            return EventId::parse(text).map(Self::from);
        };
        let position =
            Self { user: EventId::parse(user)?, broadcasts: EventId::parse(broadcasts)? };
        (position.user != position.broadcasts).then_some(position)
    }

    /// See [`EventId::is_plausible`].
    pub fn is_plausible(self, server_ms: u64) -> bool {
        self.user.is_plausible(server_ms) && self.broadcasts.is_plausible(server_ms)
    }
}

impl From<EventId> for StreamPosition {
    fn from(id: EventId) -> Self {
        Self { user: id, broadcasts: id }
    }
}

impl fmt::Display for StreamPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.user.fmt(f)?;
        if self.broadcasts != self.user {
            write!(f, "~{}", self.broadcasts)?;
        }
        Ok(())
    }
}

/// A position as `id:` names it to a client: with `!` behind it while the client has not got all
/// retained values of its channels, so that it gets them again if it resumes from here.
///
/// ```
/// use sse_gateway::core::id::Cursor;
///
/// let cursor = Cursor::parse("7-0.k3!").expect("a cursor");
/// assert!(cursor.is_incomplete && cursor.to_string() == "7-0.k3!");
/// assert!(!Cursor::parse("7-0.k3").expect("a cursor").is_incomplete);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The position.
    pub position: StreamPosition,
    /// Whether retained values are missing.
    pub is_incomplete: bool,
}

impl Cursor {
    /// Parses what [`fmt::Display`] writes, and nothing else.
    pub fn parse(text: &str) -> Option<Self> {
        let (text, is_incomplete) = match text.strip_suffix('!') {
            Some(text) => (text, true),
            None => (text, false),
        };
        Some(Self { position: StreamPosition::parse(text)?, is_incomplete })
    }
}

impl From<StreamPosition> for Cursor {
    fn from(position: StreamPosition) -> Self {
        Self { position, is_incomplete: false }
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.position, if self.is_incomplete { "!" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(epoch: u64, ms: u64, seq: u64) -> EventId {
        EventId { epoch, ms, seq }
    }

    #[test]
    fn only_printed_ids_parse() {
        for id in [id(1_763_719_000 * 1296, 1_763_719_000_456, 7), id(0, 0, 0), id(36, 1, 1)] {
            assert_eq!(EventId::parse(&id.to_string()), Some(id), "{id}");
        }
        for bad in [
            "",
            "-",
            "1",
            "1-0",
            "1-0.",
            ".a",
            "-1.a",
            "1-.a",
            "+1-0.a",
            "1-+0.a",
            "1-0.+a",
            "1 -0.a",
            "1-0-0.a",
            "1-0.a\n",
            "1-0.A",
            "1-0.0a",
            "1-0.aaaaaaaaaa",
            "1-0.a.b",
            "99999999999999999999999-0.a",
            "a-b.a",
        ] {
            assert_eq!(EventId::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn time_is_before_everything_from_that_ms_on() {
        let time = EventId::before_time(5000);
        assert!(
            time.is_time() && (time.ms, time.seq) < (5000, 0) && (time.ms, time.seq) > (4999, 9)
        );
        assert!(time.is_plausible(5000) && EventId::parse(&time.to_string()) == Some(time));
        assert_eq!(EventId::before_time(0), EventId::ZERO);
        assert!(!id(1, 5000, 0).is_time());
    }

    #[test]
    fn only_printed_positions_parse() {
        let parse = StreamPosition::parse;
        for text in ["5-1.a", "5-1.a~5-2.a", "7-0.k3~5-2.a"] {
            assert_eq!(parse(text).unwrap().to_string(), text);
        }
        assert_eq!(parse("5-1.a"), Some(id(10, 5, 1).into()));
        for bad in ["", "~", "5-1.a~", "~5-1.a", "5-1.a~5-1.a", "1-0.a~2-0.a~3-0.a", "1-0.a ~2-0.a"]
        {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn plausible_position_has_at_most_80_bytes() {
        // In 2037; from 2038 on an epoch has 9 digits.
        let now = 2_145_000_000_000;
        let last_epoch = (now + MAX_AHEAD_MS) / 1000 * EPOCHS_PER_SECOND;
        let longest = StreamPosition {
            user: id(last_epoch, now + MAX_AHEAD_MS, MAX_SEQ),
            broadcasts: id(last_epoch, now + MAX_AHEAD_MS, MAX_SEQ - 1),
        };
        assert!(longest.is_plausible(now) && longest.to_string().len() <= 80, "{longest}");
        let forged = StreamPosition { user: id(0, u64::MAX, 0), ..longest };
        assert!(!forged.is_plausible(now));
        assert!(!StreamPosition { user: longest.user, broadcasts: forged.user }.is_plausible(now));
    }

    #[test]
    fn ids_past_server_time_plus_seven_days_are_implausible() {
        let now = 1_763_719_000_456;
        let last = now + MAX_AHEAD_MS;
        let last_epoch = (last / 1000 + 1) * EPOCHS_PER_SECOND;
        assert!(EventId::ZERO.is_plausible(now) && id(last_epoch, last, MAX_SEQ).is_plausible(now));
        for forged in [
            id(0, last + 1, 0),
            id(0, u64::MAX, 0),
            id(0, now, MAX_SEQ + 1),
            id(0, 0, u64::MAX),
            id(last_epoch + 2 * EPOCHS_PER_SECOND, now, 0),
            id(u64::MAX, 0, 0),
        ] {
            assert!(!forged.is_plausible(now), "{forged}");
        }
        assert!(id(u64::MAX, u64::MAX, 0).is_plausible(u64::MAX), "no overflow");
    }

    #[test]
    fn ids_compare_by_epoch_then_as_numbers() {
        let id = |text| EventId::parse(text).unwrap();
        assert!(id("9-0.a") < id("10-0.a"));
        assert!(id("10-2.a") < id("10-10.a"));
        assert!(id("10-2.z") < id("9-0.10"));
    }
}

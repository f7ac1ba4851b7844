//! Event ids for comparisons in tests.

use std::fmt;
use std::str::FromStr;

/// An event id `<ms>-<seq>`, ordered as the gateway orders events.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Id(pub u64, pub u64);

impl Id {
    /// Parses an id; panics on anything that is not `<ms>-<seq>`.
    pub fn of(text: &str) -> Id {
        text.parse().unwrap_or_else(|()| panic!("not an event id: {text:?}"))
    }
}

impl FromStr for Id {
    type Err = ();
    fn from_str(text: &str) -> Result<Id, ()> {
        let (ms, seq) = text.split_once('-').ok_or(())?;
        let number = |part: &str| {
            let plain = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
            plain.then(|| part.parse().ok()).flatten().ok_or(())
        };
        Ok(Id(number(ms)?, number(seq)?))
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.0, self.1)
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

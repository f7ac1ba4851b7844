//! Event ids for comparisons in tests.

use std::fmt;
use std::str::FromStr;

/// An event id `<ms>-<seq>.<epoch>`, ordered as the gateway orders events: by epoch first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Id {
    pub epoch: u64,
    pub ms: u64,
    pub seq: u64,
}

impl Id {
    /// Parses an id; panics on anything that is not one.
    pub fn of(text: &str) -> Id {
        text.parse().unwrap_or_else(|()| panic!("not an event id: {text:?}"))
    }
}

impl FromStr for Id {
    type Err = ();
    fn from_str(text: &str) -> Result<Id, ()> {
        let (id, epoch) = text.split_once('.').ok_or(())?;
        let (ms, seq) = id.split_once('-').ok_or(())?;
        let number = |part: &str| {
            let plain = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
            plain.then(|| part.parse().ok()).flatten().ok_or(())
        };
        let epoch = u64::from_str_radix(epoch, 36).map_err(drop)?;
        Ok(Id { epoch, ms: number(ms)?, seq: number(seq)? })
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut epoch, mut rest) = (String::new(), self.epoch);
        while epoch.is_empty() || rest > 0 {
            epoch.insert(0, char::from_digit((rest % 36) as u32, 36).ok_or(fmt::Error)?);
            rest /= 36;
        }
        write!(f, "{}-{}.{epoch}", self.ms, self.seq)
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

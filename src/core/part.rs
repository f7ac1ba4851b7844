//! What of a stream is read from one Redis server (ARCHITECTURE.md#stream-rules).

use super::channel::Channel;

/// The number of a Redis server of this instance; 0 if there is only one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerIndex(pub u16);

/// What of a stream is read from one Redis server. A stream whose two sources are on one server is
/// whole; otherwise it is split into two parts, which are independent of each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// Both sources. As a part of a split stream: both of its parts.
    Whole,
    /// The user's channel.
    User,
    /// The broadcasts.
    Broadcasts,
}

impl Part {
    /// The part of a split stream to which the events of a channel belong.
    pub fn of(channel: &Channel) -> Self {
        match channel {
            Channel::User(_) => Self::User,
            Channel::Broadcast(_) => Self::Broadcasts,
        }
    }

    /// Whether it includes the other part.
    pub fn includes(self, other: Self) -> bool {
        self == Self::Whole || self == other
    }

    /// The smallest part that includes both.
    pub fn with(self, other: Self) -> Self {
        if self == other { self } else { Self::Whole }
    }
}

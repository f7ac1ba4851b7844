//! The topic of presence events, and their types (ARCHITECTURE.md#presence).

use super::{
    channel::Channel,
    envelope::{self, Rejection},
};

/// The topic of presence events. Only tickets with the claim `presence` see it.
pub const TOPIC: &str = "presence";
/// The types of presence events. The library alone appends them: publishers cannot use types that
/// begin with `sse.`.
pub const TYPES: [&str; 2] = ["sse.online", "sse.offline"];

/// Checks the type of an event that the library has stored on a channel.
///
/// # Errors
/// The type is invalid, or reserved and no presence event.
pub fn check_stored_type(channel: &Channel, kind: &str) -> Result<(), Rejection> {
    match channel {
        Channel::Broadcast(topic) if **topic == *TOPIC && TYPES.contains(&kind) => Ok(()),
        _ => envelope::check_type(kind),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_types_are_valid_on_the_presence_topic_only() {
        let presence = Channel::parse("broadcast:presence").unwrap();
        let check = |channel: &Channel, kind| check_stored_type(channel, kind);
        assert_eq!(check(&presence, "sse.online"), Ok(()));
        assert_eq!(check(&presence, "order"), Ok(()));
        assert_eq!(check(&presence, "sse.gap"), Err(Rejection::ReservedType));
        for other in ["broadcast:presence2", "user:presence:events"] {
            let other = Channel::parse(other).unwrap();
            assert_eq!(check(&other, "sse.online"), Err(Rejection::ReservedType));
        }
    }
}

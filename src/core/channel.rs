//! The publishers' channels: `user:<id>:events` and `broadcast:<topic>`
//! (ARCHITECTURE.md#channels-events-ids).

use std::{fmt, sync::Arc};

/// Maximum length of a user id or topic, in bytes.
pub const MAX_NAME_BYTES: usize = 256;

/// A channel without the channel prefix.
///
/// ```
/// use sse_gateway::core::channel::Channel;
///
/// assert_eq!(Channel::parse("user:42:events"), Some(Channel::User("42".into())));
/// assert_eq!(Channel::parse("broadcast:news"), Some(Channel::Broadcast("news".into())));
/// assert_eq!(Channel::parse("broadcast:two words"), None);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Channel {
    /// `user:<id>:events`
    User(Arc<str>),
    /// `broadcast:<topic>`
    Broadcast(Arc<str>),
}

/// Whether a text can be a user id or a topic: 1 to 256 bytes of printable ASCII without space,
/// comma and `* ? [ ] { } \`.
pub fn is_name(text: &str) -> bool {
    (1..=MAX_NAME_BYTES).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_graphic() && !b",*?[]{}\\".contains(&b))
}

impl Channel {
    /// Parses a channel name; `None` if it has neither form.
    pub fn parse(name: &str) -> Option<Self> {
        let user = name.strip_prefix("user:").and_then(|rest| rest.strip_suffix(":events"));
        match (user, name.strip_prefix("broadcast:")) {
            (Some(id), _) if is_name(id) => Some(Self::User(id.into())),
            (None, Some(topic)) if is_name(topic) => Some(Self::Broadcast(topic.into())),
            _ => None,
        }
    }

    /// Parses a channel name received from Redis.
    pub fn from_bytes(name: &[u8]) -> Option<Self> {
        Self::parse(std::str::from_utf8(name).ok()?)
    }

    /// The label in metrics: `user` or `broadcast`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::User(_) => "user",
            Self::Broadcast(_) => "broadcast",
        }
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(id) => write!(f, "user:{id}:events"),
            Self::Broadcast(topic) => write!(f, "broadcast:{topic}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printed_channels_parse_to_themselves() {
        for name in [
            "user:42:events",
            "user:a:b:events",
            "broadcast:news",
            "broadcast:a:b",
            "user:events:events",
        ] {
            assert_eq!(Channel::parse(name).unwrap().to_string(), name);
        }
    }

    #[test]
    fn other_names_are_rejected() {
        let long = format!("broadcast:{}", "x".repeat(257));
        for name in [
            "",
            "user::events",
            "user:42",
            "broadcast:",
            "broadcast:a b",
            "broadcast:a*",
            "broadcast:{a",
            "broadcast:ä",
            "user:a,b:events",
            "news",
            &long,
        ] {
            assert_eq!(Channel::parse(name), None, "{name}");
        }
    }
}

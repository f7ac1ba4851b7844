//! Names of keys, live channels and functions; only this module builds them
//! (ARCHITECTURE.md#keys-in-redis).

use crate::{core::channel::Channel, settings};

/// Builds names under the configured prefixes.
#[derive(Clone, Debug)]
pub struct KeyNames {
    key_prefix: String,
    channel_prefix: String,
    function_prefix: String,
}

impl KeyNames {
    /// Creates the names for the prefixes in the settings.
    pub fn new(redis: &settings::Redis) -> Self {
        Self {
            key_prefix: redis.key_prefix.clone(),
            channel_prefix: redis.channel_prefix.clone(),
            function_prefix: function_prefix(&redis.key_prefix),
        }
    }

    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.key_prefix)
    }

    /// The prefix of keys.
    pub fn key_prefix(&self) -> &str {
        &self.key_prefix
    }

    /// The prefix of the publishers' channels.
    pub fn channel_prefix(&self) -> &str {
        &self.channel_prefix
    }

    /// The function prefix, `sse` for the key prefix `sse:`.
    pub fn function_prefix(&self) -> &str {
        &self.function_prefix
    }

    /// A function of the library, `sse_<name>`.
    pub fn function(&self, name: &str) -> String {
        format!("{}_{name}", self.function_prefix)
    }

    /// The hash of the clock.
    pub fn clock(&self) -> String {
        self.key("clock")
    }

    /// The hash of the recorder's state.
    pub fn recorder(&self) -> String {
        self.key("recorder")
    }

    /// The hash of the library's settings.
    pub fn settings(&self) -> String {
        self.key("settings")
    }

    /// The sorted set of broadcast topics.
    pub fn topics(&self) -> String {
        self.key("topics")
    }

    /// The stream of rejected messages.
    pub fn rejected(&self) -> String {
        self.key("rejected")
    }

    /// The log of a channel.
    pub fn log(&self, channel: &Channel) -> String {
        self.key(&format!("log:{channel}"))
    }

    /// The pattern of all logs.
    pub fn logs(&self) -> String {
        format!("{}*", glob_escape(&self.key("log:")))
    }

    /// The channel of a log's key.
    pub fn channel_of(&self, log: &[u8]) -> Option<Channel> {
        Channel::from_bytes(log.strip_prefix(self.key("log:").as_bytes())?)
    }

    /// The stream of breaks.
    pub fn seams(&self) -> String {
        self.key("seams")
    }

    /// The prefix of a channel's idempotency keys.
    pub fn dedupe(&self, channel: &Channel) -> String {
        self.key(&format!("dedupe:{channel} "))
    }

    /// The pattern of a channel's idempotency keys.
    pub fn dedupes(&self, channel: &Channel) -> String {
        format!("{}*", glob_escape(&self.dedupe(channel)))
    }

    /// A live channel: that of a publishers' channel, or `tick`, `seam`, `control`, `marker`.
    pub fn live(&self, name: &str) -> String {
        self.key(&format!("live:{name}"))
    }

    /// The pattern of all live broadcasts.
    pub fn live_broadcasts(&self) -> String {
        format!("{}broadcast:*", glob_escape(&self.live("")))
    }

    /// The publishers' channel, with the channel prefix.
    pub fn public(&self, channel: &str) -> String {
        format!("{}{channel}", self.channel_prefix)
    }

    /// The patterns of all publishers' channels: users', broadcasts.
    pub fn public_patterns(&self) -> [String; 2] {
        let prefix = glob_escape(&self.channel_prefix);
        [format!("{prefix}user:*:events"), format!("{prefix}broadcast:*")]
    }
}

/// The prefix of function names. All functions of a Redis server share one namespace, so it depends
/// on the key prefix.
fn function_prefix(key_prefix: &str) -> String {
    let word = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    let name: String =
        key_prefix.trim_matches(|c: char| !c.is_ascii_alphanumeric()).chars().map(word).collect();
    if name.is_empty() { "sse".to_owned() } else { name }
}

fn glob_escape(text: &str) -> String {
    text.chars()
        .flat_map(|c| "*?[]\\^".contains(c).then_some('\\').into_iter().chain([c]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_documented_layout() {
        let keys = |key_prefix: &str| {
            KeyNames::new(&settings::Redis {
                key_prefix: key_prefix.into(),
                channel_prefix: "app:".into(),
                ..Default::default()
            })
        };
        let sse = keys("sse:");
        assert_eq!(sse.log(&Channel::parse("user:42:events").unwrap()), "sse:log:user:42:events");
        assert_eq!(sse.live_broadcasts(), "sse:live:broadcast:*");
        assert_eq!(sse.function("publish"), "sse_publish");
        assert_eq!(sse.public_patterns(), ["app:user:*:events", "app:broadcast:*"]);
        assert_eq!(keys("{sse}:").function("publish"), "sse_publish");
        assert_eq!(keys("shop-1:sse:").function("publish"), "shop_1_sse_publish");
        let channel = Channel::parse("broadcast:a").unwrap();
        assert_eq!(keys("[x]:").logs(), "\\[x\\]:log:*");
        assert_eq!(sse.channel_of(sse.log(&channel).as_bytes()), Some(channel.clone()));
        assert_eq!(sse.channel_of(b"other:log:broadcast:a"), None);
        assert_eq!(sse.dedupes(&channel), "sse:dedupe:broadcast:a *");
        assert_eq!(glob_escape("a[b]*"), "a\\[b\\]\\*");
    }
}

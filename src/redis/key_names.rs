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
        [&self.function_prefix, "_", name].concat()
    }

    /// `{broadcast}`: the slot of all broadcasts and of everything that belongs to no user.
    fn broadcast(&self) -> String {
        format!("{{{}}}", self.broadcast_tag())
    }

    /// What ends the names of a channel's keys: `{user:42:events}` or `{broadcast}:news`.
    fn slot(&self, channel: &Channel) -> String {
        match channel {
            Channel::User(_) => format!("{{{}{channel}}}", self.channel_prefix),
            Channel::Broadcast(topic) => format!("{}:{topic}", self.broadcast()),
        }
    }

    fn broadcast_key(&self, name: &str) -> String {
        self.key(&format!("{name}:{}", self.broadcast()))
    }

    /// What is between the braces of `{broadcast}`.
    pub fn broadcast_tag(&self) -> String {
        format!("{}broadcast", self.channel_prefix)
    }

    /// The hash that describes the server.
    pub fn node(&self) -> String {
        self.node_of(&self.broadcast_tag())
    }

    /// The hash that describes a server which owns the slot of this tag.
    pub fn node_of(&self, tag: &str) -> String {
        self.key(&format!("node:{{{tag}}}"))
    }

    /// The hash of the recorder's state.
    pub fn recorder(&self) -> String {
        self.broadcast_key("recorder")
    }

    /// The sorted set of broadcast topics.
    pub fn topics(&self) -> String {
        self.broadcast_key("topics")
    }

    /// The stream of rejected messages.
    pub fn rejected(&self) -> String {
        self.broadcast_key("rejected")
    }

    /// Hash of a channel's retained values.
    pub fn kept(&self, channel: &Channel) -> String {
        self.key(&format!("kept:{}", self.slot(channel)))
    }

    /// Sorted set of the topics that have retained values.
    pub fn kept_topics(&self) -> String {
        self.broadcast_key("kept")
    }

    /// The lease of an external source.
    pub fn source_lease(&self, source: &str) -> String {
        self.broadcast_key(&format!("lease:source:{source}"))
    }

    /// The last confirmed entry of an external source that cannot keep it itself.
    pub fn source_position(&self, source: &str) -> String {
        self.broadcast_key(&format!("source:{source}"))
    }

    /// Stream of the events that no stream was handed in time.
    pub fn undelivered(&self) -> String {
        self.broadcast_key("undelivered")
    }

    /// Hash of a user's events that a stream must be handed.
    pub fn unseen(&self, user: &Channel) -> String {
        self.key(&format!("unseen:{}", self.slot(user)))
    }

    /// The pattern of all hashes of users' events that a stream must be handed.
    pub fn unseens(&self) -> String {
        format!("{}*", glob_escape(&self.key("unseen:")))
    }

    /// The user's channel of such a hash.
    pub fn channel_of_unseen(&self, key: &str) -> Option<Channel> {
        self.channel_of_slot(key.strip_prefix(&self.key("unseen:"))?)
    }

    /// The hash of the users who have a stream.
    pub fn presence(&self) -> String {
        self.broadcast_key("presence")
    }

    /// The hash of the instances' answers to a question about a topic.
    pub fn presence_answers(&self, question: &str) -> String {
        format!("{}:{question}", self.broadcast_key("presence-answers"))
    }

    /// The log of a channel.
    pub fn log(&self, channel: &Channel) -> String {
        self.key(&format!("log:{}", self.slot(channel)))
    }

    /// The pattern of all logs.
    pub fn logs(&self) -> String {
        format!("{}*", glob_escape(&self.key("log:")))
    }

    /// The channel of a log's key.
    pub fn channel_of(&self, log: &[u8]) -> Option<Channel> {
        let slot = std::str::from_utf8(log).ok()?.strip_prefix(&self.key("log:"))?;
        self.channel_of_slot(slot)
    }

    fn channel_of_slot(&self, slot: &str) -> Option<Channel> {
        let tagged = slot.strip_prefix('{')?.strip_prefix(&self.channel_prefix)?;
        match tagged.strip_prefix("broadcast}:") {
            Some(topic) => Channel::parse(&format!("broadcast:{topic}")),
            None => Channel::parse(tagged.strip_suffix('}')?),
        }
    }

    /// The prefix of a channel's idempotency keys.
    pub fn dedupe(&self, channel: &Channel) -> String {
        self.key(&format!("dedupe:{} ", self.slot(channel)))
    }

    /// The pattern of a channel's idempotency keys.
    pub fn dedupes(&self, channel: &Channel) -> String {
        format!("{}*", glob_escape(&self.dedupe(channel)))
    }

    /// Until when the sessions and tickets of a user are revoked.
    pub fn revoked(&self, user: &str) -> String {
        self.key(&format!("revoked:{{{}user:{user}:events}}", self.channel_prefix))
    }

    /// The live channel of a user.
    pub fn live_user(&self, user: &str) -> String {
        [&self.key_prefix, "live:{", &self.channel_prefix, "user:", user, ":events}"].concat()
    }

    /// The live channel of all broadcasts.
    pub fn live_broadcast(&self) -> String {
        self.broadcast_key("live")
    }

    /// The user's channel, whose live channel this is.
    pub fn channel_of_live(&self, live: &str) -> Option<Channel> {
        self.channel_of_slot(live.strip_prefix(&self.key("live:"))?)
    }

    /// The publishers' channel, with the channel prefix.
    pub fn public(&self, channel: &str) -> String {
        format!("{}{channel}", self.channel_prefix)
    }

    /// The public name of a user's channel.
    pub fn public_user(&self, user: &str) -> String {
        [&self.channel_prefix, "user:", user, ":events"].concat()
    }

    /// The key by which `sse_publish` names a channel: its name, or for a broadcast
    /// `{broadcast}:<topic>`, which a cluster requires. `channel` may be invalid; the library says
    /// so. The prefix may be missing.
    pub fn publish(&self, channel: &str) -> String {
        let channel = channel.strip_prefix(&self.channel_prefix).unwrap_or(channel);
        match channel.strip_prefix("broadcast:") {
            Some(topic) => format!("{}:{topic}", self.broadcast()),
            None => self.public(channel),
        }
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

    fn names(key_prefix: &str, channel_prefix: &str) -> KeyNames {
        KeyNames::new(&settings::Redis {
            key_prefix: key_prefix.into(),
            channel_prefix: channel_prefix.into(),
            ..Default::default()
        })
    }

    fn channel(name: &str) -> Channel {
        Channel::parse(name).unwrap()
    }

    #[test]
    fn names_follow_the_documented_layout() {
        let sse = names("sse:", "");
        assert_eq!(sse.log(&channel("user:42:events")), "sse:log:{user:42:events}");
        assert_eq!(sse.log(&channel("broadcast:news")), "sse:log:{broadcast}:news");
        assert_eq!(sse.live_user("42"), "sse:live:{user:42:events}");
        assert_eq!(sse.live_broadcast(), "sse:live:{broadcast}");
        assert_eq!(sse.rejected(), "sse:rejected:{broadcast}");
        assert_eq!(sse.dedupes(&channel("broadcast:a")), "sse:dedupe:{broadcast}:a *");
        assert_eq!(sse.function("publish"), "sse_publish");
        assert_eq!(sse.public_patterns(), ["user:*:events", "broadcast:*"]);
    }

    #[test]
    fn channel_prefix_is_part_of_the_hash_tag() {
        let app = names("sse:", "app:");
        assert_eq!(app.log(&channel("user:42:events")), "sse:log:{app:user:42:events}");
        assert_eq!(app.log(&channel("broadcast:news")), "sse:log:{app:broadcast}:news");
        assert_eq!(app.live_user("42"), "sse:live:{app:user:42:events}");
        assert_eq!(app.public_patterns(), ["app:user:*:events", "app:broadcast:*"]);
        assert_eq!(app.publish("broadcast:news"), "{app:broadcast}:news");
        assert_eq!(app.publish("user:42:events"), "app:user:42:events");
        assert_eq!(app.publish("app:user:42:events"), "app:user:42:events");
    }

    #[test]
    fn channels_are_found_in_the_names_of_keys() {
        for keys in [names("sse:", ""), names("sse:", "app:")] {
            for channel in [channel("user:42:events"), channel("broadcast:a:b")] {
                assert_eq!(keys.channel_of(keys.log(&channel).as_bytes()), Some(channel));
            }
            assert_eq!(
                keys.channel_of_live(&keys.live_user("42")),
                Some(channel("user:42:events"))
            );
            assert_eq!(keys.channel_of(b"sse:log:broadcast:a"), None);
            assert_eq!(keys.channel_of(b"other:log:{broadcast}:a"), None);
        }
    }

    #[test]
    fn function_prefix_has_only_letters_and_digits() {
        assert_eq!(names("shop-1:sse:", "").function("publish"), "shop_1_sse_publish");
        assert_eq!(names("[x]:", "").logs(), "\\[x\\]:log:*");
        assert_eq!(glob_escape("a[b]*"), "a\\[b\\]\\*");
    }
}

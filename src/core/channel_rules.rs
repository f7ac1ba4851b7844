//! Channel rules (`[[channels]]`): how the events of a channel are stored, and which it accepts
//! (ARCHITECTURE.md#channel-rules).

use std::{fmt, time::Duration};

use crc::{CRC_64_XZ, Crc};

use super::{catch_up::ClockSnapshot, channel::Channel, channel_pattern::ChannelPattern, presence};

/// Maximum number of rules.
pub const MAX_RULES: usize = 64;
/// Tells sets of retentions apart.
const CHECKSUM: Crc<u64> = Crc::<u64>::new(&CRC_64_XZ);

/// One rule, as configured. What it does not set comes from `history.*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelRule {
    /// The channels to which the rule applies, unless an earlier rule matches them.
    pub pattern: ChannelPattern,
    /// Number of events to keep (approximately).
    pub max_len: Option<u64>,
    /// The log expires this long after its last event.
    pub retention: Option<Duration>,
    /// Maximum payload size in bytes.
    pub max_event_bytes: Option<usize>,
    /// Whether only events with KEEP or FORGET are accepted.
    pub requires_keep: bool,
    /// Whether every event is ephemeral.
    pub is_ephemeral: bool,
    /// Maximum number of events per second.
    pub rate: Option<u64>,
}

/// What applies to one channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChannelPolicy {
    /// Number of events to keep (approximately).
    pub max_len: u64,
    /// The log expires this long after its last event.
    pub retention: Duration,
    /// Maximum payload size in bytes.
    pub max_event_bytes: usize,
    /// Whether only events with KEEP or FORGET are accepted.
    pub requires_keep: bool,
    /// Whether every event is ephemeral.
    pub is_ephemeral: bool,
    /// Maximum number of events per second; `None` = unlimited.
    pub rate: Option<u64>,
}

impl ChannelPolicy {
    fn retention_ms(&self) -> u64 {
        self.retention.as_millis() as u64
    }
}

/// All rules. The first one that matches a channel applies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChannelRules {
    rules: Box<[ChannelRule]>,
    /// What applies to channels that no rule matches, and what rules do not set.
    default: ChannelPolicy,
    retentions: Retentions,
}

impl ChannelRules {
    /// Rules, with the policy of channels without one.
    pub fn new(rules: impl Into<Box<[ChannelRule]>>, default: ChannelPolicy) -> Self {
        let mut all = Self { rules: rules.into(), default, retentions: Retentions::default() };
        all.retentions = Retentions::of(&all);
        all
    }

    /// The same rules with another policy of channels without one.
    pub fn with_default(self, default: ChannelPolicy) -> Self {
        Self::new(self.rules, default)
    }

    /// The rules in their order.
    pub fn rules(&self) -> &[ChannelRule] {
        &self.rules
    }

    /// What applies to channels that no rule matches.
    pub fn default_policy(&self) -> ChannelPolicy {
        self.default
    }

    /// What a rule means together with the defaults.
    pub fn resolve(&self, rule: &ChannelRule) -> ChannelPolicy {
        ChannelPolicy {
            max_len: rule.max_len.unwrap_or(self.default.max_len),
            retention: rule.retention.unwrap_or(self.default.retention),
            max_event_bytes: rule.max_event_bytes.unwrap_or(self.default.max_event_bytes),
            requires_keep: rule.requires_keep,
            is_ephemeral: rule.is_ephemeral,
            rate: rule.rate,
        }
    }

    /// What applies to a channel.
    pub fn of(&self, channel: &Channel) -> ChannelPolicy {
        if self.rules.is_empty() {
            return self.default;
        }
        let name = channel.to_string();
        let rule = self.rules.iter().find(|rule| rule.pattern.matches(&name));
        rule.map_or(self.default, |rule| self.resolve(rule))
    }

    /// The policy of each rule, and the default.
    pub fn policies(&self) -> impl Iterator<Item = ChannelPolicy> {
        self.rules.iter().map(|rule| self.resolve(rule)).chain([self.default])
    }

    /// Whether a channel accepts only events with KEEP or FORGET.
    pub fn requires_keep(&self, channel: &Channel) -> bool {
        self.of(channel).requires_keep
    }

    /// The same of a channel or pattern as `sse.gap` names it.
    pub fn name_requires_keep(&self, name: &str) -> bool {
        // Presence events keep nothing, whatever the rule of their channel.
        if self.rules.is_empty() || name.strip_prefix("broadcast:") == Some(presence::TOPIC) {
            return false;
        }
        let prefix = name.strip_prefix("broadcast:").and_then(|topic| topic.strip_suffix('*'));
        match prefix {
            Some(prefix) => self.pattern_requires_keep(prefix),
            None => Channel::parse(name).is_some_and(|channel| self.requires_keep(&channel)),
        }
    }

    /// The same of every channel whose topic begins with `prefix`; false in doubt.
    pub fn pattern_requires_keep(&self, prefix: &str) -> bool {
        let topics = ChannelPattern::of_topics(prefix);
        for rule in self.rules.iter().filter(|rule| rule.pattern.overlaps(&topics)) {
            if !rule.requires_keep {
                return false;
            }
            if rule.pattern.covers(&topics) {
                return true;
            }
        }
        false
    }

    /// The size of the largest payload that any channel accepts, in bytes.
    pub fn largest_event_bytes(&self) -> usize {
        self.policies().map(|policy| policy.max_event_bytes).max().unwrap_or(0)
    }

    /// The retentions that this gateway's function library uses.
    pub fn retentions(&self) -> Retentions {
        self.retentions
    }

    /// The longest retention of a channel, ms.
    pub fn longest_ms(&self) -> u64 {
        self.policies().map(|policy| policy.retention_ms()).max().unwrap_or(0)
    }

    /// The retention of a channel on the server of a snapshot, ms: the one of these rules, or a
    /// shorter one if the library there has other rules.
    pub fn retention_ms(&self, channel: &Channel, clock: &ClockSnapshot) -> u64 {
        self.limited(self.of(channel).retention_ms(), clock)
    }

    /// The longest retention of a channel on the server of a snapshot, ms.
    pub fn longest_retention_ms(&self, clock: &ClockSnapshot) -> u64 {
        self.limited(self.longest_ms(), clock)
    }

    /// The shortest retention of a channel on the server of a snapshot, ms.
    pub fn shortest_retention_ms(&self, clock: &ClockSnapshot) -> u64 {
        self.limited(self.retentions.shortest_ms, clock)
    }

    fn limited(&self, retention_ms: u64, clock: &ClockSnapshot) -> u64 {
        match clock.retentions {
            // In the library, any channel may have the shortest one.
            Some(other) if other != self.retentions => retention_ms.min(other.shortest_ms),
            _ => retention_ms,
        }
    }
}

/// Which retentions apply to which channels: the shortest one, and a checksum of all. The text form
/// is in the function library and in the node key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retentions {
    /// The shortest retention, ms.
    pub shortest_ms: u64,
    /// Zero if all channels have the same.
    checksum: u64,
}

impl Retentions {
    fn of(rules: &ChannelRules) -> Self {
        let all: Vec<u64> = rules.policies().map(|policy| policy.retention_ms()).collect();
        let shortest_ms = all.iter().copied().min().unwrap_or(0);
        if all.iter().all(|ms| *ms == shortest_ms) {
            return Self { shortest_ms, checksum: 0 };
        }
        let mut digest = CHECKSUM.digest();
        for (rule, ms) in rules.rules.iter().zip(&all) {
            digest.update(format!("{} {ms}\n", rule.pattern).as_bytes());
        }
        digest.update(rules.default.retention_ms().to_string().as_bytes());
        Self { shortest_ms, checksum: digest.finalize().max(1) }
    }

    /// Parses the text form.
    pub fn parse(text: &str) -> Option<Self> {
        let (shortest, checksum) = text.split_once(' ').unwrap_or((text, "0"));
        let checksum = u64::from_str_radix(checksum, 16).ok()?;
        Some(Self { shortest_ms: shortest.parse().ok()?, checksum })
    }
}

impl fmt::Display for Retentions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.checksum {
            0 => write!(f, "{}", self.shortest_ms),
            checksum => write!(f, "{} {checksum:x}", self.shortest_ms),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn rule(pattern: &str) -> ChannelRule {
        ChannelRule {
            pattern: ChannelPattern::parse(pattern).unwrap(),
            max_len: None,
            retention: None,
            max_event_bytes: None,
            requires_keep: false,
            is_ephemeral: false,
            rate: None,
        }
    }

    fn keep(pattern: &str) -> ChannelRule {
        ChannelRule { requires_keep: true, ..rule(pattern) }
    }

    fn kept_for(pattern: &str, hours: u32) -> ChannelRule {
        ChannelRule { retention: Some(HOUR * hours), ..rule(pattern) }
    }

    fn rules(rules: &[ChannelRule]) -> ChannelRules {
        let default =
            ChannelPolicy { max_len: 1000, retention: HOUR * 24, ..ChannelPolicy::default() };
        ChannelRules::new(rules, default)
    }

    fn channel(name: &str) -> Channel {
        Channel::parse(name).unwrap()
    }

    #[test]
    fn first_match_applies_and_defaults_fill_it() {
        let rules = rules(&[
            ChannelRule { max_len: Some(5), ..rule("broadcast:prices.eur") },
            kept_for("broadcast:prices.*", 1),
        ]);
        let of = |name| {
            let policy = rules.of(&channel(name));
            (policy.max_len, policy.retention.as_secs() / 3600)
        };
        assert_eq!(of("broadcast:prices.eur"), (5, 24));
        assert_eq!(of("broadcast:prices.usd"), (1000, 1));
        assert_eq!(of("user:1:events"), (1000, 24));
    }

    #[test]
    fn patterns_require_keep_only_if_all_their_channels_do() {
        let required = |all: &[ChannelRule], prefix| rules(all).pattern_requires_keep(prefix);
        assert!(required(&[keep("broadcast:prices.*")], "prices."));
        assert!(required(&[keep("broadcast:prices.*")], "prices.e"));
        assert!(required(&[keep("broadcast:prices.eur"), keep("broadcast:*")], ""));
        assert!(required(&[rule("user:*:events"), keep("broadcast:*")], "a"));
        assert!(!required(&[keep("broadcast:prices.*")], "price"));
        assert!(!required(&[rule("broadcast:prices.eur"), keep("broadcast:*")], "prices."));
        assert!(!required(&[rule("broadcast:*x"), keep("broadcast:*")], "prices."));
        assert!(!required(&[keep("broadcast:prices.eur")], "prices.eur"));
        assert!(!required(&[], ""));
    }

    #[test]
    fn retentions_differ_if_those_of_a_channel_do() {
        let retentions = |all: &[ChannelRule]| rules(all).retentions();
        let none = retentions(&[]);
        assert_eq!(none.to_string(), "86400000");
        assert_eq!(retentions(&[keep("broadcast:a"), kept_for("broadcast:b", 24)]), none);
        let (a, b) = (kept_for("broadcast:a*", 1), kept_for("broadcast:*b", 2));
        let one = retentions(std::slice::from_ref(&a));
        let (two, swapped) = (retentions(&[a.clone(), b.clone()]), retentions(&[b, a]));
        assert!(none != one && one != two && two != swapped);
        for some in [none, one, two] {
            assert_eq!(Retentions::parse(&some.to_string()), Some(some));
        }
        assert_eq!(Retentions::parse("1h"), None);
    }

    #[test]
    fn other_rules_of_the_library_limit_every_retention() {
        let rules = rules(&[kept_for("broadcast:a", 48)]);
        let hours = |retentions| {
            let clock = ClockSnapshot { retentions, ..ClockSnapshot::default() };
            let user = rules.retention_ms(&channel("user:1:events"), &clock);
            [user, rules.longest_retention_ms(&clock), rules.shortest_retention_ms(&clock)]
                .map(|ms| ms / 3_600_000)
        };
        assert_eq!(hours(Some(rules.retentions())), [24, 48, 24]);
        assert_eq!(hours(None), [24, 48, 24], "an earlier version of the library");
        assert_eq!(hours(Retentions::parse("3600000 1")), [1, 1, 1]);
    }
}

//! Retained values: the current value of each key of a channel. Which of them a stream gets, and
//! which events they replace (ARCHITECTURE.md#retained-values).

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use super::{channel::Channel, control_events::SnapshotKeys, event::Event, id::EventId};

/// A retained value.
#[derive(Clone, Debug)]
pub struct RetainedValue {
    /// The position of its event.
    pub position: EventId,
    /// Its key.
    pub key: Arc<str>,
    /// The event, without an id.
    pub event: Arc<Event>,
}

/// The values of a channel in the order of their positions.
pub type Values = Arc<[RetainedValue]>;

/// The values of some channels.
#[derive(Clone, Debug, Default)]
pub struct Retained {
    channels: Vec<(Channel, Values)>,
    /// Whether one of the channels has values, or had some recently.
    pub is_used: bool,
    /// Whether more topics have values than a stream gets.
    pub too_many: bool,
    /// Channels whose values are too large for a stream.
    pub left_out: Vec<Channel>,
}

impl Retained {
    /// The values of each channel.
    pub fn new(channels: Vec<(Channel, Values)>, is_used: bool, too_many: bool) -> Self {
        Self { channels, is_used, too_many, left_out: Vec::new() }
    }

    /// Channels whose values are too large.
    pub fn left_out(channels: Vec<Channel>) -> Self {
        Self { is_used: !channels.is_empty(), left_out: channels, ..Self::default() }
    }

    /// Adds the values of other channels.
    pub fn with(mut self, other: Self) -> Self {
        self.channels.extend(other.channels);
        self.too_many |= other.too_many;
        self.left_out.extend(other.left_out);
        self.is_used |= other.is_used;
        self
    }

    /// The values up to `h`, and those alone: later ones follow as live events.
    pub fn upto(mut self, h: EventId) -> Self {
        for (_, values) in &mut self.channels {
            if values.last().is_some_and(|last| last.position > h) {
                *values = values.iter().filter(|value| value.position <= h).cloned().collect();
            }
        }
        self.channels.retain(|(_, values)| !values.is_empty());
        self
    }

    /// Whether there is nothing to tell a new stream.
    pub fn is_empty(&self) -> bool {
        self.channels.is_empty() && self.left_out.is_empty() && !self.too_many
    }

    /// The values that `sees` lets pass, in the order of their positions.
    pub fn in_order(&self, sees: impl Fn(&Event) -> bool) -> Vec<RetainedValue> {
        let all = self.channels.iter().flat_map(|(_, values)| values.iter());
        let mut all: Vec<_> = all.filter(|value| sees(&value.event)).cloned().collect();
        if self.channels.len() > 1 {
            all.sort_by_key(|value| value.position);
        }
        all
    }

    /// The data of `sse.snapshot`.
    pub fn keys(&self, covers: Vec<String>, sees: impl Fn(&Event) -> bool) -> SnapshotKeys {
        let keys = |values: &Values| {
            let seen = values.iter().filter(|value| sees(&value.event));
            seen.map(|value| Box::from(&*value.key)).collect::<Vec<_>>()
        };
        let channels = self.channels.iter().map(|(channel, values)| (channel, keys(values)));
        let channels = channels.filter(|(_, keys)| !keys.is_empty());
        let channels = channels.map(|(channel, keys)| (channel.to_string(), keys)).collect();
        SnapshotKeys { covers, channels }
    }

    /// The keys of which the stream gets the current value: earlier events with these keys must not
    /// follow it.
    pub fn superseded(&self) -> Superseded<'_> {
        let keys = |values: &'_ Values| values.iter().map(|value| value.key.clone()).collect();
        Superseded(self.channels.iter().map(|(channel, values)| (channel, keys(values))).collect())
    }
}

/// Keys by channel.
pub struct Superseded<'a>(HashMap<&'a Channel, HashSet<Arc<str>>>);

impl Superseded<'_> {
    /// Whether an event up to H changes a key whose value at H was delivered.
    pub fn contains(&self, event: &Event) -> bool {
        let key = event.retain().map(|retain| retain.key());
        key.is_some_and(|key| self.0.get(&event.channel).is_some_and(|keys| keys.contains(key)))
    }
}

//! The retained values that a stream gets when it begins, or after a gap: those of its broadcasts
//! from the instance's cache, which is filled once for all waiting streams, and those of its user.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use redis::{Cmd, RedisResult};

use super::commands::{CommandError, Commands, is_wrong_type, log_foreign};
use crate::{
    core::{
        channel::Channel, control_events::SnapshotKeys, event::Event, id::EventId, topics::Topics,
    },
    state::{
        clock::unix_ms,
        retained_cache::{RetainedCache, RetainedValue, Values},
    },
};

/// Maximum number of topics whose values one stream gets; if more have some, it gets a gap.
const MAX_TOPICS: usize = 10_000;
/// Maximum number of commands in one pipeline.
const PIPELINE: usize = 128;

/// The values of some channels.
#[derive(Debug, Default)]
pub struct Retained {
    channels: Vec<(Channel, Values)>,
    /// Whether one of the channels has values, or had some recently.
    pub is_used: bool,
    /// Whether more topics have values than a stream gets.
    pub too_many: bool,
}

impl Retained {
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

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.channels.is_empty()
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

/// Reads the values of a user's channel.
///
/// # Errors
/// Redis does not respond.
pub async fn of_user(commands: &Commands, user: Channel) -> Result<Retained, CommandError> {
    let replies = read(commands, std::slice::from_ref(&user)).await?;
    let mut found = Retained::default();
    for (mut values, is_used) in replies {
        values.sort_by_key(|value: &RetainedValue| value.position);
        found.is_used |= is_used;
        found.channels.push((user.clone(), values.into()));
    }
    Ok(found)
}

impl Retained {
    /// Adds the values of other channels.
    pub fn with(mut self, other: Self) -> Self {
        self.channels.extend(other.channels);
        self.too_many |= other.too_many;
        self.is_used |= other.is_used;
        self
    }
}

/// The values of the broadcasts of some topics, from the cache if possible.
///
/// # Errors
/// Redis does not respond.
pub async fn of_topics(
    commands: &Commands,
    cache: &RetainedCache,
    topics: &Topics,
) -> Result<Retained, CommandError> {
    let list = match cache.topics(unix_ms()) {
        Some(list) => list,
        None => fill_topics(commands, cache).await?,
    };
    let allowed = || list.iter().filter(|topic| topics.allows(topic));
    let wanted: Vec<_> = allowed().take(MAX_TOPICS).cloned().collect();
    let too_many = wanted.len() == MAX_TOPICS && allowed().nth(MAX_TOPICS).is_some();
    let now_ms = unix_ms();
    let mut found: Vec<Option<Values>> =
        wanted.iter().map(|topic| cache.values(topic, now_ms)).collect();
    if found.iter().any(Option::is_none) {
        let _turn = cache.filling.lock().await;
        let now_ms = unix_ms();
        for (values, topic) in found.iter_mut().zip(&wanted) {
            *values = values.take().or_else(|| cache.values(topic, now_ms));
        }
        let missing: Vec<_> =
            found.iter().enumerate().filter(|(_, v)| v.is_none()).map(|(n, _)| n).collect();
        for numbers in missing.chunks(PIPELINE) {
            let topics = numbers.iter().map(|n| &wanted[*n]);
            let generation = cache.begin_values(topics.clone());
            let channels: Vec<_> = topics.map(|t| Channel::Broadcast(t.clone())).collect();
            let read = read(commands, &channels).await?;
            for (n, (values, _)) in numbers.iter().zip(read) {
                found[*n] = Some(cache.set_values(generation, &wanted[*n], values, unix_ms()));
            }
        }
    }
    let wanted_is_empty = wanted.is_empty();
    let channels = wanted.into_iter().map(Channel::Broadcast).zip(found);
    let channels = channels.filter_map(|(channel, values)| Some((channel, values?))).collect();
    Ok(Retained { channels, is_used: !wanted_is_empty, too_many })
}

async fn fill_topics(
    commands: &Commands,
    cache: &RetainedCache,
) -> Result<Arc<BTreeSet<Arc<str>>>, CommandError> {
    let _turn = cache.filling.lock().await;
    if let Some(list) = cache.topics(unix_ms()) {
        return Ok(list);
    }
    let generation = cache.begin_topics();
    let key = commands.keys.kept_topics();
    let mut command = redis::cmd("ZRANGE");
    command.arg(&key).arg(0).arg(-1);
    let listed = match commands.run::<Vec<String>>(&command).await {
        Err(CommandError::Rejected(e)) if is_wrong_type(&e) => {
            log_foreign(&key);
            Vec::new()
        }
        listed => listed?,
    };
    let topics: BTreeSet<Arc<str>> = listed.into_iter().map(Arc::from).collect();
    cache.set_topics(generation, topics.clone(), unix_ms());
    // The cache has the topics that were listed meanwhile, too, unless it was closed.
    Ok(cache.topics(unix_ms()).unwrap_or_else(|| topics.into()))
}

/// The fields of a hash.
type Fields = Vec<(String, Vec<u8>)>;

/// Reads the values of up to [`PIPELINE`] channels, and whether each has or had some. A key of
/// another type counts as empty.
async fn read(
    commands: &Commands,
    channels: &[Channel],
) -> Result<Vec<(Vec<RetainedValue>, bool)>, CommandError> {
    let mut pipeline = redis::pipe();
    pipeline.ignore_errors();
    for channel in channels {
        let mut command = Cmd::new();
        command.arg("HGETALL").arg(commands.keys.kept(channel));
        pipeline.add_command(command);
    }
    let replies: Vec<RedisResult<Fields>> = commands.run_all(&pipeline).await?;
    let mut all = Vec::with_capacity(channels.len());
    for (channel, reply) in channels.iter().zip(replies) {
        all.push(match reply {
            Err(e) if is_wrong_type(&e) => {
                log_foreign(&commands.keys.kept(channel));
                (Vec::new(), false)
            }
            fields => {
                let fields = fields?;
                let is_used = !fields.is_empty();
                (fields.into_iter().filter_map(|f| value(channel, f)).collect(), is_used)
            }
        });
    }
    Ok(all)
}

/// `None`: our library did not write it.
fn value(channel: &Channel, (key, value): (String, Vec<u8>)) -> Option<RetainedValue> {
    // The library's mark of a hash without values is the empty key.
    let (position, event) = Event::from_kept(channel, &key, &value)?;
    // An epoch that begins after the time in the id is forged.
    position.is_plausible(position.ms).then(|| RetainedValue {
        position,
        key: key.into(),
        event: Arc::new(event),
    })
}

//! The retained values that a stream gets when it begins, or after a gap: those of its broadcasts
//! from the instance's cache, which is filled once for all waiting streams, and those of its user.

use std::{collections::BTreeSet, sync::Arc};

use redis::{Cmd, RedisResult};

use super::commands::{CommandError, Commands, is_wrong_type, log_foreign};
use crate::{
    core::{
        channel::{Channel, is_name},
        event::Event,
        retained::{Retained, RetainedValue},
        topics::Topics,
    },
    log_limit::LogLimit,
    state::{
        clock::unix_ms,
        retained_cache::{CachedValues, RetainedCache},
    },
};

/// Maximum number of topics whose values one stream gets; if more have some, it gets a gap.
const MAX_TOPICS: usize = 10_000;
/// Maximum number of commands in one pipeline.
const PIPELINE: usize = 128;

/// Maximum size of the values of a user's channel. If they are larger, the stream gets a gap.
const USER_VALUES_BYTES: usize = 4 << 20;
/// Limits the log lines about topics whose values do not fit into the cache.
static TOO_LARGE_LOG: LogLimit = LogLimit::new(60_000);

/// Reads the values of a user's channel.
///
/// # Errors
/// Redis does not respond.
pub async fn of_user(commands: &Commands, user: Channel) -> Result<Retained, CommandError> {
    let replies = read(commands, std::slice::from_ref(&user)).await?;
    let mut found = Retained::default();
    for (mut values, is_used) in replies {
        let bytes: usize = values.iter().map(|value| value.event.frame.len()).sum();
        if bytes > USER_VALUES_BYTES {
            found = found.with(Retained::left_out(vec![user.clone()]));
            continue;
        }
        values.sort_by_key(|value: &RetainedValue| value.position);
        found = found.with(Retained::new(vec![(user.clone(), values.into())], is_used, false));
    }
    Ok(found)
}

/// All values of a channel, by key, whatever their size: for operators.
///
/// # Errors
/// Redis does not respond.
pub async fn all(
    commands: &Commands,
    channel: &Channel,
) -> Result<Vec<RetainedValue>, CommandError> {
    let replies = read(commands, std::slice::from_ref(channel)).await?;
    let mut values: Vec<_> = replies.into_iter().flat_map(|(values, _)| values).collect();
    values.sort_by(|a, b| a.key.cmp(&b.key));
    Ok(values)
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
    let mut wanted = topics.among(&list, MAX_TOPICS + 1);
    let too_many = wanted.len() > MAX_TOPICS;
    wanted.truncate(MAX_TOPICS);
    let now_ms = unix_ms();
    let mut found: Vec<Option<CachedValues>> =
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
            let topics = numbers.iter().map(|n| wanted[*n].clone());
            let loading = cache.begin_values(topics.clone().collect());
            let channels: Vec<_> = topics.map(Channel::Broadcast).collect();
            let read = read(commands, &channels).await?;
            for (n, (values, _)) in numbers.iter().zip(read) {
                found[*n] = Some(loading.set(&wanted[*n], values, unix_ms()));
            }
        }
    }
    let is_used = !wanted.is_empty();
    let (mut channels, mut left_out) = (Vec::new(), Vec::new());
    for (channel, values) in wanted.into_iter().map(Channel::Broadcast).zip(found) {
        match values {
            Some(CachedValues::Values(values)) => channels.push((channel, values)),
            Some(CachedValues::TooLarge) => left_out.push(channel),
            None => {}
        }
    }
    if let (Some(channel), Some(suppressed)) = (left_out.first(), log_too_large(&left_out)) {
        tracing::warn!(
            %channel,
            topics = left_out.len(),
            suppressed,
            "the retained values of all topics are larger than history.replay_cache_bytes: streams \
             do not get those of some topics, but sse.gap (trimmed); increase it"
        );
    }
    Ok(Retained::new(channels, is_used, too_many).with(Retained::left_out(left_out)))
}

/// Whether to log that topics are left out: the number of lines that were not logged before.
fn log_too_large(left_out: &[Channel]) -> Option<u64> {
    if left_out.is_empty() { None } else { TOO_LARGE_LOG.allow(unix_ms()) }
}

async fn fill_topics(
    commands: &Commands,
    cache: &RetainedCache,
) -> Result<Arc<BTreeSet<Arc<str>>>, CommandError> {
    let _turn = cache.filling.lock().await;
    if let Some(list) = cache.topics(unix_ms()) {
        return Ok(list);
    }
    let loading = cache.begin_topics();
    let key = commands.keys.kept_topics();
    let mut command = redis::cmd("ZRANGE");
    command.arg(&key).arg(0).arg(-1);
    let listed = match commands.run::<Vec<Vec<u8>>>(&command).await {
        Err(CommandError::Rejected(e)) if is_wrong_type(&e) => {
            log_foreign(&key);
            Vec::new()
        }
        listed => listed?,
    };
    // Another client may have written what is no topic.
    let texts = listed.into_iter().filter_map(|topic| String::from_utf8(topic).ok());
    let topics = texts.filter(|topic| is_name(topic)).map(Arc::from);
    Ok(loading.set(topics.collect(), unix_ms()))
}

/// The fields of a hash.
type Fields = Vec<(Vec<u8>, Vec<u8>)>;

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
fn value(channel: &Channel, (key, value): (Vec<u8>, Vec<u8>)) -> Option<RetainedValue> {
    let key = String::from_utf8(key).ok()?;
    // The library's mark of a hash without values is the empty key.
    let (position, event) = Event::from_kept(channel, &key, &value)?;
    // An epoch that begins after the time in the id is forged.
    position.is_plausible(position.ms).then(|| RetainedValue {
        position,
        key: key.into(),
        event: Arc::new(event),
    })
}

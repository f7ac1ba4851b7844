//! What became of the options of an event: its retained value, and whether it was seen.

use redis::RedisResult;
use serde::Serialize;

use super::{Raw, text};
use crate::{
    core::{channel::Channel, id::EventId},
    redis::commands::{CommandError, Commands},
};

/// The key of a retained value that an event changed.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RetainedKey {
    /// The key.
    pub key: String,
    /// Whether the event deleted the value; otherwise it was the value.
    pub is_forget: bool,
    /// Id of the event that is the value now; `None`: the key has no value.
    pub value: Option<String>,
    /// Whether nothing has changed the value since this event.
    pub is_current: bool,
}

/// The end of an event's `UNSEEN`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Unseen {
    /// Ms since 1970.
    pub until_ms: u64,
    /// Whether the event still waits: no stream was handed it, and it is not stored as undelivered.
    pub is_waiting: bool,
}

/// What became of the retained value and of the `UNSEEN` of an entry.
pub(super) async fn outcome(
    commands: &Commands,
    id: EventId,
    channel: &Channel,
    entry: &Raw,
) -> Result<(Option<RetainedKey>, Option<Unseen>), CommandError> {
    let (keep, forget) = (text(entry, "k"), text(entry, "f"));
    let until_ms: Option<u64> = text(entry, "u").and_then(|ms| ms.parse().ok());
    let is_forget = forget.is_some();
    let key = keep.or(forget);
    if key.is_none() && until_ms.is_none() {
        return Ok((None, None));
    }
    let mut pipeline = redis::pipe();
    // A key of another type counts as empty.
    pipeline.ignore_errors();
    pipeline.cmd("HGET").arg(commands.keys.kept(channel)).arg(&key);
    pipeline.cmd("HGET").arg(commands.keys.unseen(channel)).arg(id.to_string());
    let replies: Vec<RedisResult<Option<Vec<u8>>>> = commands.run_all(&pipeline).await?;
    let mut replies = replies.into_iter().map(|reply| reply.ok().flatten());
    let (value, waiting) = (replies.next().flatten(), replies.next().flatten());
    let position = |value: Vec<u8>| {
        let id = value.split(|b| *b == b' ').next().and_then(EventId::from_bytes);
        id.map(|id| id.to_string())
    };
    let value = value.and_then(position);
    let is_current = match is_forget {
        true => value.is_none(),
        false => value.as_ref() == Some(&id.to_string()),
    };
    let retained = key.map(|key| RetainedKey { key, is_forget, value, is_current });
    let unseen = until_ms.map(|until_ms| Unseen { until_ms, is_waiting: waiting.is_some() });
    Ok((retained, unseen))
}

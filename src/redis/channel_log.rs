//! What is stored of one channel, for operators: the state of its log, and the log itself, newest
//! entry first, with what other clients wrote to it.

use std::collections::HashMap;

use redis::{RedisResult, Value, from_redis_value};

use super::{
    commands::{CommandError, Commands},
    log::event,
};
use crate::core::{channel::Channel, event::Event, id::EventId};

/// Maximum number of entries in one reply of Redis.
const PAGE_ENTRIES: usize = 50;
/// A page that has read this many bytes of frames ends.
const PAGE_BYTES: usize = 4 << 20;

/// The state of a log.
#[derive(Debug, Default)]
pub struct LogState {
    /// Number of entries; 0 without a log.
    pub length: u64,
    /// The oldest entry.
    pub first: Option<LogEntry>,
    /// The newest entry.
    pub last: Option<LogEntry>,
}

/// An entry of a log.
#[derive(Debug)]
pub struct LogEntry {
    /// The id of the entry, `<ms>-<seq>`.
    pub entry: String,
    /// The event; `None`: another client wrote the entry.
    pub event: Option<Event>,
}

impl LogEntry {
    /// The id of the event, or of the entry.
    pub fn id(&self) -> String {
        let id = self.event.as_ref().and_then(|event| event.id);
        id.map_or_else(|| self.entry.clone(), |id| id.to_string())
    }
}

/// Entries of a log, newest first.
#[derive(Debug, Default)]
pub struct LogPage {
    /// The entries.
    pub entries: Vec<LogEntry>,
    /// Whether older ones follow.
    pub has_more: bool,
}

type Raw = (String, Vec<Vec<u8>>);

fn entry(channel: &Channel, (id, fields): &Raw) -> LogEntry {
    LogEntry { entry: id.clone(), event: event(channel, id, fields) }
}

/// Reads the state of a channel's log.
///
/// # Errors
/// Redis does not reply, or the key holds a value of another type.
pub async fn state(commands: &Commands, channel: &Channel) -> Result<LogState, CommandError> {
    let mut pipeline = redis::pipe();
    // Without a log, XINFO returns an error.
    pipeline.ignore_errors().cmd("XINFO").arg("STREAM").arg(commands.keys.log(channel));
    let mut replies: Vec<RedisResult<HashMap<String, Value>>> = commands.run_all(&pipeline).await?;
    let members = match replies.pop() {
        Some(Ok(members)) => members,
        Some(Err(error)) if error.detail().is_some_and(|text| text.contains("no such key")) => {
            return Ok(LogState::default());
        }
        Some(Err(error)) => return Err(error.into()),
        None => return Err(CommandError::UnexpectedReply("no reply to XINFO".to_owned())),
    };
    let at = |name: &str| {
        let raw: Option<Raw> = members.get(name).and_then(|v| from_redis_value(v.clone()).ok());
        raw.map(|raw| entry(channel, &raw))
    };
    let length = members.get("length").and_then(|value| from_redis_value(value.clone()).ok());
    Ok(LogState { length: length.unwrap_or(0), first: at("first-entry"), last: at("last-entry") })
}

/// Reads up to `limit` entries before an id, newest first; the newest ones without an id. Fewer if
/// they are large.
///
/// # Errors
/// Redis does not reply, or the key holds a value of another type.
pub async fn before(
    commands: &Commands,
    channel: &Channel,
    id: Option<EventId>,
    limit: usize,
) -> Result<LogPage, CommandError> {
    let key = commands.keys.log(channel);
    let (mut page, mut bytes) = (LogPage::default(), 0);
    let mut upto = id.map_or_else(|| "+".to_owned(), |id| format!("({}", id.entry()));
    loop {
        let missing = limit - page.entries.len();
        // One more than are missing shows whether any follow.
        let count = missing.saturating_add(1).min(PAGE_ENTRIES);
        let mut command = redis::cmd("XREVRANGE");
        command.arg(&key).arg(&upto).arg("-").arg("COUNT").arg(count);
        let raw: Vec<Raw> = commands.run(&command).await?;
        let (is_last, is_enough) = (raw.len() < count, raw.len() > missing);
        for raw in raw.iter().take(missing) {
            bytes += raw.1.iter().map(Vec::len).sum::<usize>();
            page.entries.push(entry(channel, raw));
        }
        page.has_more = is_enough || !is_last;
        if is_last || is_enough || bytes > PAGE_BYTES {
            return Ok(page);
        }
        upto = page.entries.last().map_or(upto, |last| format!("({}", last.entry));
    }
}

//! Reads the channels' logs and the list of topics.

use std::collections::HashSet;

use redis::{Cmd, RedisResult, Value, from_redis_value};

use super::commands::{CommandError, Commands, is_wrong_type, log_foreign};
use crate::core::{
    channel::Channel,
    event::Event,
    event_options::EventOptions,
    id::{EventId, parse_epoch},
    page::{Entry, Page, ReadFrom},
    presence::check_stored_type,
    topics::Topics,
};
use crate::log_limit::LogLimit;
use crate::state::clock::unix_ms;

/// Room in the buffer of a command that reads a log.
const RANGE_BYTES: usize = 160;
/// Maximum number of commands in one pipeline.
const PIPELINE: usize = 256;
/// Maximum number of topics that one catch-up reads; if more were active, the client gets a gap.
const MAX_TOPICS: usize = 10_000;
/// Maximum number of topics that one catch-up scans to find those that its ticket allows; if more
/// were active, the client gets a gap.
const MAX_SCANNED: usize = 100_000;
/// Maximum number of topics in one reply, which blocks other commands.
const TOPICS_PAGE: usize = 10_000;

/// Limits the log lines about foreign entries; one for the process, because each resume may find
/// some.
static FOREIGN_LOG: LogLimit = LogLimit::new(10_000);

/// Reads up to `count` entries of each log, and returns the events after its position. If there are
/// none, also the last id that the log ever had, because events may have been trimmed. On a `first`
/// read, a key of the wrong type counts as a trimmed log, because its events are lost.
///
/// # Errors
/// Redis does not respond, or a key no longer contains a log as it did on the first read.
pub async fn pages(
    commands: &Commands,
    logs: &[(Channel, ReadFrom)],
    count: usize,
    first: bool,
) -> Result<Vec<Page>, CommandError> {
    let mut pages = Vec::with_capacity(logs.len());
    for chunk in logs.chunks(PIPELINE / 2) {
        let mut pipeline = redis::pipe();
        for (channel, from) in chunk {
            if is_often_empty(channel) {
                pipeline.add_command(last(commands, channel));
            }
            pipeline.add_command(range(commands, channel, *from, count));
        }
        pipeline.ignore_errors();
        let replies: Vec<RedisResult<Value>> = commands.run_all(&pipeline).await?;
        let mut replies = replies.into_iter();
        for (channel, from) in chunk {
            let last = if is_often_empty(channel) { replies.next() } else { None };
            let read = match replies.next().ok_or_else(|| missing("XRANGE"))? {
                Ok(reply) => page(channel, *from, reply, count)?,
                Err(e) if first && is_wrong_type(&e) => no_log(commands, channel),
                Err(e) => return Err(e.into()),
            };
            pages.push(match last {
                Some(last) if is_empty(&read) => {
                    Page { last_ever: last_generated(last?, from)?, ..read }
                }
                _ => read,
            });
        }
    }
    read_last_ids(commands, logs, count, &mut pages).await?;
    Ok(pages)
}

/// Whether the last id of a log is read together with its events, not only if there are none: most
/// users have missed nothing, and topics are read because they had events.
fn is_often_empty(channel: &Channel) -> bool {
    matches!(channel, Channel::User(_))
}

fn is_empty(page: &Page) -> bool {
    page.events.is_empty() && page.last_ever != NO_LOG
}

fn missing(command: &str) -> CommandError {
    CommandError::UnexpectedReply(format!("no reply to {command}"))
}

/// The last id of a log whose key has the wrong type.
const NO_LOG: EventId = EventId { epoch: u64::MAX, ms: u64::MAX, seq: u64::MAX };

fn no_log(commands: &Commands, channel: &Channel) -> Page {
    log_foreign(&commands.keys.log(channel));
    Page { last_ever: NO_LOG, ..Page::default() }
}

fn last(commands: &Commands, channel: &Channel) -> Cmd {
    commands.call("last", &[commands.keys.log(channel)])
}

fn range(commands: &Commands, channel: &Channel, from: ReadFrom, count: usize) -> Cmd {
    let mut command = Cmd::with_capacity(6, RANGE_BYTES);
    command
        .arg("XRANGE")
        .arg(commands.keys.log(channel))
        .arg(format!("({}", from.entry.entry()))
        .arg("+")
        .arg("COUNT")
        .arg(count);
    command
}

/// Reads the last id of topics' logs without events after the cursor, and then the events again, so
/// that an event that arrives in between does not count as trimmed.
async fn read_last_ids(
    commands: &Commands,
    logs: &[(Channel, ReadFrom)],
    count: usize,
    pages: &mut [Page],
) -> Result<(), CommandError> {
    let is_unread = |n: &usize| is_empty(&pages[*n]) && !is_often_empty(&logs[*n].0);
    let empty: Vec<usize> = (0..logs.len()).filter(is_unread).collect();
    for chunk in empty.chunks(PIPELINE / 2) {
        let mut pipeline = redis::pipe();
        pipeline.ignore_errors();
        for n in chunk {
            let (channel, from) = &logs[*n];
            pipeline.add_command(last(commands, channel));
            pipeline.add_command(range(commands, channel, *from, count));
        }
        let replies: Vec<RedisResult<Value>> = commands.run_all(&pipeline).await?;
        let mut replies = replies.into_iter();
        for n in chunk {
            let (channel, from) = &logs[*n];
            let mut next =
                || replies.next().ok_or_else(|| missing("XRANGE"))?.map_err(CommandError::from);
            let (last, events) = (next()?, next()?);
            let last_ever = last_generated(last, from)?;
            pages[*n] = Page { last_ever, ..page(channel, *from, events, count)? };
        }
    }
    Ok(())
}

/// The last id that a log ever had, as the library replied; zero without a log.
fn last_generated(last: Value, from: &ReadFrom) -> Result<EventId, CommandError> {
    let id = from_redis_value::<String>(last).map_err(|e| CommandError::Rejected(e.into()))?;
    let id = EventId::parse_entry(&id, 0).filter(|id| *id > EventId::ZERO);
    Ok(id.map_or(EventId::ZERO, |id| from.assume_epoch(id)))
}

fn page(
    channel: &Channel,
    from: ReadFrom,
    reply: Value,
    count: usize,
) -> Result<Page, CommandError> {
    let entries: Vec<(String, Vec<Vec<u8>>)> =
        from_redis_value(reply).map_err(|e| CommandError::Rejected(e.into()))?;
    let entries = entries.iter().map(|(id, fields)| match event(channel, id, fields) {
        Some(event) => Entry::Event(event),
        None => Entry::Foreign(EventId::parse_entry(id, 0).unwrap_or_default()),
    });
    let (page, foreign) = Page::of(from, entries.collect(), count);
    if foreign > 0
        && let Some(suppressed) = FOREIGN_LOG.allow(unix_ms())
    {
        tracing::warn!(
            %channel,
            foreign,
            suppressed,
            "skipped foreign entries in a log: is another client writing to it?"
        );
    }
    Ok(page)
}

/// The event in an entry of a log; `None`: our library did not write it.
pub(super) fn event(channel: &Channel, id: &str, fields: &[Vec<u8>]) -> Option<Event> {
    let field = |name: &str| {
        let at = fields.chunks(2).find(|pair| pair[0] == name.as_bytes())?;
        std::str::from_utf8(at.get(1)?).ok()
    };
    let predecessor = EventId::parse(field("p")?)?;
    let id = EventId::parse_entry(id, parse_epoch(field("e")?)?)?;
    // An epoch that begins after the time in the id is forged.
    if !id.is_plausible(id.ms) {
        return None;
    }
    let retry_ms = field("r").and_then(|r| r.parse().ok());
    let kind = field("t").filter(|t| check_stored_type(channel, t).is_ok())?;
    let event = Event::new(id, predecessor, channel.clone(), retry_ms, kind, field("d")?);
    // Most entries have the five fields only.
    Some(event.with_options(options(fields.get(10..).unwrap_or_default())))
}

/// The options of an event, from the fields that follow the common ones. Unknown ones are skipped:
/// a later version may have written them.
fn options(fields: &[Vec<u8>]) -> Option<Box<EventOptions>> {
    let mut options = None::<Box<EventOptions>>;
    for pair in fields.chunks(2) {
        let [name, text] = pair else { continue };
        if let ([letter], Ok(text)) = (&name[..], std::str::from_utf8(text)) {
            options.get_or_insert_default().set(*letter, text);
        }
    }
    options
}

/// The broadcast channels of `topics` that had an event at or after `since_ms`. The flag is true if
/// there were too many; then those whose last event is oldest are omitted.
///
/// # Errors
/// Redis does not respond.
pub async fn active_broadcasts(
    commands: &Commands,
    topics: &Topics,
    since_ms: u64,
) -> Result<(Vec<Channel>, bool), CommandError> {
    let (mut listed, mut too_many) = (Vec::new(), false);
    if topics.prefixes().next().is_some() {
        (listed, too_many) = active(commands, topics, since_ms).await?;
    }
    // An exact topic is read even if it is not listed: its log may prove that events were trimmed.
    listed.extend(topics.exact().map(str::to_owned));
    listed.sort();
    listed.dedup();
    Ok((listed.iter().map(|topic| Channel::Broadcast(topic.as_str().into())).collect(), too_many))
}

/// The allowed topics that had an event since `since_ms`, the latest first; the flag as above.
async fn active(
    commands: &Commands,
    topics: &Topics,
    since_ms: u64,
) -> Result<(Vec<String>, bool), CommandError> {
    let (mut found, mut seen, mut scanned) = (Vec::new(), HashSet::new(), 0);
    let (mut lowest, mut highest, mut first_ms) = (since_ms, None::<u64>, None);
    loop {
        let mut command = redis::cmd("ZREVRANGEBYSCORE");
        command
            .arg(commands.keys.topics())
            .arg(highest.map_or("+inf".to_owned(), |ms| ms.to_string()))
            .arg(lowest);
        command.arg("WITHSCORES").arg("LIMIT").arg(0).arg(TOPICS_PAGE);
        let page: Vec<(Vec<u8>, f64)> = match commands.run(&command).await {
            Err(CommandError::Rejected(e)) if is_wrong_type(&e) => {
                // The active topics are unknown, so the client gets a gap.
                log_foreign(&commands.keys.topics());
                return Ok((found, true));
            }
            other => other?,
        };
        let (length, last) = (page.len(), page.last().map(|(_, ms)| *ms as u64));
        first_ms = first_ms.or(page.first().map(|(_, ms)| *ms as u64));
        scanned += length;
        let texts = page.into_iter().filter_map(|(topic, _)| String::from_utf8(topic).ok());
        let new = texts.filter(|topic| topics.allows(topic));
        found.extend(new.filter(|topic| seen.insert(topic.clone())));
        if found.len() > MAX_TOPICS {
            found.truncate(MAX_TOPICS);
            return Ok((found, true));
        }
        match (length < TOPICS_PAGE, highest) {
            // A single reply is consistent.
            (true, None) => return Ok((found, false)),
            // A topic with an event between two pages has moved to the top, which is read again.
            (true, Some(_)) => {
                (lowest, highest, first_ms) = (first_ms.unwrap_or(lowest), None, None)
            }
            // A page may end between topics with the same time, which are then read again. If all
            // of a page have the same time, the scan cannot continue.
            (false, _) if last == highest || scanned >= MAX_SCANNED => {
                return Ok((found, true));
            }
            (false, _) => highest = last,
        }
    }
}

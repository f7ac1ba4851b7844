//! Searches for an event in the log of its channel, or in all logs, limited in number and time.
//! Only reads, with XRANGE, XREVRANGE, PTTL, SCAN, GET, HGET and FCALL of sse_watermark and
//! sse_last. All commands are for one server: on a cluster for the master that has the logs.

mod options;
pub mod report;
mod servers;

use std::time::{Duration, Instant};

use redis::{Pipeline, RedisResult, Value, from_redis_value};
use serde::Serialize;

pub use self::options::{RetainedKey, Unseen};
use super::{
    commands::{CommandError, Commands},
    log,
    routes::vouched_epochs,
    watermark::{self, WatermarkError},
};
use crate::core::{
    catch_up::{self, ClockSnapshot, Merge, Start},
    channel::Channel,
    id::{EventId, parse_epoch},
    part::Part,
    reasons::GapReason,
    trace::{EventStatus, Neighbours, status},
};

/// Logs in one pipeline. The reply may contain an event of each.
const PIPELINE: usize = 64;
/// Keys that one SCAN examines.
const SCAN_KEYS: usize = 1000;
/// Events in one page, as in a catch-up.
const PAGE_EVENTS: usize = 256;
/// Maximum number of channels in a report.
const LISTED: usize = 10;

/// The limits of a search.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Maximum number of logs.
    pub logs: usize,
    /// Maximum duration.
    pub time: Duration,
}

/// The result of a search in all logs.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Search {
    /// Number of logs that were searched.
    pub logs: usize,
    /// Whether all logs were searched.
    pub complete: bool,
    /// Channels whose log contains the id, or names it as a predecessor.
    #[serde(skip)]
    pub matches: Vec<(Channel, EventId)>,
    /// Number of logs that have lost entries around the id, so that it may have been one of them.
    #[serde(rename = "maybe")]
    pub candidates: usize,
    /// The channels of the first of these logs.
    #[serde(rename = "maybeChannels", serialize_with = "names")]
    pub candidate_channels: Vec<Channel>,
}

impl Search {
    /// Adds what another search has found.
    pub fn add(&mut self, other: Self) {
        self.logs += other.logs;
        self.complete &= other.complete;
        self.matches.extend(other.matches);
        self.candidates += other.candidates;
        let room = LISTED.saturating_sub(self.candidate_channels.len());
        self.candidate_channels.extend(other.candidate_channels.into_iter().take(room));
    }
}

fn names<S: serde::Serializer>(channels: &[Channel], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(channels.iter().map(Channel::to_string))
}

/// A break in the history.
#[derive(Debug, Serialize)]
pub struct Break {
    /// Position of the break.
    pub id: String,
    /// Reason of the break.
    pub reason: &'static str,
}

/// An event as its log contains it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// The SSE event name; `None` if another client wrote the entry.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// Length of the payload, bytes.
    pub bytes: usize,
    /// The event's `retry:`, ms.
    pub retry_ms: Option<u64>,
    /// The publisher's idempotency key, while Redis remembers it.
    pub key: Option<String>,
    /// What the event did to a retained value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retained: Option<RetainedKey>,
    /// Its tags, `<name>=<value>` separated by spaces.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tags: Option<String>,
    /// Until when a stream must be handed the event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unseen: Option<Unseen>,
    /// The payload.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payload: Option<String>,
    /// Id of the channel's previous event; `None` for the first one.
    pub predecessor: Option<String>,
    /// Whether the log still contains the predecessor.
    pub predecessor_in_log: bool,
}

/// What a client that resumes from the id receives of this channel.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Resume {
    /// The reason of `sse.gap`, if there is one.
    pub gap: Option<&'static str>,
    /// Number of events of the channel.
    pub replayed: usize,
}

/// A channel's log around the id.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ChannelTrace {
    /// The channel.
    pub channel: String,
    /// What the log proves about the id.
    #[serde(rename = "place")]
    pub status: EventStatus,
    /// The event, if the log still contains it.
    pub event: Option<Entry>,
    /// The next event of the log.
    pub successor: Option<String>,
    /// Time until the log expires, ms; `None` if there is no log, it never expires, or this was not
    /// read.
    pub log_ttl_ms: Option<u64>,
    /// What a client that resumes from the id receives.
    pub resume: Resume,
}

/// Reads the clock; `None` if no gateway has used this Redis with this key prefix.
///
/// # Errors
/// See [`CommandError`].
pub async fn clock_snapshot(commands: &Commands) -> Result<Option<ClockSnapshot>, CommandError> {
    let mut connection = commands.connection().await?;
    watermark::observe(&mut connection.connection, commands).await.map_err(|error| match error {
        WatermarkError::Command(error) => error,
        other => CommandError::Rejected(std::io::Error::other(other).into()),
    })
}

/// The last break of each kind after the id.
pub fn breaks(clock: &ClockSnapshot, id: EventId) -> Vec<Break> {
    let all = [(clock.start, GapReason::Reset), (clock.unrecorded, GapReason::Unrecorded)];
    let since = all.into_iter().filter(|(at, reason)| match reason {
        GapReason::Reset => at.epoch > id.epoch,
        _ => *at > id,
    });
    since.map(|(at, reason)| Break { id: at.to_string(), reason: reason.name() }).collect()
}

type Raw = (String, Vec<Vec<u8>>);

fn entries(reply: &Value) -> Vec<Raw> {
    from_redis_value(reply.clone()).unwrap_or_default()
}

fn field<'a>(entry: &'a Raw, name: &str) -> Option<&'a [u8]> {
    entry.1.chunks(2).find(|pair| pair[0] == name.as_bytes())?.get(1).map(Vec::as_slice)
}

fn text(entry: &Raw, name: &str) -> Option<String> {
    field(entry, name).map(|bytes| String::from_utf8_lossy(bytes).into_owned())
}

/// The ids of the first entry of a reply and of its predecessor, which entries that other clients
/// wrote do not name.
fn next(reply: &Value) -> Option<(EventId, EventId)> {
    let first = entries(reply).into_iter().next()?;
    let predecessor = text(&first, "p").and_then(|p| EventId::parse(&p)).unwrap_or_default();
    Some((EventId::parse_entry(&first.0, epoch(&first))?, predecessor))
}

/// The epoch of an entry; 0 for foreign ones.
fn epoch(entry: &Raw) -> u64 {
    text(entry, "e").and_then(|epoch| parse_epoch(&epoch)).unwrap_or(0)
}

/// The entry with the id's epoch, in the reply of an XRANGE over its stream id.
fn entry_of(reply: &Value, id: EventId) -> Option<Raw> {
    entries(reply).into_iter().next().filter(|entry| epoch(entry) == id.epoch)
}

/// Adds the commands that read the entry with an id, and the next one.
fn add_reads<'a>(pipeline: &'a mut Pipeline, key: &[u8], id: EventId) -> &'a mut Pipeline {
    let id = id.entry();
    let past = format!("({id}");
    pipeline
        .cmd("XRANGE")
        .arg(key)
        .arg(&id)
        .arg(&id)
        .cmd("XRANGE")
        .arg(key)
        .arg(past)
        .arg("+")
        .arg("COUNT")
        .arg(1)
}

/// Searches all logs of a server whose channels belong to the part.
///
/// # Errors
/// See [`CommandError`]; the user may lack the permission for SCAN.
pub async fn search(
    commands: &Commands,
    id: EventId,
    part: Part,
    bounds: Bounds,
) -> Result<Search, CommandError> {
    let (began, mut found, mut cursor) = (Instant::now(), Search::default(), 0u64);
    loop {
        let mut scan = redis::cmd("SCAN");
        scan.arg(cursor)
            .arg("MATCH")
            .arg(commands.keys.logs())
            .arg("COUNT")
            .arg(SCAN_KEYS)
            .arg("TYPE")
            .arg("stream");
        let (next_cursor, mut keys): (u64, Vec<Vec<u8>>) = commands.run(&scan).await?;
        let has_part = |key: &Vec<u8>| {
            part == Part::Whole
                || commands.keys.channel_of(key).is_some_and(|c| part.includes(Part::of(&c)))
        };
        keys.retain(has_part);
        for chunk in keys.chunks(PIPELINE) {
            let taken = &chunk[..chunk.len().min(bounds.logs - found.logs)];
            if taken.is_empty() || began.elapsed() >= bounds.time {
                return Ok(found);
            }
            search_logs(commands, id, taken, &mut found).await?;
            if taken.len() < chunk.len() {
                return Ok(found);
            }
        }
        cursor = next_cursor;
        if cursor == 0 {
            found.complete = true;
            return Ok(found);
        }
        if began.elapsed() >= bounds.time {
            return Ok(found);
        }
    }
}

async fn search_logs(
    commands: &Commands,
    id: EventId,
    keys: &[Vec<u8>],
    found: &mut Search,
) -> Result<(), CommandError> {
    let mut pipeline = redis::pipe();
    // After the SCAN, a log may expire and its key be used for something else.
    pipeline.ignore_errors();
    keys.iter().for_each(|key| {
        add_reads(&mut pipeline, key, id);
    });
    let replies: Vec<RedisResult<Value>> = commands.run_all(&pipeline).await?;
    found.logs += keys.len();
    for (key, pair) in keys.iter().zip(replies.chunks(2)) {
        let ([Ok(here), Ok(past)], Some(channel)) = (pair, commands.keys.channel_of(key)) else {
            continue;
        };
        // SCAN may return a key twice.
        if found.matches.iter().any(|(seen, _)| *seen == channel)
            || found.candidate_channels.contains(&channel)
        {
            continue;
        }
        let log = Neighbours {
            entry: entry_of(here, id).is_some(),
            next: next(past),
            last_ever: EventId::ZERO,
        };
        match status(id, false, &log) {
            EventStatus::InLog | EventStatus::Trimmed => found.matches.push((channel, id)),
            EventStatus::MaybeTrimmed => {
                found.candidates += 1;
                if found.candidate_channels.len() < LISTED {
                    found.candidate_channels.push(channel);
                }
            }
            EventStatus::MaybeExpired | EventStatus::Never => {}
        }
    }
    Ok(())
}

/// What to read besides what a report needs.
#[derive(Clone, Copy, Debug)]
pub struct Reads {
    /// The payload.
    pub payload: bool,
    /// When the log expires: PTTL, for which a gateway needs no permission.
    pub expiry: bool,
}

/// What a report needs to know besides the id and the channel.
pub struct Scope<'a> {
    /// The clock of the channel's server.
    pub clock: &'a ClockSnapshot,
    /// The retention of the channel, ms.
    pub retention_ms: u64,
}

impl Scope<'_> {
    fn start(&self, id: EventId) -> Start {
        catch_up::start(Some(id), self.clock, self.retention_ms)
    }
}

/// Examines one channel's log.
///
/// # Errors
/// See [`CommandError`]; the log's key may hold a value of another type.
pub async fn trace_channel(
    commands: &Commands,
    id: EventId,
    channel: &Channel,
    scope: &Scope<'_>,
    reads: Reads,
) -> Result<ChannelTrace, CommandError> {
    let vouched = vouched_epochs(commands, channel).await?;
    let clock = &ClockSnapshot { continues: scope.clock.continues.with(vouched), ..*scope.clock };
    let scope = &Scope { clock, ..*scope };
    let key = commands.keys.log(channel);
    let mut pipeline = redis::pipe();
    let before = format!("({}", id.entry());
    add_reads(&mut pipeline, key.as_bytes(), id);
    pipeline.cmd("XREVRANGE").arg(&key).arg(before).arg("-").arg("COUNT").arg(1);
    let (here, past, before): (Value, Value, Vec<(String, Value)>) =
        commands.run_all(&pipeline).await?;
    let ttl_ms: i64 = match reads.expiry {
        true => commands.run(redis::cmd("PTTL").arg(&key)).await?,
        false => -1,
    };
    let (found, next) = (entry_of(&here, id), next(&past));
    let (resume, last_ever) = resume(commands, id, channel, scope).await?;
    let log = Neighbours { entry: found.is_some(), next, last_ever };
    let stale = matches!(scope.start(id), Start::Read { stale: true, .. });
    let options = match &found {
        Some(raw) => options::outcome(commands, id, channel, raw).await?,
        None => (None, None),
    };
    let entry = found.map(|raw| {
        let (retained, unseen) = options;
        let predecessor_id =
            text(&raw, "p").and_then(|p| EventId::parse(&p)).filter(|p| *p > EventId::ZERO);
        let predecessor = predecessor_id.map(|p| p.to_string());
        let data = field(&raw, "d").unwrap_or_default();
        Entry {
            kind: text(&raw, "t"),
            bytes: data.len(),
            retry_ms: text(&raw, "r").and_then(|r| r.parse().ok()),
            key: None,
            retained,
            tags: text(&raw, "g"),
            unseen,
            payload: reads.payload.then(|| String::from_utf8_lossy(data).into_owned()),
            predecessor_in_log: before
                .first()
                .is_some_and(|(id, _)| predecessor_id.is_some_and(|p| p.entry() == *id)),
            predecessor,
        }
    });
    Ok(ChannelTrace {
        channel: channel.to_string(),
        // Stream ids from before a reset may be assigned again, so later entries prove nothing.
        status: status(id, stale || id.epoch != clock.h.epoch, &log),
        event: entry,
        successor: next.map(|(id, _)| id.to_string()),
        log_ttl_ms: u64::try_from(ttl_ms).ok(),
        resume,
    })
}

/// The result of a catch-up of this one channel, by the rules of `core::catch_up`. Also returns the
/// last id that the log ever had, if it has no event after `id`.
async fn resume(
    commands: &Commands,
    id: EventId,
    channel: &Channel,
    scope: &Scope<'_>,
) -> Result<(Resume, EventId), CommandError> {
    let (mut resume, mut last_ever, mut unrecorded_behind) =
        (Resume::default(), EventId::ZERO, false);
    let start = scope.start(id);
    let mut merge = Merge::new(id, scope.clock, [channel.clone()]);
    let mut first = true;
    loop {
        let wanted: Vec<_> =
            merge.wants().map(|(_, channel, after)| (channel.clone(), after)).collect();
        if wanted.is_empty() {
            break;
        }
        for page in log::pages(commands, &wanted, PAGE_EVENTS, first).await? {
            if first {
                last_ever = page.last_ever;
                match start {
                    Start::Restart(reason) => {
                        resume.gap = Some(reason.name());
                        return Ok((resume, last_ever));
                    }
                    Start::Read { reset, unrecorded, stale } => {
                        unrecorded_behind = unrecorded;
                        let gap = catch_up::gap(id, stale, &page);
                        let gap = if reset { Some(GapReason::Reset) } else { gap };
                        resume.gap = gap.map(GapReason::name);
                    }
                }
            }
            if merge.feed(0, page, first).is_err() {
                // Trimmed while it was read: a catch-up would start again with the rest.
                resume.gap = Some(GapReason::Trimmed.name());
                return Ok((resume, last_ever));
            }
        }
        first = false;
        while merge.pop().is_some() {
            resume.replayed += 1;
        }
    }
    if unrecorded_behind && resume.gap.is_none() {
        resume.gap = Some(GapReason::Unrecorded.name());
    }
    Ok((resume, last_ever))
}

/// Searches for the publisher's key of an event. `None` if Redis no longer remembers it, or if it
/// was not found within `time`.
///
/// # Errors
/// Redis does not reply, or does not allow SCAN.
pub async fn publishers_key(
    commands: &Commands,
    id: EventId,
    channel: &Channel,
    time: Duration,
) -> Result<Option<String>, CommandError> {
    let (began, id, mut cursor) = (Instant::now(), id.to_string(), 0u64);
    let begins = commands.keys.dedupe(channel);
    loop {
        let mut scan = redis::cmd("SCAN");
        scan.arg(cursor)
            .arg("MATCH")
            .arg(commands.keys.dedupes(channel))
            .arg("COUNT")
            .arg(SCAN_KEYS);
        let (next_cursor, keys): (u64, Vec<Vec<u8>>) = commands.run(&scan).await?;
        let mut pipeline = redis::pipe();
        keys.iter().for_each(|key| {
            pipeline.cmd("GET").arg(key);
        });
        let ids: Vec<Option<String>> =
            if keys.is_empty() { Vec::new() } else { commands.run_all(&pipeline).await? };
        let hit = keys.iter().zip(ids).find(|(_, of)| of.as_deref() == Some(&id));
        if let Some(key) = hit.and_then(|(key, _)| key.strip_prefix(begins.as_bytes())) {
            return Ok(Some(String::from_utf8_lossy(key).into_owned()));
        }
        cursor = next_cursor;
        if cursor == 0 || began.elapsed() >= time {
            return Ok(None);
        }
    }
}

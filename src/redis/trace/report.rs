//! The report about an event: where it is or was, and what a client with its id receives.

use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::{
    self as events, Bounds, Break, ChannelTrace, Reads, Scope, Search, servers::KnownServers,
};
use crate::{
    core::{
        catch_up::{self, ClockSnapshot, Start},
        channel::Channel,
        id::{Cursor, EventId, StreamPosition},
        part::Part,
        reasons::GapReason,
        trace::EventStatus,
    },
    redis::commands::{CommandError, Commands},
    settings::Settings,
};

/// The last ms of the year 9999. Ids may contain later times, which RFC 3339 cannot express.
const LAST_TIME_MS: u64 = 253_402_300_799_999;

/// What to search for.
pub struct Wanted {
    /// The id of the event.
    pub position: StreamPosition,
    /// Its channel; `None`: all logs are searched.
    pub channel: Option<Channel>,
    /// What to read besides.
    pub reads: Reads,
    /// The limits of the search.
    pub bounds: Bounds,
}

/// The result of a trace.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The id.
    pub id: String,
    /// The parts of an id that has two.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<PartReport>,
    /// The time that the event's id contains.
    pub time: Option<String>,
    /// Its age by the clock of Redis, ms.
    pub age_ms: Option<u64>,
    /// The last id that the event's server has assigned; `None` if there is no clock.
    pub clock: Option<String>,
    /// Whether a log contains the event.
    pub found: bool,
    /// The logs that contain the id, or name it.
    pub channels: Vec<ChannelTrace>,
    /// The last breaks in the history after the event.
    pub breaks: Vec<Break>,
    /// The search in all logs; `None` if there was none, for example because the channel was given.
    pub search: Option<Search>,
    /// The masters of a cluster that did not reply.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unavailable: Vec<String>,
    /// The reason of the `sse.gap` that a client with this cursor gets on any channel.
    pub restart: Option<&'static str>,
    /// An explanation if no channel was found.
    pub note: Option<String>,
}

/// One part of an id that has two.
#[derive(Serialize)]
pub struct PartReport {
    /// `user` or `broadcasts`.
    pub part: &'static str,
    /// The id of the part.
    pub id: String,
    /// The time that the id contains.
    pub time: Option<String>,
}

/// The position that an id names. `None`: it cannot be the id of an event.
pub fn position(id: &str) -> Option<StreamPosition> {
    let named = Cursor::parse(id).map(|cursor| cursor.position);
    named.filter(|p| p.user > EventId::ZERO && p.broadcasts > EventId::ZERO)
}

/// Searches for an event, and reports what a client with this last event id receives.
///
/// # Errors
/// Redis does not reply, or does not allow a command.
pub async fn report(
    commands: &Commands,
    settings: &Settings,
    wanted: &Wanted,
) -> Result<Report, CommandError> {
    let named = wanted.position;
    let channel = wanted.channel.clone();
    let mut report = Report::new(named);
    let servers = KnownServers::of(commands, channel.as_ref()).await?;
    report.unavailable = servers.unavailable.clone();
    let sides = match &channel {
        Some(channel) => vec![side(named, Part::of(channel))],
        None => sides(named),
    };
    let Some(clock) = servers.clock_of(sides[0].1) else {
        report.note = Some(format!(
            "the key {} does not exist: no gateway has used this Redis with this redis.key_prefix",
            commands.keys.node()
        ));
        return Ok(report);
    };
    report.set_clock(clock, sides[0].1, settings);
    if let Some((_, ahead)) = sides.iter().find(|(_, id)| servers.is_ahead(*id)) {
        report.restart = Some(GapReason::UnknownId.name());
        report.note = Some(format!(
            "the id is ahead of the clock ({}): this Redis has not assigned it",
            servers.clock_of(*ahead).unwrap_or_default().h
        ));
        return Ok(report);
    }
    let matches = match channel {
        Some(channel) => vec![(channel, sides[0].1)],
        None => {
            let search = report.search.insert(servers.search(&sides, wanted.bounds).await?);
            std::mem::take(&mut search.matches)
        }
    };
    for (n, (channel, id)) in matches.into_iter().enumerate() {
        let Some((server, clock)) = servers.of_channel(commands, &channel)? else { continue };
        if n == 0 {
            report.set_clock(clock, id, settings);
            report.set_time(id);
        }
        let retention_ms = settings.channels.retention_ms(&channel, &clock);
        let scope = Scope { clock: &clock, retention_ms };
        let mut seen = events::trace_channel(&server, id, &channel, &scope, wanted.reads).await?;
        if let Some(event) = &mut seen.event
            && report
                .age_ms
                .is_none_or(|age| age < settings.history.dedupe_window.as_millis() as u64)
        {
            // If the search fails, the rest of the report is still useful.
            event.key = events::publishers_key(&server, id, &channel, wanted.bounds.time)
                .await
                .unwrap_or_default();
        }
        report.channels.push(seen);
    }
    report.found = report.channels.iter().any(|seen| seen.status == EventStatus::InLog);
    if report.channels.is_empty() {
        let stale = matches!(start(sides[0].1, &clock, settings), Start::Read { stale: true, .. });
        report.note = Some(unseen(&report, stale));
    }
    Ok(report)
}

/// The id of one part of a position.
fn side(named: StreamPosition, part: Part) -> (Part, EventId) {
    let id = if part == Part::Broadcasts { named.broadcasts } else { named.user };
    // A position of one part is that of both.
    if named.user == named.broadcasts { (Part::Whole, id) } else { (part, id) }
}

/// The ids to search for: of a position with two parts, either may be that of an event.
fn sides(named: StreamPosition) -> Vec<(Part, EventId)> {
    let (user, broadcasts) = (side(named, Part::User), side(named, Part::Broadcasts));
    if user == broadcasts { vec![user] } else { vec![user, broadcasts] }
}

impl Report {
    fn new(named: StreamPosition) -> Self {
        let parts = sides(named).into_iter().map(|(part, id)| PartReport {
            part: if part == Part::User { "user" } else { "broadcasts" },
            id: id.to_string(),
            time: time_of(id),
        });
        Self {
            id: named.to_string(),
            parts: parts.filter(|_| named.user != named.broadcasts).collect(),
            time: time_of(named.user),
            age_ms: None,
            clock: None,
            found: false,
            channels: Vec::new(),
            breaks: Vec::new(),
            search: None,
            unavailable: Vec::new(),
            restart: None,
            note: None,
        }
    }

    /// The time of the id of an event.
    fn set_time(&mut self, id: EventId) {
        self.time = time_of(id);
    }

    /// What the clock of the id's server says about it.
    fn set_clock(&mut self, clock: ClockSnapshot, id: EventId, settings: &Settings) {
        self.clock = Some(clock.h.to_string());
        self.age_ms = clock.now_ms.checked_sub(id.ms);
        self.restart = match start(id, &clock, settings) {
            Start::Restart(reason) => Some(reason.name()),
            Start::Read { .. } => None,
        };
        self.breaks = if id > clock.h { Vec::new() } else { events::breaks(&clock, id) };
    }
}

/// The time in an id.
fn time_of(id: EventId) -> Option<String> {
    time_of_ms(id.ms)
}

/// A time in ms since 1970 as of RFC 3339; `None` after the year 9999.
pub fn time_of_ms(ms: u64) -> Option<String> {
    let time = SystemTime::UNIX_EPOCH + Duration::from_millis(ms.min(LAST_TIME_MS));
    (ms <= LAST_TIME_MS).then(|| humantime::format_rfc3339_millis(time).to_string())
}

fn start(id: EventId, clock: &ClockSnapshot, settings: &Settings) -> Start {
    // Without a channel, the log of any may have expired.
    catch_up::start(Some(id), clock, settings.channels.shortest_retention_ms(clock))
}

/// Explains an id that no log contains or names.
fn unseen(report: &Report, stale: bool) -> String {
    let search = report.search.as_ref();
    let mut text = match search {
        Some(search) if !search.complete => {
            return "the search was incomplete; name the channel, or run `sse-gateway trace` with \
                    higher --max-logs and --max-time"
                .to_owned();
        }
        Some(search) if search.candidates > 0 => {
            format!(
                "the event may have been trimmed from one of {} logs that lack events around it",
                search.candidates
            )
        }
        _ if report.restart.is_some() || stale => {
            "the event is older than the logs; it may have expired, or been lost in a reset"
                .to_owned()
        }
        _ => "no existing log has ever contained the event".to_owned(),
    };
    text.push_str(
        ". Ids of sse.heartbeat and sse.connected do not belong to events, but are valid cursors",
    );
    text
}

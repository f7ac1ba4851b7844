//! `trace`: finds an event in the logs, and reports what a client with this last event id receives.

mod servers;
mod text;

use std::{
    process::ExitCode,
    sync::Arc,
    time::{Duration, SystemTime},
};

use serde::Serialize;

use self::servers::KnownServers;
use super::args::{EX_UNAVAILABLE, TraceArgs};
use crate::{
    core::{
        catch_up::{self, ClockSnapshot, Start},
        channel::Channel,
        id::{Cursor, EventId, StreamPosition},
        part::Part,
        reasons::GapReason,
        trace::EventStatus,
    },
    error_chain::ErrorChain,
    redis::{
        cluster::discovery::{DiscoveryError, discover},
        commands::{CommandError, Commands},
        trace::{self as events, Break, ChannelTrace, Scope, Search},
    },
    settings::Settings,
};

/// Exit status if no log contains the event.
const NOT_FOUND: u8 = 1;
/// Exit status if an argument is invalid.
const BAD_INPUT: u8 = 2;
/// The last ms of the year 9999. Ids may contain later times, which RFC 3339 cannot express.
const LAST_TIME_MS: u64 = 253_402_300_799_999;

/// The result of a trace.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    id: String,
    /// The parts of an id that has two.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    parts: Vec<PartReport>,
    /// The time that the event's id contains.
    time: Option<String>,
    age_ms: Option<u64>,
    /// The last id that the event's server has assigned; `None` if there is no clock.
    clock: Option<String>,
    /// Whether a log contains the event.
    found: bool,
    channels: Vec<ChannelTrace>,
    /// The last breaks in the history after the event.
    breaks: Vec<Break>,
    /// The search in all logs; `None` if there was none, for example because the channel was given.
    search: Option<Search>,
    /// The masters of a cluster that did not reply.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unavailable: Vec<String>,
    /// The reason of the `sse.gap` that a client with this cursor gets on any channel.
    restart: Option<&'static str>,
    /// An explanation if no channel was found.
    note: Option<String>,
}

/// One part of an id that has two.
#[derive(Serialize)]
struct PartReport {
    /// `user` or `broadcasts`.
    part: &'static str,
    id: String,
    /// The time that the id contains.
    time: Option<String>,
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
enum TraceError {
    #[error("{0:?} must be an event id as in `id:`, for example 1763719000456-0.k3f9x2")]
    Id(String),
    #[error("--channel: must be user:<id>:events or broadcast:<topic> (got {0:?})")]
    Channel(String),
    #[error(transparent)]
    Discovery(#[from] DiscoveryError),
    #[error("not traced (Redis at {address})")]
    Redis {
        address: Arc<str>,
        #[source]
        source: CommandError,
    },
    #[error(
        "not traced (Redis at {address}); docs/guides/tracing-an-event.md lists the permissions \
         that `trace` needs"
    )]
    Permission {
        address: Arc<str>,
        #[source]
        source: CommandError,
    },
}

impl TraceError {
    fn of_redis(address: &Arc<str>, source: CommandError) -> Self {
        let address = address.clone();
        match &source {
            CommandError::Rejected(e) if e.code() == Some("NOPERM") => {
                Self::Permission { address, source }
            }
            _ => Self::Redis { address, source },
        }
    }

    fn exit_status(&self) -> u8 {
        match self {
            Self::Id(_) | Self::Channel(_) => BAD_INPUT,
            Self::Discovery(_) | Self::Redis { .. } | Self::Permission { .. } => EX_UNAVAILABLE,
        }
    }
}

/// Traces one event.
pub fn trace(args: &TraceArgs) -> ExitCode {
    let settings = match args.config.load_keyless() {
        Ok(settings) => settings,
        Err(status) => return status.into(),
    };
    match actix_rt::System::new().block_on(trace_event(args, &settings)) {
        Ok(report) => {
            match serde_json::to_string_pretty(&report) {
                Ok(json) if args.json => println!("{json}"),
                _ => text::print(&report, settings.history.dedupe_window),
            }
            ExitCode::from(if report.found { 0 } else { NOT_FOUND })
        }
        Err(error) => {
            eprintln!("{}", ErrorChain(&error));
            error.exit_status().into()
        }
    }
}

/// Parses a channel that is written with or without `redis.channel_prefix`.
fn channel_of(name: &str, prefix: &str) -> Result<Channel, TraceError> {
    Channel::parse(name)
        .or_else(|| Channel::parse(name.strip_prefix(prefix)?))
        .ok_or_else(|| TraceError::Channel(name.to_owned()))
}

/// Checks the arguments, and then searches Redis.
async fn trace_event(args: &TraceArgs, settings: &Settings) -> Result<Report, TraceError> {
    let named = Cursor::parse(&args.id).map(|cursor| cursor.position);
    let is_event = |p: &StreamPosition| p.user > EventId::ZERO && p.broadcasts > EventId::ZERO;
    let named = named.filter(is_event).ok_or_else(|| TraceError::Id(args.id.clone()))?;
    let prefix = &settings.redis.channel_prefix;
    let channel = args.channel.as_deref().map(|name| channel_of(name, prefix)).transpose()?;
    let commands = discover(settings).await?.commands;
    let report = report(&commands, named, channel, args, settings).await;
    report.map_err(|error| TraceError::of_redis(&commands.address(), error))
}

async fn report(
    commands: &Commands,
    named: StreamPosition,
    channel: Option<Channel>,
    args: &TraceArgs,
    settings: &Settings,
) -> Result<Report, CommandError> {
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
            let search = report.search.insert(servers.search(&sides, args).await?);
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
        let mut seen = events::trace_channel(&server, id, &channel, &scope, args.payload).await?;
        if let Some(event) = &mut seen.event
            && report
                .age_ms
                .is_none_or(|age| age < settings.history.dedupe_window.as_millis() as u64)
        {
            // If the search fails, the rest of the report is still useful.
            event.key = events::publishers_key(&server, id, &channel, args.max_time)
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

/// A time in ms since 1970; `None` after the year 9999.
fn time_of_ms(ms: u64) -> Option<String> {
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
            return "the search was incomplete; use --channel, or increase --max-logs or --max-time"
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

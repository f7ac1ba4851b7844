//! `trace`: finds an event in the logs, and reports what a client with this last event id receives.

mod text;

use std::{
    process::ExitCode,
    sync::Arc,
    time::{Duration, SystemTime},
};

use serde::Serialize;

use super::args::{EX_UNAVAILABLE, TraceArgs};
use crate::{
    core::{
        catch_up::{self, ClockSnapshot, Start},
        channel::Channel,
        id::EventId,
        trace::EventStatus,
    },
    error_chain::ErrorChain,
    redis::{
        commands::{CommandError, Commands},
        tls::TlsError,
        trace::{self as events, Bounds, Break, ChannelTrace, Search},
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
    /// The time that the id contains.
    time: Option<String>,
    age_ms: Option<u64>,
    /// The last id that was assigned; `None` if there is no clock.
    clock: Option<String>,
    /// Whether a log contains the event.
    found: bool,
    channels: Vec<ChannelTrace>,
    /// The last breaks in the history after the event.
    breaks: Vec<Break>,
    /// The search in all logs; `None` if there was none, for example because the channel was given.
    search: Option<Search>,
    /// The reason of the `sse.gap` that a client with this cursor gets on any channel.
    restart: Option<&'static str>,
    /// An explanation if no channel was found.
    note: Option<String>,
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
enum TraceError {
    #[error("{0:?} must be an event id as in `id:`, for example 1763719000456-0.k3f9x2")]
    Id(String),
    #[error("--channel: must be user:<id>:events or broadcast:<topic> (got {0:?})")]
    Channel(String),
    #[error(transparent)]
    Tls(#[from] TlsError),
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
            Self::Tls(_) | Self::Redis { .. } | Self::Permission { .. } => EX_UNAVAILABLE,
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
    let id = EventId::parse(&args.id).filter(|id| *id > EventId::ZERO);
    let id = id.ok_or_else(|| TraceError::Id(args.id.clone()))?;
    let prefix = &settings.redis.channel_prefix;
    let channel = args.channel.as_deref().map(|name| channel_of(name, prefix)).transpose()?;
    let commands = Commands::without_link(&settings.redis)?;
    let report = report(&commands, id, channel, args, settings).await;
    report.map_err(|error| TraceError::of_redis(&commands.address(), error))
}

async fn report(
    commands: &Commands,
    id: EventId,
    channel: Option<Channel>,
    args: &TraceArgs,
    settings: &Settings,
) -> Result<Report, CommandError> {
    let mut report = Report {
        id: id.to_string(),
        time: (id.ms <= LAST_TIME_MS).then(|| {
            humantime::format_rfc3339_millis(SystemTime::UNIX_EPOCH + Duration::from_millis(id.ms))
                .to_string()
        }),
        age_ms: None,
        clock: None,
        found: false,
        channels: Vec::new(),
        breaks: Vec::new(),
        search: None,
        restart: None,
        note: None,
    };
    let Some(clock) = events::clock_snapshot(commands).await? else {
        report.note = Some(format!(
            "the key {} does not exist: no gateway has used this Redis with this redis.key_prefix",
            commands.keys.node()
        ));
        return Ok(report);
    };
    report.clock = Some(clock.h.to_string());
    report.age_ms = clock.now_ms.checked_sub(id.ms);
    if let Start::Restart(reason) = start(id, &clock, settings) {
        report.restart = Some(reason.name());
    }
    if id > clock.h {
        report.note = Some(format!(
            "the id is ahead of the clock ({}): this Redis has not assigned it",
            clock.h
        ));
        return Ok(report);
    }
    report.breaks = events::breaks(&clock, id);
    let channels = match channel {
        Some(channel) => vec![channel],
        None => {
            let bounds = Bounds { logs: args.max_logs, time: args.max_time };
            let search = report.search.insert(events::search(commands, id, bounds).await?);
            std::mem::take(&mut search.matches)
        }
    };
    let retention_ms = settings.history.retention.as_millis() as u64;
    for channel in channels {
        let mut seen =
            events::trace_channel(commands, id, &channel, &clock, retention_ms, args.payload)
                .await?;
        if let Some(event) = &mut seen.event
            && report
                .age_ms
                .is_none_or(|age| age < settings.history.dedupe_window.as_millis() as u64)
        {
            // If the search fails, the rest of the report is still useful.
            event.key = events::publishers_key(commands, id, &channel, args.max_time)
                .await
                .unwrap_or_default();
        }
        report.channels.push(seen);
    }
    report.found = report.channels.iter().any(|seen| seen.status == EventStatus::InLog);
    if report.channels.is_empty() {
        report.note = Some(unseen(
            &report,
            matches!(start(id, &clock, settings), Start::Read { stale: true, .. }),
        ));
    }
    Ok(report)
}

fn start(id: EventId, clock: &ClockSnapshot, settings: &Settings) -> Start {
    catch_up::start(Some(id), clock, settings.history.retention.as_millis() as u64)
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

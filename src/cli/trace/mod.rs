//! `trace`: finds an event, and shows what a client would receive after it.

mod words;

use std::{
    process::ExitCode,
    time::{Duration, SystemTime},
};

use serde::Serialize;

use super::args::{EX_UNAVAILABLE, TraceArgs};
use crate::{
    core::{
        catch_up::{self, ClockSnapshot, Start},
        channel::Channel,
        id::EventId,
        trace::Place,
    },
    redis::{
        commands::{CommandError, Commands},
        trace::{self as look, Bounds, Seam, Search, Sighting},
    },
    settings::Settings,
};

/// Exit status: the event is in no log.
const NOT_FOUND: u8 = 1;
/// Exit status: the id or the channel is invalid.
const BAD_INPUT: u8 = 2;
/// The end of the year 9999, the last time that can be printed; ids may contain later ones.
const LAST_TIME_MS: u64 = 253_402_300_799_999;

/// The result of a trace.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    id: String,
    /// The time in the id.
    time: Option<String>,
    age_ms: Option<u64>,
    /// The last assigned id; `None` if there is no clock.
    clock: Option<String>,
    /// Whether a log contains the event.
    found: bool,
    channels: Vec<Sighting>,
    /// Breaks after the event.
    seams: Vec<Seam>,
    more_seams: bool,
    /// Extent of the search; `None` if there was none, for example because the channel was given.
    search: Option<Search>,
    /// Reason of the `sse.gap` that a client with this cursor gets, whatever its channels are.
    restart: Option<&'static str>,
    /// Explanation if no channel was found.
    note: Option<String>,
}

/// Why there is no report.
enum TraceError {
    Input(String),
    Redis(String),
}

impl From<CommandError> for TraceError {
    fn from(fault: CommandError) -> Self {
        let refused = matches!(&fault, CommandError::Rejected(e) if e.code() == Some("NOPERM"));
        let hint = match refused {
            true => "; docs/guides/tracing-an-event.md lists the permissions that `trace` needs",
            false => "",
        };
        Self::Redis(format!("{fault}{hint}"))
    }
}

/// Traces one event.
pub fn trace(args: &TraceArgs) -> ExitCode {
    let settings = match args.config.load_keyless() {
        Ok(settings) => settings,
        Err(status) => return status.into(),
    };
    match actix_rt::System::new().block_on(report(args, &settings)) {
        Ok(report) => {
            match serde_json::to_string_pretty(&report) {
                Ok(json) if args.json => println!("{json}"),
                _ => words::print(&report, settings.history.dedupe_window),
            }
            ExitCode::from(if report.found { 0 } else { NOT_FOUND })
        }
        Err(TraceError::Input(fault)) => {
            eprintln!("{fault}");
            BAD_INPUT.into()
        }
        Err(TraceError::Redis(fault)) => {
            eprintln!("not traced: {fault}");
            EX_UNAVAILABLE.into()
        }
    }
}

/// Parses a channel, with or without the channel prefix.
fn channel_of(name: &str, prefix: &str) -> Result<Channel, TraceError> {
    Channel::parse(name).or_else(|| Channel::parse(name.strip_prefix(prefix)?)).ok_or_else(|| {
        TraceError::Input(format!(
            "--channel: {name:?} is invalid; use user:<id>:events or broadcast:<topic>"
        ))
    })
}

async fn report(args: &TraceArgs, settings: &Settings) -> Result<Report, TraceError> {
    let id = EventId::parse(&args.id).filter(|id| *id > EventId::ZERO).ok_or_else(|| {
        TraceError::Input(format!(
            "{:?} is not a valid event id; use one of the form 1763719000456-0",
            args.id
        ))
    })?;
    let given = args
        .channel
        .as_deref()
        .map(|name| channel_of(name, &settings.redis.channel_prefix))
        .transpose()?;
    let commands = Commands::new(&settings.redis).map_err(|e| TraceError::Redis(e.to_string()))?;
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
        seams: Vec::new(),
        more_seams: false,
        search: None,
        restart: None,
        note: None,
    };
    let Some(clock) = look::mark(&commands).await? else {
        let prefix = &settings.redis.key_prefix;
        report.note = Some(format!(
            "the key {prefix}clock does not exist: no gateway has used this Redis with this \
             redis.key_prefix"
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
    (report.seams, report.more_seams) = look::seams(&commands, id).await?;
    let channels = match given {
        Some(channel) => vec![channel],
        None => {
            let bounds = Bounds { logs: args.max_logs, time: args.max_time };
            let search = report.search.insert(look::search(&commands, id, bounds).await?);
            std::mem::take(&mut search.hits)
        }
    };
    let retention_ms = settings.history.retention.as_millis() as u64;
    for channel in channels {
        let mut seen =
            look::sight(&commands, id, &channel, &clock, retention_ms, args.payload).await?;
        if let Some(event) = &mut seen.event
            && report
                .age_ms
                .is_none_or(|age| age < settings.history.dedupe_window.as_millis() as u64)
        {
            // A failure of this search must not prevent the rest of the report.
            event.key = look::publishers_key(&commands, id, &channel, args.max_time)
                .await
                .unwrap_or_default();
        }
        report.channels.push(seen);
    }
    report.found = report.channels.iter().any(|seen| seen.place == Place::InLog);
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
        Some(search) if search.maybe > 0 => {
            format!(
                "the event may have been trimmed from one of {} logs that lack events around it",
                search.maybe
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

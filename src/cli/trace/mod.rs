//! `trace`: where an event is, and what a client that saw it last would be told.

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
/// Exit status: what was asked for makes no sense.
const BAD_INPUT: u8 = 2;
/// The last moment of the year 9999; ids may claim more.
const LAST_TIME_MS: u64 = 253_402_300_799_999;

/// Everything that is found out.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    id: String,
    /// The time in the id.
    time: Option<String>,
    age_ms: Option<u64>,
    /// The last id that was given out; `None`: there is no clock.
    clock: Option<String>,
    /// Whether a log holds the event.
    found: bool,
    channels: Vec<Sighting>,
    /// Breaks of the order or the record since.
    seams: Vec<Seam>,
    more_seams: bool,
    /// How far was searched; `None`: there was nothing to search, or the channel was given.
    search: Option<Search>,
    /// `sse.gap` that a client with this cursor gets, whatever its channels are.
    restart: Option<&'static str>,
    /// What is known where no channel is.
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

/// The channel without the channel prefix, as publishers may write it with.
fn channel_of(name: &str, prefix: &str) -> Result<Channel, TraceError> {
    Channel::parse(name).or_else(|| Channel::parse(name.strip_prefix(prefix)?)).ok_or_else(|| {
        TraceError::Input(format!(
            "--channel: {name:?} is no channel; give user:<id>:events or broadcast:<topic>"
        ))
    })
}

async fn report(args: &TraceArgs, settings: &Settings) -> Result<Report, TraceError> {
    let id = EventId::parse(&args.id).filter(|id| *id > EventId::ZERO).ok_or_else(|| {
        TraceError::Input(format!(
            "{:?} is no event id; give one as in `id:`, e.g. 1763719000456-0",
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
            "there is no {prefix}clock: no gateway has run on this Redis with this redis.key_prefix"
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
            "it is ahead of the clock ({}): this Redis has not given it to any event",
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
            // Looking for it must not cost the rest of the report.
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

/// What is known of an id that no log holds or names.
fn unseen(report: &Report, stale: bool) -> String {
    let search = report.search.as_ref();
    let mut text = match search {
        Some(search) if !search.complete => {
            return "the search was not finished; give --channel, or more --max-logs or --max-time"
                .to_owned();
        }
        Some(search) if search.maybe > 0 => {
            format!(
                "it may have been trimmed from one of {} logs that have lost events around it",
                search.maybe
            )
        }
        _ if report.restart.is_some() || stale => {
            "it is older than the logs: it may have expired, or been lost in a reset".to_owned()
        }
        _ => "no log that lives has ever held it".to_owned(),
    };
    text.push_str(
        ". Ids of sse.heartbeat and sse.connected belong to no event, but are valid cursors",
    );
    text
}

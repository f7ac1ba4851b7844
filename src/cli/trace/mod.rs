//! `trace`: finds an event in the logs, and reports what a client with this last event id receives.

mod text;

use std::{process::ExitCode, sync::Arc};

use super::args::{EX_UNAVAILABLE, TraceArgs};
use crate::{
    core::channel::Channel,
    error_chain::ErrorChain,
    redis::{
        cluster::discovery::{DiscoveryError, discover},
        commands::CommandError,
        trace::{
            Bounds, Reads,
            report::{self, Report, Wanted},
        },
    },
    settings::Settings,
};

/// Exit status if no log contains the event.
const NOT_FOUND: u8 = 1;
/// Exit status if an argument is invalid.
const BAD_INPUT: u8 = 2;

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
    let position = report::position(&args.id).ok_or_else(|| TraceError::Id(args.id.clone()))?;
    let prefix = &settings.redis.channel_prefix;
    let channel = args.channel.as_deref().map(|name| channel_of(name, prefix)).transpose()?;
    let reads = Reads { payload: args.payload, expiry: true };
    let bounds = Bounds { logs: args.max_logs, time: args.max_time };
    let commands = discover(settings).await?.commands;
    let wanted = Wanted { position, channel, reads, bounds };
    let report = report::report(&commands, settings, &wanted).await;
    report.map_err(|error| TraceError::of_redis(&commands.address(), error))
}

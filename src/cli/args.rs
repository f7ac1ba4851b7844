//! The command line.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand};
use secrecy::SecretString;

use crate::error_chain::ErrorChain;
use crate::settings::{ConfigError, Loaded, Settings, SettingsSource};

/// Exit status if a service does not respond (sysexits.h, EX_UNAVAILABLE).
pub const EX_UNAVAILABLE: u8 = 69;
/// Exit status if the system refuses a resource, such as a port (sysexits.h, EX_OSERR). A service
/// manager may try again.
pub const EX_OSERR: u8 = 71;
/// Exit status for errors in the configuration (sysexits.h, EX_CONFIG).
pub const EX_CONFIG: u8 = 78;

/// Relays Redis Pub/Sub to browsers as Server-Sent Events: resumable, authenticated, stateless.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true)]
pub struct Cli {
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// Options that select the source of the settings.
#[derive(Args, Debug, Default)]
pub struct ConfigArgs {
    /// TOML file with settings; environment variables (SSE_GATEWAY__SECTION__KEY) override it
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

impl ConfigArgs {
    /// Loads the settings and prints errors, one per line.
    ///
    /// # Errors
    /// Returns the exit status.
    pub fn load(&self) -> Result<Settings, u8> {
        load(&self.source()).map(|loaded| loaded.settings)
    }

    /// Loads the settings for commands that need no ticket key.
    ///
    /// # Errors
    /// Returns the exit status.
    pub fn load_keyless(&self) -> Result<Settings, u8> {
        report_errors(self.source().load_keyless()).map(|loaded| loaded.settings)
    }

    /// The file and the environment to read the settings from.
    pub fn source(&self) -> SettingsSource {
        SettingsSource::of_process(self.config.clone())
    }
}

/// Loads the settings and prints errors, one per line.
///
/// # Errors
/// Returns the exit status.
pub fn load(source: &SettingsSource) -> Result<Loaded, u8> {
    report_errors(source.load())
}

fn report_errors(loaded: Result<Loaded, Vec<ConfigError>>) -> Result<Loaded, u8> {
    loaded.map_err(|faults| {
        faults.iter().for_each(|fault| eprintln!("{}", ErrorChain(fault)));
        EX_CONFIG
    })
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the gateway
    Serve(ConfigArgs),
    /// Run two gateways with a private Redis, a temporary key and a demo page at /
    Dev(DevArgs),
    /// Print a ticket for a user
    Ticket(TicketArgs),
    /// Publish one event durably (FCALL sse_publish) and print its id
    Publish(PublishArgs),
    /// Print an event stream in the terminal and reconnect when it ends
    Tail(TailArgs),
    /// Find an event in the logs and show what a client would receive after it (read-only)
    Trace(TraceArgs),
    /// Check the settings and, with --connect, Redis; report all errors at once
    CheckConfig(CheckArgs),
    /// Print completions for a shell
    Completions(CompletionsArgs),
    /// Print the man page
    Man(ManArgs),
}

/// `dev`
#[derive(Args, Debug)]
pub struct DevArgs {
    /// Address of the page, which also forwards to the gateways
    #[arg(long, default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,
    /// Address of the first gateway's admin listener; port 0 = a free one
    #[arg(long, default_value = "127.0.0.1:0")]
    pub admin_listen: SocketAddr,
    /// Use this Redis instead of starting a private one
    #[arg(long, value_name = "URL")]
    pub redis: Option<SecretString>,
}

/// `ticket`
#[derive(Args, Debug)]
pub struct TicketArgs {
    /// Settings.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// User id (`sub`)
    #[arg(long)]
    pub user: String,
    /// Topic that the ticket allows: a name, `prefix*` or `*`; can be repeated
    #[arg(long = "topic", value_name = "TOPIC")]
    pub topics: Vec<String>,
    /// Allow the presence events (`sse.online`, `sse.offline`)
    #[arg(long)]
    pub presence: bool,
    /// Deliver only events of which this tag, if they have it, has one of the values; can be
    /// repeated for other tags
    #[arg(long = "filter", value_name = "TAG=VALUE,..")]
    pub filters: Vec<String>,
    /// Lifetime, e.g. 30s [default: the smaller of tickets.max_ttl and 60s]
    #[arg(long, value_parser = humantime::parse_duration)]
    pub ttl: Option<Duration>,
}

/// `publish`
#[derive(Args, Debug)]
pub struct PublishArgs {
    /// Settings.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// The channel.
    #[arg(help = "user:<id>:events or broadcast:<topic>")]
    pub channel: String,
    /// SSE event name
    #[arg(value_name = "TYPE")]
    pub kind: String,
    /// Payload, sent byte for byte
    pub payload: String,
    /// Idempotency key: a second event with the same key is dropped
    #[arg(long)]
    pub key: Option<String>,
    /// `retry:` field of the event, in ms
    #[arg(long, value_name = "MS")]
    pub retry: Option<u64>,
    /// Retain the event as the current value of this key
    #[arg(long, value_name = "KEY", conflicts_with = "forget")]
    pub keep: Option<String>,
    /// Delete the retained value of this key
    #[arg(long, value_name = "KEY")]
    pub forget: Option<String>,
    /// Deliver it to current streams only, without storing it
    #[arg(long)]
    pub ephemeral: bool,
    /// Label it: streams with a filter get only what matches; may be repeated
    #[arg(long = "tag", value_name = "NAME=VALUE")]
    pub tags: Vec<String>,
    /// Report it as undelivered unless a stream of the user gets it within this time, e.g. 30s
    #[arg(long, value_name = "DURATION")]
    pub unseen: Option<String>,
    /// W3C trace context of the publisher: 00-TRACE_ID-SPAN_ID-01
    #[arg(long)]
    pub traceparent: Option<String>,
}

/// `tail`
#[derive(Args, Debug)]
pub struct TailArgs {
    /// The gateway, e.g. http://127.0.0.1:8080
    #[arg(long)]
    pub url: String,
    /// A ticket, see `sse-gateway ticket`
    #[arg(long, env = "SSE_TICKET", hide_env_values = true)]
    pub ticket: SecretString,
    /// Comma-separated topics; topics that the ticket does not allow are ignored
    #[arg(long)]
    pub topics: Option<String>,
    /// Start after this event id
    #[arg(long, value_name = "ID")]
    pub last_event_id: Option<String>,
}

/// `check-config`
#[derive(Args, Debug)]
pub struct CheckArgs {
    /// Settings.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Print a sample file with every setting and its default, and check nothing
    #[arg(long)]
    pub sample: bool,
    /// Also connect to Redis, and report its state, limits and permissions; changes nothing there
    #[arg(long, conflicts_with = "sample")]
    pub connect: bool,
}

/// `trace`
#[derive(Args, Debug)]
pub struct TraceArgs {
    /// Settings.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Id of the event, `<ms>-<seq>.<epoch>`, or a last event id with two parts, joined by `~`
    #[arg(value_name = "EVENT ID")]
    pub id: String,
    /// Channel of the event, if known; avoids the search
    #[arg(long)]
    pub channel: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Also print the payload
    #[arg(long)]
    pub payload: bool,
    /// Maximum number of logs to search
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    pub max_logs: usize,
    /// Maximum duration of the search
    #[arg(long, value_name = "TIME", default_value = "10s")]
    #[arg(value_parser = humantime::parse_duration)]
    pub max_time: Duration,
}

/// `completions`
#[derive(Args, Debug)]
pub struct CompletionsArgs {
    /// The shell
    pub shell: clap_complete::Shell,
}

/// `man`
#[derive(Args, Debug)]
pub struct ManArgs {
    /// Write one page per command into this directory instead of printing one
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

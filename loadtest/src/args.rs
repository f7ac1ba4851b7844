//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::option_values::{self, MAX_STREAMS, time, time_above_0};
use crate::target::ServerKind;

/// Holds event streams, publishes, and counts what arrives.
///
/// Exit status: 0; 1 if a threshold was passed or not all streams could be opened; 2 if there was no run (a wrong option, no server, not one stream).
#[derive(Debug, Parser)]
#[command(version)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
#[allow(missing_docs, reason = "the help texts are the docs")]
pub enum Command {
    /// Open streams and hold them: connects a second, CPU per 1,000 connects, memory per stream
    Idle(Common),
    /// Every event goes to every stream (--rate)
    Broadcast(Common),
    /// Every event goes to one user (--user-rate)
    Users(Common),
    /// Both at once (--rate and --user-rate)
    Mixed(Common),
    /// In the middle of the load all streams are cut; they come back at once with their cursors
    Storm {
        #[command(flatten)]
        common: Common,
        /// How long they stay away
        #[arg(long, default_value = "2s", value_parser = time)]
        away: Duration,
    },
    /// Some streams read nothing for a while; in the end they too must have everything
    Stalled {
        #[command(flatten)]
        common: Common,
        /// How many of the streams, percent
        #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100))]
        stalled_percent: u32,
        /// How long they read nothing
        #[arg(long, default_value = "40s", value_parser = time_above_0)]
        stall: Duration,
    },
    /// All the time streams are cut and come back with their cursors
    Churn {
        #[command(flatten)]
        common: Common,
        /// How many a second
        #[arg(long, default_value_t = 50.0, value_parser = option_values::churn_rate)]
        churn_rate: f64,
    },
    /// Search the highest rate of broadcasts that is kept up with: from --rate upwards, nothing lost, p99 below --p99
    SlowPublish {
        #[command(flatten)]
        common: Common,
        /// The p99 latency that still counts as keeping up
        #[arg(long, default_value = "500ms", value_parser = time_above_0)]
        p99: Duration,
    },
    /// Measure the gateway beside the yardsticks and the peers that are on this machine, and write it down
    Bench(BenchArgs),
    /// Measure what the gateway costs its Redis: memory of logs and sessions, CPU of publishes, connects and resumes
    Redis(RedisArgs),
}

/// How events are published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs, reason = "the help texts are the docs")]
pub enum Publish {
    /// FCALL sse_publish
    Durable,
    /// PUBLISH
    #[value(alias = "bare")]
    Plain,
    /// The gateway's POST /publish (--api-key)
    Http,
    /// A POST to --publish-url of --post-body
    Post,
    /// Not at all: only listen
    None,
}

/// Options of every run.
#[derive(Clone, Debug, Args)]
#[allow(missing_docs, reason = "the help texts are the docs")]
pub struct Common {
    /// The URL of a stream; {user} and {topic} are replaced
    #[arg(long, default_value = "http://127.0.0.1:8080/events", help_heading = "Server")]
    pub url: String,
    /// What kind of server: `plain` is any server of events, without tickets and sse.connected
    #[arg(long, value_enum, default_value = "gateway", help_heading = "Server")]
    pub kind: ServerKind,
    /// HTTP/2; without TLS by prior knowledge
    #[arg(long, help_heading = "Server")]
    pub http2: bool,
    /// HTTP/2: streams on each connection
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..), help_heading = "Server")]
    pub streams_per_connection: u32,
    /// https: certificates to believe, PEM
    #[arg(long, value_name = "FILE", help_heading = "Server")]
    pub ca: Option<PathBuf>,
    /// https: believe anybody
    #[arg(long, conflicts_with = "ca", help_heading = "Server")]
    pub insecure: bool,
    /// Another header line of every stream's request, 'Name: value'
    #[arg(long = "header", help_heading = "Server")]
    pub headers: Vec<String>,
    /// Processes whose CPU and memory are read, with their descendants
    #[arg(long = "server-pid", value_name = "PID", help_heading = "Server")]
    pub server_pids: Vec<u32>,

    /// A file with the gateway's HS256 secret, to sign tickets with
    #[arg(long, value_name = "FILE", help_heading = "Tickets")]
    pub secret_file: Option<PathBuf>,
    /// A file with an API key: for tickets (scope `tickets`) if no secret is given, and for --publish http
    #[arg(long, value_name = "FILE", help_heading = "Tickets")]
    pub api_key_file: Option<PathBuf>,
    /// `aud` of the tickets that are signed: the gateway's tickets.audience
    #[arg(long, default_value = "sse-gateway", help_heading = "Tickets")]
    pub audience: String,
    /// `iss` of the tickets that are signed, where the gateway has a tickets.issuer
    #[arg(long, help_heading = "Tickets")]
    pub issuer: Option<String>,
    /// `kid` of the tickets that are signed, where the secret is one of tickets.keys
    #[arg(long, help_heading = "Tickets")]
    pub kid: Option<String>,
    /// How long a ticket is good for its first connection; the gateway's tickets.max_ttl at the most
    #[arg(long, default_value = "60s", value_parser = option_values::ttl, help_heading = "Tickets")]
    pub ticket_ttl: Duration,

    /// Streams
    #[arg(long, short = 'n', default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=MAX_STREAMS), help_heading = "Streams")]
    pub streams: u32,
    /// Streams of each user
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..), help_heading = "Streams")]
    pub streams_per_user: u32,
    /// Users are called this and a number; two runs at once against one gateway need different ones
    #[arg(long, value_name = "NAME", default_value = "load-", help_heading = "Streams")]
    pub user_prefix: String,
    /// Streams from one source address to 127.0.0.1; past that the ports to one destination come to an end (28,232 by default)
    #[arg(long, hide = true, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..), help_heading = "Streams")]
    pub streams_per_source: u32,
    /// Connects a second at the most [default: as fast as it goes]
    #[arg(long, value_parser = option_values::connect_rate, help_heading = "Streams")]
    pub connect_rate: Option<f64>,
    /// Streams that connect at the same time at the most
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..), help_heading = "Streams")]
    pub connecting: u32,
    /// All streams must be open within
    #[arg(long, default_value = "60s", value_parser = time_above_0, help_heading = "Streams")]
    pub connect_timeout: Duration,
    /// A pause after the streams are open, before memory is read and the load begins
    #[arg(long, default_value = "2s", value_parser = time, help_heading = "Streams")]
    pub settle: Duration,

    /// How events are published
    #[arg(long, value_enum, default_value = "durable", help_heading = "Load")]
    pub publish: Publish,
    /// Redis, for --publish durable and plain [default: redis://127.0.0.1:6379]; if it is named, its CPU is read however events are published
    #[arg(long, value_name = "URL", help_heading = "Load")]
    pub redis: Option<String>,
    /// For --publish http [default: /publish on the server] and post; {topic} is replaced
    #[arg(long, help_heading = "Load")]
    pub publish_url: Option<String>,
    /// For --publish post: the body; {payload} is replaced
    #[arg(long, default_value = "{payload}", help_heading = "Load")]
    pub post_body: String,
    /// For --publish post: a header line, 'Name: value'
    #[arg(long = "post-header", help_heading = "Load")]
    pub post_headers: Vec<String>,
    /// The broadcast topic
    #[arg(long, default_value = "load", help_heading = "Load")]
    pub topic: String,
    /// Broadcasts a second
    #[arg(long, default_value_t = 10.0, value_parser = option_values::rate, help_heading = "Load")]
    pub rate: f64,
    /// Events to single users a second, one user after the other
    #[arg(long, default_value_t = 1000.0, value_parser = option_values::rate, help_heading = "Load")]
    pub user_rate: f64,
    /// Size of a payload, bytes; 73 or more, which its stamp needs
    #[arg(long, default_value_t = 256, value_parser = option_values::payload_bytes, help_heading = "Load")]
    pub payload_bytes: usize,
    /// How long the load goes on (idle: how long the streams are held)
    #[arg(long, default_value = "10s", value_parser = time_above_0, help_heading = "Load")]
    pub duration: Duration,
    /// How long to wait in the end for what is on its way; what is missing then is lost
    #[arg(long, default_value = "10s", value_parser = time, help_heading = "Load")]
    pub drain: Duration,

    /// Write the report as JSON, `-`: to standard output instead of the table
    #[arg(long, value_name = "FILE", help_heading = "Report")]
    pub json: Option<PathBuf>,
    #[command(flatten)]
    pub thresholds: Thresholds,
}

impl Common {
    /// The Redis that is published to.
    pub fn redis_url(&self) -> &str {
        self.redis.as_deref().unwrap_or("redis://127.0.0.1:6379")
    }
}

/// What must hold; else the exit status is 1.
#[derive(Clone, Debug, Default, Args)]
#[allow(missing_docs, reason = "the help texts are the docs")]
pub struct Thresholds {
    /// Lost events
    #[arg(long, value_name = "N", help_heading = "Thresholds")]
    pub max_lost: Option<u64>,
    /// Doubled events
    #[arg(long, value_name = "N", help_heading = "Thresholds")]
    pub max_doubled: Option<u64>,
    /// Events behind a later one
    #[arg(long, value_name = "N", help_heading = "Thresholds")]
    pub max_out_of_order: Option<u64>,
    /// Events that could not be published, or were due and never sent because the publisher could not keep its rate
    #[arg(long, value_name = "N", help_heading = "Thresholds")]
    pub max_unpublished: Option<u64>,
    /// sse.gap told
    #[arg(long, value_name = "N", help_heading = "Thresholds")]
    pub max_gaps: Option<u64>,
    /// p99 of the latency
    #[arg(long, value_name = "TIME", value_parser = time, help_heading = "Thresholds")]
    pub max_p99: Option<Duration>,
    /// Storm: the time until all are caught up
    #[arg(long, value_name = "TIME", value_parser = time, help_heading = "Thresholds")]
    pub max_caught_up: Option<Duration>,
    /// CPU of the server per million deliveries, s
    #[arg(long, value_name = "SECONDS", value_parser = option_values::threshold, help_heading = "Thresholds")]
    pub max_cpu_per_million: Option<f64>,
    /// Memory of the server per idle stream, bytes
    #[arg(long, value_name = "BYTES", help_heading = "Thresholds")]
    pub max_bytes_per_stream: Option<u64>,
    /// Streams that are open in the end
    #[arg(long, value_name = "N", help_heading = "Thresholds")]
    pub min_held: Option<u32>,
}

/// `loadtest bench`.
#[derive(Clone, Debug, clap::Args)]
#[allow(missing_docs, reason = "the help texts are the docs")]
pub struct BenchArgs {
    /// Few streams, one round: ends within 3 minutes, and is no measurement to quote
    #[arg(long)]
    pub quick: bool,
    /// Only these servers, comma-separated
    #[arg(long, value_delimiter = ',')]
    pub only: Vec<String>,
    /// Where benchmarks.json and benchmarks.md go
    #[arg(long, value_name = "DIR", default_value = "docs")]
    pub out: PathBuf,
}

/// `loadtest redis`.
#[derive(Clone, Debug, clap::Args)]
#[allow(missing_docs, reason = "the help texts are the docs")]
pub struct RedisArgs {
    /// Write the figures as JSON, `-`: to standard output instead of the tables
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

//! Command-line definition.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::bench::workload::Workload;
use crate::option_values::{self, MAX_STREAMS, time, time_above_0};
use crate::target::ServerKind;

/// Opens event streams, publishes events and verifies what each stream receives.
///
/// Exit status: 0 on success; 1 if a threshold was exceeded or not all streams could be opened; 2
/// if the run could not take place (invalid option, server unreachable, no stream opened).
#[derive(Debug, Parser)]
#[command(version)]
pub struct Cli {
    /// Subcommand to run.
    #[command(subcommand)]
    pub command: Command,
}

/// Subcommands: one per scenario, plus `bench` and `redis`.
#[derive(Debug, Subcommand)]
#[allow(missing_docs, reason = "the help texts are the docs")]
pub enum Command {
    /// Open streams and keep them idle: connections per second, CPU per 1,000 connections, memory
    /// per stream
    Idle(Common),
    /// Send every event to every stream (--rate)
    Broadcast(Common),
    /// Send every event to a single user (--user-rate)
    Users(Common),
    /// Send broadcasts and single-user events (--rate and --user-rate)
    Mixed(Common),
    /// Disconnect all streams in the middle of the load; they reconnect at once with their last
    /// event ids
    Storm {
        #[command(flatten)]
        common: Common,
        /// How long the streams stay disconnected
        #[arg(long, default_value = "2s", value_parser = time)]
        away: Duration,
    },
    /// Some streams stop reading for a while and must still receive every event in the end
    Stalled {
        #[command(flatten)]
        common: Common,
        /// Percentage of streams that stop reading
        #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100))]
        stalled_percent: u32,
        /// How long these streams stop reading
        #[arg(long, default_value = "40s", value_parser = time_above_0)]
        stall: Duration,
    },
    /// Disconnect random streams throughout the load; each reconnects with its last event id
    Churn {
        #[command(flatten)]
        common: Common,
        /// Disconnects per second
        #[arg(long, default_value_t = 50.0, value_parser = option_values::churn_rate)]
        churn_rate: f64,
    },
    /// Find the highest sustainable broadcast rate, starting at --rate: no event lost, p99 latency
    /// below --p99
    SlowPublish {
        #[command(flatten)]
        common: Common,
        /// Highest p99 latency at which a rate counts as sustained
        #[arg(long, default_value = "500ms", value_parser = time_above_0)]
        p99: Duration,
    },
    /// Benchmark the gateway against the yardsticks and the peers installed on this machine, and
    /// write the results
    Bench(BenchArgs),
    /// Measure the cost of the gateway in Redis: memory of logs and sessions, CPU of publishes,
    /// connects and resumes
    Redis(RedisArgs),
}

/// Ways to publish events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs, reason = "the help texts are the docs")]
pub enum Publish {
    /// FCALL sse_publish, from this tool
    Durable,
    /// PUBLISH, from this tool
    #[value(alias = "bare")]
    Plain,
    /// POST /publish of the gateway (requires --api-key-file)
    Http,
    /// POST --post-body to --publish-url
    Post,
    /// Do not publish, only listen
    None,
}

/// Options shared by all scenarios.
#[derive(Clone, Debug, Args)]
#[allow(missing_docs, reason = "the help texts are the docs")]
pub struct Common {
    /// URL of a stream; {user} and {topic} are replaced; with --kind plain and centrifugo, so is
    /// {token} by a JWT that is signed for each stream with --secret-file; with --kind centrifugo,
    /// so is {recover} by the position of a stream that resumes
    #[arg(long, default_value = "http://127.0.0.1:8080/events", help_heading = "Server")]
    pub url: String,
    /// Server type: `plain` is any SSE server, without tickets and sse.connected; `centrifugo` is
    /// Centrifugo's unidirectional SSE
    #[arg(long, value_enum, default_value = "gateway", help_heading = "Server")]
    pub kind: ServerKind,
    /// Use HTTP/2; without TLS by prior knowledge
    #[arg(long, help_heading = "Server")]
    pub http2: bool,
    /// Streams per HTTP/2 connection
    #[arg(
        long,
        default_value_t = 100,
        value_parser = clap::value_parser!(u32).range(1..),
        help_heading = "Server",
    )]
    pub streams_per_connection: u32,
    /// CA certificates for https, in PEM format
    #[arg(long, value_name = "FILE", help_heading = "Server")]
    pub ca: Option<PathBuf>,
    /// Do not verify the server's certificate
    #[arg(long, conflicts_with = "ca", help_heading = "Server")]
    pub insecure: bool,
    /// Additional header of every stream request, as 'Name: value'; can be repeated
    #[arg(long = "header", help_heading = "Server")]
    pub headers: Vec<String>,
    /// Process whose CPU and memory to measure, including its descendants; can be repeated
    #[arg(long = "server-pid", value_name = "PID", help_heading = "Server")]
    pub server_pids: Vec<u32>,

    /// File with the HS256 secret of the gateway, used to sign tickets, or of another server, used
    /// to sign {token}
    #[arg(long, value_name = "FILE", help_heading = "Tickets")]
    pub secret_file: Option<PathBuf>,
    /// File with an API key: to request tickets (scope `tickets`) if there is no --secret-file, and
    /// for --publish http
    #[arg(long, value_name = "FILE", help_heading = "Tickets")]
    pub api_key_file: Option<PathBuf>,
    /// `aud` of signed tickets; must equal the gateway's tickets.audience
    #[arg(long, default_value = "sse-gateway", help_heading = "Tickets")]
    pub audience: String,
    /// `iss` of signed tickets; must equal the gateway's tickets.issuer if that is set
    #[arg(long, help_heading = "Tickets")]
    pub issuer: Option<String>,
    /// `kid` of signed tickets; required if the secret belongs to one of the gateway's tickets.keys
    #[arg(long, help_heading = "Tickets")]
    pub kid: Option<String>,
    /// Ticket lifetime until the first connection; at most the gateway's tickets.max_ttl
    #[arg(long, default_value = "60s", value_parser = option_values::ttl, help_heading = "Tickets")]
    pub ticket_ttl: Duration,

    /// Number of streams
    #[arg(
        long,
        short = 'n',
        default_value_t = 1000,
        value_parser = clap::value_parser!(u32).range(1..=MAX_STREAMS),
        help_heading = "Streams",
    )]
    pub streams: u32,
    /// Streams per user
    #[arg(
        long,
        default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..),
        help_heading = "Streams",
    )]
    pub streams_per_user: u32,
    /// Prefix of user names, followed by a number; concurrent runs against one gateway need
    /// different prefixes
    #[arg(long, value_name = "NAME", default_value = "load-", help_heading = "Streams")]
    pub user_prefix: String,
    /// Streams per source address to 127.0.0.1; beyond the local port range (28,232 ports by
    /// default) no connection could be opened
    #[arg(
        long,
        hide = true,
        default_value_t = 10_000,
        value_parser = clap::value_parser!(u32).range(1..),
        help_heading = "Streams",
    )]
    pub streams_per_source: u32,
    /// Maximum connection attempts per second [default: unlimited]
    #[arg(long, value_parser = option_values::connect_rate, help_heading = "Streams")]
    pub connect_rate: Option<f64>,
    /// Maximum number of concurrent connection attempts
    #[arg(
        long,
        default_value_t = 128,
        value_parser = clap::value_parser!(u32).range(1..),
        help_heading = "Streams",
    )]
    pub connecting: u32,
    /// Maximum time until all streams are open
    #[arg(long, default_value = "60s", value_parser = time_above_0, help_heading = "Streams")]
    pub connect_timeout: Duration,
    /// Pause after the streams are open, before memory is measured and the load starts
    #[arg(long, default_value = "2s", value_parser = time, help_heading = "Streams")]
    pub settle: Duration,

    /// How to publish events
    #[arg(long, value_enum, default_value = "durable", help_heading = "Load")]
    pub publish: Publish,
    /// Redis URL for --publish durable and plain [default: redis://127.0.0.1:6379]; if set, the CPU
    /// of this Redis is measured with every --publish method
    #[arg(long, value_name = "URL", help_heading = "Load")]
    pub redis: Option<String>,
    /// URL for --publish http [default: /publish on the server of --url] and --publish post;
    /// {topic} and {user} are replaced
    #[arg(long, help_heading = "Load")]
    pub publish_url: Option<String>,
    /// Request body for --publish post; {payload} and {user} are replaced, {payload-string} by the
    /// payload as a JSON string, and {payload-escaped} by the same without its quotes
    #[arg(long, default_value = "{payload}", help_heading = "Load")]
    pub post_body: String,
    /// Request header for --publish post, as 'Name: value'; can be repeated
    #[arg(long = "post-header", help_heading = "Load")]
    pub post_headers: Vec<String>,
    /// Concurrent publishers of single-user events, each with its share of the users; HTTP requests
    /// of one publisher are sent one at a time
    #[arg(
        long,
        default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..=64),
        help_heading = "Load",
    )]
    pub publishers: u32,
    /// Broadcast topic
    #[arg(long, default_value = "load", help_heading = "Load")]
    pub topic: String,
    /// Broadcasts per second
    #[arg(long, default_value_t = 10.0, value_parser = option_values::rate, help_heading = "Load")]
    pub rate: f64,
    /// Single-user events per second, to one user after another
    #[arg(
        long,
        default_value_t = 1000.0,
        value_parser = option_values::rate,
        help_heading = "Load",
    )]
    pub user_rate: f64,
    /// Payload size in bytes, at least 73 (the size of the embedded stamp)
    #[arg(
        long,
        default_value_t = 256,
        value_parser = option_values::payload_bytes,
        help_heading = "Load",
    )]
    pub payload_bytes: usize,
    /// Duration of the load (idle: how long the streams stay open)
    #[arg(long, default_value = "10s", value_parser = time_above_0, help_heading = "Load")]
    pub duration: Duration,
    /// Time to wait for outstanding events after the load; those still missing count as lost
    #[arg(long, default_value = "10s", value_parser = time, help_heading = "Load")]
    pub drain: Duration,

    /// Write the report as JSON to this file; `-` writes it to standard output instead of the table
    #[arg(long, value_name = "FILE", help_heading = "Report")]
    pub json: Option<PathBuf>,
    #[command(flatten)]
    pub thresholds: Thresholds,
}

impl Common {
    /// Returns the URL of the Redis that receives the events.
    pub fn redis_url(&self) -> &str {
        self.redis.as_deref().unwrap_or("redis://127.0.0.1:6379")
    }
}

/// Thresholds of a run; exceeding one makes the exit status 1.
#[derive(Clone, Debug, Default, Args)]
#[allow(missing_docs, reason = "the help texts are the docs")]
pub struct Thresholds {
    /// Maximum number of lost events
    #[arg(long, value_name = "N", help_heading = "Thresholds")]
    pub max_lost: Option<u64>,
    /// Maximum number of duplicate events
    #[arg(long, value_name = "N", help_heading = "Thresholds")]
    pub max_doubled: Option<u64>,
    /// Maximum number of events that arrive after a later one
    #[arg(long, value_name = "N", help_heading = "Thresholds")]
    pub max_out_of_order: Option<u64>,
    /// Maximum number of events that could not be published, or were not sent because the publisher
    /// could not sustain its rate
    #[arg(long, value_name = "N", help_heading = "Thresholds")]
    pub max_unpublished: Option<u64>,
    /// Maximum number of sse.gap events
    #[arg(long, value_name = "N", help_heading = "Thresholds")]
    pub max_gaps: Option<u64>,
    /// Maximum number of streams that broke or that the server closed, reopened or not
    #[arg(long, value_name = "N", help_heading = "Thresholds")]
    pub max_broken: Option<u64>,
    /// Maximum p99 latency
    #[arg(long, value_name = "TIME", value_parser = time, help_heading = "Thresholds")]
    pub max_p99: Option<Duration>,
    /// storm: maximum time until all streams have caught up
    #[arg(long, value_name = "TIME", value_parser = time, help_heading = "Thresholds")]
    pub max_caught_up: Option<Duration>,
    /// Maximum server CPU per million deliveries, in seconds
    #[arg(
        long,
        value_name = "SECONDS",
        value_parser = option_values::threshold,
        help_heading = "Thresholds",
    )]
    pub max_cpu_per_million: Option<f64>,
    /// Maximum server memory per idle stream, in bytes
    #[arg(long, value_name = "BYTES", help_heading = "Thresholds")]
    pub max_bytes_per_stream: Option<u64>,
    /// Minimum number of streams open at the end
    #[arg(long, value_name = "N", help_heading = "Thresholds")]
    pub min_held: Option<u32>,
}

/// Options of `loadtest bench`.
#[derive(Clone, Debug, clap::Args)]
#[allow(missing_docs, reason = "the help texts are the docs")]
pub struct BenchArgs {
    /// Fewer streams and a single round: takes some minutes; not suitable for publishing figures
    #[arg(long)]
    pub quick: bool,
    /// Measure only these scenarios (comma-separated)
    #[arg(long, value_delimiter = ',', value_enum, value_name = "SCENARIO")]
    pub only: Vec<Workload>,
    /// Measure only these servers (comma-separated)
    #[arg(long, value_delimiter = ',', value_name = "SERVER")]
    pub servers: Vec<String>,
    /// Streams of the main table; the other scenarios use proportionally fewer [default: 10000]
    #[arg(
        long,
        short = 'n',
        value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..=MAX_STREAMS),
    )]
    pub streams: Option<u32>,
    /// Duration of each load in seconds; the maximum of idle, stall and storm, too [default: 5]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    pub load: Option<u64>,
    /// Number of rounds of broadcast, users and storm; the other scenarios have one [default: 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: Option<u32>,
    /// Skip further rounds of a scenario that would end later than this; the first round is always
    /// measured
    #[arg(long, value_name = "TIME", default_value = "19m", value_parser = time_above_0)]
    pub time_budget: Duration,
    /// Write benchmarks.md from the benchmarks.json in --out without measuring
    #[arg(long)]
    pub render: bool,
    /// Directory for benchmarks.json and benchmarks.md
    #[arg(long, value_name = "DIR", default_value = "docs")]
    pub out: PathBuf,
}

/// Options of `loadtest redis`.
#[derive(Clone, Debug, clap::Args)]
#[allow(missing_docs, reason = "the help texts are the docs")]
pub struct RedisArgs {
    /// Write the figures as JSON to this file; `-` writes them to standard output instead of the
    /// tables
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

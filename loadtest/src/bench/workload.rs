//! Scenarios of the benchmark and their extent.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::args::BenchArgs;

/// Scenario of the benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Workload {
    /// Connects, memory, and broadcasts at two rates, at the main stream count
    Broadcast,
    /// One event per second to each of many users
    Users,
    /// All streams are cut and resume at once
    Storm,
    /// Some streams do not read
    Stalled,
    /// Streams without a load
    Idle,
    /// Connects, memory and broadcasts at the other stream counts
    Scale,
}

impl Workload {
    /// All scenarios, in the order of a round.
    pub const ALL: [Self; 6] =
        [Self::Broadcast, Self::Users, Self::Storm, Self::Stalled, Self::Idle, Self::Scale];

    /// Returns the name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Broadcast => "broadcast",
            Self::Users => "users",
            Self::Storm => "storm",
            Self::Stalled => "stalled",
            Self::Idle => "idle",
            Self::Scale => "scale",
        }
    }

    /// Returns whether the scenario is measured in every round. The others take long and vary
    /// little; they are measured in the first round.
    pub fn every_round(self) -> bool {
        matches!(self, Self::Broadcast | Self::Users | Self::Storm)
    }
}

/// Extent of a benchmark.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Size {
    /// Stream counts, ascending.
    pub streams: Vec<u32>,
    /// Number of rounds; the report contains the medians.
    pub rounds: u32,
    /// Duration of each load, in seconds.
    pub load_s: u64,
    /// Broadcasts per second; fewer where that would exceed `max_deliveries_per_s`.
    pub rate: f64,
    /// Maximum rate that server and load tester can sustain together on this machine.
    pub max_deliveries_per_s: f64,
    /// Payload size in bytes.
    pub payload_bytes: usize,
    /// Extent of the scenarios other than the stream counts; absent in results of earlier versions.
    #[serde(default)]
    pub scenarios: ScenarioSize,
}

/// Extent of the scenarios.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ScenarioSize {
    /// Streams in `broadcast`, `storm` and `idle`; 0 if these were not measured.
    pub main_streams: u32,
    /// Lower rate of `broadcast` and rate of `storm`, in broadcasts per second.
    pub low_rate: f64,
    /// Streams in `users`, each of a user of its own; also the events per second.
    pub user_streams: u32,
    /// Time for which the streams of `storm` are disconnected, in seconds.
    pub away_s: u64,
    /// Streams in `stalled`.
    pub stalled_streams: u32,
    /// Percentage of these that do not read.
    pub stalled_percent: u32,
    /// Time for which they do not read, in seconds.
    pub stall_s: u64,
    /// Payload size in `stalled`, in bytes: large enough to fill the socket buffers.
    pub stalled_payload_bytes: usize,
    /// Broadcasts per second in `stalled`.
    pub stalled_rate: f64,
    /// Time for which the streams of `idle` stay open, in seconds.
    pub idle_s: u64,
}

impl Size {
    /// Returns the extent of a publishable benchmark.
    pub fn full() -> Self {
        Self {
            streams: vec![1_000, 5_000, 10_000, 15_000],
            rounds: 3,
            load_s: 5,
            rate: 10.0,
            max_deliveries_per_s: 100_000.0,
            payload_bytes: 256,
            scenarios: ScenarioSize {
                main_streams: 10_000,
                low_rate: 2.0,
                user_streams: 5_000,
                away_s: 3,
                stalled_streams: 200,
                stalled_percent: 50,
                stall_s: 15,
                stalled_payload_bytes: 32_768,
                stalled_rate: 20.0,
                idle_s: 30,
            },
        }
    }

    /// Returns the extent of a short run.
    pub fn quick() -> Self {
        let full = Self::full();
        Self {
            streams: vec![1_000, 5_000],
            rounds: 1,
            load_s: 4,
            scenarios: ScenarioSize {
                main_streams: 5_000,
                user_streams: 2_500,
                away_s: 2,
                stall_s: 8,
                idle_s: 5,
                ..full.scenarios
            },
            ..full
        }
    }

    /// Returns the extent that the command line asks for.
    pub fn new(args: &BenchArgs) -> Self {
        let mut size = if args.quick { Self::quick() } else { Self::full() };
        if let Some(streams) = args.streams {
            size.streams = vec![streams.div_ceil(10), streams.div_ceil(2), streams];
            size.streams.dedup();
            size.scenarios.main_streams = streams;
            size.scenarios.user_streams = streams.div_ceil(2);
            size.scenarios.stalled_streams = size.scenarios.stalled_streams.min(streams);
        }
        if let Some(load_s) = args.load {
            size.load_s = load_s;
            let more = &mut size.scenarios;
            for seconds in [&mut more.away_s, &mut more.stall_s, &mut more.idle_s] {
                *seconds = load_s.min(*seconds);
            }
        }
        size.rounds = args.rounds.unwrap_or(size.rounds);
        size
    }

    /// Returns the stream count of the main table.
    pub fn main_streams(&self) -> u32 {
        /// Main stream count of earlier versions, if it was measured.
        const EARLIER: u32 = 10_000;
        match self.scenarios.main_streams {
            0 if self.streams.contains(&EARLIER) => EARLIER,
            0 => self.streams.last().copied().unwrap_or_default(),
            streams => streams,
        }
    }

    /// Returns the stream counts of `scale`.
    pub fn other_streams(&self) -> Vec<u32> {
        self.streams.iter().copied().filter(|count| *count != self.main_streams()).collect()
    }

    /// Returns the options of loadtest for a scenario, which start with its name.
    pub fn options(&self, workload: Workload) -> String {
        let Self { rate, load_s, payload_bytes, scenarios: more, .. } = self;
        let main = self.main_streams();
        let payload = format!("--payload-bytes {payload_bytes} --settle 1s");
        match workload {
            Workload::Broadcast => {
                format!("broadcast -n {main} --rate {rate} --duration {load_s}s {payload}")
            }
            Workload::Scale => {
                let most = self.streams.last().copied().unwrap_or_default();
                format!("broadcast -n {most} --rate {rate} --duration {load_s}s {payload}")
            }
            Workload::Users => format!(
                "users -n {streams} --user-rate {streams} --duration {load_s}s {payload}",
                streams = more.user_streams
            ),
            // The streams are cut after a third of the duration and must have an event id by then.
            Workload::Storm => format!(
                "storm -n {main} --rate {} --away {}s --duration {}s {payload}",
                more.low_rate,
                more.away_s,
                (*load_s).max(3)
            ),
            Workload::Stalled => format!(
                "stalled -n {} --stalled-percent {} --stall {}s --rate {} --payload-bytes {} \
                 --settle 1s",
                more.stalled_streams,
                more.stalled_percent,
                more.stall_s,
                more.stalled_rate,
                more.stalled_payload_bytes
            ),
            Workload::Idle => format!("idle -n {main} --duration {}s --settle 1s", more.idle_s),
        }
    }
}

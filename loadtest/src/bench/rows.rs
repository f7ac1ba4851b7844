//! Rows of the main table.

use super::results::{Results, ScenarioRun, ServerResults};
use super::spread::{Spread, spread};
use super::workload::{Size, Workload};
use crate::report::Load;
use crate::scenario::scaling::ScalePoint;

/// Cell of a server without a figure.
pub(super) const MISSING: &str = "–";
/// Interval between two events of a user in `users`, in ms.
const USER_INTERVAL_MS: f64 = 1000.0;

/// Which value is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Better {
    Lower,
    Higher,
    /// The row says nothing about the quality of a server.
    Neither,
}

/// Origin of the values of a row, one for each measurement.
#[derive(Clone, Copy)]
pub(super) enum Source {
    /// Figures at the main stream count.
    Point(fn(&ScalePoint) -> Option<f64>),
    /// Load at the main stream count.
    Load(fn(&Load) -> Option<f64>),
    /// Load at the main stream count and the lower rate.
    LowRate(fn(&Load) -> Option<f64>),
    /// Load after which the memory at the highest stream count was read.
    Highest(fn(&ScalePoint) -> Option<f64>),
    /// Another scenario.
    Run(Workload, fn(&ScenarioRun) -> Option<f64>),
}

/// Row of the main table.
pub(super) struct Row {
    /// Name, in which `{rate}`, `{low}`, `{users}`, `{most}`, `{storm}` and `{idle}` are replaced.
    name: &'static str,
    pub(super) decimals: usize,
    pub(super) better: Better,
    source: Source,
    /// Whether the value is lower if the server falls behind and writes several events at once.
    lower_if_behind: bool,
}

impl Row {
    /// Returns the name with the figures of the benchmark.
    pub(super) fn name(&self, size: &Size) -> String {
        let more = &size.scenarios;
        let most = size.streams.last().copied().unwrap_or_default();
        self.name
            .replace("{rate}", &format!("{}/s", size.rate))
            .replace("{low}", &format!("{}/s", more.low_rate))
            .replace("{users}", &thousands(more.user_streams))
            .replace("{most}", &thousands(most))
            .replace("{main}", &thousands(size.main_streams()))
            .replace("{idle}", &more.idle_s.to_string())
    }

    /// Returns the value of each measurement, in the order of the rounds.
    pub(super) fn values(&self, size: &Size, server: &ServerResults) -> Vec<Option<f64>> {
        let main = size.main_streams();
        let most = size.streams.last().copied().unwrap_or_default();
        match self.source {
            Source::Point(value) => server.points(main).map(value).collect(),
            Source::Highest(value) => server.points(most).map(value).collect(),
            Source::Load(value) => {
                server.points(main).map(|point| value(point.load.as_ref()?)).collect()
            }
            Source::LowRate(value) => {
                server.points(main).map(|point| value(&point.low_rate.as_ref()?.load)).collect()
            }
            Source::Run(workload, value) => server.runs(workload).iter().map(value).collect(),
        }
    }

    /// Returns median and range of the values.
    pub(super) fn spread(&self, size: &Size, server: &ServerResults) -> Option<Spread> {
        spread(self.values(size, server).into_iter().flatten())
    }

    /// Returns median and range of the values as multiples of another server's in the same round.
    pub(super) fn ratio(
        &self,
        size: &Size,
        server: &ServerResults,
        other: &ServerResults,
    ) -> Option<Spread> {
        let pairs = self.values(size, server).into_iter().zip(self.values(size, other));
        spread(pairs.filter_map(|(one, other)| Some(one? / other.filter(|other| *other > 0.0)?)))
    }

    /// Returns whether the values can be compared: in most measurements, the server lost nothing
    /// and, if that lowers the value, did not fall behind.
    pub(super) fn comparable(&self, size: &Size, server: &ServerResults) -> bool {
        let main = size.main_streams();
        let behind = |load: &Load, interval_ms: f64| {
            let late = load.latency.p99_ms > interval_ms;
            load.lost > 0 || (self.lower_if_behind && late)
        };
        let late: Vec<bool> = match self.source {
            Source::Load(_) => server
                .points(main)
                .filter_map(|point| Some(behind(point.load.as_ref()?, 1000.0 / point.rate)))
                .collect(),
            Source::LowRate(_) => server
                .points(main)
                .filter_map(|point| point.low_rate.as_ref())
                .map(|low| behind(&low.load, 1000.0 / low.rate))
                .collect(),
            Source::Run(Workload::Users, _) => server
                .runs(Workload::Users)
                .iter()
                .filter_map(|run| Some(behind(run.load.as_ref()?, USER_INTERVAL_MS)))
                .collect(),
            _ => return true,
        };
        late.iter().filter(|late| **late).count() * 2 <= late.len()
    }

    /// Returns why the server has no value, if it was measured without one.
    fn reason(&self, server: &ServerResults) -> Option<String> {
        let Source::Run(workload, _) = self.source else { return None };
        let reason = |run: &ScenarioRun| match (workload, &run.storm, &run.stall) {
            (Workload::Storm, Some(storm), _) if storm.caught_up < storm.cut => {
                Some(format!("{} of {} caught up", storm.caught_up, storm.cut))
            }
            (Workload::Stalled, _, Some(stall)) if stall.broken > 0 => {
                Some("disconnected".to_owned())
            }
            _ => None,
        };
        server.runs(workload).iter().find_map(reason)
    }

    /// Formats the values of a server.
    pub(super) fn cell(&self, size: &Size, server: &ServerResults) -> String {
        match self.spread(size, server) {
            Some(spread) => spread.text(self.decimals),
            None => self.reason(server).unwrap_or_else(|| MISSING.to_owned()),
        }
    }

    /// Returns whether any server has something to show.
    pub(super) fn is_measured(&self, results: &Results) -> bool {
        results.servers.iter().any(|server| self.cell(&results.size, server) != MISSING)
    }
}

const fn row(name: &'static str, decimals: usize, better: Better, source: Source) -> Row {
    Row { name, decimals, better, source, lower_if_behind: false }
}

/// Row of a cost per delivery.
const fn cost(name: &'static str, decimals: usize, source: Source) -> Row {
    Row { name, decimals, better: Better::Lower, source, lower_if_behind: true }
}

/// CPU per million deliveries at the higher rate, which the plots show, too.
pub(super) const CPU: Row = cost(
    "CPU per million deliveries at {rate}, s",
    2,
    Source::Load(|load| load.server_cpu.map(|cpu| cpu.total_s)),
);
/// The same at the lower rate.
pub(super) const LOW_CPU: Row = cost(
    "CPU per million deliveries at {low}, s",
    2,
    Source::LowRate(|load| load.server_cpu.map(|cpu| cpu.total_s)),
);
/// CPU of connects.
pub(super) const CONNECT_CPU: Row = row(
    "CPU per 1,000 connects, s",
    3,
    Better::Lower,
    Source::Point(|point| point.connect.server_cpu_s_per_1000),
);
/// CPU of single-user events.
pub(super) const USER_CPU: Row = cost(
    "{users} users: CPU per million deliveries, s",
    1,
    Source::Run(Workload::Users, |run| run.load.as_ref()?.server_cpu.map(|cpu| cpu.total_s)),
);
/// Time of a storm.
pub(super) const STORM_TIME: Row = row(
    "Storm of {main}: all caught up after, s",
    2,
    Better::Lower,
    Source::Run(Workload::Storm, |run| Some(recovered(run)?.caught_up_after.max_ms / 1000.0)),
);
/// CPU of a storm.
pub(super) const STORM_CPU: Row = row(
    "Storm: CPU of the server, s",
    2,
    Better::Lower,
    Source::Run(Workload::Storm, |run| recovered(run)?.server_cpu_s),
);
/// Growth of the server per stalled stream.
const STALLED_MEMORY: Row = row(
    "Stalled: PSS per stalled stream, KiB",
    0,
    Better::Lower,
    Source::Run(Workload::Stalled, |run| {
        run.stall.as_ref().filter(|stall| stall.broken == 0)?.server_bytes.map(kib)
    }),
);

/// All rows, in the order of the table.
pub(super) const ROWS: [Row; 25] = [
    LOW_CPU,
    CPU,
    row("— user", 2, Better::Neither, Source::Load(|load| load.server_cpu.map(|cpu| cpu.user_s))),
    row(
        "— system",
        2,
        Better::Neither,
        Source::Load(|load| load.server_cpu.map(|cpu| cpu.system_s)),
    ),
    row(
        "CPU of Redis per million deliveries at {rate}, s (additional)",
        2,
        Better::Lower,
        Source::Load(redis_cpu_per_million),
    ),
    row("Latency p99 at {low}, ms", 0, Better::Lower, Source::LowRate(|l| Some(l.latency.p99_ms))),
    row("Latency p99 at {rate}, ms", 0, Better::Lower, Source::Load(|l| Some(l.latency.p99_ms))),
    row("Latency p50 at {rate}, ms", 0, Better::Lower, Source::Load(|l| Some(l.latency.p50_ms))),
    row("Deliveries/s at {rate}", 0, Better::Neither, Source::Load(|l| Some(l.deliveries_per_s))),
    row(
        "CPU of loadtest, % of a core",
        0,
        Better::Neither,
        Source::Load(|l| Some(l.tool_cpu_percent)),
    ),
    row(
        "PSS per idle stream, KiB",
        1,
        Better::Lower,
        Source::Point(|point| point.memory.server_bytes_per_idle_stream.map(kib)),
    ),
    row(
        "PSS per loaded stream, {most} streams, KiB",
        1,
        Better::Lower,
        Source::Highest(|point| point.memory.server_bytes_per_loaded_stream.map(kib)),
    ),
    row(
        "Kernel memory per stream, both ends, KiB",
        1,
        Better::Neither,
        Source::Point(|point| Some(kib(point.memory.kernel_bytes_per_stream))),
    ),
    row("Connects/s", 0, Better::Higher, Source::Point(|point| Some(point.connect.per_second))),
    CONNECT_CPU,
    USER_CPU,
    row(
        "— latency p99, ms",
        2,
        Better::Lower,
        Source::Run(Workload::Users, |run| Some(run.load.as_ref()?.latency.p99_ms)),
    ),
    row(
        "— CPU of Redis per million, s",
        1,
        Better::Lower,
        Source::Run(Workload::Users, |run| redis_cpu_per_million(run.load.as_ref()?)),
    ),
    STORM_TIME,
    STORM_CPU,
    row(
        "Storm: CPU of Redis, s",
        2,
        Better::Lower,
        Source::Run(Workload::Storm, |run| recovered(run)?.redis_cpu_s),
    ),
    row(
        "Idle for {idle} s: CPU, % of a core",
        2,
        Better::Lower,
        Source::Run(
            Workload::Idle,
            // ms per second are tenths of a percent.
            |run| Some(run.idle.as_ref()?.server_cpu_ms_per_s? / 10.0),
        ),
    ),
    row(
        "Idle: CPU of Redis, % of a core",
        2,
        Better::Lower,
        Source::Run(Workload::Idle, |run| Some(run.idle.as_ref()?.redis_cpu_ms_per_s? / 10.0)),
    ),
    STALLED_MEMORY,
    row(
        "Stalled: latency p99 of the others, ms",
        1,
        Better::Lower,
        Source::Run(Workload::Stalled, |run| Some(run.load.as_ref()?.latency.p99_ms)),
    ),
];

/// Returns the recovery if all streams caught up.
fn recovered(run: &ScenarioRun) -> Option<&crate::report::Storm> {
    run.storm.as_ref().filter(|storm| storm.caught_up >= storm.cut)
}

fn redis_cpu_per_million(load: &Load) -> Option<f64> {
    load.redis_cpu_s.filter(|_| load.delivered > 0).map(|cpu| cpu * 1e6 / load.delivered as f64)
}

pub(super) fn kib(bytes: u64) -> f64 {
    bytes as f64 / 1024.0
}

/// Formats 15000 as 15,000.
pub(super) fn thousands(number: u32) -> String {
    if number < 1000 {
        number.to_string()
    } else {
        format!("{},{:03}", number / 1000, number % 1000)
    }
}

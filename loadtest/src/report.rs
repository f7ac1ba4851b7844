//! Results of a run, as JSON and compared with the thresholds.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::args::Thresholds;
use crate::publisher::Outcome;
use crate::stats::{Counts, Stats};
use crate::target::Protocol;
use crate::usage::Cpu;

/// Results of a run. Field names contain the units; figures that could not be measured are absent.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Name of the scenario.
    pub scenario: &'static str,
    /// URL of the server.
    pub url: String,
    /// Protocol of the streams.
    pub protocol: Protocol,
    /// Payload size in bytes.
    pub payload_bytes: usize,
    /// Figures for opening the streams; absent if not all could be opened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect: Option<Connect>,
    /// Memory of server, kernel and this tool; absent if not all streams could be opened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<Memory>,
    /// Cost of idle streams (scenario `idle`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held: Option<IdleCost>,
    /// Published and delivered events.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load: Option<Load>,
    /// Recovery after the disconnect (scenario `storm`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storm: Option<Storm>,
    /// Cost of streams that do not read (scenario `stalled`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stall: Option<Stall>,
    /// Search for the highest sustainable rate (scenario `slow-publish`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub search: Option<Search>,
    /// Counters of the streams.
    pub streams: Streams,
    /// Exceeded thresholds as text. The first entry may say that not all streams could be opened.
    pub violations: Vec<String>,
    /// Reason why nothing was tested: no stream could be opened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

/// Figures for opening the streams.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Connect {
    /// Number of streams.
    pub streams: u32,
    /// Time from the first attempt until all were open, in seconds.
    pub seconds: f64,
    /// Streams opened per second.
    pub per_second: f64,
    /// CPU of the server per 1,000 streams opened, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_cpu_s_per_1000: Option<f64>,
}

/// Memory of the server's processes and of the kernel. PSS is the proportional set size of all
/// processes under test. Growth is only accurate for a newly started server: memory released by an
/// earlier run is reused.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Memory {
    /// PSS before the first stream, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_bytes_empty: Option<u64>,
    /// Growth of PSS per idle stream, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_bytes_per_idle_stream: Option<u64>,
    /// Growth of PSS per stream after the load, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_bytes_per_loaded_stream: Option<u64>,
    /// Growth of the kernel's slab and TCP buffers per idle stream, in bytes; on loopback for both
    /// ends.
    pub kernel_bytes_per_stream: u64,
    /// Growth of this tool's anonymous memory per stream, in bytes.
    pub tool_bytes_per_stream: u64,
}

/// Cost of streams to which nothing is published: heartbeats and sessions.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct IdleCost {
    /// Duration of the measurement, in seconds.
    pub seconds: f64,
    /// CPU of the server, in ms per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_cpu_ms_per_s: Option<f64>,
    /// CPU of Redis, in ms per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redis_cpu_ms_per_s: Option<f64>,
}

/// Published and delivered events of a load.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Load {
    /// Figures of the publisher.
    pub published: Outcome,
    /// Duration of the load, in seconds.
    pub seconds: f64,
    /// Time from the end of the load until the last delivery, in seconds.
    pub drained_s: f64,
    /// Expected deliveries: every published event, for each stream that may receive it.
    pub expected: u64,
    /// Expected deliveries that arrived.
    pub delivered: u64,
    /// Deliveries of events that were due before a reconnect and arrived after it.
    pub replayed: u64,
    /// Expected deliveries that did not arrive, including those of earlier loads of this run
    /// (scenario `slow-publish`).
    pub lost: u64,
    /// Events received more than once.
    pub doubled: u64,
    /// Events received after a later one.
    pub out_of_order: u64,
    /// Events not published by this run.
    pub foreign: u64,
    /// `sse.gap` events by reason.
    pub gaps: Counts,
    /// Deliveries per second, until the last delivery.
    pub deliveries_per_s: f64,
    /// Time from when an event was due until it was read, without replayed events.
    pub latency: Quantiles,
    /// CPU of the server per million deliveries.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_cpu: Option<CpuPerMillion>,
    /// CPU of Redis, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redis_cpu_s: Option<f64>,
    /// CPU of this tool, in seconds.
    pub tool_cpu_s: f64,
    /// CPU of this tool as a percentage of one core. It reads on one thread: close to 100, it adds
    /// to the measured latency.
    pub tool_cpu_percent: f64,
}

/// CPU time per million deliveries.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct CpuPerMillion {
    /// User and system time, in seconds.
    pub total_s: f64,
    /// Time in user mode, in seconds.
    pub user_s: f64,
    /// Time in the kernel, in seconds.
    pub system_s: f64,
}

impl CpuPerMillion {
    /// Divides `cpu` by the number of deliveries. Returns `None` if there are none.
    pub fn new(cpu: Cpu, deliveries: u64) -> Option<Self> {
        let each = |seconds: f64| seconds * 1e6 / deliveries as f64;
        (deliveries > 0).then(|| Self {
            total_s: each(cpu.total_s()),
            user_s: each(cpu.user_s),
            system_s: each(cpu.system_s),
        })
    }
}

/// Quantiles of durations in ms.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Quantiles {
    /// Number of durations.
    pub count: u64,
    /// Median.
    pub p50_ms: f64,
    /// 90th percentile.
    pub p90_ms: f64,
    /// 99th percentile.
    pub p99_ms: f64,
    /// 99.9th percentile.
    pub p999_ms: f64,
    /// Maximum.
    pub max_ms: f64,
}

impl Quantiles {
    /// Computes the quantiles of a histogram in µs.
    pub fn new(us: &Histogram<u64>) -> Self {
        let at = |quantile| us.value_at_quantile(quantile) as f64 / 1000.0;
        Self {
            count: us.len(),
            p50_ms: at(0.5),
            p90_ms: at(0.9),
            p99_ms: at(0.99),
            p999_ms: at(0.999),
            max_ms: us.max() as f64 / 1000.0,
        }
    }
}

/// Recovery after all streams were disconnected.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Storm {
    /// Disconnected streams.
    pub cut: u64,
    /// Streams that received everything again in time.
    pub caught_up: u64,
    /// Time from the start of the reconnects until a stream had everything sent before it was
    /// reopened.
    pub caught_up_after: Quantiles,
    /// CPU of the server during the recovery, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_cpu_s: Option<f64>,
    /// CPU of Redis during the recovery, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redis_cpu_s: Option<f64>,
}

/// Streams that did not read for a while.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Stall {
    /// Number of streams that did not read.
    pub stalled: u64,
    /// Duration, in seconds.
    pub seconds: f64,
    /// Growth of the server's PSS during the stall per stalled stream, in bytes. Includes what the
    /// server stores for all streams in that time, such as a history.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_bytes: Option<u64>,
    /// Streams that the server closed or that broke, until the end of the load.
    pub broken: u64,
}

/// Search for the highest sustainable rate.
#[derive(Clone, Debug, Serialize)]
pub struct Search {
    /// Highest sustained rate in broadcasts per second; 0 if there was none.
    pub highest_rate: f64,
    /// Rates tried.
    pub steps: Vec<Step>,
}

/// Results at one rate.
#[derive(Clone, Debug, Serialize)]
pub struct Step {
    /// Broadcasts per second.
    pub rate: f64,
    /// Deliveries per second.
    pub deliveries_per_s: f64,
    /// p99 latency in ms.
    pub p99_ms: f64,
    /// CPU of the server per million deliveries, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_cpu_s_per_million: Option<f64>,
    /// CPU of this tool as a percentage of one core. Close to 100, the tool is the bottleneck, not
    /// the server.
    pub tool_cpu_percent: f64,
    /// Reason why the rate was not sustained.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fell_behind: Option<String>,
}

/// Counters of the streams.
#[derive(Clone, Debug, Serialize)]
pub struct Streams {
    /// Streams open at the end.
    pub held: u32,
    /// Streams opened, including reconnects.
    pub opened: u64,
    /// Streams opened with a last event id.
    pub resumed: u64,
    /// Streams that ended without a request of this tool.
    #[serde(flatten)]
    pub breaks: Breaks,
    /// Refused attempts, by status and the gateway's error code (`401 ticket-expired`), or by the
    /// reason of `sse.busy` (`busy: full`). A stream may be refused several times: `held` shows how
    /// many streams were open.
    pub refused: Counts,
    /// Code and message of the first refusal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_refusal: Option<String>,
    /// Failed attempts and broken streams, by error.
    pub failed: Counts,
    /// Streams closed by the server, by reason.
    pub ended: Counts,
}

/// Streams that ended without a request of this tool, during the whole run. A stream that breaks
/// twice counts twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Breaks {
    /// Open streams that broke or that the server closed.
    pub broken: u64,
    /// Those that were opened again before the end.
    pub reopened: u64,
}

impl Breaks {
    /// Copies the counters of a run.
    pub fn new(stats: &Stats) -> Self {
        Self { broken: stats.broken.get(), reopened: stats.reopened.get() }
    }

    /// Returns what was counted since `earlier`.
    pub fn since(self, earlier: Self) -> Self {
        Self { broken: self.broken - earlier.broken, reopened: self.reopened - earlier.reopened }
    }
}

impl std::iter::Sum for Breaks {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, one| Self {
            broken: sum.broken + one.broken,
            reopened: sum.reopened + one.reopened,
        })
    }
}

impl Streams {
    /// Copies the counters of a run.
    pub fn new(stats: &Stats) -> Self {
        Self {
            held: stats.held.get(),
            opened: stats.opened.get(),
            resumed: stats.resumed.get(),
            breaks: Breaks::new(stats),
            refused: stats.refused.borrow().clone(),
            first_refusal: stats.first_refusal.borrow().clone(),
            failed: stats.failed.borrow().clone(),
            ended: stats.ended.borrow().clone(),
        }
    }
}

impl Report {
    /// Compares the results with the thresholds and sets `violations`.
    pub fn check_thresholds(&mut self, limits: &Thresholds) {
        let mut found = Vec::new();
        let mut at_most = |what: &str, value: Option<f64>, limit: Option<f64>| match (value, limit)
        {
            (Some(value), Some(limit)) if value > limit => {
                found.push(format!("{what}: {value:.3}, allowed {limit:.3}"))
            }
            (None, Some(_)) => found.push(format!("{what}: not measured")),
            _ => {}
        };
        // Without expected deliveries nothing was verified: a server that receives nothing loses
        // nothing.
        let load = self.load.as_ref().filter(|load| load.expected > 0);
        let whole = |limit: Option<u64>| limit.map(|limit| limit as f64);
        let ms =
            |limit: Option<std::time::Duration>| limit.map(|limit| limit.as_secs_f64() * 1000.0);
        let unpublished =
            self.load.as_ref().map(|load| (load.published.failed + load.published.unsent) as f64);
        at_most("not published", unpublished, whole(limits.max_unpublished));
        at_most("lost", load.map(|load| load.lost as f64), whole(limits.max_lost));
        at_most("duplicated", load.map(|load| load.doubled as f64), whole(limits.max_doubled));
        at_most(
            "out of order",
            load.map(|load| load.out_of_order as f64),
            whole(limits.max_out_of_order),
        );
        let gaps = self.load.as_ref().map(|load| load.gaps.values().sum::<u64>() as f64);
        at_most("gaps", gaps, whole(limits.max_gaps));
        let broken = Some(self.streams.breaks.broken as f64);
        at_most("broken streams", broken, whole(limits.max_broken));
        let timed = load.filter(|load| load.latency.count > 0);
        at_most("p99 latency, ms", timed.map(|load| load.latency.p99_ms), ms(limits.max_p99));
        let caught_up = self.storm.as_ref().map(|storm| {
            if storm.caught_up < storm.cut { f64::INFINITY } else { storm.caught_up_after.max_ms }
        });
        at_most("time to catch up, ms", caught_up, ms(limits.max_caught_up));
        let cpu = load.and_then(|load| load.server_cpu).map(|cpu| cpu.total_s);
        at_most("server CPU per million deliveries, s", cpu, limits.max_cpu_per_million);
        let bytes = self
            .memory
            .as_ref()
            .and_then(|memory| memory.server_bytes_per_idle_stream)
            .map(|bytes| bytes as f64);
        at_most("server memory per idle stream, bytes", bytes, whole(limits.max_bytes_per_stream));
        if let Some(limit) = limits.min_held.filter(|limit| self.streams.held < *limit) {
            found.push(format!("streams open at the end: {}, required {limit}", self.streams.held));
        }
        self.violations = found;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(expected: u64, lost: u64) -> Report {
        let load = Load {
            published: Outcome { unsent: 2, ..Outcome::default() },
            seconds: 1.0,
            drained_s: 0.0,
            expected,
            delivered: expected - lost,
            replayed: 0,
            lost,
            doubled: 0,
            out_of_order: 0,
            foreign: 0,
            gaps: Counts::new(),
            deliveries_per_s: 0.0,
            latency: Quantiles::default(),
            server_cpu: None,
            redis_cpu_s: None,
            tool_cpu_s: 0.0,
            tool_cpu_percent: 0.0,
        };
        Report {
            scenario: "broadcast",
            url: String::new(),
            protocol: Protocol::Http1,
            payload_bytes: 256,
            connect: None,
            memory: None,
            held: None,
            load: Some(load),
            storm: None,
            stall: None,
            search: None,
            streams: Streams::new(&Stats::new()),
            violations: Vec::new(),
            failure: None,
        }
    }

    fn violations(mut report: Report, limits: &Thresholds) -> Vec<String> {
        report.check_thresholds(limits);
        report.violations
    }

    #[test]
    fn unmeasured_figures_fail_their_thresholds() {
        let limits = Thresholds {
            max_lost: Some(0),
            max_p99: Some(std::time::Duration::from_secs(1)),
            max_cpu_per_million: Some(10.0),
            ..Thresholds::default()
        };
        let found = violations(report(0, 0), &limits);
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(found.iter().all(|line| line.ends_with("not measured")), "{found:?}");
    }

    #[test]
    fn exceeded_thresholds_are_reported() {
        let limits =
            Thresholds { max_lost: Some(2), max_unpublished: Some(1), ..Thresholds::default() };
        assert_eq!(violations(report(10, 2), &limits), ["not published: 2.000, allowed 1.000"]);
        assert_eq!(violations(report(10, 3), &limits).len(), 2);
    }

    #[test]
    fn unfinished_recovery_fails_the_catch_up_threshold() {
        let limits = Thresholds {
            max_caught_up: Some(std::time::Duration::from_secs(9)),
            ..Thresholds::default()
        };
        let storm = |caught_up| Storm {
            cut: 10,
            caught_up,
            caught_up_after: Quantiles::default(),
            server_cpu_s: None,
            redis_cpu_s: None,
        };
        assert_eq!(
            violations(Report { storm: Some(storm(10)), ..report(10, 0) }, &limits).len(),
            0
        );
        assert_eq!(violations(Report { storm: Some(storm(9)), ..report(10, 0) }, &limits).len(), 1);
    }
}

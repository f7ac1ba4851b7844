//! What a run found, as JSON and against the thresholds.

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::args::Thresholds;
use crate::publisher::Outcome;
use crate::stats::{Counts, Stats};
use crate::target::Protocol;
use crate::usage::Cpu;

/// All that a run found. Units are in the names; what could not be read is absent.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The scenario's name.
    pub scenario: &'static str,
    /// The server.
    pub url: String,
    /// How the bytes went.
    pub protocol: Protocol,
    /// Size of a payload.
    pub payload_bytes: usize,
    /// How the streams were opened; absent: not all of them were.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect: Option<Connect>,
    /// What the server's processes and the kernel held, likewise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<Memory>,
    /// What it costs to hold the streams (idle).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held: Option<IdleCost>,
    /// What was published and what arrived.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load: Option<Load>,
    /// How it went for those that were cut.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storm: Option<Storm>,
    /// The search for the highest rate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub search: Option<Search>,
    /// What happened to the streams.
    pub streams: Streams,
    /// Thresholds that were passed, in words; the first may say that not all streams were opened.
    pub violations: Vec<String>,
    /// Why there was no run: not one stream could be opened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

/// How the streams were opened.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Connect {
    /// How many.
    pub streams: u32,
    /// From the first to the last.
    pub seconds: f64,
    /// Opened a second.
    pub per_second: f64,
    /// CPU of the server per 1,000 of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_cpu_s_per_1000: Option<f64>,
}

/// What the server's processes and the kernel held. PSS is the proportional set size of all processes under test. What it grew by is
/// right only for a server that was just started: what an earlier run left behind is used again.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Memory {
    /// PSS before the first stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_bytes_empty: Option<u64>,
    /// What PSS grew by for each idle stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_bytes_per_idle_stream: Option<u64>,
    /// The same after the load.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_bytes_per_loaded_stream: Option<u64>,
    /// What the kernel's slab and TCP buffers grew by for each idle stream: on loopback both ends.
    pub kernel_bytes_per_stream: u64,
    /// What this tool's own (anonymous) memory grew by for each stream.
    pub tool_bytes_per_stream: u64,
}

/// What it costs to hold streams to which nothing is published: heartbeats, sessions.
#[derive(Clone, Debug, Serialize)]
pub struct IdleCost {
    /// How long.
    pub seconds: f64,
    /// CPU of the server, ms a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_cpu_ms_per_s: Option<f64>,
    /// CPU of Redis, ms a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redis_cpu_ms_per_s: Option<f64>,
}

/// What was published and what arrived.
#[derive(Clone, Debug, Serialize)]
pub struct Load {
    /// The publisher's side.
    pub published: Outcome,
    /// From its start to its end.
    pub seconds: f64,
    /// How long after it the last delivery came.
    pub drained_s: f64,
    /// Deliveries that were owed: every event to every stream that may see it.
    pub expected: u64,
    /// Owed ones that came.
    pub delivered: u64,
    /// Of those, what came after a reconnect from before it.
    pub replayed: u64,
    /// Owed ones that did not come, those of this run's earlier loads (slow-publish) included.
    pub lost: u64,
    /// What came once too often.
    pub doubled: u64,
    /// What came behind a later one.
    pub out_of_order: u64,
    /// What this run did not publish.
    pub foreign: u64,
    /// `sse.gap` by reason.
    pub gaps: Counts,
    /// Delivered a second, until the last delivery.
    pub deliveries_per_s: f64,
    /// From when an event was due until it was read; replayed ones aside.
    pub latency: Quantiles,
    /// CPU of the server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_cpu: Option<CpuPerMillion>,
    /// CPU of Redis, s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redis_cpu_s: Option<f64>,
    /// CPU of this tool, s.
    pub tool_cpu_s: f64,
    /// What that is of one core, percent. It reads on one thread: near 100 the latency is partly its own.
    pub tool_cpu_percent: f64,
}

/// CPU time per million deliveries.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct CpuPerMillion {
    /// Both together.
    pub total_s: f64,
    /// In its own code.
    pub user_s: f64,
    /// In the kernel for it.
    pub system_s: f64,
}

impl CpuPerMillion {
    /// `cpu` for so many deliveries, None for none.
    pub fn new(cpu: Cpu, deliveries: u64) -> Option<Self> {
        let each = |seconds: f64| seconds * 1e6 / deliveries as f64;
        (deliveries > 0).then(|| Self {
            total_s: each(cpu.total_s()),
            user_s: each(cpu.user_s),
            system_s: each(cpu.system_s),
        })
    }
}

/// Quantiles of times, ms.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Quantiles {
    /// How many.
    pub count: u64,
    /// Median.
    pub p50_ms: f64,
    /// 90 of 100 are below.
    pub p90_ms: f64,
    /// 99 of 100 are below.
    pub p99_ms: f64,
    /// 999 of 1000 are below.
    pub p999_ms: f64,
    /// The longest.
    pub max_ms: f64,
}

impl Quantiles {
    /// Of a histogram of µs.
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

/// How it went for those that were cut.
#[derive(Clone, Debug, Serialize)]
pub struct Storm {
    /// Streams that were cut.
    pub cut: u64,
    /// Streams that had everything again in time.
    pub caught_up: u64,
    /// From when they started to come back until one had all that was sent before it was open.
    pub caught_up_after: Quantiles,
    /// CPU of the server meanwhile, s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_cpu_s: Option<f64>,
}

/// The search for the highest rate.
#[derive(Clone, Debug, Serialize)]
pub struct Search {
    /// The highest rate that was kept up with, broadcasts a second; 0: none.
    pub highest_rate: f64,
    /// What was tried.
    pub steps: Vec<Step>,
}

/// One rate that was tried.
#[derive(Clone, Debug, Serialize)]
pub struct Step {
    /// Broadcasts a second.
    pub rate: f64,
    /// Deliveries a second.
    pub deliveries_per_s: f64,
    /// p99 of the latency.
    pub p99_ms: f64,
    /// CPU of the server per million deliveries.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_cpu_s_per_million: Option<f64>,
    /// What this tool used of one core, percent. Near 100 the tool is the limit, not the server.
    pub tool_cpu_percent: f64,
    /// Why it was not kept up with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fell_behind: Option<String>,
}

/// What happened to the streams.
#[derive(Clone, Debug, Serialize)]
pub struct Streams {
    /// Open in the end.
    pub held: u32,
    /// Opened, with those that came back.
    pub opened: u64,
    /// Opened with the id of a last event.
    pub resumed: u64,
    /// Attempts that were refused, by status and the gateway's code (`401 ticket-expired`), or by the reason of `sse.busy` (`busy: full`).
    /// One stream may be refused often: so many were not opened as are missing from `held`.
    pub refused: Counts,
    /// What the first of them was told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_refusal: Option<String>,
    /// Failed or broken, by error.
    pub failed: Counts,
    /// Ended by the server, by its reason.
    pub ended: Counts,
}

impl Streams {
    /// What was counted.
    pub fn new(stats: &Stats) -> Self {
        Self {
            held: stats.held.get(),
            opened: stats.opened.get(),
            resumed: stats.resumed.get(),
            refused: stats.refused.borrow().clone(),
            first_refusal: stats.first_refusal.borrow().clone(),
            failed: stats.failed.borrow().clone(),
            ended: stats.ended.borrow().clone(),
        }
    }
}

impl Report {
    /// Holds the report to the thresholds.
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
        // Where nothing was owed, nothing was shown: a server that is sent nothing loses nothing.
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
    fn what_was_not_measured_holds_no_threshold() {
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
    fn what_is_past_its_threshold_is_named() {
        let limits =
            Thresholds { max_lost: Some(2), max_unpublished: Some(1), ..Thresholds::default() };
        assert_eq!(violations(report(10, 2), &limits), ["not published: 2.000, allowed 1.000"]);
        assert_eq!(violations(report(10, 3), &limits).len(), 2);
    }

    #[test]
    fn a_storm_that_did_not_end_is_no_fast_storm() {
        let limits = Thresholds {
            max_caught_up: Some(std::time::Duration::from_secs(9)),
            ..Thresholds::default()
        };
        let storm = |caught_up| Storm {
            cut: 10,
            caught_up,
            caught_up_after: Quantiles::default(),
            server_cpu_s: None,
        };
        assert_eq!(
            violations(Report { storm: Some(storm(10)), ..report(10, 0) }, &limits).len(),
            0
        );
        assert_eq!(violations(Report { storm: Some(storm(9)), ..report(10, 0) }, &limits).len(), 1);
    }
}

//! What a run found: as a table, as JSON, and against the thresholds.

use std::fmt::Write;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::args::Thresholds;
use crate::publisher::Outcome;
use crate::readings::Cpu;
use crate::tally::{Counts, Tally};
use crate::target::Protocol;

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
    /// How the streams were opened.
    pub connect: Connect,
    /// What the server's processes and the kernel held.
    pub memory: Memory,
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
    /// Thresholds that were passed, in words.
    pub violations: Vec<String>,
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

/// What the server's processes and the kernel held. PSS is the proportional set size of all processes under test.
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
    /// What this tool's own PSS grew by for each stream.
    pub tool_bytes_per_stream: u64,
}

/// What was published and what arrived.
#[derive(Clone, Debug, Serialize)]
pub struct Load {
    /// The publisher's side.
    pub published: Outcome,
    /// From its start to its end.
    pub seconds: f64,
    /// How long the last ones took after it.
    pub drained_s: f64,
    /// Deliveries that were owed: every event to every stream that may see it.
    pub expected: u64,
    /// Owed ones that came.
    pub delivered: u64,
    /// Of those, what came after a reconnect from before it.
    pub replayed: u64,
    /// Owed ones that did not come.
    pub lost: u64,
    /// What came once too often.
    pub doubled: u64,
    /// What came behind a later one.
    pub out_of_order: u64,
    /// What this run did not publish.
    pub foreign: u64,
    /// `sse.gap` by reason.
    pub gaps: Counts,
    /// Delivered a second.
    pub deliveries_per_s: f64,
    /// From when an event was due until it was read; replayed ones aside.
    pub latency: Times,
    /// CPU of the server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_cpu: Option<PerMillion>,
    /// CPU of Redis, s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redis_cpu_s: Option<f64>,
    /// CPU of this tool, s.
    pub tool_cpu_s: f64,
}

/// CPU time per million deliveries.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct PerMillion {
    /// Both together.
    pub total_s: f64,
    /// In its own code.
    pub user_s: f64,
    /// In the kernel for it.
    pub system_s: f64,
}

impl PerMillion {
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
pub struct Times {
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

impl Times {
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
    pub caught_up_after: Times,
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
    /// Refused, by status.
    pub refused: Counts,
    /// Failed or broken, by error.
    pub failed: Counts,
    /// Ended by the server, by its reason.
    pub ended: Counts,
}

impl Streams {
    /// What was counted.
    pub fn new(tally: &Tally) -> Self {
        Self {
            held: tally.held.get(),
            opened: tally.opened.get(),
            resumed: tally.resumed.get(),
            refused: tally.refused.borrow().clone(),
            failed: tally.failed.borrow().clone(),
            ended: tally.ended.borrow().clone(),
        }
    }
}

impl Report {
    /// Holds the report to the thresholds.
    pub fn judge(&mut self, limits: &Thresholds) {
        let mut found = Vec::new();
        let mut at_most = |what: &str, value: Option<f64>, limit: Option<f64>| match (value, limit) {
            (Some(value), Some(limit)) if value > limit => {
                found.push(format!("{what}: {value:.3}, allowed {limit:.3}"))
            }
            (None, Some(_)) => found.push(format!("{what}: not measured")),
            _ => {}
        };
        let load = self.load.as_ref();
        let whole = |limit: Option<u64>| limit.map(|limit| limit as f64);
        let ms = |limit: Option<std::time::Duration>| limit.map(|limit| limit.as_secs_f64() * 1000.0);
        at_most("lost", load.map(|load| load.lost as f64), whole(limits.max_lost));
        at_most("doubled", load.map(|load| load.doubled as f64), whole(limits.max_doubled));
        at_most("out of order", load.map(|load| load.out_of_order as f64), whole(limits.max_out_of_order));
        at_most("gaps", load.map(|load| load.gaps.values().sum::<u64>() as f64), whole(limits.max_gaps));
        at_most("p99, ms", load.map(|load| load.latency.p99_ms), ms(limits.max_p99));
        let caught_up = self
            .storm
            .as_ref()
            .map(|storm| if storm.caught_up < storm.cut { f64::INFINITY } else { storm.caught_up_after.max_ms });
        at_most("caught up after, ms", caught_up, ms(limits.max_caught_up));
        let cpu = load.and_then(|load| load.server_cpu).map(|cpu| cpu.total_s);
        at_most("server CPU-s per million deliveries", cpu, limits.max_cpu_per_million);
        let bytes = self.memory.server_bytes_per_idle_stream.map(|bytes| bytes as f64);
        at_most("server bytes per idle stream", bytes, whole(limits.max_bytes_per_stream));
        if let Some(limit) = limits.min_held.filter(|limit| self.streams.held < *limit) {
            found.push(format!("held: {}, wanted {limit}", self.streams.held));
        }
        self.violations = found;
    }

    /// The report for people.
    pub fn table(&self) -> String {
        let mut rows = Rows::default();
        rows.add(self.scenario, &format!("{} ({:?}), payload {} bytes", self.url, self.protocol, self.payload_bytes));
        let connect = &self.connect;
        let cpu = connect
            .server_cpu_s_per_1000
            .map(|cpu| format!(", {cpu:.3} CPU-s of the server per 1,000"))
            .unwrap_or_default();
        rows.add(
            "connect",
            &format!("{} in {:.2} s, {:.0}/s{cpu}", connect.streams, connect.seconds, connect.per_second),
        );
        let memory = &self.memory;
        if let (Some(empty), Some(idle)) = (memory.server_bytes_empty, memory.server_bytes_per_idle_stream) {
            let loaded = memory
                .server_bytes_per_loaded_stream
                .map(|bytes| format!(", loaded {}", kib(bytes)))
                .unwrap_or_default();
            rows.add("server memory (PSS)", &format!("{} per idle stream{loaded}; empty {}", kib(idle), kib(empty)));
        }
        let both = "(on loopback both ends)";
        rows.add(
            "kernel memory",
            &format!(
                "{} per stream {both}; this tool {}",
                kib(memory.kernel_bytes_per_stream),
                kib(memory.tool_bytes_per_stream)
            ),
        );
        if let Some(load) = &self.load {
            load.rows(&mut rows);
        }
        if let Some(storm) = &self.storm {
            let cpu = storm.server_cpu_s.map(|cpu| format!(", {cpu:.2} CPU-s of the server")).unwrap_or_default();
            rows.add("storm", &format!("{} cut, {} caught up{cpu}", storm.cut, storm.caught_up));
            rows.add("caught up after", &storm.caught_up_after.text());
        }
        if let Some(search) = &self.search {
            for step in &search.steps {
                let verdict = step.fell_behind.as_deref().unwrap_or("kept up");
                let tool = format!("this tool {:.0} % of a core", step.tool_cpu_percent);
                rows.add(
                    &format!("{:.1}/s", step.rate),
                    &format!("{:.0} deliveries/s, p99 {:.1} ms, {tool}: {verdict}", step.deliveries_per_s, step.p99_ms),
                );
            }
            rows.add("highest rate kept up with", &format!("{:.1}/s", search.highest_rate));
        }
        let streams = &self.streams;
        rows.add("streams", &format!("{} held, {} opened, {} resumed", streams.held, streams.opened, streams.resumed));
        for (what, counts) in
            [("refused", &streams.refused), ("failed", &streams.failed), ("ended by the server", &streams.ended)]
        {
            if !counts.is_empty() {
                rows.add(what, &list(counts));
            }
        }
        for violation in &self.violations {
            rows.add("NOT HELD", violation);
        }
        rows.0
    }
}

impl Load {
    fn rows(&self, rows: &mut Rows) {
        let failed = match &self.published.last_failure {
            Some(error) => format!(", {} failed ({error})", self.published.failed),
            None => String::new(),
        };
        let lag = self.published.max_lag_ms;
        rows.add(
            "published",
            &format!("{} in {:.1} s, at the most {lag} ms late{failed}", self.published.published, self.seconds),
        );
        let rest = format!("{} out of order, {} foreign", self.out_of_order, self.foreign);
        rows.add("expected", &self.expected.to_string());
        rows.add(
            "delivered",
            &format!(
                "{} ({} replayed), {:.0}/s, the last {:.2} s after the end",
                self.delivered, self.replayed, self.deliveries_per_s, self.drained_s
            ),
        );
        rows.add("lost", &format!("{}; {} doubled, {rest}", self.lost, self.doubled));
        if !self.gaps.is_empty() {
            rows.add("gaps told", &list(&self.gaps));
        }
        rows.add("latency", &self.latency.text());
        if let Some(cpu) = self.server_cpu {
            rows.add(
                "server CPU",
                &format!(
                    "{:.2} s per million deliveries ({:.2} user, {:.2} system)",
                    cpu.total_s, cpu.user_s, cpu.system_s
                ),
            );
        }
        let redis = self.redis_cpu_s.map(|cpu| format!("Redis {cpu:.2} s, ")).unwrap_or_default();
        rows.add("other CPU", &format!("{redis}this tool {:.2} s", self.tool_cpu_s));
    }
}

impl Times {
    fn text(&self) -> String {
        format!(
            "p50 {:.1}, p90 {:.1}, p99 {:.1}, p99.9 {:.1}, max {:.1} ms",
            self.p50_ms, self.p90_ms, self.p99_ms, self.p999_ms, self.max_ms
        )
    }
}

/// Names to the right of their column, values to the left of theirs.
#[derive(Default)]
struct Rows(String);

impl Rows {
    fn add(&mut self, name: &str, value: &str) {
        let _ = writeln!(self.0, "{name:>25}  {value}");
    }
}

fn list(counts: &Counts) -> String {
    let mut text = String::new();
    for (name, count) in counts {
        let _ = write!(text, "{}{count} {name}", if text.is_empty() { "" } else { ", " });
    }
    text
}

fn kib(bytes: u64) -> String {
    format!("{:.1} KiB", bytes as f64 / 1024.0)
}

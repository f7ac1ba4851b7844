//! Report as a table for people.

use std::fmt::Write;

use crate::report::{Breaks, Connect, Load, Memory, Quantiles, Report};
use crate::stats::Counts;

/// CPU percentage of one core above which this tool adds to the measured latency.
const BUSY_PERCENT: f64 = 80.0;

impl Report {
    /// Formats the report as a table.
    pub fn table(&self) -> String {
        let mut rows = Rows::default();
        rows.add(
            self.scenario,
            &format!("{} ({:?}), payload {} bytes", self.url, self.protocol, self.payload_bytes),
        );
        if let Some(connect) = &self.connect {
            connect.rows(&mut rows);
        }
        if let Some(memory) = &self.memory {
            memory.rows(&mut rows);
        }
        if let Some(held) = &self.held {
            let cpu = |name: &str, ms: Option<f64>| {
                ms.map(|ms| format!(", {name} CPU {ms:.1} ms/s")).unwrap_or_default()
            };
            let (server, redis) =
                (cpu("server", held.server_cpu_ms_per_s), cpu("Redis", held.redis_cpu_ms_per_s));
            rows.add("idle for", &format!("{:.1} s{server}{redis}", held.seconds));
        }
        match &self.load {
            Some(load) => load.rows(&mut rows, self.streams.breaks),
            None => self.streams.breaks.rows(&mut rows),
        }
        if let Some(storm) = &self.storm {
            let cpu = |name: &str, seconds: Option<f64>| {
                seconds.map(|seconds| format!(", {name} CPU {seconds:.2} s")).unwrap_or_default()
            };
            let (server, redis) =
                (cpu("server", storm.server_cpu_s), cpu("Redis", storm.redis_cpu_s));
            rows.add(
                "storm",
                &format!(
                    "{} disconnected, {} caught up{server}{redis}",
                    storm.cut, storm.caught_up
                ),
            );
            rows.add("time to catch up", &storm.caught_up_after.text());
        }
        if let Some(stall) = &self.stall {
            let memory = stall
                .server_bytes
                .map(|bytes| format!(", server memory {} each", kib(bytes)))
                .unwrap_or_default();
            rows.add(
                "stalled",
                &format!(
                    "{} streams for {:.1} s{memory}; {} streams broke",
                    stall.stalled, stall.seconds, stall.broken
                ),
            );
        }
        if let Some(search) = &self.search {
            for step in &search.steps {
                let verdict = step.fell_behind.as_deref().unwrap_or("sustained");
                let tool = format!("loadtest CPU {:.0} % of a core", step.tool_cpu_percent);
                rows.add(
                    &format!("{:.1}/s", step.rate),
                    &format!(
                        "{:.0} deliveries/s, p99 {:.1} ms, {tool}: {verdict}",
                        step.deliveries_per_s, step.p99_ms
                    ),
                );
            }
            rows.add("highest sustainable rate", &format!("{:.1}/s", search.highest_rate));
        }
        let streams = &self.streams;
        rows.add(
            "streams",
            &format!(
                "{} open at the end, {} opened, {} resumed",
                streams.held, streams.opened, streams.resumed
            ),
        );
        for (what, counts) in [
            ("refused", &streams.refused),
            ("failed", &streams.failed),
            ("ended by the server", &streams.ended),
        ] {
            if !counts.is_empty() {
                rows.add(what, &list(counts));
            }
        }
        if let Some(first) = &streams.first_refusal {
            rows.add("first refusal", first);
        }
        for violation in &self.violations {
            rows.add("FAILED", violation);
        }
        rows.0
    }
}

impl Connect {
    fn rows(&self, rows: &mut Rows) {
        let cpu = self
            .server_cpu_s_per_1000
            .map(|cpu| format!(", server CPU {cpu:.3} s per 1,000"))
            .unwrap_or_default();
        rows.add(
            "connect",
            &format!("{} in {:.2} s, {:.0}/s{cpu}", self.streams, self.seconds, self.per_second),
        );
    }
}

impl Memory {
    fn rows(&self, rows: &mut Rows) {
        if let (Some(empty), Some(idle)) =
            (self.server_bytes_empty, self.server_bytes_per_idle_stream)
        {
            let loaded = self
                .server_bytes_per_loaded_stream
                .map(|bytes| format!(", loaded {}", kib(bytes)))
                .unwrap_or_default();
            rows.add(
                "server memory (PSS)",
                &format!("{} per idle stream{loaded}; empty {}", kib(idle), kib(empty)),
            );
        }
        let both = "(both ends on loopback)";
        rows.add(
            "kernel memory",
            &format!(
                "{} per stream {both}; loadtest {} per stream",
                kib(self.kernel_bytes_per_stream),
                kib(self.tool_bytes_per_stream)
            ),
        );
    }
}

impl Breaks {
    fn rows(self, rows: &mut Rows) {
        rows.add("broken streams", &format!("{}; {} reopened", self.broken, self.reopened));
    }
}

impl Load {
    fn rows(&self, rows: &mut Rows, breaks: Breaks) {
        let failed = match &self.published.last_failure {
            Some(error) => format!(", {} failed ({error})", self.published.failed),
            None => String::new(),
        };
        let unsent = match self.published.unsent {
            0 => String::new(),
            unsent => format!(", {unsent} not sent in time"),
        };
        let lag = self.published.max_lag_ms;
        rows.add(
            "published",
            &format!(
                "{} in {:.1} s, maximum lag {lag} ms{unsent}{failed}",
                self.published.published, self.seconds
            ),
        );
        let rest = format!("{} out of order, {} foreign", self.out_of_order, self.foreign);
        rows.add("expected", &self.expected.to_string());
        rows.add(
            "delivered",
            &format!(
                "{} ({} replayed), {:.0}/s, last one {:.2} s after the end",
                self.delivered, self.replayed, self.deliveries_per_s, self.drained_s
            ),
        );
        rows.add("lost", &format!("{}; {} duplicated, {rest}", self.lost, self.doubled));
        breaks.rows(rows);
        if !self.gaps.is_empty() {
            rows.add("gaps", &list(&self.gaps));
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
        let busy = if self.tool_cpu_percent > BUSY_PERCENT {
            ": this adds to the measured latency"
        } else {
            ""
        };
        rows.add(
            "other CPU",
            &format!(
                "{redis}loadtest {:.2} s ({:.0} % of a core{busy})",
                self.tool_cpu_s, self.tool_cpu_percent
            ),
        );
    }
}

impl Quantiles {
    fn text(&self) -> String {
        format!(
            "p50 {:.1}, p90 {:.1}, p99 {:.1}, p99.9 {:.1}, max {:.1} ms",
            self.p50_ms, self.p90_ms, self.p99_ms, self.p999_ms, self.max_ms
        )
    }
}

/// Rows with right-aligned names and left-aligned values.
#[derive(Default)]
struct Rows(String);

impl Rows {
    fn add(&mut self, name: &str, value: &str) {
        let _ = writeln!(self.0, "{name:>25}  {value}");
    }
}

/// Formats counts as `3 x one, 2 x another`, or `none`.
pub fn list(counts: &Counts) -> String {
    let each: Vec<String> =
        counts.iter().map(|(name, count)| format!("{count} x {name}")).collect();
    if each.is_empty() { "none".to_owned() } else { each.join(", ") }
}

fn kib(bytes: u64) -> String {
    format!("{:.1} KiB", bytes as f64 / 1024.0)
}

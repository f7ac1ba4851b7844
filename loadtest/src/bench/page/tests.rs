use super::*;
use crate::bench::machine::Machine;
use crate::bench::servers::GATEWAY;
use crate::bench::{QUICK, Size};
use crate::report::{Connect, Memory, Quantiles};
use crate::usage::Cpu;

fn point(streams: u32, cpu_s: f64, p99_ms: f64, lost: u64) -> ScalePoint {
    let load = Load {
        published: Default::default(),
        seconds: 1.0,
        drained_s: 0.0,
        expected: 1_000_000,
        delivered: 1_000_000,
        replayed: 0,
        lost,
        doubled: 0,
        out_of_order: 0,
        foreign: 0,
        gaps: Default::default(),
        deliveries_per_s: 1e6,
        latency: Quantiles { p99_ms, ..Quantiles::default() },
        server_cpu: CpuPerMillion::new(Cpu { user_s: cpu_s, system_s: 0.0 }, 1_000_000),
        redis_cpu_s: None,
        tool_cpu_s: 0.0,
        tool_cpu_percent: 0.0,
    };
    let memory = Memory { server_bytes_per_idle_stream: Some(10_240), ..Memory::default() };
    ScalePoint { streams, rate: 10.0, connect: Connect::default(), memory, load: Some(load) }
}

/// Returns results with the gateway's CPU in three rounds. That of the yardstick is 6 s, 12 s,
/// 6 s.
pub fn results(gateway: &[f64; 3], lost: u64) -> Results {
    let server = |name, cpu: &[f64; 3], p99_ms| ServerResults {
        name,
        what: "a server",
        version: "1".to_owned(),
        start: "server",
        command: "loadtest".to_owned(),
        rounds: cpu
            .iter()
            .map(|cpu| vec![point(1000, *cpu, 1.0, lost), point(5000, cpu * 2.0, p99_ms, lost)])
            .collect(),
    };
    Results {
        machine: Machine::read(),
        size: Size { rounds: 3, ..QUICK },
        // The machine was half as fast in the second round: the ratio is the same in all
        // rounds.
        servers: vec![server(GATEWAY, gateway, 99.0), server(YARDSTICK, &[6.0, 12.0, 6.0], 101.0)],
        absent: vec![("mercure".to_owned(), "not on the PATH".to_owned())],
        seconds: 60,
    }
}

#[test]
fn page_lists_medians_ratios_and_absent_servers() {
    let page = page(&results(&[6.0, 12.0, 6.3], 1));
    for text in [
        "## 5,000 streams",
        "| CPU per million deliveries, s | 12.60 (12.00–24.00) | 12.00 (12.00–24.00) |",
        "| — times plain-actix | 1.00 (1.00–1.05) | 1.00 (1.00–1.00) |",
        "| PSS per idle stream, KiB | 10.0 (10.0–10.0) | 10.0 (10.0–10.0) |",
        "| CPU of Redis per million deliveries, s (additional) | – | – |",
        "| Lost | 6 | 6 |",
        "| Rounds that fell behind | 0 of 3 | 3 of 3 |",
        "| sse-gateway | 6.30 (6.00–12.00) | 12.60 (12.00–24.00) |",
        "- mercure: not on the PATH",
    ] {
        assert!(page.contains(text), "{text:?} is missing from\n{page}");
    }
    assert!(!page.contains("Quick run"));
}

#[test]
fn committed_page_contains_the_texts_of_this_tool() {
    let committed = include_str!("../../../../docs/benchmarks.md");
    for text in [TABLE_NOTES, PLOTS, INSTALL, NOT_COMPARABLE, METHOD] {
        assert!(committed.contains(text), "docs/benchmarks.md lacks {text:?}");
    }
    let names = METRICS.iter().map(|metric| format!("\n| {} |", metric.name));
    let missing: Vec<String> = names.filter(|name| !committed.contains(name)).collect();
    assert!(missing.is_empty(), "docs/benchmarks.md lacks {missing:?}");
}

#[test]
fn summary_table_has_aligned_columns() {
    let summary = summary(&results(&[6.0, 12.0, 6.3], 1));
    let lines: Vec<&str> = summary.lines().filter(|line| line.contains("(12.00–24.00)")).collect();
    assert_eq!(lines.len(), 2, "{summary}");
    assert_eq!(lines[0].chars().count(), lines[1].chars().count());
    assert!(summary.contains("not measured: mercure: not on the PATH"));
}

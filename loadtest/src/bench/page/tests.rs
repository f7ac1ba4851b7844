use std::collections::BTreeMap;

use super::*;
use crate::bench::machine::Machine;
use crate::bench::results::{Failure, ScenarioRun};
use crate::bench::servers::{GATEWAY, PLAIN_ACTIX};
use crate::report::{Breaks, Connect, CpuPerMillion, Memory, Quantiles, Stall, Storm};
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
    let connect = Connect::default();
    ScalePoint {
        streams,
        rate: 10.0,
        connect,
        memory,
        load: Some(load),
        low_rate: None,
        breaks: None,
    }
}

/// Returns results with the gateway's CPU in three rounds. That of the yardstick is 6 s, 12 s,
/// 6 s.
pub fn results(gateway: &[f64; 3], lost: u64) -> Results {
    let server = |name, cpu: &[f64; 3], p99_ms| ServerResults {
        name: str::to_owned(name),
        what: "a server".to_owned(),
        version: "1".to_owned(),
        start: "server".to_owned(),
        commands: Default::default(),
        unsupported: Default::default(),
        scenarios: Default::default(),
        command: "loadtest".to_owned(),
        rounds: cpu
            .iter()
            .map(|cpu| vec![point(1000, *cpu, 1.0, lost), point(5000, cpu * 2.0, p99_ms, lost)])
            .collect(),
    };
    Results {
        machine: Machine::read(),
        size: Size { rounds: 3, ..Size::quick() },
        // The machine was half as fast in the second round: the ratio is the same in all
        // rounds.
        servers: vec![
            server(GATEWAY, gateway, 99.0),
            server(PLAIN_ACTIX, &[6.0, 12.0, 6.0], 101.0),
        ],
        absent: vec![("mercure".to_owned(), "not on the PATH".to_owned())],
        failed: Vec::new(),
        seconds: 60,
    }
}

#[test]
fn page_lists_medians_ratios_and_absent_servers() {
    let page = page(&results(&[6.0, 12.0, 6.3], 1));
    for text in [
        "## 5,000 streams",
        // Neither leads after losing events.
        "| CPU per million deliveries at 10/s, s | 12.60 (12.00–24.00) | 12.00 (12.00–24.00) |",
        // Equal values share the lead.
        "| PSS per idle stream, KiB | **10.0 (10.0–10.0)** | **10.0 (10.0–10.0)** |",
        // Rows without figures are not in the table.
        "- Rows without any figure in this run: CPU per million deliveries at 2/s, s;",
        "| CPU per million deliveries at 10/s, s | plain-actix | 1.00 (1.00–1.05) | 1.00 | yes |",
        "| Lost | 6 | 6 |",
        "| Rounds that fell behind | 0 of 3 | 3 of 3 |",
        "| sse-gateway | 6.30 (6.00–12.00) | 12.60 (12.00–24.00) |",
        "- mercure: not on the PATH",
    ] {
        assert!(page.contains(text), "{text:?} is missing from\n{page}");
    }
    assert!(!page.contains("Quick run"));
}

/// `loadtest bench` writes both files; `loadtest bench --render` writes the page again.
#[test]
fn committed_page_is_rendered_from_committed_results() {
    let json = include_str!("../../../../docs/benchmarks.json");
    let results: Results = serde_json::from_str(json).unwrap();
    let committed = include_str!("../../../../docs/benchmarks.md");
    assert!(page(&results) == committed, "run `loadtest bench --render --out docs`");
}

#[test]
fn page_names_leaders_gaps_and_failures_of_scenarios() {
    let run = |cpu_s: f64, lost: u64| ScenarioRun {
        load: Some(Load { lost, ..point(1, cpu_s, 1.0, 0).load.unwrap() }),
        ..ScenarioRun::default()
    };
    let storm = |seconds: f64, caught_up: u64| ScenarioRun {
        storm: Some(Storm {
            cut: 10,
            caught_up,
            caught_up_after: Quantiles { max_ms: seconds * 1000.0, ..Quantiles::default() },
            server_cpu_s: Some(seconds),
            redis_cpu_s: None,
        }),
        ..ScenarioRun::default()
    };
    let stall = |broken| ScenarioRun {
        stall: Some(Stall { stalled: 5, seconds: 1.0, server_bytes: Some(2048), broken }),
        ..ScenarioRun::default()
    };
    let mut results = results(&[6.0, 12.0, 6.3], 0);
    results.servers[0].scenarios = BTreeMap::from([
        (Workload::Users, vec![run(3.0, 0), run(5.0, 0), run(4.0, 0)]),
        (Workload::Storm, vec![storm(2.0, 10), storm(4.0, 10)]),
        (Workload::Stalled, vec![stall(0)]),
    ]);
    results.servers[1].scenarios = BTreeMap::from([
        (Workload::Users, vec![run(2.0, 0), run(2.0, 0), run(9.0, 0)]),
        (Workload::Storm, vec![storm(1.0, 9)]),
        (Workload::Stalled, vec![stall(1)]),
    ]);
    results.servers[1].unsupported =
        BTreeMap::from([(Workload::Idle, "it never sleeps".to_owned())]);
    results.failed.push(Failure {
        server: "plain-actix".to_owned(),
        workload: Workload::Storm,
        round: 2,
        reason: "it stopped".to_owned(),
    });
    let text = page(&results);
    for expected in [
        // The yardstick fell behind, so its CPU cannot be compared.
        "| CPU per million deliveries at 10/s, s | **12.60 (12.00–24.00)** | 12.00 (12.00–24.00) |",
        "| Latency p99 at 10/s, ms | **99 (99–99)** | 101 (101–101) |",
        "| 2,500 users: CPU per million deliveries, s | 4.0 (3.0–5.0) | **2.0 (2.0–9.0)** |",
        "| Storm of 5,000: all caught up after, s | **3.00 (2.00–4.00)** | 9 of 10 caught up |",
        "| Stalled: PSS per stalled stream, KiB | **2** | disconnected |",
        "| 2,500 users: CPU per million deliveries, s | plain-actix | 1.50 (0.44–2.50) | 1.00 | no |",
        "\n- plain-actix leads in: Latency p50 at 10/s, ms; PSS per idle stream, KiB;",
        "; 2,500 users: CPU per million deliveries, s;",
        "- plain-actix, idle: it never sleeps.",
        "- plain-actix, storm: failed in round 2: it stopped",
    ] {
        assert!(text.contains(expected), "{expected:?} is missing from\n{text}");
    }
    // Lost events cost the lead.
    results.servers[1].scenarios.insert(Workload::Users, vec![run(2.0, 1)]);
    assert!(page(&results).contains("| **4.0 (3.0–5.0)** | 2.0 |"), "{}", page(&results));
}

/// Results of earlier versions do not contain broken streams.
#[test]
fn page_counts_broken_streams_next_to_lost_events() {
    let mut results = results(&[6.0, 12.0, 6.3], 0);
    assert!(!page(&results).contains("Broken streams"));
    let server = &mut results.servers[0];
    server.rounds[0][0].breaks = Some(Breaks { broken: 3, reopened: 2 });
    server.rounds[1][1].breaks = Some(Breaks { broken: 1, reopened: 0 });
    let run =
        ScenarioRun { breaks: Some(Breaks { broken: 1, reopened: 1 }), ..ScenarioRun::default() };
    server.scenarios.insert(Workload::Idle, vec![run]);
    let page = page(&results);
    let rows = "| Lost | 0 | 0 |\n| Broken streams | 5 | – |\n\
                | Broken streams that were reopened | 3 | – |\n| Duplicated |";
    assert!(page.contains(rows), "{page}");
    assert!(page.contains("\nBroken streams are those that ended although"), "{page}");
}

#[test]
fn summary_table_has_aligned_columns() {
    let summary = summary(&results(&[6.0, 12.0, 6.3], 1));
    let lines: Vec<&str> = summary.lines().filter(|line| line.contains("(12.00–24.00)")).collect();
    assert_eq!(lines.len(), 2, "{summary}");
    assert_eq!(lines[0].chars().count(), lines[1].chars().count());
    assert!(summary.contains("not measured: mercure: not on the PATH"));
}

//! What is written of a benchmark: docs/benchmarks.md, and a summary for the terminal.

use std::fmt::Write;

use super::spread::{Spread, spread};
use super::{Results, ServerResults};
use crate::report::{CpuPerMillion, Load};
use crate::scenario::scaling::ScalePoint;

/// The number of streams that the first table is about, if it was measured; else the highest.
const MAIN: u32 = 10_000;
pub(super) const YARDSTICK: &str = "plain-actix";

/// A line of the table: its name, how it is written, its value of one round.
struct Metric {
    name: &'static str,
    decimals: usize,
    value: fn(&ScalePoint) -> Option<f64>,
}

const METRICS: [Metric; 12] = [
    Metric {
        name: "CPU per million deliveries, s",
        decimals: 2,
        value: |point| cpu(point).map(|cpu| cpu.total_s),
    },
    Metric { name: "— of it user", decimals: 2, value: |point| cpu(point).map(|cpu| cpu.user_s) },
    Metric {
        name: "— of it system",
        decimals: 2,
        value: |point| cpu(point).map(|cpu| cpu.system_s),
    },
    Metric { name: "Redis' CPU per million deliveries, s (extra)", decimals: 2, value: redis_cpu },
    Metric {
        name: "PSS per idle stream, KiB",
        decimals: 1,
        value: |point| point.memory.server_bytes_per_idle_stream.map(kib),
    },
    Metric {
        name: "Kernel memory per stream, both ends, KiB",
        decimals: 1,
        value: |point| Some(kib(point.memory.kernel_bytes_per_stream)),
    },
    Metric { name: "Connects/s", decimals: 0, value: |point| Some(point.connect.per_second) },
    Metric {
        name: "CPU per 1,000 connects, s",
        decimals: 3,
        value: |point| point.connect.server_cpu_s_per_1000,
    },
    Metric {
        name: "Latency p50, ms",
        decimals: 0,
        value: |point| load(point).map(|load| load.latency.p50_ms),
    },
    Metric {
        name: "Latency p99, ms",
        decimals: 0,
        value: |point| load(point).map(|load| load.latency.p99_ms),
    },
    Metric {
        name: "Deliveries/s",
        decimals: 0,
        value: |point| load(point).map(|load| load.deliveries_per_s),
    },
    Metric {
        name: "CPU of the tool, % of a core",
        decimals: 0,
        value: |point| load(point).map(|load| load.tool_cpu_percent),
    },
];

/// docs/benchmarks.md.
pub fn page(results: &Results) -> String {
    let main_streams = main_stream_count(results);
    let size = &results.size;
    let machine = &results.machine;
    let mut out = String::new();
    let _ = write!(
        out,
        "# Benchmarks\n\nWritten by `loadtest bench` ({}, {} s, {} rounds); the raw figures are in [benchmarks.json](benchmarks.json). \
         Every stream gets every event: {} a second of {} bytes for {} s at each number of streams (fewer where that would be more than \
         {} deliveries/s). Medians of the rounds, in brackets \
         the least and the most. CPU and memory are the server's own, read from /proc: neither Redis nor the tool nor the kernel's \
         sockets.\n\n",
        machine.date,
        results.seconds,
        size.rounds,
        size.rate,
        size.payload_bytes,
        size.load_s,
        thousands(size.max_deliveries_per_s as u32)
    );
    if size.rounds < 3 {
        out += "**A quick run: too short and too few rounds to quote.**\n\n";
    }
    let _ = write!(
        out,
        "## {} streams\n\n{}",
        thousands(main_streams),
        main_table(results, main_streams)
    );
    out += "\n**A round that fell behind makes its server look cheaper than it is**: its p99 is above the time between two broadcasts, so some \
            events went out together in one write. Compare CPU where nobody fell behind.\n";
    out += "\n\"Times plain-actix\" is taken round by round. What a loaded stream holds was read after the load on the highest number of \
            streams only: further down a server still has what the streams above left behind. Lost, doubled and out of order are the \
            sums of all rounds and numbers of streams.\n\n";
    out += "![CPU per million deliveries](images/bench-cpu.png)\n\n![Memory per idle stream](images/bench-memory.png)\n\n";
    let _ = write!(out, "## Over the number of streams\n\nCPU per million deliveries, s:\n\n");
    out += &over_streams(results, &METRICS[0]);
    out += "\nPSS per idle stream, KiB:\n\n";
    out += &over_streams(results, &METRICS[4]);
    out += "\nLatency p99, ms:\n\n";
    out += &over_streams(results, &METRICS[9]);
    let _ = write!(
        out,
        "\n## On what\n\nCommit {}. {} x {}, {} GiB, {}, Linux {}, `ulimit -Hn` {}; load average before the run {}. Server, Redis and tool share \
         the machine.\n\n| | what | version |\n|---|---|---|\n",
        machine.commit.as_deref().unwrap_or("unknown"),
        machine.cores,
        machine.cpu,
        machine.memory_gib,
        machine.system,
        machine.kernel,
        machine.open_files,
        machine.load_average
    );
    for server in &results.servers {
        let _ = writeln!(out, "| {} | {} | {} |", server.name, server.what, server.version);
    }
    out += &absent(results);
    out += NOT_COMPARABLE;
    out += &commands(results);
    out
}

/// The main table, for the terminal.
pub fn summary(results: &Results) -> String {
    let main_streams = main_stream_count(results);
    let mut out =
        format!("\n{} streams, {} rounds\n\n", thousands(main_streams), results.size.rounds);
    let table = main_table(results, main_streams);
    let rows: Vec<Vec<&str>> = table
        .lines()
        .filter(|line| !line.starts_with("|---"))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| {
        rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default()
    };
    for row in &rows {
        for (column, cell) in row.iter().enumerate().take(columns) {
            let pad = " ".repeat(width(column) - cell.chars().count());
            out += &if column == 0 { format!("{cell}{pad}") } else { format!("  {pad}{cell}") };
        }
        out.push('\n');
    }
    for (name, why) in &results.absent {
        let _ = writeln!(out, "not measured: {name}: {why}");
    }
    out
}

fn main_table(results: &Results, main_streams: u32) -> String {
    let servers = &results.servers;
    let mut out = head("", servers.iter().map(|server| server.name.to_owned()));
    for (at, metric) in METRICS.iter().enumerate() {
        let each = |server: &ServerResults| {
            cell(spread(points(server, main_streams).filter_map(metric.value)), metric.decimals)
        };
        out += &row(metric.name, servers.iter().map(each));
        if at == 0 {
            out += &row(
                "— times plain-actix",
                servers.iter().map(|server| cell(ratio(results, server, main_streams), 2)),
            );
        }
        if at == 4 {
            let most = results.size.streams.last().copied().unwrap_or_default();
            let loaded = |point: &ScalePoint| point.memory.server_bytes_per_loaded_stream.map(kib);
            let each =
                |server: &ServerResults| cell(spread(points(server, most).filter_map(loaded)), 1);
            out += &row(
                &format!("PSS per loaded stream, {} streams, KiB", thousands(most)),
                servers.iter().map(each),
            );
        }
    }
    out +=
        &row("Rounds that fell behind", servers.iter().map(|server| behind(server, main_streams)));
    let count = |value: fn(&Load) -> u64| {
        move |server: &ServerResults| {
            server.rounds.iter().flatten().filter_map(load).map(value).sum::<u64>().to_string()
        }
    };
    out += &row("Lost", servers.iter().map(count(|load| load.lost)));
    out += &row("Doubled", servers.iter().map(count(|load| load.doubled)));
    out += &row("Out of order", servers.iter().map(count(|load| load.out_of_order)));
    out
}

/// CPU per delivery as a multiple of the yardstick's in the same round.
pub(super) fn ratio(
    results: &Results,
    server: &ServerResults,
    main_streams: u32,
) -> Option<Spread> {
    let yardstick = results.servers.iter().find(|server| server.name == YARDSTICK)?;
    let pairs = points(server, main_streams).zip(points(yardstick, main_streams));
    spread(pairs.filter_map(|(one, other)| Some(cpu(one)?.total_s / cpu(other)?.total_s)))
}

/// Of how many rounds the slowest deliveries came after the next event was due: more than one event may then have gone out in a write.
fn behind(server: &ServerResults, main_streams: u32) -> String {
    let late = |point: &&ScalePoint| {
        load(point).is_some_and(|load| load.latency.p99_ms > 1000.0 / point.rate)
    };
    let late = points(server, main_streams).filter(late).count();
    format!("{late} of {}", server.rounds.len())
}

fn over_streams(results: &Results, metric: &Metric) -> String {
    let counts = results.size.streams;
    let mut out = head("", counts.iter().map(|count| thousands(*count)));
    for server in &results.servers {
        let each = |count: &u32| {
            cell(spread(points(server, *count).filter_map(metric.value)), metric.decimals)
        };
        out += &row(server.name, counts.iter().map(each));
    }
    out
}

fn absent(results: &Results) -> String {
    if results.absent.is_empty() {
        return String::new();
    }
    let mut out = "\nNot measured:\n\n".to_owned();
    for (name, why) in &results.absent {
        let _ = writeln!(out, "- {name}: {why}");
    }
    out + INSTALL
}

const INSTALL: &str = "
Nchan: `apt-get install nginx-light libnginx-mod-nchan`. Centrifugo and Mercure: put `centrifugo` and `mercure` on the PATH; the next
`make bench` takes them along. The binaries of their releases need nothing else (<https://github.com/centrifugal/centrifugo/releases>,
<https://github.com/dunglas/mercure/releases>); how to build them with the Go toolchain says `loadtest/README.md`. Their configurations
(`loadtest/peers/`) and the tool's options for them follow their documentation and have been **tested on no machine so far**: neither
could be fetched where this tool was made.
";

const NOT_COMPARABLE: &str = "
## What is not comparable, and why

- **The yardsticks do nothing else.** `plain-actix` has no tickets, users, topics, ids that mean anything, log, resume, limits or
  metrics, and no Redis; `send-loop` has not even a queue: one client that stalls stops it for all. They show what a delivery costs
  at the least, not what one would deploy.
- **What a stream of `plain-actix` holds is actix-http's**: a read and a write buffer of 8 KiB each (what of them was never touched
  does not count), the dispatcher and its timers. All streams read one broadcast channel. With a tokio `mpsc` channel for each, as one
  may write it first, they would hold 3.3 KiB more (measured with 2,000: 13.3 KiB, not 10.1), which is a queue's price and no server's. The
  gateway's are smaller, since it speaks HTTP/1.1 to its streams itself and keeps no buffer for one that is silent.
- **Nchan** runs with Redis as the gateway does and keeps 1000 messages, but its streams have no tickets. Events go in by its HTTP
  endpoint, the gateway's by a durable publish in Redis.
- **Mercure**'s open hub has no Redis: it is one node with a file. **Centrifugo** runs with Redis and anonymous clients.
- **Redis' CPU is extra**; its line is empty where there is no Redis.
- **Latency is the machine's.** The tool and the server share the cores. At 10,000 streams x 10/s the two together need more than
  one core, and an event's last delivery waits for the 9,999 before it: the p50 says how long a round over all streams takes. It says
  nothing of a server that has its cores to itself.
- **Loopback**: no packet loss, no network card, no TLS. Kernel memory counts both ends of each connection and everything else
  that the kernel allocated meanwhile.
- **Connects/s**: the tool signs the gateway's tickets (HS256) at the same time and on the same cores; the gateway opens a session in
  Redis for each. The others only accept.
";

fn commands(results: &Results) -> String {
    let mut out = "\n## Exactly how\n\n```sh\nmake bench    # target/release/loadtest bench, then the plots\n```\n\nFor each round and \
                   server: started, streams opened step by step up to the most (connects, idle memory), then cut step by step and \
                   loaded at each step. `__PORT__`, `__REDIS_PORT__`, `__DIR__` and `__TOKEN__` are filled in by the tool.\n"
        .to_owned();
    for server in &results.servers {
        let _ =
            write!(out, "\n{}: {}\n\n```sh\n{}\n```\n", server.name, server.start, server.command);
    }
    out
}

pub(super) fn main_stream_count(results: &Results) -> u32 {
    let counts = results.size.streams;
    counts
        .iter()
        .copied()
        .find(|count| *count == MAIN)
        .or(counts.last().copied())
        .unwrap_or_default()
}

fn points(server: &ServerResults, streams: u32) -> impl Iterator<Item = &ScalePoint> {
    server
        .rounds
        .iter()
        .filter_map(move |round| round.iter().find(|point| point.streams == streams))
}

fn load(point: &ScalePoint) -> Option<&Load> {
    point.load.as_ref()
}

fn cpu(point: &ScalePoint) -> Option<CpuPerMillion> {
    load(point)?.server_cpu
}

fn redis_cpu(point: &ScalePoint) -> Option<f64> {
    let load = load(point)?;
    load.redis_cpu_s.filter(|_| load.delivered > 0).map(|cpu| cpu * 1e6 / load.delivered as f64)
}

fn kib(bytes: u64) -> f64 {
    bytes as f64 / 1024.0
}

fn head(first: &str, names: impl Iterator<Item = String>) -> String {
    let names: Vec<String> = names.collect();
    let rule = "---:|".repeat(names.len());
    format!("{}|---|{rule}\n", row(first, names.into_iter()))
}

fn row(name: &str, cells: impl Iterator<Item = String>) -> String {
    let mut out = format!("| {name} |");
    for cell in cells {
        let _ = write!(out, " {cell} |");
    }
    out.push('\n');
    out
}

fn cell(spread: Option<Spread>, decimals: usize) -> String {
    spread.map_or("–".to_owned(), |spread| spread.text(decimals))
}

/// 15000 as 15,000.
fn thousands(number: u32) -> String {
    if number < 1000 {
        number.to_string()
    } else {
        format!("{},{:03}", number / 1000, number % 1000)
    }
}

#[cfg(test)]
pub(super) mod tests {
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

    /// The gateway's CPU in three rounds beside the yardstick's, which is 6 s, 12 s, 6 s.
    pub fn results(gateway: &[f64; 3], lost: u64) -> Results {
        let server = |name, cpu: &[f64; 3], p99_ms| ServerResults {
            name,
            what: "something",
            version: "1".to_owned(),
            start: "it",
            command: "loadtest".to_owned(),
            rounds: cpu
                .iter()
                .map(|cpu| vec![point(1000, *cpu, 1.0, lost), point(5000, cpu * 2.0, p99_ms, lost)])
                .collect(),
        };
        Results {
            machine: Machine::read(),
            size: Size { rounds: 3, ..QUICK },
            // The machine was twice as slow in the second round: the ratio is the same in all.
            servers: vec![
                server(GATEWAY, gateway, 99.0),
                server(YARDSTICK, &[6.0, 12.0, 6.0], 101.0),
            ],
            absent: vec![("mercure".to_owned(), "not there".to_owned())],
            seconds: 60,
        }
    }

    #[test]
    fn the_page_has_medians_spreads_and_ratios_and_says_who_was_absent() {
        let page = page(&results(&[6.0, 12.0, 6.3], 1));
        for text in [
            "## 5,000 streams",
            "| CPU per million deliveries, s | 12.60 (12.00–24.00) | 12.00 (12.00–24.00) |",
            "| — times plain-actix | 1.00 (1.00–1.05) | 1.00 (1.00–1.00) |",
            "| PSS per idle stream, KiB | 10.0 (10.0–10.0) | 10.0 (10.0–10.0) |",
            "| Redis' CPU per million deliveries, s (extra) | – | – |",
            "| Lost | 6 | 6 |",
            "| Rounds that fell behind | 0 of 3 | 3 of 3 |",
            "| sse-gateway | 6.30 (6.00–12.00) | 12.60 (12.00–24.00) |",
            "- mercure: not there",
        ] {
            assert!(page.contains(text), "no {text:?} in\n{page}");
        }
        assert!(!page.contains("quick run"));
    }

    #[test]
    fn the_summary_is_the_table_with_straight_columns() {
        let summary = summary(&results(&[6.0, 12.0, 6.3], 1));
        let lines: Vec<&str> =
            summary.lines().filter(|line| line.contains("(12.00–24.00)")).collect();
        assert_eq!(lines.len(), 2, "{summary}");
        assert_eq!(lines[0].chars().count(), lines[1].chars().count());
        assert!(summary.contains("not measured: mercure: not there"));
    }
}

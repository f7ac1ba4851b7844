//! `loadtest bench`: measures several servers on one machine with the same streams and events, and
//! writes the results.

mod acceptance;
pub mod machine;
mod page;
pub mod servers;
pub mod spread;

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;

use self::machine::Machine;
use self::servers::{GATEWAY, SERVERS, Server};
use crate::args::BenchArgs;
use crate::output::{write_stderr, write_stdout};
use crate::scenario::scaling::{self, ScalePoint};

/// Extent of a benchmark.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Size {
    /// Stream counts, ascending.
    pub streams: &'static [u32],
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
}

const FULL: Size = Size {
    streams: &[1_000, 2_000, 5_000, 10_000, 15_000],
    rounds: 3,
    load_s: 6,
    rate: 10.0,
    max_deliveries_per_s: 100_000.0,
    payload_bytes: 256,
};
const QUICK: Size = Size { streams: &[1_000, 5_000], rounds: 1, load_s: 4, ..FULL };

/// A round that would exceed this is not started: a busy machine gets fewer rounds, and the page
/// shows how many.
const TIME_BUDGET: Duration = Duration::from_secs(19 * 60);

/// Results of a benchmark.
#[derive(Debug, Serialize)]
pub struct Results {
    /// Machine of the benchmark.
    pub machine: Machine,
    /// Extent of the benchmark.
    pub size: Size,
    /// Results per server.
    pub servers: Vec<ServerResults>,
    /// Names of the servers that could not be measured, with the reason.
    pub absent: Vec<(String, String)>,
    /// Duration of the benchmark, in seconds.
    pub seconds: u64,
}

/// Results of one server.
#[derive(Debug, Serialize)]
pub struct ServerResults {
    /// Name of the server.
    pub name: &'static str,
    /// Description of the server.
    pub what: &'static str,
    /// Version of the server.
    pub version: String,
    /// Command that starts the server.
    pub start: &'static str,
    /// Equivalent command line of loadtest, with the highest stream count.
    pub command: String,
    /// Cost per stream count in each round.
    pub rounds: Vec<Vec<ScalePoint>>,
}

/// Measures all installed servers and writes the results. Returns whether the gateway met the
/// acceptance criteria.
pub fn run(args: &BenchArgs) -> Result<bool, String> {
    let mut size = if args.quick { QUICK } else { FULL };
    if let Some(name) =
        args.only.iter().find(|name| SERVERS.iter().all(|server| server.name != *name))
    {
        return Err(format!(
            "--only {name}: unknown server; must be one of {}",
            SERVERS.iter().map(|server| server.name).collect::<Vec<_>>().join(", ")
        ));
    }
    let selected = |name: &str| args.only.is_empty() || args.only.iter().any(|only| only == name);
    let files = OutputFiles::open(&args.out)?;
    let (started, machine) = (Instant::now(), Machine::read());
    let (mut measured, mut absent) = (Vec::new(), Vec::new());
    for server in SERVERS.iter().filter(|server| selected(server.name)) {
        match (server.version)() {
            Ok(version) => {
                let command = servers::command(server, &size);
                let (name, what, start) = (server.name, server.what, server.started_by);
                measured.push((
                    server,
                    ServerResults { name, what, version, start, command, rounds: Vec::new() },
                ))
            }
            Err(why) => absent.push((server.name.to_owned(), why)),
        }
    }
    // The servers take turns in each round, so that other load on the machine affects all alike.
    for round in 1..=size.rounds {
        // Average duration of the rounds so far.
        let each = started.elapsed() / (round - 1).max(1);
        if round > 1 && started.elapsed() + each > TIME_BUDGET {
            write_stderr(&format!(
                "== {:4.0} s: skipping round {round}: it would exceed the time budget",
                started.elapsed().as_secs_f64()
            ));
            size.rounds = round - 1;
            break;
        }
        for (server, found) in &mut measured {
            let seconds = started.elapsed().as_secs_f64();
            write_stderr(&format!(
                "== {seconds:4.0} s: round {round} of {}: {}",
                size.rounds, server.name
            ));
            match measure(server, &size) {
                Ok(points) => found.rounds.push(points),
                // A server that fails is not measured again; the figures of the others remain.
                Err(why) => {
                    write_stderr(&why);
                    let why = why.lines().next().unwrap_or_default().to_owned();
                    absent
                        .push((server.name.to_owned(), format!("failed in round {round}: {why}")));
                }
            }
        }
        measured.retain(|(server, _)| absent.iter().all(|(name, _)| name != server.name));
    }
    let servers = measured.into_iter().map(|(_, found)| found).collect();
    let seconds = started.elapsed().as_secs();
    let results = Results { machine, size, servers, absent, seconds };
    files.write(&results)?;
    write_stderr(&format!("== {seconds:4} s: results written to {}", args.out.display()));
    write_stdout(&(page::summary(&results) + "\n"))?;
    if let Some((name, why)) = results.absent.iter().find(|(name, _)| name == GATEWAY) {
        return Err(format!("{name}: {why}"));
    }
    let violations = acceptance::check(&results, !args.quick, selected);
    for violation in &violations {
        write_stderr(&format!("FAILED: {violation}"));
    }
    Ok(violations.is_empty())
}

fn measure(server: &Server, size: &Size) -> Result<Vec<ScalePoint>, String> {
    let running = servers::start(server).map_err(|error| format!("{}: {error}", server.name))?;
    let common = running.options(size);
    let points =
        crate::on_one_thread(scaling::measure(&common, size.streams, size.max_deliveries_per_s));
    points.map_err(|error| format!("{}: {error}\n{}", server.name, running.log()))
}

/// Output files, opened before the benchmark runs for minutes.
struct OutputFiles {
    json: (PathBuf, File),
    page: (PathBuf, File),
}

impl OutputFiles {
    /// Opens both files without changing them: a failed benchmark keeps the previous page.
    fn open(out: &Path) -> Result<Self, String> {
        fs::create_dir_all(out).map_err(|error| format!("--out {}: {error}", out.display()))?;
        let open = |name: &str| {
            let path = out.join(name);
            let file = File::options().create(true).append(true).open(&path);
            file.map(|file| (path.clone(), file))
                .map_err(|error| format!("--out {}: {error}", path.display()))
        };
        Ok(Self { json: open("benchmarks.json")?, page: open("benchmarks.md")? })
    }

    fn write(self, results: &Results) -> Result<(), String> {
        let json = serde_json::to_string_pretty(results).map_err(|error| error.to_string())? + "\n";
        for ((path, mut file), text) in [(self.json, json), (self.page, page::page(results))] {
            let written = file.set_len(0).and_then(|()| file.write_all(text.as_bytes()));
            written.map_err(|error| format!("--out {}: {error}", path.display()))?;
        }
        Ok(())
    }
}

//! Servers in turn, on the same machine, with the same streams and the same events, and what is written of it.

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

/// How much is measured.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Size {
    /// Numbers of streams, rising.
    pub streams: &'static [u32],
    /// Rounds; the medians of all are told.
    pub rounds: u32,
    /// How long each load goes on, s.
    pub load_s: u64,
    /// Broadcasts a second, fewer where that would be more than `max_deliveries_per_s`.
    pub rate: f64,
    /// What the machine carries together with the tool.
    pub max_deliveries_per_s: f64,
    /// Size of a payload.
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

/// No round begins that would not end within this: a busy machine gets fewer rounds, and the page says how many.
const TIME_BUDGET: Duration = Duration::from_secs(19 * 60);

/// What was found.
#[derive(Debug, Serialize)]
pub struct Results {
    /// On what.
    pub machine: Machine,
    /// How much.
    pub size: Size,
    /// Of whom.
    pub servers: Vec<ServerResults>,
    /// Who was not there, and why.
    pub absent: Vec<(String, String)>,
    /// How long it all took, s.
    pub seconds: u64,
}

/// What was found of one server.
#[derive(Debug, Serialize)]
pub struct ServerResults {
    /// Its name.
    pub name: &'static str,
    /// What it is.
    pub what: &'static str,
    /// Its version.
    pub version: String,
    /// How it is started.
    pub start: &'static str,
    /// The run that this amounts to, with the most streams.
    pub command: String,
    /// For each round what each number of streams cost.
    pub rounds: Vec<Vec<ScalePoint>>,
}

/// Measures all servers that are there, and writes it down; answers whether the gateway held what it must.
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
    // In turn, not one server after the other: what else the machine does meanwhile falls on all alike.
    for round in 1..=size.rounds {
        // Each round so far took so long.
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
                // One that fails does not take the others' figures along; it is not tried again.
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

/// Where the results go: looked at before the minutes that they take.
struct OutputFiles {
    json: (PathBuf, File),
    page: (PathBuf, File),
}

impl OutputFiles {
    /// Opens both, and changes nothing in them yet: a bench that fails leaves the last one's page.
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

//! `loadtest bench`: measures several servers on one machine with the same streams and events, and
//! writes the results.
//!
//! | module | purpose |
//! |---|---|
//! | `workload` | scenarios and their extent |
//! | `servers/*` | how to find, start, subscribe to and publish to each server |
//! | `measure` | one scenario with one server |
//! | `results`, `spread` | figures as written to JSON; median and range |
//! | `rows`, `leaders`, `ratios` | rows of the main table; who leads; required ratios |
//! | `acceptance` | criteria that decide about the exit status |
//! | `page/*`, `output` | the page and the summary for the terminal; output files |

mod acceptance;
mod leaders;
pub mod machine;
mod measure;
mod output;
mod page;
mod ratios;
pub mod results;
mod rows;
pub mod servers;
pub mod spread;
pub mod workload;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use self::machine::Machine;
use self::output::OutputFiles;
use self::results::{Failure, Results, ServerResults};
use self::servers::{GATEWAY, SERVERS, Server};
use self::workload::{Size, Workload};
use crate::args::BenchArgs;
use crate::output::{write_stderr, write_stdout};

/// Measures all installed servers and writes the results. Returns whether the gateway met the
/// acceptance criteria.
pub fn run(args: &BenchArgs) -> Result<bool, String> {
    if let Some(name) =
        args.servers.iter().find(|name| SERVERS.iter().all(|server| server.name != *name))
    {
        return Err(format!(
            "--servers {name}: unknown server; must be one of {}",
            SERVERS.iter().map(|server| server.name).collect::<Vec<_>>().join(", ")
        ));
    }
    if args.render {
        return output::render(&args.out).map(|()| true);
    }
    let files = OutputFiles::open(&args.out)?;
    let results = Bench::new(args).run();
    let results = files.write(&results)?;
    let seconds = results.seconds;
    write_stderr(&format!("== {seconds:4} s: results written to {}", args.out.display()));
    write_stdout(&(page::summary(&results) + "\n"))?;
    if let Some((name, why)) = results.absent.iter().find(|(name, _)| name == GATEWAY) {
        return Err(format!("{name}: {why}"));
    }
    if let Some(failure) = results.failed.iter().find(|failure| failure.server == GATEWAY) {
        return Err(format!("{GATEWAY}: {}: {}", failure.workload.name(), failure.reason));
    }
    let selected = |name: &str| is_selected(&args.servers, name);
    let full = !args.quick && args.streams.is_none() && has(&args.only, Workload::Broadcast);
    let violations = acceptance::check(&results, full, selected);
    for violation in &violations {
        write_stderr(&format!("FAILED: {violation}"));
    }
    Ok(violations.is_empty())
}

fn is_selected(servers: &[String], name: &str) -> bool {
    servers.is_empty() || servers.iter().any(|server| server == name)
}

fn has(only: &[Workload], workload: Workload) -> bool {
    only.is_empty() || only.contains(&workload)
}

/// Running benchmark.
struct Bench<'a> {
    args: &'a BenchArgs,
    started: Instant,
    /// Duration of a scenario with all servers, in its last round.
    durations: BTreeMap<Workload, Duration>,
    measured: Vec<(&'static Server, ServerResults)>,
    results: Results,
}

impl<'a> Bench<'a> {
    fn new(args: &'a BenchArgs) -> Self {
        let size = Size::new(args);
        let (mut measured, mut absent) = (Vec::new(), Vec::new());
        for server in SERVERS.iter().filter(|server| is_selected(&args.servers, server.name)) {
            match (server.version)() {
                Ok(version) => measured.push((server, empty_results(args, server, version, &size))),
                Err(why) => absent.push((server.name.to_owned(), why)),
            }
        }
        let results = Results {
            machine: Machine::read(),
            size,
            servers: Vec::new(),
            absent,
            failed: Vec::new(),
            seconds: 0,
        };
        Self { args, started: Instant::now(), durations: BTreeMap::new(), measured, results }
    }

    /// The servers take turns in each scenario of each round, so that other load on the machine
    /// affects all alike.
    fn run(mut self) -> Results {
        let rounds = self.results.size.rounds;
        for round in 1..=rounds {
            for workload in Workload::ALL.into_iter().filter(|one| has(&self.args.only, *one)) {
                if round > 1 && !workload.every_round() {
                    continue;
                }
                if self.exceeds_budget(workload) {
                    self.progress(&format!(
                        "skipping round {round} of {}: it would exceed the time budget",
                        workload.name()
                    ));
                    continue;
                }
                let started = Instant::now();
                self.measure_all(round, workload);
                self.durations.insert(workload, started.elapsed());
            }
        }
        self.results.seconds = self.started.elapsed().as_secs();
        self.results.servers = self.measured.into_iter().map(|(_, found)| found).collect();
        self.results
    }

    /// Returns whether another round of a scenario would take longer than the budget. The first
    /// round is always measured.
    fn exceeds_budget(&self, workload: Workload) -> bool {
        self.durations
            .get(&workload)
            .is_some_and(|last| self.started.elapsed() + *last > self.args.time_budget)
    }

    fn measure_all(&mut self, round: u32, workload: Workload) {
        for at in 0..self.measured.len() {
            let server = self.measured[at].0;
            let failed_before =
                |one: &Failure| (one.server.as_str(), one.workload) == (server.name, workload);
            if !server.supports(workload) || self.results.failed.iter().any(failed_before) {
                continue;
            }
            let rounds = self.results.size.rounds;
            let of = if workload.every_round() { rounds } else { 1 };
            self.progress(&format!("round {round} of {of}: {}: {}", workload.name(), server.name));
            let found = &mut self.measured[at].1;
            if let Err(why) = measure::measure(server, workload, &self.results.size, found) {
                write_stderr(&why);
                self.results.failed.push(Failure {
                    server: server.name.to_owned(),
                    workload,
                    round,
                    reason: why.lines().next().unwrap_or_default().to_owned(),
                });
            }
        }
    }

    fn progress(&self, text: &str) {
        write_stderr(&format!("== {:4.0} s: {text}", self.started.elapsed().as_secs_f64()));
    }
}

fn empty_results(args: &BenchArgs, server: &Server, version: String, size: &Size) -> ServerResults {
    let workloads = Workload::ALL.into_iter().filter(|workload| has(&args.only, *workload));
    let supported = workloads.filter(|workload| server.supports(*workload));
    let unsupported = server.unsupported.iter();
    ServerResults {
        name: server.name.to_owned(),
        what: server.what.to_owned(),
        version,
        start: server.started_by.to_owned(),
        command: server.command(Workload::Broadcast, size),
        commands: supported.map(|workload| (workload, server.command(workload, size))).collect(),
        unsupported: unsupported.map(|(workload, why)| (*workload, (*why).to_owned())).collect(),
        rounds: Vec::new(),
        scenarios: BTreeMap::new(),
    }
}

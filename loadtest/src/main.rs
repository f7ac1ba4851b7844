//! Entry point of the load tester: parses the command line, runs the command and sets the exit
//! status.

use std::process::ExitCode;

use clap::Parser;
use loadtest::args::{Cli, Command};
use loadtest::output::{JsonOutput, write_stderr};
use loadtest::{bench, redis_cost, scenario};

/// mimalloc, because two allocations per stream are aligned to 128 bytes (tokio's task and its
/// socket) and glibc wastes a third of those.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Transparent huge pages would round the measured memory of this tool up to 2 MiB at a time.
    // SAFETY: sets a flag of this process.
    unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) };
    match run(Cli::parse().command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            write_stderr(&format!("loadtest: {error}"));
            ExitCode::from(2)
        }
    }
}

/// Runs a command and returns whether all thresholds were met. Errors mean that the run could not
/// take place.
fn run(command: Command) -> Result<bool, String> {
    match command {
        Command::Bench(args) => bench::run(&args),
        Command::Redis(args) => redis_cost::run(&args).map(|()| true),
        Command::Idle(ref common)
        | Command::Broadcast(ref common)
        | Command::Users(ref common)
        | Command::Mixed(ref common)
        | Command::Storm { ref common, .. }
        | Command::Stalled { ref common, .. }
        | Command::Churn { ref common, .. }
        | Command::SlowPublish { ref common, .. } => {
            let json = JsonOutput::open(common.json.as_deref())?;
            run_scenario(command, json)
        }
    }
}

fn run_scenario(command: Command, json: JsonOutput) -> Result<bool, String> {
    let report = loadtest::on_one_thread(scenario::run(command))?;
    json.write(&report.table(), &report)?;
    match report.failure {
        Some(why) => Err(why),
        None => Ok(report.violations.is_empty()),
    }
}

//! One run of the load tester: what is asked, the run, what came of it.

use std::process::ExitCode;

use clap::Parser;
use loadtest::args::{Cli, Command};
use loadtest::output::{JsonOutput, write_stderr};
use loadtest::{bench, redis_cost, scenario};

/// Two allocations of each stream are aligned to 128 bytes (tokio's task and its socket): glibc wastes a third of them.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Huge pages would round what this tool holds up to the next 2 MiB, piece by piece.
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

/// Whether all was held. Err: it could not be run.
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
            single(command, json)
        }
    }
}

fn single(command: Command, json: JsonOutput) -> Result<bool, String> {
    let report = loadtest::on_one_thread(scenario::run(command))?;
    json.write(&report.table(), &report)?;
    match report.failure {
        Some(why) => Err(why),
        None => Ok(report.violations.is_empty()),
    }
}

//! One run of the load tester: what is asked, the run, what came of it.

use std::process::ExitCode;

use clap::Parser;
use loadtest::args::{Cli, Command, Common};
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
            eprintln!("loadtest: {error}");
            ExitCode::from(2)
        }
    }
}

/// Whether all thresholds were held.
fn run(command: Command) -> Result<bool, String> {
    let common = match &command {
        Command::Bench(args) => return bench::run(args).map(|()| true),
        Command::Redis(args) => return redis_cost::run(args).map(|()| true),
        Command::Idle(common) | Command::Broadcast(common) | Command::Users(common) | Command::Mixed(common) => {
            common.clone()
        }
        Command::Storm { common, .. }
        | Command::Stalled { common, .. }
        | Command::Churn { common, .. }
        | Command::SlowPublish { common, .. } => common.clone(),
    };
    let report = loadtest::on_one_thread(scenario::run(command))?;
    show(&report, &common)?;
    Ok(report.violations.is_empty())
}

fn show(report: &loadtest::report::Report, common: &Common) -> Result<(), String> {
    let json = serde_json::to_string_pretty(report).map_err(|error| error.to_string())?;
    match &common.json {
        Some(file) if file.as_os_str() == "-" => println!("{json}"),
        other => {
            print!("{}", report.table());
            if let Some(file) = other {
                std::fs::write(file, json + "\n").map_err(|error| format!("{}: {error}", file.display()))?;
            }
        }
    }
    Ok(())
}

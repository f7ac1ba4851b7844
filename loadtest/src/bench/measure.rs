//! Measures one scenario with one server.

use super::results::{ScenarioRun, ServerResults};
use super::servers::{self, Server};
use super::workload::{Size, Workload};
use crate::args::Command;
use crate::on_one_thread;
use crate::scenario;
use crate::scenario::scaling::{self, Scale};

/// Starts the server, measures the scenario and adds the figures to `found`.
pub(super) fn measure(
    server: &'static Server,
    workload: Workload,
    size: &Size,
    found: &mut ServerResults,
) -> Result<(), String> {
    let running = servers::start(server).map_err(|error| format!("{}: {error}", server.name))?;
    let failed = |error: String| format!("{}: {error}\n{}", server.name, running.log());
    match (workload, running.command(workload, size)) {
        (Workload::Broadcast | Workload::Scale, Command::Broadcast(common)) => {
            let main = size.main_streams();
            let counts =
                if workload == Workload::Scale { size.other_streams() } else { vec![main] };
            let low_rate = (main, size.scenarios.low_rate);
            let scale = Scale {
                counts: &counts,
                max_deliveries_per_s: size.max_deliveries_per_s,
                low_rate: Some(low_rate),
            };
            let points = on_one_thread(scaling::measure(&common, scale)).map_err(failed)?;
            found.rounds.push(points);
        }
        (_, command) => {
            let report = on_one_thread(scenario::run(command)).map_err(failed)?;
            let run = ScenarioRun::new(report).map_err(failed)?;
            found.scenarios.entry(workload).or_default().push(run);
        }
    }
    Ok(())
}

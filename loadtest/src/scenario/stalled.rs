//! Scenario `stalled`: some streams stop reading for a while. The others must not be affected; the
//! stalled ones must receive every event in the end.

use std::time::{Duration, Instant};

use super::Run;
use crate::report::Stall;
use crate::stamp::now_ns;
use crate::usage::Processes;

/// Runs the load before, while and after the last `percent` of the streams stall.
pub(super) async fn run(run: &mut Run, percent: u32, stall: Duration) -> Result<(), String> {
    /// Duration of the load before the stall, so that the stalling streams have a last event id.
    const WARM_UP: Duration = Duration::from_secs(2);
    let server = run.server.clone();
    let pss_bytes = || server.as_ref().map(Processes::pss_bytes);
    let mut report = Stall { stalled: 0, seconds: 0.0, server_bytes: None, broken: 0 };
    let mut broken_before = 0;
    let load = run
        .load(async |fleet| {
            let streams = fleet.len();
            broken_before = fleet.env.stats.broken.get();
            let stalled = streams - (streams * percent / 100).max(1)..streams;
            report.stalled = stalled.len() as u64;
            tokio::time::sleep(WARM_UP).await;
            // From now on, events that a disconnected stream missed count as replayed.
            fleet.env.disrupted_ns.set(now_ns());
            let (before, started) = (pss_bytes(), Instant::now());
            fleet.stall(stalled.clone(), true);
            tokio::time::sleep(stall).await;
            report.seconds = started.elapsed().as_secs_f64();
            report.server_bytes = pss_bytes()
                .zip(before)
                .map(|(now, before)| now.saturating_sub(before) / report.stalled);
            fleet.stall(stalled, false);
            Ok(())
        })
        .await?;
    report.broken = run.fleet.env.stats.broken.get() - broken_before;
    run.report.stall = Some(report);
    run.report.load = Some(load);
    Ok(())
}

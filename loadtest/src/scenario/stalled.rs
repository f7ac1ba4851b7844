//! Scenario `stalled`: some streams stop reading for a while. The others must not be affected; the
//! stalled ones must receive every event in the end.

use std::time::Duration;

use super::Run;
use crate::stamp::now_ns;

/// Runs the load before, while and after the last `percent` of the streams stall.
pub(super) async fn run(run: &mut Run, percent: u32, stall: Duration) -> Result<(), String> {
    /// Duration of the load before the stall, so that the stalling streams have a last event id.
    const WARM_UP: Duration = Duration::from_secs(2);
    let load = run
        .load(async |fleet| {
            let streams = fleet.len();
            let stalled = streams - (streams * percent / 100).max(1)..streams;
            tokio::time::sleep(WARM_UP).await;
            // From now on, events that a disconnected stream missed count as replayed.
            fleet.env.disrupted_ns.set(now_ns());
            fleet.stall(stalled.clone(), true);
            tokio::time::sleep(stall).await;
            fleet.stall(stalled, false);
            Ok(())
        })
        .await?;
    run.report.load = Some(load);
    Ok(())
}

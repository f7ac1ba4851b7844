//! Some streams read nothing for a while. The others must not notice; those that stalled must have everything in the end.

use std::time::Duration;

use super::Run;
use crate::stamp::now_ns;

/// Load before, while and after the last `percent` of the streams stall.
pub(super) async fn run(run: &mut Run, percent: u32, stall: Duration) -> Result<(), String> {
    /// Load before the stall, so that the streams that stall have a cursor.
    const BEFORE: Duration = Duration::from_secs(2);
    let load = run
        .load(async |fleet| {
            let streams = fleet.len();
            let stalled = streams - (streams * percent / 100).max(1)..streams;
            tokio::time::sleep(BEFORE).await;
            // From here on, what a stream missed while it was away counts as replayed.
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

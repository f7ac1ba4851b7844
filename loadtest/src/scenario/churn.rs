//! Scenario `churn`: streams are disconnected and reconnect throughout the load.

use std::time::{Duration, Instant};

use super::Run;
use crate::stamp::now_ns;

/// Maximum time for the last streams to reconnect.
const RECONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Disconnects `per_second` random streams, each of which reconnects at once. Those that are still
/// reconnecting are left alone.
pub(super) async fn run(run: &mut Run, duration: Duration, per_second: f64) -> Result<(), String> {
    let load = run
        .load(async |fleet| {
            let started = Instant::now();
            fleet.env.disrupted_ns.set(now_ns());
            for count in 1.. {
                let due = Duration::from_secs_f64(f64::from(count) / per_second);
                if due >= duration {
                    break;
                }
                tokio::time::sleep_until((started + due).into()).await;
                let index = fastrand::u32(0..fleet.len());
                // The server may receive an aborted request after that of the reconnect, and then
                // closes the new stream in favour of the old one.
                if fleet.is_open(index) {
                    fleet.cut(index..index + 1).await;
                    fleet.start(index);
                }
            }
            tokio::time::sleep_until((started + duration).into()).await;
            // The last streams are still reconnecting. Those that fail are missing from `held`.
            let env = fleet.env.clone();
            let all_open = env.stats.until(|stats| stats.held.get() >= fleet.len());
            let _ = tokio::time::timeout(RECONNECT_TIMEOUT, all_open).await;
            Ok(())
        })
        .await?;
    run.report.load = Some(load);
    Ok(())
}

//! Streams are cut and come back all the time.

use std::time::{Duration, Instant};

use super::Run;
use crate::stamp::now_ns;

/// How long the last ones may take to come back.
const RETURN: Duration = Duration::from_secs(10);

/// Cuts one stream after the other, `per_second`, each of which comes back at once.
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
                fleet.cut(index..index + 1).await;
                fleet.start(index);
            }
            tokio::time::sleep_until((started + duration).into()).await;
            // The last ones are on their way back. Those that do not make it are missing from `held`.
            let env = fleet.env.clone();
            let all_open = env.stats.until(|stats| stats.held.get() >= fleet.len());
            let _ = tokio::time::timeout(RETURN, all_open).await;
            Ok(())
        })
        .await?;
    run.report.load = Some(load);
    Ok(())
}

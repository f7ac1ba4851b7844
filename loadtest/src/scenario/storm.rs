//! Scenario `storm`: all streams are disconnected during the load and reconnect at once, as after a
//! deployment or a network failure.

use std::time::Duration;

use super::Run;
use crate::report::{Quantiles, Storm};
use crate::stamp::now_ns;
use crate::usage::{Cpu, Processes, RedisInfo};

/// Disconnects the streams after a third of `duration`.
pub(super) async fn run(
    run: &mut Run,
    duration: Duration,
    away: Duration,
    timeout: Duration,
) -> Result<(), String> {
    let server = run.server.clone();
    // A connection of its own: that of the run is in use until the load ends.
    let mut redis = run.redis_url.as_deref().map(RedisInfo::open).transpose()?;
    let (mut server_cpu_s, mut redis_cpu_s) = (None, None);
    let load = run
        .load(async |fleet| {
            tokio::time::sleep(duration / 3).await;
            let all = 0..fleet.len();
            fleet.cut(all.clone()).await;
            tokio::time::sleep(away).await;
            let env = fleet.env.clone();
            env.disrupted_ns.set(now_ns());
            let mut cpu =
                || (server.as_ref().and_then(Processes::cpu), redis.as_mut().map(RedisInfo::cpu));
            let before = cpu();
            // Not all may be open in time: the report contains how many were.
            let _ = fleet.open(all.clone(), None, timeout).await;
            let caught_up =
                env.stats.until(|stats| stats.caught_up_us.borrow().len() >= u64::from(all.end));
            let _ = tokio::time::timeout(timeout, caught_up).await;
            let after = cpu();
            let since = |after: Option<Cpu>, before: Option<Cpu>| {
                after.zip(before).map(|(after, before)| after.since(before).total_s())
            };
            (server_cpu_s, redis_cpu_s) = (since(after.0, before.0), since(after.1, before.1));
            tokio::time::sleep(duration / 3).await;
            Ok(())
        })
        .await?;
    let caught_up = run.fleet.env.stats.caught_up_us.borrow();
    run.report.storm = Some(Storm {
        cut: run.fleet.len().into(),
        caught_up: caught_up.len(),
        caught_up_after: Quantiles::new(&caught_up),
        server_cpu_s,
        redis_cpu_s,
    });
    run.report.load = Some(load);
    Ok(())
}

//! Scenarios without disruption: `idle`, and a steady load.

use std::time::Duration;

use super::Run;
use crate::report::IdleCost;
use crate::usage::{Cpu, RedisInfo};

/// Keeps the streams open without a load and measures the cost.
pub(super) async fn idle(run: &mut Run, duration: Duration) -> IdleCost {
    let before = (run.server_cpu(), run.redis.as_mut().map(RedisInfo::cpu));
    tokio::time::sleep(duration).await;
    let seconds = duration.as_secs_f64();
    let since = |now: Option<Cpu>, before: Option<Cpu>| {
        now.zip(before).map(|(now, before)| now.since(before).total_s() * 1000.0 / seconds)
    };
    IdleCost {
        seconds,
        server_cpu_ms_per_s: since(run.server_cpu(), before.0),
        redis_cpu_ms_per_s: since(run.redis.as_mut().map(RedisInfo::cpu), before.1),
    }
}

/// Publishes for `duration`.
pub(super) async fn load(run: &mut Run, duration: Duration) -> Result<(), String> {
    let load = run.load(async |_| super::pause(duration).await).await?;
    run.report.load = Some(load);
    Ok(())
}

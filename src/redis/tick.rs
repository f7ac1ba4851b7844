//! Ticks: about every second one instance moves the clock and publishes it (DESIGN.md section 3).

use std::{sync::Arc, time::Duration};

use super::{
    commands::{Commands, Fault},
    library,
};
use crate::{
    core::{id::EventId, log_limit::LogLimit},
    state::instance::Instance,
};

const PERIOD_MS: u64 = 1000;
/// Instances that come within this time of a tick find it done.
const JITTER_MS: u64 = 100;
/// Between log lines about ticks that fail, ms: the next attempt comes at once.
const LOG_MS: u64 = 10_000;

/// Calls `sse_tick`; nothing happens if the last tick is less than `min_interval_ms` old.
///
/// # Errors
/// Redis does not answer.
pub async fn now(commands: &Commands, min_interval_ms: u64, seen: EventId) -> Result<(), Fault> {
    let mut call = commands.call::<&str>("tick", &[]);
    call.arg(min_interval_ms).arg(seen.to_string());
    commands.run::<i64>(&call).await.map(drop)
}

/// Ticks whenever no other instance has done so for a second.
pub async fn run(instance: Arc<Instance>, commands: Commands) {
    let (log, unfit_log) = (LogLimit::new(LOG_MS), LogLimit::new(LOG_MS));
    loop {
        let age_ms = instance.link.tick_age().map_or(0, |age| age.as_millis() as u64);
        instance.metrics.tick_age.set(age_ms as f64 / 1000.0);
        if age_ms < PERIOD_MS {
            let pause = PERIOD_MS - age_ms + fastrand::u64(0..JITTER_MS);
            tokio::time::sleep(Duration::from_millis(pause)).await;
            continue;
        }
        if !instance.link.is_up() {
            tokio::time::sleep(Duration::from_millis(PERIOD_MS)).await;
            continue;
        }
        match now(&commands, PERIOD_MS - JITTER_MS, instance.link.highest()).await {
            Ok(()) => {}
            Err(Fault::Away(error) | Fault::Unanswered(error)) => {
                if let Some(suppressed) = log.allow(instance.now_ms()) {
                    tracing::warn!(error, suppressed, "no tick");
                }
            }
            Err(Fault::Refused(error)) => {
                if let Some(suppressed) = log.allow(instance.now_ms()) {
                    tracing::warn!(%error, suppressed, "no tick; is the library gone?");
                }
                if let Err(unfit) = library::ensure(&commands, &instance.settings).await
                    && let Some(suppressed) = unfit_log.allow(instance.now_ms())
                {
                    tracing::warn!(error = %unfit, suppressed, "the library cannot be loaded");
                }
            }
        }
        // The tick itself comes by the link.
        tokio::time::sleep(Duration::from_millis(JITTER_MS)).await;
    }
}

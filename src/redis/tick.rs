//! Ticks: about every second one instance moves the clock and publishes it
//! (ARCHITECTURE.md#clock-ticks-and-watermark).

use std::time::Duration;

use super::{
    commands::{CommandError, Commands},
    library,
    link_context::LinkContext,
};
use crate::core::id::EventId;
use crate::error_chain::ErrorChain;
use crate::log_limit::LogLimit;

const PERIOD_MS: u64 = 1000;
/// Random part of the period, so that instances rarely tick at the same time.
const JITTER_MS: u64 = 100;
/// Minimum time between log lines, ms.
const LOG_INTERVAL_MS: u64 = 10_000;

/// Calls `sse_tick`, which has no effect if the last tick is less than `min_interval_ms` old.
///
/// # Errors
/// Redis does not respond.
pub async fn now(
    commands: &Commands,
    min_interval_ms: u64,
    seen: EventId,
) -> Result<(), CommandError> {
    let mut call = commands.call::<&str>("tick", &[]);
    call.arg(min_interval_ms).arg(seen.to_string());
    commands.run::<i64>(&call).await.map(drop)
}

/// Ticks whenever no other instance has done so for a second.
pub async fn run(context: LinkContext, commands: Commands) {
    let log = LogLimit::new(LOG_INTERVAL_MS);
    loop {
        let age_ms = context.state.tick_age().map_or(0, |age| age.as_millis() as u64);
        context.metrics.tick_age.set(age_ms as f64 / 1000.0);
        if age_ms < PERIOD_MS {
            let pause = PERIOD_MS - age_ms + fastrand::u64(0..JITTER_MS);
            tokio::time::sleep(Duration::from_millis(pause)).await;
            continue;
        }
        if !context.state.is_up() {
            tokio::time::sleep(Duration::from_millis(PERIOD_MS)).await;
            continue;
        }
        if let Err(fault) = now(&commands, PERIOD_MS - JITTER_MS, context.state.highest_id()).await
        {
            after_failure(&context, &commands, &fault, &log).await;
        }
        // The tick itself arrives on the link.
        tokio::time::sleep(Duration::from_millis(JITTER_MS)).await;
    }
}

async fn after_failure(
    context: &LinkContext,
    commands: &Commands,
    fault: &CommandError,
    log: &LogLimit,
) {
    // Already logged with the key's name; loading the library again would not help.
    if fault.is_wrong_type() {
        return;
    }
    let log_line = log.allow(context.clock.now_ms());
    if let Some(suppressed) = log_line {
        let (address, error) = (&commands.address, ErrorChain(fault));
        tracing::warn!(%address, %error, suppressed, "could not publish a tick");
    }
    // Another client may have deleted the library (FUNCTION FLUSH).
    if let CommandError::Rejected(_) = fault
        && let Err(error) = library::ensure(commands, &context.settings).await
        && log_line.is_some()
    {
        let (address, error) = (&commands.address, ErrorChain(&error));
        tracing::warn!(%address, %error, "could not load the function library");
    }
}

//! Streams at rest, and a steady load.

use std::time::Duration;

use super::Run;

/// Holds the streams.
pub(super) async fn idle(run: &Run, duration: Duration) {
    tokio::time::sleep(duration.saturating_sub(run.settle)).await;
}

/// Publishes for a while.
pub(super) async fn load(run: &mut Run, duration: Duration) -> Result<(), String> {
    let load = run.load(async |_| Ok(tokio::time::sleep(duration).await)).await?;
    run.report.load = Some(load);
    Ok(())
}

//! Runs one external source on this instance: waits for its lease, reads and publishes entries
//! while it has it, and releases it at the end.

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, time::timeout};

use super::{
    lease::SourceLease,
    metrics::SourceMetrics,
    publishing::Publisher,
    source::{MAX_ENTRIES, Source, SourceError},
};
use crate::{
    backoff::Backoff, error_chain::ErrorChain, log_limit::LogLimit,
    redis::link_context::LinkContext, state::clock::unix_ms,
};

/// Time between attempts to take a lease that another instance has.
const STANDBY: Duration = Duration::from_millis(300);
/// Longest wait for entries.
const MAX_WAIT: Duration = Duration::from_secs(1);
/// Maximum time for a source to connect or to confirm entries.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Maximum time for a source to close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
const FIRST_RETRY: Duration = Duration::from_millis(200);
const MAX_RETRY: Duration = Duration::from_secs(5);
/// Minimum time between log lines of one kind, ms.
const LOG_INTERVAL_MS: u64 = 10_000;

/// Why a reader ends.
enum End {
    /// The instance ends.
    Stopped,
    LeaseLost,
    /// The source cannot be read.
    Failed(SourceError),
}

/// Runs one source.
pub struct Runner<S> {
    source: S,
    name: String,
    lease: SourceLease,
    publisher: Publisher,
    metrics: SourceMetrics,
    failure_log: LogLimit,
}

impl<S: Source> Runner<S> {
    /// `holder` is the name of this instance.
    pub fn new(context: &LinkContext, source: S, metrics: SourceMetrics, holder: Arc<str>) -> Self {
        let commands = context.commands();
        let name = source.name().to_owned();
        Self {
            lease: SourceLease::new(commands.clone(), &name, holder),
            publisher: Publisher::new(&name, context, commands, metrics.clone()),
            source,
            name,
            metrics,
            failure_log: LogLimit::new(LOG_INTERVAL_MS),
        }
    }

    /// Runs until `stop` is true.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let mut backoff = Backoff::new(FIRST_RETRY, MAX_RETRY);
        while self.await_lease(&mut stop).await {
            let end = self.read(&mut stop, &mut backoff).await;
            self.metrics.reader.set(0);
            self.publisher.clear_lag();
            let _ = timeout(CLOSE_TIMEOUT, self.source.close()).await;
            self.lease.release().await;
            match end {
                End::Stopped => break,
                End::LeaseLost => {
                    tracing::warn!(source = self.name, "lost the lease of the source");
                }
                End::Failed(error) => {
                    self.failed(&error);
                    // Meanwhile, another instance may read the source.
                    let delay = tokio::time::sleep(backoff.delay());
                    tokio::select! {
                        () = delay => {}
                        () = stopped(&mut stop) => break,
                    }
                }
            }
        }
        tracing::debug!(source = self.name, "the source has ended");
    }

    /// Waits until this instance has the lease. Returns `false` if the instance ends.
    async fn await_lease(&self, stop: &mut watch::Receiver<bool>) -> bool {
        loop {
            tokio::select! {
                biased;
                () = stopped(stop) => return false,
                // Without Redis, nothing can be published anyway.
                taken = self.lease.take() => if matches!(taken, Ok(true)) {
                    return true;
                },
            }
            tokio::select! {
                () = stopped(stop) => return false,
                () = tokio::time::sleep(STANDBY) => {}
            }
        }
    }

    /// Reads while this instance has the lease.
    async fn read(&mut self, stop: &mut watch::Receiver<bool>, backoff: &mut Backoff) -> End {
        let Self { source, lease, publisher, metrics, .. } = self;
        tokio::select! {
            biased;
            () = lease.keep() => End::LeaseLost,
            end = relay(source, lease, publisher, metrics, stop, backoff) => end,
        }
    }

    fn failed(&self, error: &SourceError) {
        self.metrics.errors.inc();
        if let Some(suppressed) = self.failure_log.allow(unix_ms()) {
            let (source, error) = (&self.name, ErrorChain(error));
            tracing::warn!(source, %error, suppressed, "could not read the source; trying again");
        }
    }
}

/// Reads, publishes and confirms entries until something prevents it.
async fn relay(
    source: &mut impl Source,
    lease: &SourceLease,
    publisher: &Publisher,
    metrics: &SourceMetrics,
    stop: &mut watch::Receiver<bool>,
    backoff: &mut Backoff,
) -> End {
    if let Err(error) = in_time("be prepared", source.prepare()).await {
        return End::Failed(error);
    }
    tracing::info!(source = source.name(), "this instance reads the source now");
    metrics.reader.set(1);
    loop {
        let wait = MAX_WAIT.min(lease.remaining() / 2);
        let entries = tokio::select! {
            biased;
            () = stopped(stop) => return End::Stopped,
            entries = source.next(wait) => entries,
        };
        let entries = match entries {
            Ok(entries) => entries,
            Err(error) => return End::Failed(error),
        };
        backoff.reset();
        if entries.is_empty() {
            publisher.clear_lag();
            continue;
        }
        debug_assert!(entries.len() <= MAX_ENTRIES);
        let outcomes = tokio::select! {
            biased;
            outcomes = publisher.publish(lease, entries) => outcomes,
            // What is not published by then is left to the next reader.
            () = stopped_for(stop, CLOSE_TIMEOUT) => return End::Stopped,
        };
        let Ok(outcomes) = outcomes else { return End::LeaseLost };
        if let Err(error) = in_time("confirm entries", source.done(&outcomes)).await {
            return End::Failed(error);
        }
    }
}

/// Limits how long a call of a source takes.
async fn in_time<T>(
    what: &str,
    call: impl Future<Output = Result<T, SourceError>>,
) -> Result<T, SourceError> {
    let late = |elapsed| {
        let text = format!("the source did not {what} within {} s", CALL_TIMEOUT.as_secs());
        SourceError::unavailable(text, elapsed)
    };
    timeout(CALL_TIMEOUT, call).await.unwrap_or_else(|elapsed| Err(late(elapsed)))
}

/// Waits until the instance ends.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that the sender is gone, and with it the instance.
    let _ = stop.wait_for(|is_stopped| *is_stopped).await;
}

/// Waits until the instance has been ending for `time`.
async fn stopped_for(stop: &mut watch::Receiver<bool>, time: Duration) {
    stopped(stop).await;
    tokio::time::sleep(time).await;
}

//! The lease of an external source: which instance reads it.

use std::{
    cell::Cell,
    sync::Arc,
    time::{Duration, Instant},
};

use redis::Cmd;

use crate::{
    error_chain::ErrorChain,
    redis::commands::{CommandError, Commands},
};

/// How long a lease lasts after it was taken or renewed.
const LEASE: Duration = Duration::from_secs(2);
/// Time between renewals.
const RENEWAL: Duration = Duration::from_millis(500);

/// The lease of one source, as this instance sees it.
pub struct SourceLease {
    commands: Commands,
    key: String,
    /// The name of this instance.
    holder: Arc<str>,
    /// When the lease expires at the earliest, by the clock of this instance.
    until: Cell<Instant>,
}

impl SourceLease {
    /// A lease that this instance does not have.
    pub fn new(commands: Commands, source: &str, holder: Arc<str>) -> Self {
        let key = commands.keys.source_lease(source);
        Self { commands, key, holder, until: Cell::new(Instant::now()) }
    }

    fn call(&self) -> Cmd {
        let mut call = self.commands.call("lease_source", &[&self.key]);
        call.arg(&*self.holder).arg(LEASE.as_millis() as u64);
        call
    }

    /// Takes or renews the lease. Returns whether this instance has it.
    ///
    /// # Errors
    /// Redis did not reply; a lease that this instance has remains valid until it expires.
    pub async fn take(&self) -> Result<bool, CommandError> {
        // Before the call, so that this instance never takes the lease for longer than Redis does.
        let until = Instant::now() + LEASE;
        let is_held = self.commands.run::<u8>(&self.call()).await? == 1;
        self.until.set(if is_held { until } else { Instant::now() });
        Ok(is_held)
    }

    /// How long this instance may still read and publish.
    pub fn remaining(&self) -> Duration {
        self.until.get().saturating_duration_since(Instant::now())
    }

    /// Whether this instance may publish entries.
    pub fn is_valid(&self) -> bool {
        !self.remaining().is_zero()
    }

    /// Renews the lease until it is lost or could not be renewed in time.
    pub async fn keep(&self) {
        loop {
            tokio::time::sleep(RENEWAL.min(self.remaining())).await;
            match tokio::time::timeout(self.remaining(), self.take()).await {
                Ok(Ok(true)) => {}
                Ok(Ok(false)) => return,
                Ok(Err(error)) => {
                    let (address, error) = (self.commands.address(), ErrorChain(&error));
                    tracing::debug!(%address, %error, "could not renew the lease of a source");
                }
                Err(_) => {}
            }
            if !self.is_valid() {
                return;
            }
        }
    }

    /// Releases the lease, so that another instance can take it at once.
    pub async fn release(&self) {
        self.until.set(Instant::now());
        let mut call = self.call();
        call.arg("RELEASE");
        // A lease that could not be released expires.
        if let Err(error) = self.commands.run::<u8>(&call).await {
            let (address, error) = (self.commands.address(), ErrorChain(&error));
            tracing::debug!(%address, %error, "could not release the lease of a source");
        }
    }
}

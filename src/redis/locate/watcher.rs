//! Keeps the answer of the sentinels current: asks them regularly, and at once when one of them
//! announces a failover or a connection fails.

use std::{collections::HashMap, time::Duration};

use super::{LocateError, Locator, sentinel::Connections, views::Answers};
use crate::{error_chain::ErrorChain, settings::ServerAddress};

/// Time between two rounds of questions.
const INTERVAL: Duration = Duration::from_secs(2);
/// Minimum time between two rounds, whatever the sentinels announce.
const PAUSE: Duration = Duration::from_millis(50);

/// Watches the sentinels. Its connections belong to the runtime that runs it.
pub struct Watcher {
    locator: Locator,
    connections: Connections,
    /// The last error of each sentinel, to log changes only.
    logged: HashMap<ServerAddress, String>,
}

impl Watcher {
    pub(super) fn new(locator: Locator) -> Self {
        Self { locator, connections: Connections::new(), logged: HashMap::new() }
    }

    /// Watches the sentinels until the runtime ends.
    pub async fn run(mut self) {
        let ask = self.locator.0.ask.clone();
        loop {
            self.round().await;
            tokio::time::sleep(PAUSE).await;
            let _ = tokio::time::timeout(INTERVAL, ask.notified()).await;
        }
    }

    async fn round(&mut self) {
        let inner = self.locator.0.clone();
        let Some(sentinels) = &inner.sentinels else { return };
        let answers = sentinels.ask_on(&mut self.connections, Some(&inner.ask)).await;
        self.log(&answers);
        match answers.primary() {
            Ok(primary) => self.found(primary),
            Err(error) => self.not_found(error),
        }
    }

    fn found(&self, primary: ServerAddress) {
        self.locator.0.known.send_if_modified(|known| {
            known.error = None;
            if known.primary.as_ref() == Some(&primary) {
                return false;
            }
            match &known.primary {
                Some(previous) => tracing::info!(%previous, %primary, "new primary"),
                None => tracing::info!(%primary, "primary found by the sentinels"),
            }
            known.primary = Some(primary);
            true
        });
    }

    /// The last known primary stays: the sentinels may be away while it works.
    fn not_found(&self, error: LocateError) {
        self.locator.0.known.send_if_modified(|known| {
            if known.error.is_none() && known.primary.is_some() {
                let error = ErrorChain(&error);
                tracing::warn!(%error, "no sentinel replies, the last known primary is used");
            }
            known.error = Some(error);
            false
        });
    }

    /// Logs sentinels of `redis.url` that do not answer, when that begins or its reason changes.
    fn log(&mut self, answers: &Answers) {
        let Some(sentinels) = &self.locator.0.sentinels else { return };
        let mut failing = HashMap::new();
        let configured = answers.failed().iter().filter(|(s, _)| sentinels.is_configured(s));
        for (sentinel, error) in configured {
            let error = ErrorChain(error).to_string();
            if self.logged.get(sentinel) != Some(&error) {
                tracing::warn!(address = %sentinel, error, "no answer from a sentinel");
            }
            failing.insert(sentinel.clone(), error);
        }
        self.logged = failing;
    }
}

//! Events with `UNSEEN`: reports to Redis which of them were handed to a stream, and moves those
//! whose time is over to the stream `sse:undelivered` (ARCHITECTURE.md#undelivered-events).
//!
//! Every instance does so. What is moved is first stored, once, and then removed: whatever an
//! instance that ends leaves undone, another one does again.

use std::{collections::HashMap, sync::Arc, time::Duration};

use super::commands::{CommandError, Commands};
use crate::{
    core::channel::Channel,
    error_chain::ErrorChain,
    log_limit::LogLimit,
    metrics::Metrics,
    state::{clock::unix_ms, sightings::Sightings},
};

/// Time between two rounds.
const INTERVAL: Duration = Duration::from_millis(500);
/// Maximum number of ids in one call.
const MAX_IDS: usize = 500;
/// Keys that one SCAN looks at.
const SCAN_COUNT: usize = 1000;
/// Minimum time between log lines, ms.
const LOG_INTERVAL_MS: u64 = 10_000;

/// Moves undelivered events until the instance ends.
pub struct Undelivered {
    commands: Commands,
    sightings: Arc<Sightings>,
    metrics: Arc<Metrics>,
    /// Since when the library of each server knows of events. If that changes, its memory was lost.
    known_since: HashMap<Arc<str>, String>,
    log: LogLimit,
}

impl Undelivered {
    /// `commands` belong to the thread that runs it.
    pub fn new(commands: Commands, sightings: Arc<Sightings>, metrics: Arc<Metrics>) -> Self {
        let log = LogLimit::new(LOG_INTERVAL_MS);
        Self { commands, sightings, metrics, known_since: HashMap::new(), log }
    }

    /// Runs until the runtime ends.
    pub async fn run(mut self) {
        loop {
            tokio::time::sleep(INTERVAL).await;
            for (user, ids) in self.sightings.take() {
                let key = self.commands.keys.unseen(&Channel::User(user.clone()));
                let texts: Vec<String> = ids.iter().map(ToString::to_string).collect();
                if let Err(error) = self.remove(&key, &texts).await {
                    self.failed(&error, "could not report events as seen, retrying");
                    for id in ids {
                        self.sightings.add(&user, id);
                    }
                }
            }
            for server in self.commands.each_server() {
                if let Err(error) = self.sweep(&server).await {
                    self.failed(&error, "could not look for undelivered events, retrying");
                }
            }
        }
    }

    fn failed(&self, error: &CommandError, what: &str) {
        // The link reports that Redis is unavailable or not adopted.
        let is_temporary = !matches!(error, CommandError::Rejected(_)) || error.is_not_adopted();
        if !is_temporary && let Some(suppressed) = self.log.allow(unix_ms()) {
            tracing::warn!(error = %ErrorChain(error), suppressed, "{what}");
        }
    }

    async fn remove(&self, key: &str, ids: &[String]) -> Result<(), CommandError> {
        for ids in ids.chunks(MAX_IDS) {
            let mut call = self.commands.call("seen", &[key]);
            call.arg(ids);
            self.commands.run::<i64>(&call).await?;
        }
        Ok(())
    }

    async fn sweep(&mut self, server: &Commands) -> Result<(), CommandError> {
        let reply: Vec<String> = server.run(&server.call("unseen", &[] as &[&str])).await?;
        let [since, may_have_some, due @ ..] = &reply[..] else {
            return Err(CommandError::UnexpectedReply(format!("{reply:?}")));
        };
        if may_have_some == "0" {
            return Ok(());
        }
        let address = server.address();
        if self.known_since.get(&address) != Some(since) {
            for key in waiting(server).await? {
                self.move_due(server, &key).await?;
            }
            self.known_since.insert(address, since.clone());
        }
        for key in due {
            self.move_due(server, key).await?;
        }
        Ok(())
    }

    /// Moves the due events of one user. The call also makes the library know of the others.
    async fn move_due(&self, server: &Commands, key: &str) -> Result<(), CommandError> {
        let Some(channel) = self.commands.keys.channel_of_unseen(key) else { return Ok(()) };
        let due: Vec<Vec<u8>> = server.run(&server.call("due", &[key])).await?;
        for event in due.chunks_exact(3) {
            let mut call = self.commands.call("undelivered", &[self.commands.keys.undelivered()]);
            call.arg(channel.to_string()).arg(event);
            if self.commands.run::<String>(&call).await? == "stored" {
                self.metrics.undelivered.inc();
            }
            let id = String::from_utf8_lossy(&event[0]).into_owned();
            self.remove(key, &[id]).await?;
        }
        Ok(())
    }
}

/// The hashes of all users of a server that have waiting events.
async fn waiting(server: &Commands) -> Result<Vec<String>, CommandError> {
    let (mut cursor, mut found) = ("0".to_owned(), Vec::new());
    loop {
        let mut scan = redis::cmd("SCAN");
        scan.arg(&cursor).arg("MATCH").arg(server.keys.unseens()).arg("COUNT").arg(SCAN_COUNT);
        let (next, keys): (String, Vec<String>) = server.run(&scan).await?;
        found.extend(keys);
        if next == "0" {
            return Ok(found);
        }
        cursor = next;
    }
}

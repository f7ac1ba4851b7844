//! Events with `UNSEEN`: reports to Redis which of them were handed to a stream, and moves those
//! whose time is over to the stream `sse:undelivered` (ARCHITECTURE.md#undelivered-events).
//!
//! Every instance does so. What is moved is first stored, once, and then removed: whatever an
//! instance that ends leaves undone, another one does again.

use std::{collections::HashMap, sync::Arc, time::Duration};

use redis::Cmd;

use super::commands::{CommandError, Commands, log_foreign};
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
/// Maximum number of calls in one pipeline, and of users that `sse_unseen` names.
const BATCH: usize = 100;
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
            self.report().await;
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

    /// Reports which events were handed over.
    async fn report(&self) {
        let mut parts = Vec::new();
        for (user, ids) in self.sightings.take() {
            parts.extend(ids.chunks(MAX_IDS).map(|ids| (user.clone(), ids.to_vec())));
        }
        for parts in parts.chunks(BATCH) {
            let calls = parts.iter().map(|(user, ids)| {
                let key = self.commands.keys.unseen(&Channel::User(user.clone()));
                self.removal(&key, ids.iter().map(|id| id.to_string().into_bytes()))
            });
            let replies = self.commands.run_each::<i64>(calls.collect()).await;
            for ((user, ids), reply) in parts.iter().zip(replies) {
                let Err(error) = reply else { continue };
                self.failed(&error, "could not report events as seen, retrying");
                for id in ids {
                    self.sightings.add(user, *id);
                }
            }
        }
    }

    fn removal(&self, key: &str, ids: impl Iterator<Item = Vec<u8>>) -> Cmd {
        let mut call = self.commands.call("seen", &[key]);
        call.arg(ids.collect::<Vec<_>>());
        call
    }

    async fn sweep(&mut self, server: &Commands) -> Result<(), CommandError> {
        loop {
            let reply: Vec<String> = server.run(&server.call("unseen", &[] as &[&str])).await?;
            let [since, may_have_some, due @ ..] = &reply[..] else {
                return Err(CommandError::UnexpectedReply(format!("{reply:?}")));
            };
            if may_have_some == "0" {
                return Ok(());
            }
            let address = server.address();
            if self.known_since.get(&address) != Some(since) {
                self.move_due(&waiting(server).await?).await?;
                self.known_since.insert(address, since.clone());
            }
            self.move_due(due).await?;
            // As many as one reply names: there may be more.
            if due.len() < BATCH {
                return Ok(());
            }
        }
    }

    /// Moves the due events of some users. The calls also make the library know of the others.
    async fn move_due(&self, keys: &[String]) -> Result<(), CommandError> {
        for keys in keys.chunks(BATCH) {
            let calls = keys.iter().map(|key| self.commands.call("due", &[key])).collect();
            let replies = self.commands.run_each::<Vec<Vec<u8>>>(calls).await;
            let mut events = Vec::new();
            for (key, reply) in keys.iter().zip(replies) {
                let Some(channel) = self.commands.keys.channel_of_unseen(key) else { continue };
                let due = match reply {
                    // Other users' events must not wait for this key.
                    Err(error) if error.is_wrong_type() => {
                        log_foreign(key);
                        continue;
                    }
                    due => due.map_err(shared)?,
                };
                for event in due.chunks_exact(3) {
                    events.push((key, channel.to_string(), event.to_vec()));
                }
            }
            let undelivered = self.commands.keys.undelivered();
            let store = |(_, channel, event): &(_, String, Vec<Vec<u8>>)| {
                let mut call = self.commands.call("undelivered", &[&undelivered]);
                call.arg(channel).arg(event);
                call
            };
            let stored = self.commands.run_each::<String>(events.iter().map(store).collect()).await;
            let mut removals = Vec::new();
            for ((key, _, event), reply) in events.iter().zip(stored) {
                if reply.map_err(shared)? == "stored" {
                    self.metrics.undelivered.inc();
                }
                removals.push(self.removal(key, std::iter::once(event[0].clone())));
            }
            for reply in self.commands.run_each::<i64>(removals).await {
                reply.map_err(shared)?;
            }
        }
        Ok(())
    }
}

/// The error of one of several commands.
fn shared(error: Arc<CommandError>) -> CommandError {
    Arc::try_unwrap(error).unwrap_or_else(|error| CommandError::UnexpectedReply(error.to_string()))
}

/// The hashes of all users of a server that have waiting events.
async fn waiting(server: &Commands) -> Result<Vec<String>, CommandError> {
    let (mut cursor, mut found) = ("0".to_owned(), Vec::new());
    loop {
        let mut scan = redis::cmd("SCAN");
        scan.arg(&cursor).arg("MATCH").arg(server.keys.unseens()).arg("COUNT").arg(SCAN_COUNT);
        let (next, keys): (String, Vec<Vec<u8>>) = server.run(&scan).await?;
        found.extend(keys.into_iter().filter_map(|key| String::from_utf8(key).ok()));
        if next == "0" {
            return Ok(found);
        }
        cursor = next;
    }
}

//! Writes messages on a cluster, where each channel has its own server: several batches at once,
//! one for each server, so that a server that is unavailable does not delay the others.

use std::{collections::HashMap, sync::Arc};

use futures_util::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use redis::Cmd;
use tokio::time::{Duration, Instant};

use super::{
    BATCH, FIRST_RETRY, MAX_RETRY, Recorder, Role, bus,
    lanes::{Batch, Lane, Lanes, Outcome},
    lease::{RecordCall, Saved, Written},
    numbering::{RecordPosition, Work},
};
use crate::{
    backoff::Backoff,
    core::part::ServerIndex,
    error_chain::ErrorChain,
    redis::{commands::CommandError, key_names::KeyNames, servers::Servers},
};

/// Time between two looks at the links of the cluster bus.
const BUS_INTERVAL: Duration = Duration::from_secs(1);
/// A standby that takes over warns of a change of the bus this recently, which the writer may not
/// have done.
const BUS_MEMORY: Duration = Duration::from_secs(10);

/// What streams must be warned of.
#[derive(Clone, Copy, Default)]
pub(super) struct Warnings {
    /// The bus may have lost messages.
    missed: bool,
    /// Messages were dropped.
    dropped: bool,
}

impl Warnings {
    fn with(self, other: Self) -> Self {
        Self { missed: self.missed || other.missed, dropped: self.dropped || other.dropped }
    }

    fn any(self) -> bool {
        self.missed || self.dropped
    }

    /// The argument of `sse_progress`.
    pub(super) fn argument(self) -> Option<&'static str> {
        match self {
            Self { dropped: true, .. } => Some("DROPPED"),
            Self { missed: true, .. } => Some("UNRECORDED"),
            _ => None,
        }
    }
}

/// The result of calls that ran beside the recorder.
pub(super) enum Completion {
    /// A batch, under a token.
    Batch { server: ServerIndex, token: String, batch: Batch, written: Vec<Written> },
    /// A progress was saved, or not.
    Progress {
        token: String,
        position: RecordPosition,
        has_recorded: bool,
        warnings: Warnings,
        saved: Result<Saved, CommandError>,
    },
    /// Rejected messages were kept, or not.
    Kept,
}

struct ServerState {
    is_busy: bool,
    /// Set while the server fails.
    retry_at: Option<Instant>,
    backoff: Backoff,
}

impl Default for ServerState {
    fn default() -> Self {
        let backoff = Backoff::new(FIRST_RETRY, MAX_RETRY);
        Self { is_busy: false, retry_at: None, backoff }
    }
}

/// What a writer on a cluster is writing.
pub(super) struct Across {
    lanes: Lanes,
    running: FuturesUnordered<BoxFuture<'static, Completion>>,
    servers: HashMap<ServerIndex, ServerState>,
    saved: Option<RecordPosition>,
    is_saving: bool,
    /// After a failure: when to try again.
    save_at: Instant,
    /// Whether messages were recorded since the progress was saved.
    has_recorded: bool,
    warnings: Warnings,
}

impl Default for Across {
    fn default() -> Self {
        Self {
            lanes: Lanes::default(),
            running: FuturesUnordered::new(),
            servers: HashMap::new(),
            saved: None,
            is_saving: false,
            save_at: Instant::now(),
            has_recorded: false,
            warnings: Warnings::default(),
        }
    }
}

impl Across {
    /// Waits for the next result, or until something can be tried again.
    pub(super) async fn next(&mut self) -> Option<Completion> {
        let now = Instant::now();
        let retries = self.servers.values().filter(|s| !s.is_busy).filter_map(|s| s.retry_at);
        let delays = self.lanes.next_delay().into_iter().chain([self.save_at]);
        // What is due already waits for something else, for example for the lease.
        let wake = retries.chain(delays).filter(|at| *at > now).min();
        let pause = async {
            match wake {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(completion) = self.running.next() => Some(completion),
            () = pause => None,
        }
    }
}

/// Which server owns a lane.
fn owners(
    servers: &Arc<Servers>,
    keys: &Arc<KeyNames>,
) -> impl Fn(&Lane) -> Option<ServerIndex> + use<> {
    let (servers, keys) = (servers.clone(), keys.clone());
    move |lane| {
        let owner = match lane {
            Lane::Broadcasts => servers.of_broadcasts(),
            Lane::User(channel) => {
                servers.of_key(keys.public(&String::from_utf8_lossy(channel)).as_bytes())
            }
        };
        owner.map(|server| server.info.index)
    }
}

impl Recorder {
    fn owners(&self) -> impl Fn(&Lane) -> Option<ServerIndex> + use<> {
        owners(&self.servers, self.lease.keys())
    }

    /// The token of a writer on a cluster.
    fn token_across(&self) -> Option<&String> {
        match &self.role {
            Role::Writer { token } | Role::Retiring { token } if self.lease.is_cluster() => {
                Some(token)
            }
            _ => None,
        }
    }

    /// Whether this instance writes on a cluster.
    pub(super) fn is_writing_across(&self) -> bool {
        self.token_across().is_some()
    }

    /// Whether everything is written, and that is saved.
    pub(super) fn has_settled(&self) -> bool {
        !self.numbering.has_unwritten()
            && !self.across.warnings.any()
            && (!self.lease.is_cluster() || self.numbering.written_upto() == self.across.saved)
    }

    /// Starts a batch for each server that is free, and saves the progress. A server cannot check
    /// the lease, so nothing is started after it has expired by this instance's clock.
    pub(super) fn dispatch(&mut self) {
        let now = Instant::now();
        let Some(token) = self.token_across().cloned() else { return };
        let owner = self.owners();
        self.across.lanes.add(&self.numbering, &owner);
        self.across.lanes.end_delays(now, &owner);
        self.numbering.finish_markers();
        if now >= self.lease_until {
            return;
        }
        let rules = &self.context.settings.channels;
        for server in self.across.lanes.awaited().into_iter().flatten() {
            let state = self.across.servers.entry(server).or_default();
            if state.is_busy || state.retry_at.is_some_and(|at| at > now) {
                continue;
            }
            let batch = self.across.lanes.take(server, BATCH, &self.numbering, &owner);
            let mut calls = Vec::new();
            for (_, numbers) in &batch {
                let mut before = None;
                for (position, work) in numbers.iter().filter_map(|n| self.numbering.entry(*n)) {
                    let (call, is_plain) =
                        self.lease.record_across(&token, position, work, before, rules);
                    calls.push(call);
                    if is_plain {
                        before = Some(position.n);
                    }
                }
            }
            if calls.is_empty() {
                continue;
            }
            state.is_busy = true;
            let (lease, token) = (self.lease.clone(), token.clone());
            self.across.running.push(Box::pin(async move {
                let written = lease.write_each(calls).await;
                Completion::Batch { server, token, batch, written }
            }));
        }
        self.save(token, now);
    }

    /// Saves up to where everything is written, unless that is being done.
    fn save(&mut self, token: String, now: Instant) {
        let across = &mut self.across;
        if across.is_saving || across.save_at > now {
            return;
        }
        let Some(position) = self.numbering.written_upto() else { return };
        if across.saved.as_ref() == Some(&position) && !across.warnings.any() {
            return;
        }
        across.is_saving = true;
        let (lease, warnings) = (self.lease.clone(), std::mem::take(&mut across.warnings));
        let has_recorded = std::mem::take(&mut across.has_recorded);
        across.running.push(Box::pin(async move {
            let saved = lease.save(&token, &position, has_recorded, warnings.argument()).await;
            Completion::Progress { token, position, has_recorded, warnings, saved }
        }));
    }

    /// Handles the result of calls that ran beside the recorder.
    pub(super) async fn completed(&mut self, completion: Completion) {
        // Those under an earlier token say nothing about this one.
        let is_current = |own: Option<&String>, token: &String| own == Some(token);
        match completion {
            Completion::Kept => {}
            Completion::Batch { server, token, batch, written } => {
                let is_current = is_current(self.token_across(), &token);
                if self.batch_completed(server, &token, batch, written) && is_current {
                    self.fenced().await;
                }
            }
            Completion::Progress { token, position, has_recorded, warnings, saved } => {
                self.across.is_saving = false;
                if !is_current(self.token_across(), &token) {
                    return;
                }
                match saved {
                    Ok(Saved::Done) => return self.across.saved = Some(position),
                    Ok(Saved::Fenced) => return self.fenced().await,
                    Ok(Saved::Unknown) => self.renew().await,
                    Err(error) => self.log_waiting(&error),
                }
                self.across.has_recorded |= has_recorded;
                self.across.warnings = self.across.warnings.with(warnings);
                self.across.save_at = Instant::now() + FIRST_RETRY;
            }
        }
    }

    /// Returns whether another writer has taken over.
    fn batch_completed(
        &mut self,
        server: ServerIndex,
        token: &str,
        batch: Batch,
        written: Vec<Written>,
    ) -> bool {
        let (now, owner) = (Instant::now(), self.owners());
        let (mut is_fenced, mut has_written, mut fault) = (false, false, None);
        let mut rejected = Vec::new();
        let mut written = written.into_iter();
        let mut failed = Vec::with_capacity(batch.len());
        for (lane, numbers) in &batch {
            let mut lane_failed = false;
            for (number, outcome) in numbers.iter().zip(&mut written) {
                match outcome {
                    Written::Failed(error) => {
                        lane_failed = true;
                        fault = Some(error);
                        continue;
                    }
                    Written::Hole => continue,
                    Written::Fenced | Written::Unknown => {
                        is_fenced = true;
                        continue;
                    }
                    Written::Rejected { reason, text } => {
                        rejected.extend(self.rejected_across(token, lane, *number, &reason));
                        let channel = match self.numbering.entry(*number) {
                            Some((_, Work::Message { channel, .. })) => channel.as_slice(),
                            _ => b"",
                        };
                        self.count_rejected(&reason, &text, channel);
                    }
                    Written::Recorded => self.context.metrics.recorded.inc(),
                    Written::Duplicate | Written::Done => {}
                }
                has_written = true;
                self.across.has_recorded = true;
                self.across.lanes.finish(lane, *number);
                self.numbering.finish(*number);
            }
            failed.push(lane_failed);
        }
        let server_failed = fault.is_some() && !has_written;
        let state = self.across.servers.entry(server).or_default();
        state.is_busy = false;
        if server_failed {
            state.retry_at = Some(now + state.backoff.delay());
        } else {
            state.backoff.reset();
            state.retry_at = None;
        }
        if let Some(error) = fault {
            self.log_waiting(&error);
        }
        for ((lane, _), lane_failed) in batch.into_iter().zip(failed) {
            let outcome = match (server_failed, lane_failed) {
                (true, _) => Outcome::ServerFailed,
                (false, true) => Outcome::LaneFailed,
                (false, false) => Outcome::Open,
            };
            self.across.lanes.put_back(lane, outcome, now, &owner);
        }
        self.keep_rejected(rejected);
        is_fenced
    }

    /// A call that keeps a message that the server of its user has rejected: the stream of rejected
    /// messages is on another server.
    fn rejected_across(&self, token: &str, lane: &Lane, number: u64, reason: &str) -> Option<Cmd> {
        let Lane::User(_) = lane else { return None };
        let (position, work) = self.numbering.entry(number)?;
        let rules = &self.context.settings.channels;
        self.lease.keep_rejected(token, position, work, reason, rules)
    }

    fn keep_rejected(&mut self, calls: Vec<Cmd>) {
        if !calls.is_empty() {
            let lease = self.lease.clone();
            self.across.running.push(Box::pin(async move {
                // They are counted and logged in any case.
                lease.write_each(calls.into_iter().map(RecordCall::from).collect()).await;
                Completion::Kept
            }));
        }
    }

    /// Drops the messages for servers that fail, if too many are kept because of them. Returns
    /// whether that is enough. The messages of other servers are not affected.
    pub(super) fn drop_of_failing(&mut self) -> bool {
        let mut dropped = 0;
        for server in self.across.lanes.awaited() {
            let state = server.and_then(|index| self.across.servers.get(&index));
            if server.is_some() && state.is_none_or(|state| state.retry_at.is_none()) {
                continue;
            }
            for number in self.across.lanes.drop_waiting(server) {
                self.numbering.finish(number);
                dropped += 1;
            }
        }
        if dropped > 0 {
            self.across.warnings.dropped = true;
            tracing::error!(
                messages = dropped,
                "dropped the plain publishes that an unavailable Redis server could not record; \
                 clients get sse.gap (unrecorded)"
            );
        }
        self.numbering.is_within_limit()
    }

    /// Looks for the owners of lanes that have none, and at the links of the cluster bus.
    pub(super) async fn check_cluster(&mut self) {
        let current: Vec<_> = self.servers.all().iter().map(|s| s.info.index).collect();
        let owner = self.owners();
        for server in self.across.lanes.awaited() {
            if server.is_none() {
                self.context.cluster.stale.notify_one();
            }
            if server.is_none_or(|index| !current.contains(&index)) {
                self.across.lanes.resolve(server, &owner);
            }
        }
        let is_due = self.bus_read.is_none_or(|at| at.elapsed() >= BUS_INTERVAL);
        if is_due && !matches!(self.role, Role::None) && self.bus_has_changed().await {
            tracing::warn!(
                "a link of the cluster bus was replaced; plain publishes may be missing, and \
                 clients get sse.gap (unrecorded) if there were any"
            );
            self.bus_changed = Some(Instant::now());
            self.across.warnings.missed = self.is_writing_across();
        }
    }

    /// Reads the links of the bus, and compares them with those at the last look.
    pub(super) async fn bus_has_changed(&mut self) -> bool {
        let Some(server) = self.linked_server() else { return false };
        self.bus_read = Some(Instant::now());
        match bus::read(&self.lease.commands().of_server(&server.info)).await {
            Ok(began) => {
                let masters = self.servers.all();
                let id = |s: &crate::redis::servers::Server| Some(s.info.node.as_ref()?.id.clone());
                let masters: Vec<String> = masters.iter().filter_map(id).collect();
                self.bus.have_changed(began, &masters)
            }
            Err(error) => {
                if let Some(suppressed) = self.bus_log.allow(self.context.clock.now_ms()) {
                    let error = ErrorChain(&error);
                    tracing::warn!(
                        %error,
                        suppressed,
                        "could not read CLUSTER LINKS; if the cluster bus loses plain publishes, \
                         clients get no sse.gap"
                    );
                }
                false
            }
        }
    }

    /// Continues with the warning of a change of the bus that the previous writer may not have
    /// given.
    pub(super) fn take_over_warnings(&mut self) {
        let is_recent = |at: Instant| at.elapsed() < BUS_MEMORY;
        self.across.warnings.missed = self.bus_changed.is_some_and(is_recent);
    }
}

//! The recorder stores plain publishes and assigns their ids (ARCHITECTURE.md#recorder).
//!
//! One instance holds the writer's lease, one the standby's; both read the publishers' channels.
//! Messages are numbered from a marker that both have read, so both assign the same number to a
//! message. The writer records each number once. The standby keeps messages until they are known to
//! be recorded, and continues from the recorded number. `numbering` does the bookkeeping,
//! `lease` calls Redis, and this module changes the role.

pub mod inbox;
mod lease;
mod numbering;
pub mod presence;

use std::{sync::Arc, time::Duration};

use tokio::sync::oneshot;

use self::{
    lease::{Grant, Lease, Written},
    numbering::{Numbering, RecordPosition},
    presence::RecorderPresence,
};
use super::{
    commands::{CommandError, Commands},
    link_context::LinkContext,
    recorder::inbox::{Inbox, RecorderInput},
    servers::{Server, Servers},
};
use crate::{
    backoff::Backoff,
    core::{envelope::Rejection, part::ServerIndex},
    error_chain::ErrorChain,
    log_limit::{LogLimit, LogOnce},
};

/// Duration of a lease.
const LEASE: Duration = Duration::from_millis(1000);
const RENEWAL: Duration = Duration::from_millis(300);
/// The delay after a write that Redis refused temporarily, and its maximum.
const FIRST_RETRY: Duration = Duration::from_millis(100);
const MAX_RETRY: Duration = Duration::from_millis(500);
/// Maximum number of messages in one write.
const BATCH: usize = 128;

/// Minimum time between log lines about unrecorded messages, ms.
const WAITING_LOG_MS: u64 = 10_000;
/// Maximum number of channels to remember as logged.
const LOGGED_CHANNELS: usize = 1000;

enum Role {
    /// The instance has no lease.
    None,
    /// Receives and keeps messages, and watches the writer.
    Standby {
        /// The marker that this standby has published.
        marker: String,
        /// Whether another marker was received, from which the writer may count.
        is_out_of_step: bool,
    },
    /// Records messages, under the fencing token.
    Writer { token: String },
    /// The link broke: the remaining messages are recorded unless another writer has taken over,
    /// and then the lease is released.
    Retiring { token: String },
}

/// The recorder of one instance.
pub struct Recorder {
    context: LinkContext,
    /// The name of this instance in leases and markers.
    name: Arc<str>,
    presence: Arc<RecorderPresence>,
    servers: Arc<Servers>,
    lease: Lease,
    inbox: Inbox,
    role: Role,
    numbering: Numbering,
    /// Number of roles so far: each role has its own name in the leases.
    roles: u64,
    /// Whether this instance ever received a plain message: without any, none can be missing.
    has_seen_messages: bool,
    /// The server of the link, if that is up.
    linked: Option<ServerIndex>,
    backoff: Backoff,
    waiting_log: LogLimit,
    lease_log: LogLimit,
    wrong_type_log: LogOnce,
}

/// Requests that the recorder hand over; the sender in it is used when that is done.
pub type HandOverRequest = oneshot::Receiver<oneshot::Sender<()>>;

impl Recorder {
    /// Creates a recorder without a role.
    pub fn new(
        context: LinkContext,
        name: Arc<str>,
        presence: Arc<RecorderPresence>,
        commands: Commands,
        inbox: Inbox,
    ) -> Self {
        let lease = Lease::new(commands, name.to_string(), LEASE);
        Self {
            linked: None,
            servers: context.servers.clone(),
            numbering: Numbering::default(),
            role: Role::None,
            roles: 0,
            has_seen_messages: false,
            backoff: Backoff::new(FIRST_RETRY, MAX_RETRY),
            waiting_log: LogLimit::new(WAITING_LOG_MS),
            lease_log: LogLimit::new(WAITING_LOG_MS),
            wrong_type_log: LogOnce::new(LOGGED_CHANNELS, WAITING_LOG_MS),
            context,
            name,
            presence,
            lease,
            inbox,
        }
    }

    /// Records until it is stopped, and then hands over.
    pub async fn run(mut self, mut stop: HandOverRequest) {
        let mut timer = tokio::time::interval(RENEWAL);
        timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut batch = Vec::new();
        let mut write_at = tokio::time::Instant::now();
        loop {
            let to_write = matches!(self.role, Role::Writer { .. } | Role::Retiring { .. })
                && self.numbering.has_unwritten();
            tokio::select! {
                biased;
                done = &mut stop => {
                    self.hand_over().await;
                    if let Ok(done) = done {
                        let _ = done.send(());
                    }
                    return;
                }
                _ = timer.tick() => self.renew().await,
                // Before the inbox: received messages are written before more are taken.
                () = tokio::time::sleep_until(write_at), if to_write => {
                    let delay = self.write_or_back_off().await;
                    write_at = tokio::time::Instant::now() + delay;
                }
                _ = self.inbox.receive(&mut batch) => {
                    let mut may_get_lease = false;
                    for input in batch.drain(..) {
                        may_get_lease |=
                            matches!(input, RecorderInput::Vacant | RecorderInput::Link(_, true));
                        self.handle(input).await;
                    }
                    if may_get_lease {
                        self.renew().await;
                    }
                }
            }
        }
    }

    fn set_role(&mut self, role: Role) {
        let name = match role {
            Role::None => "none",
            Role::Standby { .. } => "standby",
            Role::Writer { .. } | Role::Retiring { .. } => "writer",
        };
        self.context.metrics.set_role(name);
        tracing::info!(role = name, "recorder role changed");
        self.role = role;
    }

    async fn handle(&mut self, input: RecorderInput) {
        match input {
            RecorderInput::Plain(message) => {
                self.has_seen_messages = true;
                if message.subscription == self.inbox.subscription()
                    && !self.numbering.push(message.channel, message.message)
                {
                    self.overflow().await;
                }
            }
            RecorderInput::Marker(marker) => {
                if !self.marker(marker) {
                    self.overflow().await;
                }
            }
            RecorderInput::Link(server, true) => {
                if self.linked.replace(server).is_some_and(|before| before != server) {
                    self.link_lost().await;
                }
            }
            RecorderInput::Link(server, false) => {
                if self.linked == Some(server) {
                    self.linked = None;
                    self.link_lost().await;
                }
            }
            // The leases may be missing in the new epoch.
            RecorderInput::Reset => match self.role {
                Role::Writer { .. } => self.renew().await,
                _ => self.resign().await,
            },
            RecorderInput::Vacant => {}
        }
    }

    /// Handles a marker; returns `false` if the numbering exceeds its limit.
    fn marker(&mut self, marker: String) -> bool {
        match &mut self.role {
            Role::Standby { marker: own, .. } if *own == marker => self.numbering.restart(marker),
            Role::Standby { is_out_of_step, .. } => *is_out_of_step = true,
            Role::Writer { .. } => return self.numbering.mark(marker),
            Role::None | Role::Retiring { .. } => {}
        }
        true
    }

    async fn overflow(&mut self) {
        tracing::error!(
            "too many plain publishes to record; this recorder releases its leases, and clients \
             get sse.gap (unrecorded)"
        );
        self.resign().await;
    }

    async fn link_lost(&mut self) {
        self.numbering.cut();
        match &self.role {
            Role::Writer { token } => {
                let token = token.clone();
                self.set_role(Role::Retiring { token });
            }
            Role::Standby { .. } => self.resign().await,
            Role::None | Role::Retiring { .. } => {}
        }
    }

    /// Subscribes to the publishers' channels, and ignores all earlier messages.
    async fn subscribe(&mut self) -> bool {
        // Unsubscribes first: an existing subscription would continue with messages that were not
        // numbered.
        let Some(Server { link, .. }) = self.servers.of_broadcasts() else { return false };
        if link.plain(false).await.is_err() {
            return false;
        }
        self.inbox.next_subscription();
        self.numbering = Numbering::default();
        link.plain(true).await.is_ok()
    }

    async fn resign(&mut self) {
        if matches!(self.role, Role::None) {
            return;
        }
        self.numbering = Numbering::default();
        self.set_role(Role::None);
        self.lease.release().await;
        self.roles += 1;
        self.lease.rename(format!("{}/{}", self.name, self.roles));
        if self.linked.is_some()
            && let Some(Server { link, .. }) = self.servers.of_broadcasts()
        {
            let _ = link.plain(false).await;
        }
    }

    async fn renew(&mut self) {
        match &self.role {
            Role::None if self.linked.is_some() => self.apply().await,
            Role::None => {}
            Role::Standby { .. } => match (self.lease.standby().await, self.lease.writer().await) {
                (_, Ok(Some(grant))) => self.promote(grant).await,
                (Ok(false), _) => self.resign().await,
                (Ok(true), _) => self.follow_writer().await,
                _ => {}
            },
            Role::Writer { token } => match self.lease.writer().await {
                Ok(Some(grant)) if grant.token == *token => {}
                // A wiped Redis has lost the numbering, but this writer has received every message
                // and continues.
                Ok(Some(grant)) if grant.position.marker.is_empty() => {
                    self.begin_numbering(grant, false).await
                }
                Ok(_) => self.resign().await,
                Err(fault) => {
                    if let Some(suppressed) = self.lease_log.allow(self.context.clock.now_ms()) {
                        tracing::warn!(
                            address = %self.lease.address(),
                            error = %ErrorChain(&fault),
                            suppressed,
                            "could not renew the recorder's lease"
                        );
                    }
                }
            },
            Role::Retiring { .. } if !self.numbering.has_unwritten() => self.resign().await,
            Role::Retiring { .. } => {}
        }
    }

    /// Tries to take a vacant lease.
    async fn apply(&mut self) {
        match self.lease.writer().await {
            Ok(Some(grant)) => return self.start_writing(grant).await,
            Ok(None) => self.presence.confirm(),
            // A foreign key under one of the recorder's names is logged where the reply is parsed.
            Err(_) => return,
        }
        if !matches!(self.lease.standby().await, Ok(true)) {
            return;
        }
        if !self.subscribe().await {
            return self.lease.release().await;
        }
        // Messages are not numbered until the marker arrives on the link.
        self.numbering.wait();
        let marker = self.new_marker();
        self.set_role(Role::Standby { marker: marker.clone(), is_out_of_step: false });
        self.publish_marker(&marker).await;
    }

    fn new_marker(&self) -> String {
        format!("{}-{}", self.name, fastrand::u64(..))
    }

    async fn publish_marker(&mut self, marker: &str) {
        if self.lease.publish_marker(marker).await.is_err() {
            self.resign().await;
        }
    }

    /// Drops the messages that the writer has recorded. The position is read from Redis, because
    /// the one in a tick may be forged. After a foreign marker, both sides need a new one.
    async fn follow_writer(&mut self) {
        if let Ok(position) = self.lease.position().await {
            self.numbering.recorded(&position);
        }
        let next = self.new_marker();
        if let Role::Standby { marker, is_out_of_step } = &mut self.role
            && std::mem::take(is_out_of_step)
        {
            marker.clone_from(&next);
            self.publish_marker(&next).await;
        }
    }

    /// Becomes the writer without a known previous numbering.
    async fn start_writing(&mut self, grant: Grant) {
        if !self.subscribe().await {
            return self.lease.release().await;
        }
        self.begin_numbering(grant, self.roles > 0).await;
    }

    /// Starts to number messages. `unproved` means that this numbering cannot be proved to follow
    /// the previous one.
    async fn begin_numbering(&mut self, grant: Grant, unproved: bool) {
        self.numbering.start(RecordPosition { marker: grant.token.clone(), n: 0 });
        let unproved = unproved && self.has_seen_messages;
        match self.lease.begin(&grant.token, unproved).await {
            Ok(true) => {
                self.set_role(Role::Writer { token: grant.token });
                self.presence.confirm();
            }
            _ => {
                self.set_role(Role::Writer { token: grant.token });
                self.resign().await;
            }
        }
    }

    /// Takes over from the writer: the standby continues from the recorded position, if that is in
    /// its numbering.
    async fn promote(&mut self, grant: Grant) {
        self.lease.release_standby().await;
        if self.numbering.resume_after(&grant.position) {
            tracing::info!(
                unrecorded = self.numbering.len(),
                "the standby takes over from the writer"
            );
            self.set_role(Role::Writer { token: grant.token });
        } else {
            // Kept messages may be recorded already, and earlier ones may be missing.
            self.roles += 1;
            self.start_writing(grant).await;
        }
    }

    /// Writes the next messages. Returns the delay before the next attempt.
    async fn write_or_back_off(&mut self) -> Duration {
        if self.write().await {
            self.backoff.reset();
            return Duration::ZERO;
        }
        self.backoff.delay()
    }

    /// Writes the next messages; `false` if the caller must retry after a pause.
    async fn write(&mut self) -> bool {
        let (Role::Writer { token } | Role::Retiring { token }) = &self.role else { return true };
        let max = self.context.settings.history.max_event_bytes;
        let written = match self.lease.write(token, self.numbering.unwritten(BATCH), max).await {
            Ok(written) => written,
            Err(fault) => {
                self.log_waiting(&fault);
                return false;
            }
        };
        let metrics = &self.context.metrics;
        for outcome in written {
            match outcome {
                Written::Recorded => metrics.recorded.inc(),
                Written::Rejected { reason, text } => {
                    metrics.rejected.with_label_values(&[reason.as_str()]).inc();
                    if reason == Rejection::WrongType.code() {
                        self.log_wrong_type(&text);
                    }
                }
                Written::Duplicate | Written::Done => {}
                Written::Fenced => {
                    self.resign().await;
                    return true;
                }
                // The messages are kept: they are written under a new lease.
                Written::Unknown => {
                    self.renew().await;
                    return false;
                }
                Written::Failed(error) => {
                    self.log_waiting(&error);
                    return false;
                }
            }
            self.numbering.written();
        }
        true
    }

    fn log_waiting(&self, error: &CommandError) {
        if let Some(suppressed) = self.waiting_log.allow(self.context.clock.now_ms()) {
            let address = self.lease.address();
            tracing::warn!(
                %address,
                error = %ErrorChain(error),
                suppressed,
                "could not record plain publishes, retrying"
            );
        }
    }

    /// Logs that the messages of a channel cannot be recorded, once for each channel. The channel
    /// is that of the first unwritten message.
    fn log_wrong_type(&self, fault: &str) {
        let Some(channel) = self.numbering.first_channel() else { return };
        if self.wrong_type_log.allow(channel, self.context.clock.now_ms()) {
            let channel = String::from_utf8_lossy(channel);
            tracing::error!(
                %channel,
                fault,
                "plain publishes to this channel are rejected (wrong-type)"
            );
        }
    }

    /// Hands over at shutdown: writes the received messages and releases the lease, so that the
    /// standby continues at once.
    async fn hand_over(&mut self) {
        let mut batch = Vec::new();
        self.inbox.receive_ready(&mut batch);
        for input in batch.drain(..) {
            if let RecorderInput::Plain(_) | RecorderInput::Marker(_) = input {
                self.handle(input).await;
            }
        }
        let deadline = tokio::time::Instant::now() + LEASE * 2;
        while matches!(self.role, Role::Writer { .. } | Role::Retiring { .. })
            && self.numbering.has_unwritten()
            && tokio::time::Instant::now() < deadline
        {
            let delay = self.write_or_back_off().await;
            tokio::time::sleep(delay).await;
        }
        if self.numbering.has_unwritten() && !matches!(self.role, Role::Standby { .. }) {
            tracing::error!(
                messages = self.numbering.len(),
                "plain publishes could not be recorded before shutdown"
            );
        }
        self.lease.release().await;
        self.set_role(Role::None);
    }
}

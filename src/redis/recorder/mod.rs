//! The recorder stores plain publishes and assigns their ids (ARCHITECTURE.md#recorder).
//!
//! One instance holds the writer's lease, one the standby's; both read the publishers' channels.
//! Messages are numbered from a marker that both have read, so both assign the same number to a
//! message. The writer records each number once. The standby keeps messages until they are known to
//! be recorded, and continues from the recorded number. `numbering` does the bookkeeping,
//! `lease` calls Redis, and this module changes the role.

mod across;
mod bus;
mod hand_over;
pub mod inbox;
mod lanes;
mod lease;
mod numbering;
pub mod presence;
mod take_over;
mod writing;

use std::{sync::Arc, time::Duration};

use tokio::{sync::oneshot, time::Instant};

use self::{
    across::Across,
    bus::BusLinks,
    lease::{Lease, Recorded, Taken},
    numbering::Numbering,
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
    core::part::ServerIndex,
    error_chain::ErrorChain,
    log_limit::{LogLimit, LogOnce},
};

/// Duration of a lease.
const LEASE: Duration = Duration::from_millis(1000);
const RENEWAL: Duration = Duration::from_millis(300);
/// The delay after a write that Redis refused temporarily, and its maximum.
const FIRST_RETRY: Duration = Duration::from_millis(100);
const MAX_RETRY: Duration = Duration::from_millis(500);
/// After a break of the link, the time to record the remaining messages on a cluster, where one
/// server may be unavailable.
const RETIREMENT: Duration = Duration::from_secs(5);
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
        /// The numbering of the writer before the marker was published. The marker is a common
        /// start of no other one: its writer may have subscribed later.
        numbering: String,
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
    /// The server process that this instance subscribed to, by its run id. Two instances number
    /// alike only at the same process.
    process: Option<Arc<str>>,
    /// When the lease of the current role expires at the earliest.
    lease_until: Instant,
    /// When a retiring writer gives up.
    retire_until: Instant,
    across: Across,
    bus: BusLinks,
    bus_read: Option<Instant>,
    bus_changed: Option<Instant>,
    bus_log: LogLimit,
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
        let lease = Lease::new(commands, name.to_string(), LEASE, context.tracer.clone());
        Self {
            linked: None,
            servers: context.servers.clone(),
            numbering: Numbering::default(),
            role: Role::None,
            roles: 0,
            has_seen_messages: false,
            process: None,
            lease_until: Instant::now(),
            retire_until: Instant::now(),
            across: Across::default(),
            bus: BusLinks::default(),
            bus_read: None,
            bus_changed: None,
            bus_log: LogLimit::new(WAITING_LOG_MS),
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
        let mut write_at = Instant::now();
        loop {
            let is_across = self.is_writing_across();
            if is_across {
                self.dispatch();
            }
            let to_write = !is_across
                && matches!(self.role, Role::Writer { .. } | Role::Retiring { .. })
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
                _ = timer.tick() => {
                    self.renew().await;
                    if self.lease.is_cluster() {
                        self.check_cluster().await;
                    }
                }
                completion = self.across.next(), if is_across => {
                    if let Some(completion) = completion {
                        self.completed(completion).await;
                    }
                }
                // Before the inbox: received messages are written before more are taken.
                () = tokio::time::sleep_until(write_at), if to_write => {
                    let delay = self.write_or_back_off().await;
                    write_at = Instant::now() + delay;
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
        // A standby reports its role when it could continue: see `follow_writer`.
        let is_standby = matches!(role, Role::Standby { .. });
        self.context.metrics.set_role(if is_standby { "none" } else { name });
        tracing::info!(role = name, "recorder role changed");
        if !matches!(role, Role::Writer { .. } | Role::Retiring { .. }) {
            self.across = Across::default();
        }
        self.role = role;
    }

    async fn handle(&mut self, input: RecorderInput) {
        match input {
            RecorderInput::Plain(message) => {
                self.has_seen_messages = true;
                if message.subscription == self.inbox.subscription()
                    && Some(message.server) == self.linked
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
        let is_alike = self.counts_like(&marker);
        match &mut self.role {
            Role::Standby { marker: own, .. } if *own == marker => self.numbering.restart(marker),
            Role::Standby { is_out_of_step, .. } => *is_out_of_step = true,
            Role::Writer { .. } if is_alike => return self.numbering.mark(marker),
            Role::Writer { .. } => {
                tracing::warn!(marker, "the standby is subscribed to another Redis process");
            }
            Role::None | Role::Retiring { .. } => {}
        }
        true
    }

    /// Whether a standby with this marker receives the messages in the same order. On a cluster,
    /// its marker names the process that it is subscribed to.
    fn counts_like(&self, marker: &str) -> bool {
        let process = marker.split_once('@').map(|(_, process)| process);
        !self.lease.is_cluster() || (process.is_some() && process == self.process.as_deref())
    }

    async fn overflow(&mut self) {
        if self.is_writing_across() && self.drop_of_failing() {
            return;
        }
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
                self.retire_until = Instant::now() + RETIREMENT;
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
        let Some(server) = self.linked_server() else { return false };
        if self.lease.is_cluster() {
            // Before the subscription, so that no change after it is overlooked.
            self.bus = BusLinks::default();
            self.bus_has_changed().await;
        }
        self.process = server.info.state.server.run_id();
        if server.link.plain(false).await.is_err() {
            return false;
        }
        self.inbox.next_subscription();
        self.numbering = Numbering::default();
        server.link.plain(true).await.is_ok()
    }

    /// The server of the broadcasts, if its link is up.
    fn linked_server(&self) -> Option<Arc<Server>> {
        self.servers.of_broadcasts().filter(|server| Some(server.info.index) == self.linked)
    }

    /// Takes or renews the writer's lease.
    async fn take_writer(&mut self) -> Result<Taken, CommandError> {
        let taken = self.lease.writer().await?;
        if let Taken::Granted(grant) = &taken {
            self.lease_until = grant.until;
        }
        Ok(taken)
    }

    /// Renews the standby's lease.
    async fn take_standby(&mut self) -> Result<bool, CommandError> {
        let until = Instant::now() + LEASE;
        let is_held = self.lease.standby().await?;
        if is_held {
            self.lease_until = until;
        }
        Ok(is_held)
    }

    /// Gives up the role, because another instance has its lease.
    async fn lease_lost(&mut self, role: &str) {
        let late_ms = self.lease_until.elapsed().as_millis() as u64;
        tracing::warn!(role, late_ms, "another instance has the recorder's lease");
        self.resign().await;
    }

    /// Gives up writing, because another writer has taken over. One that is retiring expects that.
    async fn fenced(&mut self) {
        match self.role {
            Role::Writer { .. } => self.lease_lost("writer").await,
            _ => self.resign().await,
        }
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
        if let Some(server) = self.linked_server() {
            let _ = server.link.plain(false).await;
        }
    }

    async fn renew(&mut self) {
        match &self.role {
            Role::None if self.linked.is_some() => self.apply().await,
            Role::None => {}
            Role::Standby { .. } => match (self.take_standby().await, self.take_writer().await) {
                (_, Ok(Taken::Granted(grant))) => self.promote(grant).await,
                (Ok(false), _) => self.lease_lost("standby").await,
                (Ok(true), _) => self.follow_writer().await,
                _ => {}
            },
            Role::Writer { token } => match (token.clone(), self.take_writer().await) {
                (token, Ok(Taken::Granted(grant))) if grant.token == token => {}
                // A wiped Redis has lost the numbering, but this writer has received every message
                // and continues.
                (_, Ok(Taken::Granted(grant))) if grant.recorded.position.marker.is_empty() => {
                    self.begin_numbering(grant, false).await
                }
                (_, Ok(_)) => self.lease_lost("writer").await,
                (_, Err(fault)) => {
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
            Role::Retiring { .. } if self.has_settled() => self.resign().await,
            Role::Retiring { token } if self.lease.is_cluster() => {
                let token = token.clone();
                let is_over = Instant::now() >= self.retire_until;
                match self.take_writer().await {
                    Ok(Taken::Granted(grant)) if grant.token == token && !is_over => {}
                    Err(_) if !is_over => {}
                    _ => self.resign().await,
                }
            }
            Role::Retiring { .. } => {}
        }
    }

    /// Tries to take a vacant lease.
    async fn apply(&mut self) {
        match self.take_writer().await {
            Ok(Taken::Granted(grant)) => return self.start_writing(grant).await,
            Ok(Taken::Held) => self.presence.confirm(),
            Ok(Taken::Vacant) => {}
            // A foreign key under one of the recorder's names is logged where the reply is parsed.
            Err(_) => return,
        }
        if !matches!(self.take_standby().await, Ok(true)) {
            return;
        }
        if !self.subscribe().await {
            return self.lease.release().await;
        }
        // Messages are not numbered until the marker arrives on the link.
        self.numbering.wait();
        let Ok(Recorded { numbering, .. }) = self.lease.recorded().await else {
            return self.lease.release().await;
        };
        let marker = self.new_marker();
        let own = marker.clone();
        self.set_role(Role::Standby { marker: own, numbering, is_out_of_step: false });
        self.publish_marker(&marker).await;
    }

    fn new_marker(&self) -> String {
        let marker = format!("{}-{}", self.name, fastrand::u64(..));
        match &self.process {
            Some(process) if self.lease.is_cluster() => format!("{marker}@{process}"),
            _ => marker,
        }
    }

    async fn publish_marker(&mut self, marker: &str) {
        if self.lease.publish_marker(marker).await.is_err() {
            self.resign().await;
        }
    }

    /// Drops the messages that the writer has recorded. The position is read from Redis, because
    /// the one in a tick may be forged. After a foreign marker, and in a new numbering, both sides
    /// need a new one.
    async fn follow_writer(&mut self) {
        let Ok(recorded) = self.lease.recorded().await else { return };
        self.numbering.recorded(&recorded.position);
        let next = self.new_marker();
        let Role::Standby { marker, numbering, is_out_of_step } = &mut self.role else { return };
        let is_new = *numbering != recorded.numbering;
        if is_new {
            numbering.clone_from(&recorded.numbering);
            // What was counted until now has no position in it.
            self.numbering.wait();
        }
        let needs_marker = std::mem::take(is_out_of_step) || is_new;
        if needs_marker {
            marker.clone_from(&next);
            self.publish_marker(&next).await;
        }
        if matches!(self.role, Role::Standby { .. }) {
            // Before the writer has recorded this standby's marker, it could not prove what is
            // recorded, and taking over would leave `unrecorded`.
            let continues = !needs_marker && self.numbering.starts_at(&recorded.position.marker);
            self.context.metrics.set_role(if continues { "standby" } else { "none" });
        }
    }
}

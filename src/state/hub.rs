//! The hub of one worker: its connections by user and by topic. Everything in here runs on that
//! worker's thread.

use std::{
    cell::{Cell, RefCell},
    collections::HashSet,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use tokio::sync::{Notify, mpsc};

use super::{
    client::Session,
    connection::Connection,
    connection_index::ConnectionIndex,
    delivery::Delivery,
    hub_servers::HubServers,
    mailbox::{Command, ConnectionInfo, Inbox, LocalUsers, Message},
    round::Round,
    stream_context::StreamContext,
};
use crate::core::{
    control_events::{Connected, closing},
    id::{Cursor, EventId},
    part::{Part, ServerIndex},
    queue::Item,
    reasons::{CatchUpCause, CloseReason},
    stream_state::Outcome,
};

/// Maximum number of messages that are taken from the mailbox at once.
const BATCH: usize = 256;

/// A part of a connection that must catch up.
pub type CatchUpRequest = (Rc<Connection>, Part, CatchUpCause);

/// `retry:` of a stream that was taken over, the first time.
const TAKEN_OVER_RETRY_MS: u64 = 60_000;

/// The connections of one worker, and what it has received from the links.
pub struct Hub {
    /// What it needs from the instance.
    pub context: Arc<StreamContext>,
    delivery: Arc<Delivery>,
    pub(super) index: RefCell<ConnectionIndex>,
    /// Notified when the sessions must be renewed at once, because Redis may have lost them.
    pub sessions_due: Notify,
    pub(super) servers: HubServers,
    /// Whether the mailbox drops events: a catch-up would have to be repeated.
    is_dropping: Cell<bool>,
    catch_ups: mpsc::UnboundedSender<CatchUpRequest>,
    ended: mpsc::UnboundedSender<Rc<Connection>>,
    largest_bytes: Arc<AtomicUsize>,
    local_users: LocalUsers,
}

/// What a hub requests from the layer above.
pub struct HubRequests {
    /// Connections that must catch up.
    pub catch_ups: mpsc::UnboundedReceiver<CatchUpRequest>,
    /// Connections that have ended, whose sessions are released.
    pub ended: mpsc::UnboundedReceiver<Rc<Connection>>,
}

impl Hub {
    /// The hub of one worker, and its requests. `linked`, the servers whose link is up, must be
    /// read after the mailbox was opened: later changes of the links come as messages.
    pub fn new(
        context: Arc<StreamContext>,
        delivery: Arc<Delivery>,
        inbox: &Inbox,
        linked: &[ServerIndex],
    ) -> (Rc<Self>, HubRequests) {
        let (catch_ups, catch_ups_receiver) = mpsc::unbounded_channel();
        let (ended, ended_receiver) = mpsc::unbounded_channel();
        let hub = Self {
            servers: HubServers::new(linked),
            is_dropping: Cell::new(false),
            context,
            delivery,
            index: RefCell::default(),
            sessions_due: Notify::new(),
            catch_ups,
            ended,
            largest_bytes: inbox.largest_bytes.clone(),
            local_users: inbox.local_users.clone(),
        };
        (Rc::new(hub), HubRequests { catch_ups: catch_ups_receiver, ended: ended_receiver })
    }

    /// Handles messages until the instance ends.
    pub async fn run(self: Rc<Self>, mut inbox: Inbox) {
        let mut batch = Vec::with_capacity(BATCH);
        let mut round = Round::default();
        while inbox.receive(&mut batch, BATCH).await > 0 {
            let now = self.context.clock.now_ms();
            for message in batch.drain(..) {
                if let Message::Event(server, event, span) = message {
                    round.push(server, Item::Event(event), span);
                    continue;
                }
                self.deliver(&mut round, now);
                self.handle(message, now);
            }
            self.deliver(&mut round, now);
            self.shed_if_full();
            // The writers of this worker run between batches.
            tokio::task::yield_now().await;
        }
    }

    fn handle(self: &Rc<Self>, message: Message, now: u64) {
        match message {
            Message::Event(server, event, span) => {
                let mut round = Round::default();
                round.push(server, Item::Event(event), span);
                self.deliver(&mut round, now);
            }
            Message::Unrecorded(server, id) => {
                let item = Item::Unrecorded(id);
                self.snapshot().iter().for_each(|c| self.offer(c, &item, now));
                self.servers.raise_watermark(server, id);
            }
            Message::Watermark(server, id) => self.servers.raise_watermark(server, id),
            Message::NewEpoch(server) => {
                self.detach(server);
                self.sessions_due.notify_one();
                if self.may_catch_up(server) {
                    self.catch_up_all(CatchUpCause::Epoch, |c, part| c.server(part) == server);
                }
            }
            Message::LinkDown(server) => {
                self.servers.set_linked(server, false);
                self.detach(server);
                // What has moved to another server does not wait for this link.
                self.catch_up_all(CatchUpCause::Moved, |c, part| c.server(part) == server);
            }
            Message::SlotsArrived => {
                self.catch_up_all(CatchUpCause::Moved, |c, part| c.is_detached(part));
            }
            Message::LinkUp(server) => {
                self.servers.set_linked(server, true);
                self.sessions_due.notify_one();
                // Parts that were read from another server may have moved to this one.
                self.catch_up_all(CatchUpCause::Link, |c, part| {
                    c.server(part) == server || c.is_detached(part)
                });
            }
            Message::UsersMoved(users) => {
                for user in users.iter() {
                    let connections = self.index.borrow().of_user(user);
                    connections.into_iter().for_each(|c| self.moved(c, Part::User));
                }
            }
            Message::BroadcastsMoved => {
                self.snapshot().into_iter().for_each(|c| self.moved(c, Part::Broadcasts));
            }
            Message::EventsDropped => {
                self.is_dropping.set(true);
                for connection in self.snapshot() {
                    self.detach_part(&connection, Part::Whole);
                }
                self.servers.all().for_each(|server| self.servers.reset_watermark(server));
            }
            Message::EventsResumed => {
                self.is_dropping.set(false);
                self.catch_up_all(CatchUpCause::Link, |_, _| true);
            }
            Message::Command(command) => self.command(command),
        }
    }

    /// Detaches a part of a connection. What has arrived before counts as received.
    fn detach_part(&self, connection: &Connection, part: Part) {
        for part in connection.parts(part) {
            connection.detach(part, self.servers.watermark(connection.server(part)));
        }
    }

    /// Detaches what is read from a server. What comes next may not follow what has arrived, and
    /// the next watermark may be lower, if the time of Redis was set back.
    fn detach(&self, server: ServerIndex) {
        let watermark = self.servers.watermark(server);
        for connection in self.snapshot() {
            for part in connection.parts(Part::Whole) {
                if connection.server(part) == server {
                    connection.detach(part, watermark);
                }
            }
        }
        self.servers.reset_watermark(server);
    }

    /// Makes a part of a connection catch up at another server; if it is whole, all of it.
    fn moved(&self, connection: Rc<Connection>, part: Part) {
        self.detach_part(&connection, part);
        if connection.is_admitted() && !connection.is_ending() && !self.is_dropping.get() {
            self.request_catch_up(connection, part, CatchUpCause::Moved);
        }
    }

    /// Requests a catch-up of every part that is not live and for which `wanted` is true.
    fn catch_up_all(&self, cause: CatchUpCause, wanted: impl Fn(&Connection, Part) -> bool) {
        if self.is_dropping.get() {
            return;
        }
        for connection in self.snapshot() {
            if !connection.is_admitted() || connection.is_ending() {
                continue;
            }
            for part in connection.parts(Part::Whole) {
                if !connection.is_part_live(part) && wanted(&connection, part) {
                    self.request_catch_up(connection.clone(), part, cause);
                }
            }
        }
    }

    pub(super) fn offer(&self, connection: &Rc<Connection>, item: &Item, now: u64) {
        if let Outcome::CatchUp(part, cause) = connection.offer(item, now) {
            self.catch_up_again(connection.clone(), part, cause);
        }
    }

    /// Makes a part of a connection catch up again, at once or when its link is up.
    pub fn catch_up_again(&self, connection: Rc<Connection>, part: Part, cause: CatchUpCause) {
        if cause == CatchUpCause::Overflow {
            self.context.metrics.overflows.inc();
        }
        for part in connection.parts(part) {
            if self.may_catch_up(connection.server(part)) {
                self.request_catch_up(connection.clone(), part, cause);
            }
        }
    }

    /// Whether a catch-up from a server can succeed now. If not, the hub requests it later.
    pub fn may_catch_up(&self, server: ServerIndex) -> bool {
        !self.is_dropping.get() && self.servers.is_linked(server)
    }

    /// The last watermark of a server, also while its link is down; `None` before the first.
    pub fn last_watermark(&self, server: ServerIndex) -> Option<EventId> {
        self.servers.last_watermark(server)
    }

    fn request_catch_up(&self, connection: Rc<Connection>, part: Part, cause: CatchUpCause) {
        // The receiver lives as long as the worker.
        let _ = self.catch_ups.send((connection, part, cause));
    }

    /// Adds a connection: from now on it is offered events.
    pub fn add(&self, connection: &Rc<Connection>) {
        connection.key.set(self.index.borrow_mut().insert(connection));
        if let Some(user) = connection.client.user() {
            self.local_users.add(user.clone());
            if let Some(presence) = &self.context.presence {
                presence.add(user);
            }
        }
        self.schedule(connection);
        if let Some(reason) = self.delivery.session_notices.about(connection) {
            self.end_session(connection, reason);
        }
        self.context.metrics.connections.inc();
        self.context.metrics.opened.with_label_values(&[connection.client.transport.name()]).inc();
    }

    /// Removes a connection whose writer has ended.
    pub fn remove(&self, connection: &Rc<Connection>) {
        let key = connection.key.replace(usize::MAX);
        if key == usize::MAX {
            return;
        }
        let mut index = self.index.borrow_mut();
        index.remove(connection, key);
        if let Some(user) = connection.client.user().filter(|user| !index.has_user(user)) {
            self.local_users.remove(user);
        }
        drop(index);
        if let (Some(presence), Some(user)) = (&self.context.presence, connection.client.user()) {
            presence.remove(user);
        }
        connection.forget();
        self.context.metrics.connections.dec();
        self.context.metrics.closed.with_label_values(&[connection.reason().name()]).inc();
        if connection.client.session.is_some() {
            let _ = self.ended.send(connection.clone());
        }
    }

    /// All connections at this moment.
    pub fn snapshot(&self) -> Vec<Rc<Connection>> {
        self.select(|_| true)
    }

    /// The connections whose key satisfies the condition.
    pub(super) fn select(&self, pass: impl Fn(usize) -> bool) -> Vec<Rc<Connection>> {
        self.index.borrow().iter().filter(|(key, _)| pass(*key)).map(|(_, c)| c.clone()).collect()
    }

    /// Ends a stream because of its session.
    pub fn end_session(&self, connection: &Connection, reason: CloseReason) {
        let retry_ms =
            if reason == CloseReason::TakenOver { TAKEN_OVER_RETRY_MS } else { self.retry_ms() };
        self.close(connection, reason, retry_ms);
    }

    /// Ends a stream with `sse.closing`.
    pub fn close(&self, connection: &Connection, reason: CloseReason, retry_ms: u64) {
        connection.close(reason, closing(reason, retry_ms));
    }

    fn command(self: &Rc<Self>, command: Command) {
        match command {
            Command::TakenOver { user, digest, generation, times } => {
                // 60 s and more each time: two tabs with one ticket must not keep taking over from
                // each other.
                let retry_ms = TAKEN_OVER_RETRY_MS * (1 << times.saturating_sub(1).min(4));
                let is_older = |s: &Session| *s.digest == *digest && s.generation < generation;
                let older = |c: &&Rc<Connection>| c.client.session.as_ref().is_some_and(is_older);
                let connections = self.index.borrow().of_user(&user);
                connections
                    .iter()
                    .filter(older)
                    .for_each(|c| self.close(c, CloseReason::TakenOver, retry_ms));
            }
            Command::Revoke { user, revoked_ms } => {
                let is_revoked = |s: &Session| s.opened_ms <= revoked_ms;
                let revoked =
                    |c: &&Rc<Connection>| c.client.session.as_ref().is_some_and(is_revoked);
                let retry_ms = self.retry_ms();
                let connections = self.index.borrow().of_user(&user);
                connections
                    .iter()
                    .filter(revoked)
                    .for_each(|c| self.close(c, CloseReason::Revoked, retry_ms));
            }
            Command::List(user, reply) => {
                let is_of = |c: &Connection, user: &str| {
                    c.client.user().is_some_and(|other| **other == *user)
                };
                let wanted = |c: &&Rc<Connection>| user.as_deref().is_none_or(|u| is_of(c, u));
                let listed = self.snapshot().iter().filter(wanted).map(|c| self.info(c)).collect();
                let _ = reply.send(listed);
            }
            Command::UsersOfTopic(topic, reply) => {
                let index = self.index.borrow();
                let clients = index.iter().map(|(_, c)| &c.client);
                let wanted = clients.filter(|client| client.topics.allows(&topic));
                let users: HashSet<_> = wanted.filter_map(|c| c.user().cloned()).collect();
                let _ = reply.send(users);
            }
            Command::Summarise(reply) => drop(reply.send(self.summary())),
            Command::ListUsers { prefix, limit, reply } => {
                let _ = reply.send(self.users_with_prefix(&prefix, limit));
            }
            Command::Drain { window_ms } => {
                let hub = self.clone();
                tokio::task::spawn_local(async move { hub.drain(window_ms).await });
            }
            Command::Shed => {
                if let Some(largest) = self.snapshot().into_iter().max_by_key(|c| c.queued_bytes())
                {
                    largest.drop_queue();
                    self.catch_up_again(largest, Part::Whole, CatchUpCause::Overflow);
                }
            }
        }
    }

    fn info(&self, c: &Connection) -> ConnectionInfo {
        ConnectionInfo {
            id: c.client.id.clone(),
            user: c.client.user().cloned(),
            topics: c.client.topics.patterns().collect(),
            transport: c.client.transport,
            age_ms: self.context.clock.now_ms() - c.opened_ms,
            queued_bytes: c.queued_bytes(),
            cursor: c.cursor(),
        }
    }

    /// The first frame of a stream: `id` is its cursor, `resumed` says that it follows it.
    pub fn connected(&self, connection: &Connection, id: Option<Cursor>, resumed: bool) -> Bytes {
        let client = &connection.client;
        let topics = client.topics.patterns().collect();
        let user = client.user().map(|user| &**user);
        let retry_ms = self.retry_ms();
        Connected { retry_ms, id, connection: &client.id, user, topics, resumed }.frame()
    }

    /// `retry:` for a stream: between the setting and twice the setting, so that clients do not
    /// reconnect all at once.
    pub fn retry_ms(&self) -> u64 {
        let base = self.context.settings.server.retry.as_millis() as u64;
        base + fastrand::u64(0..=base)
    }

    /// Ends all streams evenly over a window, and then at once those that were opened meanwhile.
    async fn drain(&self, window_ms: u64) {
        let all = self.snapshot();
        let step = std::time::Duration::from_millis(window_ms) / (all.len().max(1) as u32);
        let mut timer = tokio::time::interval(step.max(std::time::Duration::from_micros(1)));
        timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
        for connection in all {
            timer.tick().await;
            self.close(&connection, CloseReason::Draining, fastrand::u64(1000..=3000));
        }
        for connection in self.snapshot() {
            self.close(&connection, CloseReason::Draining, fastrand::u64(1000..=3000));
        }
    }

    fn shed_if_full(&self) {
        if self.context.limits.queued_bytes.is_exceeded() {
            let largest =
                self.index.borrow().iter().map(|(_, c)| c.queued_bytes()).max().unwrap_or(0);
            self.largest_bytes.store(largest, Ordering::Relaxed);
            self.delivery.mailboxes.shed();
        }
    }
}

#[cfg(test)]
mod filter_tests;
#[cfg(test)]
mod tests;

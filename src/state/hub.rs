//! The hub of one worker: its connections by user and by topic. Everything in here runs on that
//! worker's thread.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use tokio::sync::{Notify, mpsc};

use super::{
    connection::Connection,
    connection_index::ConnectionIndex,
    delivery::Delivery,
    mailbox::{Command, ConnectionInfo, Inbox, LocalUsers, Message},
    session_notices::SessionNotices,
    stream_context::StreamContext,
};
use crate::core::{
    control_events::{Connected, closing},
    event::Event,
    id::EventId,
    queue::Item,
    reasons::{CatchUpCause, CloseReason},
    stream_state::Outcome,
};

/// Maximum number of messages that are taken from the mailbox at once.
const BATCH: usize = 256;

/// A connection that must catch up.
pub type CatchUpRequest = (Rc<Connection>, CatchUpCause);

/// `retry:` of a stream that was taken over, the first time.
const TAKEN_OVER_RETRY_MS: u64 = 60_000;

/// The connections of one worker, and what it has received from the link.
pub struct Hub {
    /// What it needs from the instance.
    pub context: Arc<StreamContext>,
    delivery: Arc<Delivery>,
    index: RefCell<ConnectionIndex>,
    session_notices: RefCell<SessionNotices>,
    /// Notified when the sessions must be renewed at once, because Redis may have lost them.
    pub sessions_due: Notify,
    /// This worker has received everything up to this id.
    pub(super) watermark: Cell<EventId>,
    link_up: Cell<bool>,
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
    /// The hub of one worker, and its requests. `link_up` must be read after the mailbox was
    /// opened: later changes of the link come as messages.
    pub fn new(
        context: Arc<StreamContext>,
        delivery: Arc<Delivery>,
        inbox: &Inbox,
        link_up: bool,
    ) -> (Rc<Self>, HubRequests) {
        let (catch_ups, catch_ups_receiver) = mpsc::unbounded_channel();
        let (ended, ended_receiver) = mpsc::unbounded_channel();
        let hub = Self {
            link_up: Cell::new(link_up),
            context,
            delivery,
            index: RefCell::default(),
            session_notices: RefCell::default(),
            sessions_due: Notify::new(),
            watermark: Cell::default(),
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
        while inbox.receive(&mut batch, BATCH).await > 0 {
            let now = self.context.clock.now_ms();
            for message in batch.drain(..) {
                self.handle(message, now);
            }
            self.shed_if_full();
            // The writers of this worker run between batches.
            tokio::task::yield_now().await;
        }
    }

    fn handle(self: &Rc<Self>, message: Message, now: u64) {
        match message {
            Message::Event(event) => self.event(event, now),
            Message::Unrecorded(id) => {
                let item = Item::Unrecorded(id);
                self.snapshot().iter().for_each(|c| self.offer(c, &item, now));
                self.watermark.set(id.max(self.watermark.get()));
            }
            Message::NewEpoch => {
                self.snapshot().iter().for_each(|c| c.detach(self.watermark.get()));
                self.watermark.set(EventId::ZERO);
                self.sessions_due.notify_one();
                if self.link_up.get() {
                    self.catch_up_all(CatchUpCause::Epoch);
                }
            }
            Message::Watermark(id) => self.watermark.set(id.max(self.watermark.get())),
            Message::LinkDown => {
                self.link_up.set(false);
                self.snapshot().iter().for_each(|c| c.detach(self.watermark.get()));
                // The next link begins with a watermark, which is lower if the time of Redis was
                // set back.
                self.watermark.set(EventId::ZERO);
            }
            Message::LinkUp => {
                self.link_up.set(true);
                self.sessions_due.notify_one();
                self.catch_up_all(CatchUpCause::Link);
            }
            Message::Command(command) => self.command(command),
        }
    }

    /// Requests a catch-up of every connection that is not live.
    fn catch_up_all(&self, cause: CatchUpCause) {
        for connection in self.snapshot() {
            if connection.is_admitted() && !connection.is_live() && !connection.is_ending() {
                self.request_catch_up(connection, cause);
            }
        }
    }

    fn event(&self, event: Arc<Event>, now: u64) {
        let item = Item::Event(event.clone());
        self.index.borrow().offer(&event, |c| self.offer(c, &item, now));
        if let Some(id) = event.id {
            self.watermark.set(id.max(self.watermark.get()));
        }
    }

    fn offer(&self, connection: &Rc<Connection>, item: &Item, now: u64) {
        if let Outcome::CatchUp(cause) = connection.offer(item, now) {
            self.catch_up_again(connection.clone(), cause);
        }
    }

    /// Makes a connection catch up again, at once or when the link is up.
    pub fn catch_up_again(&self, connection: Rc<Connection>, cause: CatchUpCause) {
        if cause == CatchUpCause::Overflow {
            self.context.metrics.overflows.inc();
        }
        if self.link_up.get() {
            self.request_catch_up(connection, cause);
        }
    }

    fn request_catch_up(&self, connection: Rc<Connection>, cause: CatchUpCause) {
        // The receiver lives as long as the worker.
        let _ = self.catch_ups.send((connection, cause));
    }

    /// Adds a connection: from now on it is offered events.
    pub fn add(&self, connection: &Rc<Connection>) {
        connection.key.set(self.index.borrow_mut().insert(connection));
        self.local_users.add(connection.client.user.clone());
        self.schedule(connection);
        let mut notices = self.session_notices.borrow_mut();
        notices.bound();
        if let Some(reason) = notices.about(connection) {
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
        let user = &connection.client.user;
        if !index.has_user(user) {
            self.local_users.remove(user);
        }
        drop(index);
        connection.forget();
        self.context.metrics.connections.dec();
        self.context.metrics.closed.with_label_values(&[connection.reason().name()]).inc();
        let _ = self.ended.send(connection.clone());
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
            Command::TakenOver { digest, generation, times } => {
                // 60 s and more each time: two tabs with one ticket must not keep taking over from
                // each other.
                let retry_ms = TAKEN_OVER_RETRY_MS * (1 << times.saturating_sub(1).min(4));
                let older = |c: &&Rc<Connection>| {
                    c.client.session.digest == digest && c.client.session.generation < generation
                };
                self.snapshot()
                    .iter()
                    .filter(older)
                    .for_each(|c| self.close(c, CloseReason::TakenOver, retry_ms));
                self.session_notices.borrow_mut().add_taken_over(digest, generation);
            }
            Command::Revoke { user, revoked_ms } => {
                let revoked = |c: &&Rc<Connection>| {
                    *c.client.user == *user && c.client.session.opened_ms <= revoked_ms
                };
                let retry_ms = self.retry_ms();
                self.snapshot()
                    .iter()
                    .filter(revoked)
                    .for_each(|c| self.close(c, CloseReason::Revoked, retry_ms));
                self.session_notices.borrow_mut().add_revoked(user, revoked_ms);
            }
            Command::List(user, reply) => {
                let wanted =
                    |c: &&Rc<Connection>| user.as_deref().is_none_or(|u| *c.client.user == *u);
                let listed = self.snapshot().iter().filter(wanted).map(|c| self.info(c)).collect();
                let _ = reply.send(listed);
            }
            Command::Drain { window_ms } => {
                let hub = self.clone();
                tokio::task::spawn_local(async move { hub.drain(window_ms).await });
            }
            Command::Shed => {
                if let Some(largest) = self.snapshot().into_iter().max_by_key(|c| c.queued_bytes())
                {
                    largest.drop_queue();
                    self.catch_up_again(largest, CatchUpCause::Overflow);
                }
            }
        }
    }

    fn info(&self, c: &Connection) -> ConnectionInfo {
        ConnectionInfo {
            id: c.client.id.clone(),
            user: c.client.user.clone(),
            topics: c.client.topics.patterns().collect(),
            transport: c.client.transport,
            age_ms: self.context.clock.now_ms() - c.opened_ms,
            queued_bytes: c.queued_bytes(),
            cursor: c.cursor(),
        }
    }

    /// The first frame of a stream: `id` is its cursor, `resumed` says that it follows it.
    pub fn connected(&self, connection: &Connection, id: Option<EventId>, resumed: bool) -> Bytes {
        let client = &connection.client;
        let (topics, user) = (client.topics.patterns().collect(), &client.user);
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
mod tests;

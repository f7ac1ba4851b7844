//! The link: the one subscriber connection of an instance, and its supervisor.
//!
//! The supervisor connects with a jittered back-off, subscribes in batches, waits until Redis has
//! confirmed the subscriptions, takes a clock snapshot, and only then lets connections catch up
//! (ARCHITECTURE.md#the-link).

mod cluster;
mod error;
mod rival;
mod subscribing;
#[cfg(test)]
pub mod testing;
mod warned;
mod watermarks;

use std::{
    convert::Infallible,
    sync::Arc,
    time::{Duration, Instant},
};

use redis::ConnectionInfo;
use tokio::sync::{mpsc, oneshot};
use tracing::Instrument;

use self::{cluster::FollowedSlots, error::LinkError, subscribing::all, warned::Warned};
use super::{
    adoption::Adoption,
    commands::Commands,
    inbound::Inbound,
    library,
    link_context::LinkContext,
    pool,
    subscriptions::Subscriptions,
    wire::{self, Connection, End},
};
use crate::{
    backoff::Backoff,
    core::{catch_up::ClockSnapshot, id::EventId, part::Part},
    error_chain::ErrorChain,
    log_limit::LogLimit,
    settings::ServerAddress,
};

/// Maximum number of requests that are served together.
const REQUESTS: usize = 1024;
/// Time between two checks for things that must be done without a request.
const TIMER: Duration = Duration::from_millis(250);
/// Time between two watermarks.
const WATERMARK_INTERVAL: Duration = Duration::from_secs(1);
/// Minimum time between two log lines about other servers at the same address, ms.
const RIVAL_LOG_MS: u64 = 60_000;
/// The delay after the first failure, and the longest delay.
const FIRST_RETRY: Duration = Duration::from_millis(100);
const MAX_RETRY: Duration = Duration::from_secs(5);
/// After a link that lasted longer than this, the delays start from the first one again.
const STABLE: Duration = Duration::from_secs(10);

/// The link is down. The supervisor sets up the next one; retry.
#[derive(Debug, thiserror::Error)]
#[error("there is no link to Redis")]
pub struct LinkDown;

enum Request {
    /// Subscribes to a user's channel for another connection.
    Attach(Arc<str>, Part, oneshot::Sender<ClockSnapshot>),
    /// Replies with a clock snapshot, if the link brings everything of the part; also to `Attach`.
    Snapshot(Option<Arc<str>>, Part, oneshot::Sender<ClockSnapshot>),
    /// Ends a subscription to a user's channel.
    Release(Arc<str>),
    /// Subscribes to the publishers' channels for the recorder (`true`), or unsubscribes.
    Plain(bool, oneshot::Sender<()>),
}

/// The workers' handle to the link.
#[derive(Clone)]
pub struct Link {
    requests: mpsc::UnboundedSender<Request>,
    timeout: Duration,
}

/// Keeps a user's channel subscribed until it is dropped.
pub struct UserSubscription {
    user: Arc<str>,
    requests: mpsc::UnboundedSender<Request>,
}

impl Drop for UserSubscription {
    fn drop(&mut self) {
        let _ = self.requests.send(Request::Release(self.user.clone()));
    }
}

impl Link {
    /// No link: every request fails. For commands of the command line.
    pub fn none() -> Self {
        let (requests, _) = mpsc::unbounded_channel();
        Self { requests, timeout: Duration::ZERO }
    }

    /// Subscribes to the channel of a user, and then takes a clock snapshot for a part of a stream:
    /// the logs contain every event up to it, and the link delivers every event after it.
    ///
    /// # Errors
    /// The link is down, or does not bring the broadcasts and the part includes them, or Redis does
    /// not reply in time.
    pub async fn subscribe(
        &self,
        user: &Arc<str>,
        part: Part,
    ) -> Result<(ClockSnapshot, UserSubscription), LinkDown> {
        let subscription = UserSubscription { user: user.clone(), requests: self.requests.clone() };
        let clock = self.request(|reply| Request::Attach(user.clone(), part, reply)).await?;
        Ok((clock, subscription))
    }

    /// Takes a clock snapshot for a part of a stream, to whose `user` the caller is subscribed if
    /// the stream has one and the part includes that.
    ///
    /// # Errors
    /// As [`Link::subscribe`]; also if the server has ended the subscription.
    pub async fn clock_snapshot(
        &self,
        user: Option<&Arc<str>>,
        part: Part,
    ) -> Result<ClockSnapshot, LinkDown> {
        let user = user.filter(|_| part.includes(Part::User)).cloned();
        self.request(|reply| Request::Snapshot(user, part, reply)).await
    }

    /// Takes a clock snapshot without a subscription: the logs of the server contain every event up
    /// to it.
    ///
    /// # Errors
    /// The link is down, or Redis does not reply in time.
    pub async fn log_snapshot(&self) -> Result<ClockSnapshot, LinkDown> {
        self.request(|reply| Request::Snapshot(None, Part::User, reply)).await
    }

    /// Subscribes to the publishers' channels, or unsubscribes. Returns when Redis has confirmed
    /// it.
    ///
    /// # Errors
    /// As [`Link::subscribe`].
    pub async fn plain(&self, wanted: bool) -> Result<(), LinkDown> {
        self.request(|reply| Request::Plain(wanted, reply)).await
    }

    async fn request<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<T>) -> Request,
    ) -> Result<T, LinkDown> {
        let (sender, reply) = oneshot::channel();
        self.requests.send(request(sender)).map_err(|_| LinkDown)?;
        tokio::time::timeout(self.timeout, reply).await.map_err(|_| LinkDown)?.map_err(|_| LinkDown)
    }
}

/// Keeps the link up. It runs on its own thread.
pub struct Supervisor {
    context: LinkContext,
    commands: Commands,
    inbound: Arc<Inbound>,
    requests: mpsc::UnboundedReceiver<Request>,
    subscriptions: Subscriptions,
    /// The server of the link, or of the last attempt.
    server: Option<ServerAddress>,
    slots: FollowedSlots,
    adoption: Adoption,
    /// The last position of a rival of which the streams were notified.
    lost: Option<EventId>,
    rival_log: LogLimit,
    warned: Warned,
}

/// Creates the link of an instance, and its supervisor.
pub fn new(context: LinkContext, commands: Commands, inbound: Arc<Inbound>) -> (Link, Supervisor) {
    let (sender, requests) = mpsc::unbounded_channel();
    // A request may have to wait for another one that is being served.
    let link = Link { requests: sender, timeout: context.settings.redis.command_timeout * 2 };
    (
        link,
        Supervisor {
            context,
            commands,
            inbound,
            requests,
            subscriptions: Subscriptions::default(),
            server: None,
            slots: FollowedSlots::default(),
            adoption: Adoption::default(),
            lost: None,
            rival_log: LogLimit::new(RIVAL_LOG_MS),
            warned: Warned::default(),
        },
    )
}

impl Supervisor {
    /// Keeps the link up until the last [`Link`] is dropped, or until the server turns out to be a
    /// node of a cluster: then its address is returned.
    pub async fn run(mut self) -> Option<ServerAddress> {
        let mut backoff = Backoff::new(FIRST_RETRY, MAX_RETRY);
        for link in 1_u64.. {
            if link > 1 {
                self.context.metrics.reconnects.inc();
            }
            let began = Instant::now();
            let address = self.context.locator.address();
            let span = tracing::error_span!(parent: None, "redis_link", link, %address);
            self.inbound.set_span(span.clone());
            let error = self.serve_one().instrument(span.clone()).await;
            if self.requests.is_closed() {
                return None;
            }
            if let LinkError::IsCluster = error {
                return self.server;
            }
            if began.elapsed() > STABLE {
                backoff.reset();
            }
            if let LinkError::PrimaryMoved(primary) = error {
                span.in_scope(|| tracing::warn!(%primary, "the primary changed, connecting to it"));
                continue;
            }
            if matches!(error, LinkError::OtherServer) {
                backoff.reset();
                self.skip_connection().await;
            }
            let delay = backoff.delay();
            let retry_ms = delay.as_millis() as u64;
            span.in_scope(|| {
                let error = ErrorChain(&error);
                tracing::warn!(%error, retry_ms, "no link to Redis, retrying");
            });
            self.context.locator.ask_soon();
            let (locator, server) = (self.context.locator.clone(), self.server.clone());
            tokio::select! {
                () = self.refuse_for(delay) => {}
                _ = locator.moved_from(server.as_ref()) => backoff.reset(),
            }
        }
        None
    }

    /// Sets up a link and serves it until it ends; returns the reason.
    async fn serve_one(&mut self) -> LinkError {
        let locator = self.context.locator.clone();
        let located = match locator.locate().await {
            Ok(located) => located,
            Err(error) => return error.into(),
        };
        self.context.server.set_located(&located.to_string());
        self.server = located.server;
        let server = self.server.clone();
        tokio::select! {
            error = self.serve_server(located.connection) => error,
            primary = locator.moved_from(server.as_ref()) => {
                self.down();
                LinkError::PrimaryMoved(primary)
            }
        }
    }

    async fn serve_server(&mut self, server: ConnectionInfo) -> LinkError {
        let (mut connection, mut end) = match self.connect(server).await {
            Ok(connection) => connection,
            Err(error) => return error,
        };
        let Err(error) = self.serve(&mut connection, &mut end).await;
        self.down();
        // A command that failed because the connection ended does not know why.
        end.try_get().map_or(error, LinkError::Ended)
    }

    fn down(&mut self) {
        self.inbound.next_link();
        self.context.state.set_up(false);
        self.context.state.server.set(None);
        self.context.state.set_subscriptions(0);
        self.context.delivery.link_down(self.context.server.index);
        self.inbound.set_broadcasts(false);
    }

    /// Waits. Requests that arrive meanwhile fail at once with [`LinkDown`].
    async fn refuse_for(&mut self, pause: Duration) {
        let _ = tokio::time::timeout(pause, async {
            while let Some(request) = self.requests.recv().await {
                match request {
                    // Counted, because the subscription is released when the caller drops it.
                    Request::Attach(user, ..) => drop(self.subscriptions.attach(&user)),
                    Request::Release(user) => self.subscriptions.release(&user, Instant::now()),
                    Request::Snapshot(..) | Request::Plain(..) => {}
                }
            }
        })
        .await;
    }

    async fn connect(&mut self, server: ConnectionInfo) -> Result<(Connection, End), LinkError> {
        if self.context.server.node.is_none() && library::is_cluster(&self.commands).await? {
            return Err(LinkError::IsCluster);
        }
        let warnings = self.ensure_library().await?;
        for warning in self.warned.only_new(warnings) {
            tracing::warn!("{warning}");
        }
        let settings = &self.context.settings.redis;
        let tls = self.context.locator.tls();
        let (inbound, link_number) = (self.inbound.clone(), self.inbound.next_link());
        let push = move |message: wire::Push<'_>| inbound.push(link_number, message);
        Ok(Connection::open(&server, tls, settings.command_timeout, push).await?)
    }

    async fn ensure_library(&self) -> Result<library::Warnings, library::LibraryError> {
        library::ensure(&self.commands, &self.context.settings, self.adoption.is_replicated).await
    }

    /// Serves a new link until it ends.
    async fn serve(
        &mut self,
        connection: &mut Connection,
        end: &mut End,
    ) -> Result<Infallible, LinkError> {
        let clock = self.begin(connection).await?;
        tracing::info!(h = %clock.h, "link to Redis is up");
        let mut rivals = self.watch_rivals();
        let mut timer = tokio::time::interval(TIMER);
        let mut last_watermark = Instant::now();
        let mut batch = Vec::new();
        let mut rounds = self.context.cluster.rounds();
        let inbound = self.inbound.clone();
        loop {
            tokio::select! {
                reason = end.wait() => return Err(LinkError::Ended(reason)),
                () = inbound.ended.added.notified() => self.subscriptions_ended()?,
                rival = rivals.next() => self.resolve(connection, rival).await?,
                // The sender lives as long as the context.
                _ = rounds.changed() => self.follow_slots(connection).await?,
                n = self.requests.recv_many(&mut batch, REQUESTS) => {
                    if n == 0 {
                        return Err(LinkError::InstanceEnded);
                    }
                    self.reply(connection, std::mem::take(&mut batch)).await?;
                }
                _ = timer.tick() => {
                    if self.is_silent() {
                        return Err(LinkError::Silent);
                    }
                    if last_watermark.elapsed() >= WATERMARK_INTERVAL {
                        last_watermark = Instant::now();
                        self.renew_watermark(connection).await?;
                    }
                    self.unsubscribe_idle(connection).await?;
                }
            }
            self.context.state.set_subscriptions(self.subscriptions.count());
        }
    }

    /// Subscribes to every channel that is needed, and then lets connections catch up.
    async fn begin(&mut self, connection: &mut Connection) -> Result<ClockSnapshot, LinkError> {
        let keys = self.commands.keys.clone();
        // From now on, pooled connections must reach the same server.
        let run_id = pool::run_id(connection).await?;
        self.context.state.server.set(Some(run_id.clone()));
        self.adoption.begin(connection, run_id, &self.commands, &self.context).await;
        self.inbound.ended.take();
        let has_broadcasts = self.context.server.owns(&keys.live_broadcast());
        if has_broadcasts {
            self.context.delivery.set_broadcast_server(self.context.server.index);
            self.subscribe_broadcasts(connection).await?;
        }
        let users = self.subscriptions.lost();
        self.subscribe(connection, &users).await?;
        self.refuse_outsider(connection).await?;
        let clock = self.first_snapshot(connection).await?;
        self.context.clock.set_server_ms(clock.now_ms);
        self.context.state.discard_implausible(clock.now_ms);
        self.inbound.watermark(clock.h);
        self.context.state.set_up(true);
        self.context.delivery.link_up(self.context.server.index, clock.h);
        self.inbound.set_broadcasts(has_broadcasts);
        Ok(clock)
    }

    /// Serves a batch of requests with one subscription and one snapshot.
    async fn reply(
        &mut self,
        connection: &mut Connection,
        batch: Vec<Request>,
    ) -> Result<(), LinkError> {
        let now = Instant::now();
        let (mut wanted, mut replies, mut plain) = (Vec::new(), Vec::new(), Vec::new());
        // Counts all of them before anything can fail: each subscription is released later.
        for request in batch {
            match request {
                Request::Attach(user, part, reply) => {
                    wanted.extend(self.subscriptions.attach(&user).then(|| user.clone()));
                    replies.push((Some(user), part, reply));
                }
                Request::Snapshot(user, part, reply) => replies.push((user, part, reply)),
                Request::Release(user) => self.subscriptions.release(&user, now),
                Request::Plain(on, reply) => plain.push((on, reply)),
            }
        }
        for (on, reply) in plain {
            let patterns = self.commands.keys.public_patterns();
            all(match on {
                true => connection.psubscribe(&patterns).await,
                false => connection.punsubscribe(&patterns).await,
            })?;
            let _ = reply.send(());
        }
        wanted.sort();
        wanted.dedup();
        // Sent together, because Redis executes them in order.
        let sent = self.begin_subscribing(connection, &wanted)?;
        let clock = match replies.is_empty() {
            true => None,
            false => Some(self.clock_snapshot(connection).await),
        };
        self.confirm(connection, sent).await?;
        let clock = match clock {
            None => return Ok(()),
            // The callers ask again. Messages still arrive.
            Some(Err(error)) if error.is_cluster_down() => return Ok(()),
            Some(taken) => taken?,
        };
        self.inbound.watermark(clock.h);
        // The callers of others find the other server. A subscription that has ended meanwhile may
        // not have brought everything.
        replies.retain(|(user, part, _)| self.brings(user.as_ref(), *part));
        for (_, _, reply) in replies {
            // The caller may have stopped waiting.
            let _ = reply.send(clock);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;

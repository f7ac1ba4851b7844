//! The link: the one subscriber connection of an instance, and its supervisor.
//!
//! The supervisor connects with a jittered back-off, subscribes in batches, waits until Redis has
//! confirmed the subscriptions, takes a clock snapshot, and only then lets connections catch up
//! (ARCHITECTURE.md#the-link).

mod error;
#[cfg(test)]
pub mod testing;

use std::{
    convert::Infallible,
    sync::Arc,
    time::{Duration, Instant},
};

use redis::{AsyncConnectionConfig, RedisResult, aio::MultiplexedConnection};
use secrecy::ExposeSecret;
use tokio::sync::{mpsc, oneshot};
use tracing::Instrument;

use self::error::LinkError;
use super::{
    adoption::{Adoption, NotAdopted, PROBE_INTERVAL},
    commands::Commands,
    inbound::Inbound,
    library,
    link_context::LinkContext,
    link_state::WATERMARK_TIMEOUT,
    pool,
    subscriptions::Subscriptions,
    watermark::WatermarkError,
};
use crate::{
    backoff::Backoff, core::catch_up::ClockSnapshot, error_chain::ErrorChain,
    settings::PlainPublish,
};

/// Users in one batch of subscriptions.
const BATCH: usize = 1000;
/// Maximum number of requests that are served together.
const REQUESTS: usize = 4096;
/// Time between two checks for things that must be done without a request.
const TIMER: Duration = Duration::from_millis(250);
/// Time between two watermarks, and the longest wait for one.
const WATERMARK_INTERVAL: Duration = Duration::from_secs(1);
const WATERMARK_WAIT: Duration = Duration::from_millis(500);
/// If the system clock of Redis jumps by this much, ms, earlier and later ids may not be
/// comparable.
const CLOCK_JUMP_MS: u64 = 86_400_000;
/// A link without a watermark for this long is closed, even if it carries events.
const WATERMARK_OVERDUE: Duration = Duration::from_secs(10);
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
    /// Subscribes to a user's channel, if one is named, and replies with a clock snapshot.
    Attach(Option<Arc<str>>, oneshot::Sender<ClockSnapshot>),
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
    /// Subscribes to the channel of a user, and then takes a clock snapshot: the logs contain every
    /// event up to it, and the link delivers every event after it.
    ///
    /// # Errors
    /// The link is down, or Redis does not reply in time.
    pub async fn subscribe(
        &self,
        user: &Arc<str>,
    ) -> Result<(ClockSnapshot, UserSubscription), LinkDown> {
        let subscription = UserSubscription { user: user.clone(), requests: self.requests.clone() };
        let clock = self.request(|reply| Request::Attach(Some(user.clone()), reply)).await?;
        Ok((clock, subscription))
    }

    /// Takes a clock snapshot.
    ///
    /// # Errors
    /// As [`Link::subscribe`].
    pub async fn clock_snapshot(&self) -> Result<ClockSnapshot, LinkDown> {
        self.request(|reply| Request::Attach(None, reply)).await
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
    adoption: Adoption,
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
            adoption: Adoption::default(),
        },
    )
}

impl Supervisor {
    /// Keeps the link up until the last [`Link`] is dropped.
    pub async fn run(mut self) {
        let mut backoff = Backoff::new(FIRST_RETRY, MAX_RETRY);
        for link in 1_u64.. {
            if link > 1 {
                self.context.metrics.reconnects.inc();
            }
            let began = Instant::now();
            let address = &*self.commands.address;
            let span = tracing::error_span!(parent: None, "redis_link", link, %address);
            self.inbound.set_span(span.clone());
            let error = self.serve_one().instrument(span.clone()).await;
            if self.requests.is_closed() {
                return;
            }
            if began.elapsed() > STABLE {
                backoff.reset();
            }
            let delay = backoff.delay();
            let retry_ms = delay.as_millis() as u64;
            span.in_scope(|| {
                let error = ErrorChain(&error);
                tracing::warn!(%error, retry_ms, "no link to Redis, retrying");
            });
            self.refuse_for(delay).await;
        }
    }

    /// Sets up a link and serves it until it ends; returns the reason.
    async fn serve_one(&mut self) -> LinkError {
        let mut connection = match self.connect().await {
            Ok(connection) => connection,
            Err(error) => return error,
        };
        let Err(error) = self.serve(&mut connection).await;
        self.down();
        error
    }

    fn down(&mut self) {
        self.inbound.next_link();
        self.context.state.set_up(false);
        self.context.state.server.set(None);
        self.context.metrics.link_up.set(0);
        self.context.metrics.subscriptions.set(0);
        self.context.delivery.link_down();
        self.inbound.link_changed(false);
    }

    /// Waits. Requests that arrive meanwhile fail at once with [`LinkDown`].
    async fn refuse_for(&mut self, pause: Duration) {
        let _ = tokio::time::timeout(pause, async {
            while let Some(request) = self.requests.recv().await {
                match request {
                    // Counted, because the subscription is released when the caller drops it.
                    Request::Attach(Some(user), _) => drop(self.subscriptions.attach(&user)),
                    Request::Release(user) => self.subscriptions.release(&user, Instant::now()),
                    Request::Attach(None, _) | Request::Plain(..) => {}
                }
            }
        })
        .await;
    }

    async fn connect(&mut self) -> Result<MultiplexedConnection, LinkError> {
        self.ensure_library().await?.0.iter().for_each(|warning| tracing::warn!("{warning}"));
        let (inbound, link_number) = (self.inbound.clone(), self.inbound.next_link());
        let config = self.connection_config().set_push_sender(move |push| {
            inbound.push(link_number, push);
            Ok::<(), redis::aio::SendError>(())
        });
        // Discards a notification about the end of the previous link.
        let _ = tokio::time::timeout(Duration::ZERO, self.inbound.disconnected.notified()).await;
        self.open(&config).await.map_err(LinkError::Connect)
    }

    async fn ensure_library(&self) -> Result<library::Warnings, library::LibraryError> {
        library::ensure(&self.commands, &self.context.settings, self.adoption.is_replicated).await
    }

    fn connection_config(&self) -> AsyncConnectionConfig {
        let timeout = self.context.settings.redis.command_timeout;
        AsyncConnectionConfig::new()
            .set_connection_timeout(Some(timeout))
            .set_response_timeout(Some(timeout))
    }

    async fn open(&self, config: &AsyncConnectionConfig) -> RedisResult<MultiplexedConnection> {
        pool::connect(self.context.settings.redis.url.expose_secret(), config).await
    }

    /// The server process that a new connection reaches.
    async fn probe(&self) -> RedisResult<Arc<str>> {
        pool::run_id(&mut self.open(&self.connection_config()).await?).await
    }

    /// Serves a new link until it ends.
    async fn serve(
        &mut self,
        connection: &mut MultiplexedConnection,
    ) -> Result<Infallible, LinkError> {
        let clock = self.begin(connection).await?;
        tracing::info!(h = %clock.h, "link to Redis is up");
        let mut timer = tokio::time::interval(TIMER);
        let mut last_watermark = Instant::now();
        let mut batch = Vec::new();
        loop {
            tokio::select! {
                () = self.inbound.disconnected.notified() => return Err(LinkError::Closed),
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
            self.context.metrics.subscriptions.set(self.subscriptions.count() as i64);
        }
    }

    /// Subscribes to every channel that is needed, and then lets connections catch up.
    async fn begin(
        &mut self,
        connection: &mut MultiplexedConnection,
    ) -> Result<ClockSnapshot, LinkError> {
        let keys = self.commands.keys.clone();
        // From now on, pooled connections must reach the same server.
        let run_id = pool::run_id(connection).await?;
        self.context.state.server.set(Some(run_id.clone()));
        self.adoption.begin(connection, run_id, &self.commands, &self.context).await;
        ssubscribe(connection, &[keys.live_broadcast()]).await?;
        if self.context.settings.publishers.plain == PlainPublish::Relay {
            connection.psubscribe(&keys.public_patterns()[1..]).await?;
        }
        let users = self.subscriptions.lost();
        self.subscribe(connection, &users).await?;
        let clock = self.first_snapshot(connection).await?;
        self.context.clock.set_server_ms(clock.now_ms);
        self.context.state.discard_implausible(clock.now_ms);
        self.inbound.watermark(clock.h);
        self.context.state.set_up(true);
        self.context.metrics.link_up.set(1);
        self.context.delivery.link_up(clock.h);
        self.inbound.link_changed(true);
        Ok(clock)
    }

    /// The live channels of users.
    fn live(&self, users: &[Arc<str>]) -> Vec<String> {
        users.iter().map(|user| self.commands.keys.live_user(user)).collect()
    }

    /// The users' public channels that are subscribed, too: none except in `relay` mode.
    fn public(&self, users: &[Arc<str>]) -> Vec<String> {
        let relay = self.context.settings.publishers.plain == PlainPublish::Relay;
        let users = if relay { users } else { &[] };
        users.iter().map(|user| self.commands.keys.public_user(user)).collect()
    }

    async fn subscribe(
        &mut self,
        connection: &mut MultiplexedConnection,
        users: &[Arc<str>],
    ) -> RedisResult<()> {
        for batch in users.chunks(BATCH) {
            ssubscribe(connection, &self.live(batch)).await?;
            let public = self.public(batch);
            if !public.is_empty() {
                connection.subscribe(public).await?;
            }
            batch.iter().for_each(|user| self.subscriptions.confirmed(user));
        }
        Ok(())
    }

    /// Takes the first watermark of a link. As long as the server may not be adopted, requests are
    /// refused and new connections look for another server.
    async fn first_snapshot(
        &mut self,
        connection: &mut MultiplexedConnection,
    ) -> Result<ClockSnapshot, LinkError> {
        loop {
            match self.clock_snapshot(connection).await {
                Err(LinkError::Watermark(WatermarkError::NotAdopted(NotAdopted::Behind))) => {}
                taken => return taken,
            }
            self.refuse_for(PROBE_INTERVAL).await;
            if self.requests.is_closed() {
                return Err(LinkError::InstanceEnded);
            }
            let reached = self.probe().await;
            if !self.adoption.probed(reached.as_deref().unwrap_or_default()) {
                return Err(reached.map_or_else(LinkError::Connect, |_| LinkError::OtherServer));
            }
        }
    }

    /// Takes a watermark: everything up to its H has arrived.
    async fn clock_snapshot(
        &mut self,
        connection: &mut MultiplexedConnection,
    ) -> Result<ClockSnapshot, LinkError> {
        let (commands, state) = (&self.commands, &self.context.state);
        match self.adoption.watermark(connection, commands, state).await {
            Err(WatermarkError::NoLibrary) => {
                // Another client has deleted it, for example with FUNCTION FLUSH.
                self.ensure_library().await?;
                let (commands, state) = (&self.commands, &self.context.state);
                Ok(self.adoption.watermark(connection, commands, state).await?)
            }
            taken => Ok(taken?),
        }
    }

    /// Takes the periodic watermark. A link that does not reply in time is closed later.
    async fn renew_watermark(
        &mut self,
        connection: &mut MultiplexedConnection,
    ) -> Result<(), LinkError> {
        let snapshot = self.clock_snapshot(connection);
        let Ok(taken) = tokio::time::timeout(WATERMARK_WAIT, snapshot).await else {
            return Ok(());
        };
        let clock = taken?;
        self.inbound.watermark(clock.h);
        match self.context.clock.set_server_ms(clock.now_ms) {
            jump_ms if jump_ms >= CLOCK_JUMP_MS => Err(LinkError::ClockJumped(jump_ms)),
            _ => Ok(()),
        }
    }

    /// Serves a batch of requests with one subscription and one snapshot.
    async fn reply(
        &mut self,
        connection: &mut MultiplexedConnection,
        batch: Vec<Request>,
    ) -> Result<(), LinkError> {
        let now = Instant::now();
        let (mut wanted, mut replies, mut plain) = (Vec::new(), Vec::new(), Vec::new());
        // Counts all of them before anything can fail: each subscription is released later.
        for request in batch {
            match request {
                Request::Attach(user, reply) => {
                    wanted.extend(user.filter(|u| self.subscriptions.attach(u)));
                    replies.push(reply);
                }
                Request::Release(user) => self.subscriptions.release(&user, now),
                Request::Plain(on, reply) => plain.push((on, reply)),
            }
        }
        for (on, reply) in plain {
            let patterns = self.commands.keys.public_patterns();
            match on {
                true => connection.psubscribe(&patterns[..]).await?,
                false => connection.punsubscribe(&patterns[..]).await?,
            }
            let _ = reply.send(());
        }
        wanted.sort();
        wanted.dedup();
        self.subscribe(connection, &wanted).await?;
        if !replies.is_empty() {
            let clock = self.clock_snapshot(connection).await?;
            self.inbound.watermark(clock.h);
            for reply in replies {
                // The caller may have stopped waiting.
                let _ = reply.send(clock);
            }
        }
        Ok(())
    }

    /// Whether the link is dead, even if TCP still considers it open. A link that carries messages
    /// is not: a watermark may be queued behind them.
    fn is_silent(&self) -> bool {
        let state = &self.context.state;
        let overdue = state.watermark_age().is_none_or(|age| age >= WATERMARK_OVERDUE);
        !state.is_alive() && (overdue || state.message_age() >= WATERMARK_TIMEOUT)
    }

    /// Unsubscribes from the channels of users that have had no stream for a while.
    async fn unsubscribe_idle(
        &mut self,
        connection: &mut MultiplexedConnection,
    ) -> RedisResult<()> {
        let linger = self.context.settings.redis.unsubscribe_linger;
        let idle = self.subscriptions.take_idle(Instant::now(), linger, BATCH);
        if idle.is_empty() {
            return Ok(());
        }
        sunsubscribe(connection, &self.live(&idle)).await?;
        match self.public(&idle) {
            public if public.is_empty() => Ok(()),
            public => connection.unsubscribe(public).await,
        }
    }
}

/// Subscribes to live channels. One command for each: on a cluster a command may name channels of
/// one slot only, and each command has one confirmation.
async fn ssubscribe(
    connection: &mut MultiplexedConnection,
    channels: &[String],
) -> RedisResult<()> {
    for_each_channel(connection, "SSUBSCRIBE", channels).await
}

async fn sunsubscribe(
    connection: &mut MultiplexedConnection,
    channels: &[String],
) -> RedisResult<()> {
    for_each_channel(connection, "SUNSUBSCRIBE", channels).await
}

async fn for_each_channel(
    connection: &mut MultiplexedConnection,
    command: &str,
    channels: &[String],
) -> RedisResult<()> {
    let mut pipeline = redis::pipe();
    for channel in channels {
        pipeline.cmd(command).arg(channel);
    }
    pipeline.query_async::<Vec<redis::Value>>(connection).await.map(drop)
}

#[cfg(test)]
mod tests;

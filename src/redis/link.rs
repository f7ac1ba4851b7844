//! The link: the one subscriber connection of an instance, and its supervisor.
//!
//! The supervisor connects with a jittered back-off, subscribes in batches, waits until Redis has
//! confirmed the subscriptions, takes a clock snapshot, and only then lets connections catch up
//! (ARCHITECTURE.md#the-link).

mod error;

use std::{
    convert::Infallible,
    sync::Arc,
    time::{Duration, Instant},
};

use redis::{
    AsyncConnectionConfig, IntoConnectionInfo, ProtocolVersion, RedisResult,
    aio::MultiplexedConnection,
};
use secrecy::ExposeSecret;
use tokio::sync::{mpsc, oneshot};
use tracing::Instrument;

use self::error::LinkError;
use super::{
    commands::Commands,
    inbound::Inbound,
    library,
    link_context::LinkContext,
    link_state::TICK_TIMEOUT,
    log::{snapshot_commands, snapshot_of},
    subscriptions::Subscriptions,
    tick,
};
use crate::{
    backoff::Backoff, core::catch_up::ClockSnapshot, error_chain::ErrorChain, log_limit::LogLimit,
    settings::PlainPublish,
};

/// Maximum number of users in one SUBSCRIBE.
const BATCH: usize = 1000;
/// Maximum number of requests that are served together.
const REQUESTS: usize = 4096;
/// Time between two checks for things that must be done without a request.
const TIMER: Duration = Duration::from_millis(250);
/// Time between two clock checks.
const CLOCK_CHECK_INTERVAL: Duration = Duration::from_secs(1);
const CLOCK_CHECK_TIMEOUT: Duration = Duration::from_millis(500);
/// If the system clock of Redis jumps by this much, ms, earlier and later ids may not be
/// comparable.
const CLOCK_JUMP_MS: u64 = 86_400_000;
/// If so many snapshots in a row find an invalid clock, although the library repairs it each time,
/// another client keeps writing it.
const SNAPSHOT_ATTEMPTS: usize = 10;
const SNAPSHOT_RETRY: Duration = Duration::from_millis(100);
/// Minimum time between log lines about settings that cannot be written, ms.
const SETTINGS_LOG_MS: u64 = 10_000;
/// A link without a tick for this long is closed, even if it carries events.
const TICK_OVERDUE: Duration = Duration::from_secs(10);
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
    /// The epoch in which the library's settings were last written; 0: write them again.
    settings_epoch_ms: u64,
    settings_log: LogLimit,
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
            settings_epoch_ms: 0,
            settings_log: LogLimit::new(SETTINGS_LOG_MS),
        },
    )
}

/// The system clock of Redis, ms since 1970.
async fn server_ms(connection: &mut MultiplexedConnection) -> RedisResult<u64> {
    let (seconds, micros): (u64, u64) = redis::cmd("TIME").query_async(connection).await?;
    Ok(seconds * 1000 + micros / 1000)
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
        let warnings = library::ensure(&self.commands, &self.context.settings).await?;
        warnings.0.iter().for_each(|w| tracing::warn!("{w}"));
        let settings = &self.context.settings.redis;
        let info = settings.url.expose_secret().into_connection_info();
        let info = info.map_err(LinkError::Connect)?;
        let resp3 = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        let client = redis::Client::open(info.set_redis_settings(resp3));
        let client = client.map_err(LinkError::Connect)?;
        let (inbound, generation) = (self.inbound.clone(), self.inbound.next_link());
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(settings.command_timeout))
            .set_response_timeout(Some(settings.command_timeout))
            .set_push_sender(move |push| {
                inbound.push(generation, push);
                Ok::<(), redis::aio::SendError>(())
            });
        // Discards a notification about the end of the previous link.
        let _ = tokio::time::timeout(Duration::ZERO, self.inbound.disconnected.notified()).await;
        let connection = client.get_multiplexed_async_connection_with_config(&config).await;
        connection.map_err(LinkError::Connect)
    }

    /// Serves a new link until it ends.
    async fn serve(
        &mut self,
        connection: &mut MultiplexedConnection,
    ) -> Result<Infallible, LinkError> {
        let clock = self.begin(connection).await?;
        tracing::info!(h = %clock.h, epoch = %clock.epoch, "link to Redis is up");
        let mut timer = tokio::time::interval(TIMER);
        let mut clock_checked = Instant::now();
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
                    if clock_checked.elapsed() >= CLOCK_CHECK_INTERVAL {
                        clock_checked = Instant::now();
                        self.check_clock(connection).await?;
                    }
                    self.renew_settings().await;
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
        let own = ["tick", "seam", "control", "marker"].map(|name| keys.live(name));
        connection.subscribe(&own[..]).await?;
        connection.psubscribe(keys.live_broadcasts()).await?;
        if self.context.settings.publishers.plain == PlainPublish::Relay {
            connection.psubscribe(&keys.public_patterns()[1..]).await?;
        }
        let users = self.subscriptions.lost();
        self.subscribe(connection, &users).await?;
        let time = server_ms(connection).await?;
        self.context.clock.set_server_ms(time);
        self.context.state.discard_implausible(time);
        // Creates the clock if there is none, and moves it past every id that this instance has
        // seen.
        tick::now(&self.commands, 0, self.context.state.highest_id()).await?;
        let clock = self.clock_snapshot(connection).await?;
        self.context.state.raise_highest_id(clock.h);
        self.inbound.enter_epoch(clock.epoch);
        self.context.state.set_up(true);
        self.context.metrics.link_up.set(1);
        self.context.delivery.link_up(clock.h);
        self.inbound.link_changed(true);
        Ok(clock)
    }

    /// The live channels of users; in `relay` mode also their public channels.
    fn channels(&self, users: &[Arc<str>]) -> Vec<String> {
        let keys = &self.commands.keys;
        let name = |user: &Arc<str>| format!("user:{user}:events");
        let mut all: Vec<String> = users.iter().map(|u| keys.live(&name(u))).collect();
        if self.context.settings.publishers.plain == PlainPublish::Relay {
            all.extend(users.iter().map(|u| keys.public(&name(u))));
        }
        all
    }

    async fn subscribe(
        &mut self,
        connection: &mut MultiplexedConnection,
        users: &[Arc<str>],
    ) -> RedisResult<()> {
        for batch in users.chunks(BATCH) {
            connection.subscribe(self.channels(batch)).await?;
            batch.iter().for_each(|user| self.subscriptions.confirmed(user));
        }
        Ok(())
    }

    async fn clock_snapshot(
        &self,
        connection: &mut MultiplexedConnection,
    ) -> Result<ClockSnapshot, LinkError> {
        let clock = self.commands.keys.clock();
        for attempt in 0..SNAPSHOT_ATTEMPTS {
            if let Some(clock) =
                snapshot_of(snapshot_commands(&clock).query_async(connection).await?)
            {
                return Ok(clock);
            }
            if attempt > 0 {
                tokio::time::sleep(SNAPSHOT_RETRY).await;
            }
            // Redis was just wiped, or another client wrote an impossible clock. A tick starts a
            // new epoch.
            tick::now(&self.commands, 0, self.context.state.highest_id()).await?;
        }
        Err(LinkError::ForeignClock(clock))
    }

    /// The clock check: reads the system clock of Redis, and whether the library's settings still
    /// exist. Fails if the clock has jumped so far that earlier ids can no longer be compared.
    async fn check_clock(
        &mut self,
        connection: &mut MultiplexedConnection,
    ) -> Result<(), LinkError> {
        let mut pipeline = redis::pipe();
        pipeline.cmd("TIME").cmd("EXISTS").arg(self.commands.keys.settings());
        let reply = pipeline.query_async::<((u64, u64), bool)>(connection);
        // A link on which nothing arrives is closed for the lack of ticks.
        let Ok(Ok(((seconds, micros), has_settings))) =
            tokio::time::timeout(CLOCK_CHECK_TIMEOUT, reply).await
        else {
            return Ok(());
        };
        if !has_settings {
            // Another client has deleted them.
            self.settings_epoch_ms = 0;
        }
        let time_ms = seconds * 1000 + micros / 1000;
        match self.context.clock.set_server_ms(time_ms) {
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
            self.context.state.raise_highest_id(clock.h);
            self.inbound.enter_epoch(clock.epoch);
            for reply in replies {
                // The caller may have stopped waiting.
                let _ = reply.send(clock);
            }
        }
        Ok(())
    }

    /// Whether the link is dead, even if TCP still considers it open. A link that carries events is
    /// not: a tick may be queued behind them.
    fn is_silent(&self) -> bool {
        let overdue = self.context.state.tick_age().is_none_or(|age| age >= TICK_OVERDUE);
        !self.context.state.is_alive()
            && (overdue || self.context.state.message_age() >= TICK_TIMEOUT)
    }

    /// Writes the library's settings again after a new epoch: a wiped Redis has lost them.
    async fn renew_settings(&mut self) {
        let epoch_ms = self.context.state.epoch_ms();
        if epoch_ms != self.settings_epoch_ms {
            match library::put_settings(&self.commands, &self.context.settings).await {
                Ok(()) => self.settings_epoch_ms = epoch_ms,
                Err(error) => {
                    if let Some(suppressed) = self.settings_log.allow(self.context.clock.now_ms()) {
                        tracing::warn!(
                            error = %ErrorChain(&error),
                            suppressed,
                            "could not write the function library's settings, retrying"
                        );
                    }
                }
            }
        }
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
        connection.unsubscribe(self.channels(&idle)).await
    }
}

#[cfg(test)]
mod tests;

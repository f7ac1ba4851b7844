//! The one subscriber connection of an instance and its supervisor: connect with a jittered
//! back-off, subscribe in batches, await confirmation, take the clock snapshot, and only then let
//! the connections catch up (ARCHITECTURE.md#the-link).

use std::{
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
    backoff::Backoff, core::catch_up::ClockSnapshot, log_limit::LogLimit, settings::PlainPublish,
};

/// Channels in one SUBSCRIBE.
const BATCH: usize = 1000;
/// Requests that are served together.
const REQUESTS: usize = 4096;
/// The clock of Redis and the library's settings are looked at this often.
const LOOK: Duration = Duration::from_secs(1);
const LOOK_TIMEOUT: Duration = Duration::from_millis(500);
/// If the clock of Redis jumps by more, ms, ids of before may not be comparable with those of
/// after.
const TIME_JUMP_MS: u64 = 86_400_000;
/// A clock that the library keeps repairing: somebody else keeps writing it.
const SNAPSHOT_ATTEMPTS: usize = 10;
const SNAPSHOT_PAUSE: Duration = Duration::from_millis(100);
/// Between log lines about settings that cannot be written, ms.
const SETTINGS_LOG_MS: u64 = 10_000;
/// Events without a tick for this long are no sign of life either.
const TICK_OVERDUE: Duration = Duration::from_secs(10);
/// The delay after a failure, and the longest one.
const FIRST_RETRY: Duration = Duration::from_millis(100);
const MAX_RETRY: Duration = Duration::from_secs(5);
/// A link that was up for longer starts with the first delay again.
const STABLE: Duration = Duration::from_secs(10);

/// The link is down; it will come back.
#[derive(Debug)]
pub struct LinkDown;

enum Request {
    /// Subscribe to a user's channel, if one is named, and take a clock snapshot.
    Attach(Option<Arc<str>>, oneshot::Sender<ClockSnapshot>),
    Release(Arc<str>),
    /// Subscribe to the public channels for the recorder, or give them up.
    Plain(bool, oneshot::Sender<()>),
}

/// The workers' side of the link.
#[derive(Clone)]
pub struct Link {
    requests: mpsc::UnboundedSender<Request>,
    timeout: Duration,
}

/// Keeps a user's channel subscribed.
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
    /// Subscribes to the channel of a user and then takes a clock snapshot: everything up to it is
    /// in the logs, everything after it comes by the link.
    ///
    /// # Errors
    /// The link is down, or does not answer in time.
    pub async fn subscribe(
        &self,
        user: &Arc<str>,
    ) -> Result<(ClockSnapshot, UserSubscription), LinkDown> {
        let subscription = UserSubscription { user: user.clone(), requests: self.requests.clone() };
        let clock = self.ask(|reply| Request::Attach(Some(user.clone()), reply)).await?;
        Ok((clock, subscription))
    }

    /// Takes a clock snapshot.
    ///
    /// # Errors
    /// The link is down, or does not answer in time.
    pub async fn clock_snapshot(&self) -> Result<ClockSnapshot, LinkDown> {
        self.ask(|reply| Request::Attach(None, reply)).await
    }

    /// Subscribes to the publishers' channels, or gives them up; returns when Redis has confirmed
    /// it.
    ///
    /// # Errors
    /// The link is down, or does not answer in time.
    pub async fn plain(&self, wanted: bool) -> Result<(), LinkDown> {
        self.ask(|reply| Request::Plain(wanted, reply)).await
    }

    async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<T>) -> Request,
    ) -> Result<T, LinkDown> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(request(reply)).map_err(|_| LinkDown)?;
        tokio::time::timeout(self.timeout, answer)
            .await
            .map_err(|_| LinkDown)?
            .map_err(|_| LinkDown)
    }
}

/// The supervisor; it lives on a thread of its own.
pub struct Supervisor {
    context: LinkContext,
    commands: Commands,
    inbound: Arc<Inbound>,
    requests: mpsc::UnboundedReceiver<Request>,
    subscriptions: Subscriptions,
    /// The epoch in which the library's settings were written.
    settings_epoch_ms: u64,
    settings_log: LogLimit,
}

/// The link of an instance and its supervisor.
pub fn new(context: LinkContext, commands: Commands, inbound: Arc<Inbound>) -> (Link, Supervisor) {
    let (sender, requests) = mpsc::unbounded_channel();
    // An attach may wait for one that is being served.
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

/// The time of Redis, ms since 1970.
async fn server_ms(connection: &mut MultiplexedConnection) -> RedisResult<u64> {
    let (seconds, micros): (u64, u64) = redis::cmd("TIME").query_async(connection).await?;
    Ok(seconds * 1000 + micros / 1000)
}

/// Why a link ended.
type Ended = String;

impl Supervisor {
    /// Keeps the link up as long as somebody may ask for it.
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
            let ended = self.serve_one().instrument(span.clone()).await;
            if self.requests.is_closed() {
                return;
            }
            if began.elapsed() > STABLE {
                backoff.reset();
            }
            let delay = backoff.delay();
            let retry_ms = delay.as_millis() as u64;
            span.in_scope(|| {
                tracing::warn!(error = ended, retry_ms, "no link to Redis, retrying");
            });
            self.refuse_for(delay).await;
        }
    }

    /// Sets up a link and serves it until it ends; returns the reason.
    async fn serve_one(&mut self) -> Ended {
        match self.connect().await {
            Ok(mut connection) => {
                let ended = self.serve(&mut connection).await;
                self.down();
                ended
            }
            Err(fault) => fault,
        }
    }

    fn down(&mut self) {
        self.inbound.next_link();
        self.context.state.set_up(false);
        self.context.metrics.link_up.set(0);
        self.context.metrics.subscriptions.set(0);
        self.context.delivery.link_down();
        self.inbound.link_changed(false);
    }

    /// Waits, and answers requests meanwhile with [`LinkDown`].
    async fn refuse_for(&mut self, pause: Duration) {
        let _ = tokio::time::timeout(pause, async {
            while let Some(request) = self.requests.recv().await {
                match request {
                    // The subscription that the asker drops gives its release.
                    Request::Attach(Some(user), _) => drop(self.subscriptions.attach(&user)),
                    Request::Release(user) => self.subscriptions.release(&user, Instant::now()),
                    Request::Attach(None, _) | Request::Plain(..) => {}
                }
            }
        })
        .await;
    }

    async fn connect(&mut self) -> Result<MultiplexedConnection, Ended> {
        let warnings = library::ensure(&self.commands, &self.context.settings)
            .await
            .map_err(|unfit| unfit.to_string())?;
        warnings.0.iter().for_each(|w| tracing::warn!("{w}"));
        let settings = &self.context.settings.redis;
        let fault = |e: redis::RedisError| e.to_string();
        let info = settings.url.expose_secret().into_connection_info().map_err(fault)?;
        let resp3 = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        let client = redis::Client::open(info.set_redis_settings(resp3)).map_err(fault)?;
        let (inbound, generation) = (self.inbound.clone(), self.inbound.next_link());
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(settings.command_timeout))
            .set_response_timeout(Some(settings.command_timeout))
            .set_push_sender(move |push| {
                inbound.push(generation, push);
                Ok::<(), redis::aio::SendError>(())
            });
        // A disconnection of the link before is no news of this one.
        let _ = tokio::time::timeout(Duration::ZERO, self.inbound.disconnected.notified()).await;
        client.get_multiplexed_async_connection_with_config(&config).await.map_err(fault)
    }

    async fn serve(&mut self, connection: &mut MultiplexedConnection) -> Ended {
        match self.begin(connection).await {
            Ok(clock) => tracing::info!(h = %clock.h, epoch = %clock.epoch, "link to Redis is up"),
            Err(fault) => return fault,
        }
        let mut timer = tokio::time::interval(Duration::from_millis(250));
        let mut looked = Instant::now();
        let mut batch = Vec::new();
        loop {
            tokio::select! {
                () = self.inbound.disconnected.notified() => {
                    return "the connection was closed".to_owned();
                }
                n = self.requests.recv_many(&mut batch, REQUESTS) => {
                    if n == 0 {
                        return "the instance is gone".to_owned();
                    }
                    if let Err(e) = self.answer(connection, std::mem::take(&mut batch)).await {
                        return e.to_string();
                    }
                }
                _ = timer.tick() => {
                    if self.is_silent() {
                        return "no tick for 3 s".to_owned();
                    }
                    if looked.elapsed() >= LOOK {
                        looked = Instant::now();
                        if let Some(jump_ms) = self.look(connection).await {
                            return format!("the clock of Redis jumped by {jump_ms} ms");
                        }
                    }
                    self.renew_settings().await;
                    if let Err(e) = self.give_up_idle(connection).await {
                        return e.to_string();
                    }
                }
            }
            self.context.metrics.subscriptions.set(self.subscriptions.count() as i64);
        }
    }

    /// Subscribes to everything that is wanted, and then lets the connections catch up.
    async fn begin(
        &mut self,
        connection: &mut MultiplexedConnection,
    ) -> Result<ClockSnapshot, Ended> {
        let fault = |e: redis::RedisError| e.to_string();
        let keys = self.commands.keys.clone();
        let own = ["tick", "seam", "control", "marker"].map(|name| keys.live(name));
        connection.subscribe(&own[..]).await.map_err(fault)?;
        connection.psubscribe(keys.live_broadcasts()).await.map_err(fault)?;
        if self.context.settings.publishers.plain == PlainPublish::Relay {
            connection.psubscribe(&keys.public_patterns()[1..]).await.map_err(fault)?;
        }
        let users = self.subscriptions.lost();
        self.subscribe(connection, &users).await.map_err(fault)?;
        let time = server_ms(connection).await.map_err(fault)?;
        self.context.clock.set_server_ms(time);
        self.context.state.discard_implausible(time);
        // The clock exists, and is past everything that this instance has seen.
        tick::now(&self.commands, 0, self.context.state.highest_id())
            .await
            .map_err(|f| f.to_string())?;
        let clock = self.clock_snapshot(connection).await.map_err(fault)?;
        self.context.state.raise_highest_id(clock.h);
        self.inbound.enter_epoch(clock.epoch);
        self.context.state.set_up(true);
        self.context.metrics.link_up.set(1);
        self.context.delivery.link_up(clock.h);
        self.inbound.link_changed(true);
        Ok(clock)
    }

    /// The channels of users: the live ones, in `relay` mode the public ones too.
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
    ) -> RedisResult<ClockSnapshot> {
        let clock = self.commands.keys.clock();
        for attempt in 0..SNAPSHOT_ATTEMPTS {
            if let Some(clock) =
                snapshot_of(snapshot_commands(&clock).query_async(connection).await?)
            {
                return Ok(clock);
            }
            if attempt > 0 {
                tokio::time::sleep(SNAPSHOT_PAUSE).await;
            }
            // Redis was wiped this moment, or somebody wrote a clock that cannot be: a tick starts
            // the new epoch.
            tick::now(&self.commands, 0, self.context.state.highest_id())
                .await
                .map_err(|f| redis::RedisError::from(std::io::Error::other(f.to_string())))?;
        }
        let fault = format!(
            "another client keeps writing the key {clock:?}; allow it only to gateways (ACL)"
        );
        Err(std::io::Error::other(fault).into())
    }

    /// InboxSender the time of Redis, and whether the library's settings are there. By how many ms
    /// the time has jumped, if ids of before can no longer be compared.
    async fn look(&mut self, connection: &mut MultiplexedConnection) -> Option<u64> {
        let mut pipeline = redis::pipe();
        pipeline.cmd("TIME").cmd("EXISTS").arg(self.commands.keys.settings());
        let answer = tokio::time::timeout(LOOK_TIMEOUT, pipeline.query_async(connection)).await;
        // A link that does not answer is given up by the ticks.
        let ((seconds, micros), has_settings): ((u64, u64), bool) = answer.ok()?.ok()?;
        if !has_settings {
            // Somebody has deleted them: they are written again.
            self.settings_epoch_ms = 0;
        }
        let time_ms = seconds * 1000 + micros / 1000;
        let jump_ms = self.context.clock.set_server_ms(time_ms);
        (jump_ms >= TIME_JUMP_MS).then_some(jump_ms)
    }

    async fn answer(
        &mut self,
        connection: &mut MultiplexedConnection,
        batch: Vec<Request>,
    ) -> RedisResult<()> {
        let now = Instant::now();
        let (mut wanted, mut replies, mut plain) = (Vec::new(), Vec::new(), Vec::new());
        // All are counted before anything can fail: every subscription gives its release.
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
                // Who asked may be gone.
                let _ = reply.send(clock);
            }
        }
        Ok(())
    }

    /// Whether the link is dead, whatever TCP says. One that brings events while a tick is on its
    /// way behind them is not.
    fn is_silent(&self) -> bool {
        let overdue = self.context.state.tick_age().is_none_or(|age| age >= TICK_OVERDUE);
        !self.context.state.is_alive()
            && (overdue || self.context.state.message_age() >= TICK_TIMEOUT)
    }

    /// A wiped Redis has forgotten the library's settings.
    async fn renew_settings(&mut self) {
        let epoch_ms = self.context.state.epoch_ms();
        if epoch_ms != self.settings_epoch_ms {
            match library::put_settings(&self.commands, &self.context.settings).await {
                Ok(()) => self.settings_epoch_ms = epoch_ms,
                Err(fault) => {
                    if let Some(suppressed) = self.settings_log.allow(self.context.clock.now_ms()) {
                        tracing::warn!(
                            error = %fault,
                            suppressed,
                            "could not write the function library's settings, retrying"
                        );
                    }
                }
            }
        }
    }

    async fn give_up_idle(&mut self, connection: &mut MultiplexedConnection) -> RedisResult<()> {
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

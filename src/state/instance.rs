//! What all parts of one instance share.

use std::{
    net::IpAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use tokio::sync::Notify;

use super::{
    limits::connections::ConnectionLimit, limits::rate::RateLimit, mailbox::Mailboxes,
    replay_cache::ReplayCache,
};
use crate::{
    auth::Auth,
    core::id::EventId,
    metrics::Metrics,
    settings::{PlainPublish, Settings},
};

/// A link without a tick for this long is dead, whatever TCP says (ARCHITECTURE.md#the-link).
pub const TICK_TIMEOUT: Duration = Duration::from_secs(3);

/// For so long after its start an instance lets clients wait for the link.
const START: Duration = Duration::from_secs(3);

const MINUTE: Duration = Duration::from_secs(60);

/// How often somebody may come, by who it is.
pub struct RateLimits {
    /// Streams and polls, by [`crate::core::address::site`].
    pub connects_by_address: RateLimit<IpAddr>,
    /// The same, by user.
    pub connects_by_user: RateLimit<Arc<str>>,
    /// Requests of backends, by the digest of their key.
    pub posts_by_key: RateLimit<[u8; 32]>,
}

/// One instance of the gateway.
pub struct Instance {
    /// Its settings.
    pub settings: Settings,
    /// Its name among the instances.
    pub name: String,
    /// Its metrics.
    pub metrics: Metrics,
    /// The workers' mailboxes.
    pub mailboxes: Mailboxes,
    /// Recent broadcasts.
    pub replay_cache: ReplayCache,
    /// The bounds on connections.
    pub connection_limit: Arc<ConnectionLimit>,
    /// How often clients and backends may come.
    pub rate_limits: RateLimits,
    /// The state of the subscriber's link.
    pub link: LinkState,
    /// Tickets and API keys.
    pub auth: Arc<Auth>,
    /// Bytes queued for all connections.
    pub queued_bytes: AtomicI64,
    draining: AtomicBool,
    closed: AtomicBool,
    closing: Notify,
    recorder_known: AtomicBool,
    started: Instant,
}

impl Instance {
    /// A new instance.
    pub fn new(settings: Settings, metrics: Metrics, auth: Arc<Auth>) -> Arc<Self> {
        let limits = &settings.limits;
        metrics.max_connections.set(limits.max_connections as i64);
        metrics.max_queued_bytes.set(limits.queue_bytes_total as i64);
        if settings.publishers.plain == PlainPublish::Record {
            metrics.set_role("none");
        }
        Arc::new(Self {
            name: uuid::Uuid::new_v4().to_string(),
            metrics,
            mailboxes: Mailboxes::default(),
            replay_cache: ReplayCache::new(settings.history.replay_cache_bytes),
            connection_limit: ConnectionLimit::new(
                limits.max_connections,
                limits.max_connections_per_user,
            ),
            rate_limits: RateLimits {
                connects_by_address: RateLimit::new(limits.connects_per_address_per_minute, MINUTE),
                connects_by_user: RateLimit::new(limits.connects_per_user_per_minute, MINUTE),
                posts_by_key: RateLimit::new(
                    limits.posts_per_key_per_second,
                    Duration::from_secs(1),
                ),
            },
            link: LinkState::default(),
            auth,
            queued_bytes: AtomicI64::new(0),
            draining: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            closing: Notify::new(),
            recorder_known: AtomicBool::new(false),
            started: Instant::now(),
            settings,
        })
    }

    /// Monotonic ms since the instance was made.
    pub fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    /// The time of Redis, ms since 1970, as far as it is known; until then that of this host.
    pub fn server_ms(&self) -> u64 {
        self.link.server_ms(self.now_ms()).unwrap_or_else(unix_ms)
    }

    /// A recorder is at work, here or elsewhere: from now on a plain publish does not go unheard.
    pub fn recorder_known(&self) {
        self.recorder_known.store(true, Ordering::Relaxed);
    }

    /// Why the instance is not ready, if it is not.
    pub fn unready(&self) -> Option<&'static str> {
        if self.is_draining() {
            Some("draining")
        } else if !self.link.is_alive() {
            Some("redis-away")
        } else if self.settings.publishers.plain == PlainPublish::Record
            && !self.recorder_known.load(Ordering::Relaxed)
        {
            Some("no-recorder")
        } else if self.auth.has_no_keys() {
            Some("keys-away")
        } else if self.connection_limit.is_full() {
            Some("full")
        } else {
            None
        }
    }

    /// From now on the instance is not ready.
    pub fn start_draining(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// The delay is over: from now on nobody is let in.
    pub fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.closing.notify_waiters();
    }

    /// Waits until nobody is let in any more.
    pub async fn closed(&self) {
        let closing = self.closing.notified();
        if !self.is_closed() {
            closing.await;
        }
    }

    /// Whether nobody is let in any more.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// Whether the instance is shutting down.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }
}

/// Ms since 1970 by this host's clock.
pub fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}

/// What is known of the link to Redis.
#[derive(Default)]
pub struct LinkState {
    up: AtomicBool,
    last_tick: Mutex<Option<Instant>>,
    highest: Mutex<EventId>,
    epoch_ms: AtomicU64,
    heard_ms: AtomicU64,
    first_up: Notify,
    back_at: Mutex<Option<Instant>>,
    was_up: AtomicBool,
    /// The time of Redis when the instance was made, ms since 1970; 0: not known yet.
    server_start_ms: AtomicU64,
}

impl LinkState {
    fn last_tick(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.last_tick.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn highest_cell(&self) -> std::sync::MutexGuard<'_, EventId> {
        self.highest.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The link was set up or lost.
    pub fn set_up(&self, up: bool) {
        self.up.store(up, Ordering::Relaxed);
        if up {
            self.ticked();
            if self.was_up.swap(true, Ordering::Relaxed) {
                self.is_back();
            }
            self.first_up.notify_waiters();
        }
    }

    /// Whether the link is set up; while the instance starts, that is waited for: clients of the
    /// instance before come at once, and should not be sent away for the sake of some ms.
    pub async fn came_up(&self, instance_age: Duration) -> bool {
        let notified = self.first_up.notified();
        if !self.is_up() && instance_age < START {
            let _ = tokio::time::timeout(START - instance_age, notified).await;
        }
        self.is_up()
    }

    /// Whether the link is set up.
    pub fn is_up(&self) -> bool {
        self.up.load(Ordering::Relaxed)
    }

    /// A tick came.
    pub fn ticked(&self) {
        *self.last_tick() = Some(Instant::now());
    }

    /// Age of the last tick.
    pub fn tick_age(&self) -> Option<Duration> {
        self.last_tick().map(|at| at.elapsed())
    }

    /// Something came by the link; `now_ms` is the instance's.
    pub fn heard(&self, now_ms: u64) {
        self.heard_ms.store(now_ms, Ordering::Relaxed);
    }

    /// When something last came by the link.
    pub fn heard_ms(&self) -> u64 {
        self.heard_ms.load(Ordering::Relaxed)
    }

    /// Whether the link is set up and ticks arrive.
    pub fn is_alive(&self) -> bool {
        self.is_up() && self.tick_age().is_some_and(|age| age < TICK_TIMEOUT)
    }

    /// Notes the time of Redis, ms since 1970; `now_ms` is the instance's. Gives the number of ms
    /// by which it has jumped since it was last noted.
    pub fn set_server_ms(&self, server_ms: u64, now_ms: u64) -> u64 {
        let start_ms = server_ms.saturating_sub(now_ms);
        match self.server_start_ms.swap(start_ms, Ordering::Relaxed) {
            0 => 0,
            before_ms => start_ms.abs_diff(before_ms),
        }
    }

    /// The time of Redis, ms since 1970; `None`: it was never heard. `now_ms` is the instance's.
    pub fn server_ms(&self, now_ms: u64) -> Option<u64> {
        match self.server_start_ms.load(Ordering::Relaxed) {
            0 => None,
            start_ms => Some(start_ms + now_ms),
        }
    }

    /// Forgets an id and an epoch that the library cannot have given by `server_ms`: the time of
    /// Redis was put back by days.
    pub fn forget_implausible(&self, server_ms: u64) {
        let mut highest = self.highest_cell();
        if !highest.is_plausible(server_ms) {
            *highest = EventId::ZERO;
        }
        let epoch = EventId { ms: self.epoch_ms(), seq: 0 };
        if !epoch.is_plausible(server_ms) {
            self.epoch_ms.store(0, Ordering::Relaxed);
        }
    }

    /// An id was seen. It must be plausible ([`EventId::is_plausible`]).
    pub fn saw(&self, id: EventId) {
        let mut highest = self.highest_cell();
        *highest = id.max(*highest);
    }

    /// The highest id ever seen.
    pub fn highest(&self) -> EventId {
        *self.highest_cell()
    }

    /// The time of the epoch's start in ms; 0 if none is known.
    pub fn epoch_ms(&self) -> u64 {
        self.epoch_ms.load(Ordering::Relaxed)
    }

    fn back_cell(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.back_at.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn is_back(&self) {
        *self.back_cell() = Some(Instant::now());
    }

    /// Whether Redis came back, or was wiped or replaced, within this time: sessions may have ended
    /// that could not be kept alive, and that their instances have yet to write again.
    pub fn is_back_since_less_than(&self, time: Duration) -> bool {
        self.back_cell().is_some_and(|at| at.elapsed() < time)
    }

    /// Notes the epoch; `true` if it is a later one than was known (the first one known is none).
    pub fn enter_epoch(&self, epoch: EventId) -> bool {
        let before = self.epoch_ms.fetch_max(epoch.ms, Ordering::Relaxed);
        let later = before != 0 && epoch.ms > before;
        if later {
            self.is_back();
        }
        later
    }
}

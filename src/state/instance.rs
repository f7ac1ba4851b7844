//! What all parts of one instance share.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::Duration,
};

use tokio::sync::Notify;

use super::{
    clock::Clock, limits::connections::ConnectionLimit, limits::rate::RateLimit,
    mailbox::Mailboxes, replay_cache::ReplayCache,
};
use crate::{
    auth::Auth,
    metrics::Metrics,
    settings::{PlainPublish, Settings},
};

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
    /// Its clock.
    pub clock: Arc<Clock>,
    /// Tickets and API keys.
    pub auth: Arc<Auth>,
    /// Bytes queued for all connections.
    pub queued_bytes: AtomicI64,
    draining: AtomicBool,
    closed: AtomicBool,
    closing: Notify,
    recorder_known: AtomicBool,
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
            clock: Arc::new(Clock::new()),
            auth,
            queued_bytes: AtomicI64::new(0),
            draining: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            closing: Notify::new(),
            recorder_known: AtomicBool::new(false),
            settings,
        })
    }

    /// Monotonic ms since the start of the instance.
    pub fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    /// A recorder is at work, here or elsewhere: from now on a plain publish does not go unheard.
    pub fn recorder_known(&self) {
        self.recorder_known.store(true, Ordering::Relaxed);
    }

    /// Why the instance is not ready, if it is not; `is_link_alive`: the link to Redis is up and
    /// ticks arrive.
    pub fn unready(&self, is_link_alive: bool) -> Option<&'static str> {
        if self.is_draining() {
            Some("draining")
        } else if !is_link_alive {
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

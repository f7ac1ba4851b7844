//! The limits that all workers of an instance share.

pub mod connections;
pub mod queued_bytes;
pub mod rate;

use std::{net::IpAddr, sync::Arc, time::Duration};

use tokio::sync::Semaphore;

use self::{
    connections::{ConnectionLimit, ConnectionMaxima},
    queued_bytes::QueuedBytes,
    rate::RateLimit,
};
use crate::settings;

/// Maximum number of histories that an instance reads at the same time.
const MAX_HISTORY_READS: usize = 16;
const MINUTE: Duration = Duration::from_secs(60);

/// Connections, rates and queued bytes, counted over all workers.
pub struct Limits {
    /// The number of open streams and polls.
    pub connections: Arc<ConnectionLimit>,
    /// The rate of new streams, polls and histories by [`crate::core::address::site`].
    pub connects_by_address: RateLimit<IpAddr>,
    /// The rate of new streams and polls without a user, by the same.
    pub anonymous_connects_by_address: RateLimit<IpAddr>,
    /// The rate of new streams, polls and histories by user.
    pub connects_by_user: RateLimit<Arc<str>>,
    /// The rate of requests from backends by the digest of their API key.
    pub posts_by_key: RateLimit<[u8; 32]>,
    /// The bytes that are queued for all connections.
    pub queued_bytes: QueuedBytes,
    /// The histories that are being read.
    pub history_reads: Semaphore,
}

impl Limits {
    /// Limits with nothing counted yet.
    pub fn new(limits: &settings::Limits) -> Self {
        Self {
            connections: ConnectionLimit::new(maxima(limits)),
            connects_by_address: RateLimit::new(limits.connects_per_address_per_minute, MINUTE),
            anonymous_connects_by_address: RateLimit::new(
                limits.anonymous_connects_per_address_per_minute,
                MINUTE,
            ),
            connects_by_user: RateLimit::new(limits.connects_per_user_per_minute, MINUTE),
            posts_by_key: RateLimit::new(limits.posts_per_key_per_second, Duration::from_secs(1)),
            queued_bytes: QueuedBytes::new(limits.queue_bytes_total),
            history_reads: Semaphore::new(MAX_HISTORY_READS),
        }
    }
}

fn maxima(limits: &settings::Limits) -> ConnectionMaxima {
    let all = limits.max_connections;
    ConnectionMaxima {
        all,
        per_user: limits.max_connections_per_user,
        anonymous: match limits.anonymous_connections {
            0 => all.div_ceil(2),
            max => max,
        },
        anonymous_per_address: limits.anonymous_connections_per_address,
    }
}

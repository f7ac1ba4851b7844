//! The budget of file descriptors: those that the gateway itself needs are reserved, the rest is
//! for clients.

use crate::{http::sockets::idle::IdleLimits, settings::Settings};

/// Maximum number of open sockets of the admin listener.
pub const ADMIN_SOCKETS: usize = 16;
/// Epoll instance, its duplicate, and the waker of a tokio runtime.
const PER_RUNTIME: usize = 3;
/// A duplicate of the listening socket, and a connection that is accepted to be closed at once.
const PER_WORKER: usize = 2;
/// The link, the issuer's key set, name servers, and reloaded files.
const OTHERS: usize = 24;
/// Threads other than workers that have a pool of Redis connections: link and admin listener.
const OTHER_POOLS: usize = 2;
/// Connections of an external source: to read, to publish, and for its lease.
const PER_SOURCE: usize = 8;
/// Minimum number of sockets for clients, without which the gateway does not start.
const MIN_PUBLIC: usize = 16;
/// The inverse of two shares of the public sockets: of those to keep free of idle sockets, and of
/// those that may be idle if fewer are free.
const IDLE_SHARE: usize = 4;

/// The limit of open files leaves too few for clients.
#[derive(Debug, thiserror::Error)]
#[error(
    "the limit of {limit} open files is too low: {reserved} are reserved ({pools} of them for \
     redis.pool_size x (server.workers + 2)); raise `ulimit -n` (LimitNOFILE=) to at least \
     {required}, or lower redis.pool_size or server.workers"
)]
pub struct DescriptorsError {
    limit: usize,
    reserved: usize,
    pools: usize,
    required: usize,
}

/// The descriptors of a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptors {
    /// Maximum number of open sockets of the public listener.
    pub public: usize,
    /// Limits for sockets without an event stream, which leave room for streams.
    pub idle: IdleLimits,
    /// The limit of open files that `limits.max_connections` requires.
    pub wanted: usize,
}

impl Descriptors {
    /// Divides `limit` descriptors, of which `open` are in use.
    ///
    /// # Errors
    /// Too few remain for clients.
    pub fn plan(
        limit: usize,
        open: usize,
        workers: usize,
        settings: &Settings,
    ) -> Result<Self, DescriptorsError> {
        let pools = settings.redis.pool_size * (workers + OTHER_POOLS);
        // Each worker, the admin listener's, and the link.
        let runtimes = PER_RUNTIME * (workers + OTHER_POOLS);
        let sources = match settings.sources.len() {
            0 => 0,
            count => PER_RUNTIME + PER_SOURCE * count,
        };
        let listeners = PER_WORKER * (workers + 1);
        let reserved = open + pools + runtimes + sources + listeners + ADMIN_SOCKETS + OTHERS;
        let public = limit.saturating_sub(reserved);
        let max = settings.limits.max_connections;
        if public < MIN_PUBLIC {
            let required = reserved + MIN_PUBLIC;
            return Err(DescriptorsError { limit, reserved, pools, required });
        }
        // After an outage, all clients may be in their TLS handshake at the same time.
        let crowded = max.min(public - public / IDLE_SHARE);
        let idle = IdleLimits { crowded, max: (public.min(max) / IDLE_SHARE).max(MIN_PUBLIC / 2) };
        Ok(Self { public, idle, wanted: reserved + max + max / IDLE_SHARE })
    }

    /// A warning if there are fewer sockets than `limits.max_connections`.
    pub fn warning(&self, limit: usize, settings: &Settings) -> Option<String> {
        let max = settings.limits.max_connections;
        (self.public < max).then(|| {
            format!(
                "the limit of {limit} open files leaves {} for clients, fewer than \
                 limits.max_connections = {max}; raise `ulimit -n` (LimitNOFILE=) to {}, or lower \
                 limits.max_connections",
                self.public, self.wanted,
            )
        })
    }
}

/// Raises the soft limit of open files to the hard limit, and returns the new limit.
pub fn raise_limit() -> usize {
    let limit = rlimit::increase_nofile_limit(u64::MAX).unwrap_or(1024);
    usize::try_from(limit).unwrap_or(usize::MAX)
}

/// Number of descriptors that are open now.
pub fn open() -> usize {
    std::fs::read_dir("/proc/self/fd").map_or(OTHERS, Iterator::count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pool_size: usize, max_connections: usize) -> Settings {
        let mut settings = Settings::default();
        settings.redis.pool_size = pool_size;
        settings.limits.max_connections = max_connections;
        settings
    }

    #[test]
    fn clients_get_what_is_not_reserved() {
        let small = Descriptors::plan(200, 10, 2, &settings(8, 10_000)).unwrap();
        // 10 open, 32 for Redis, 12 of runtimes, 6 of listeners, 16 and 24.
        let idle = IdleLimits { crowded: 75, max: 25 };
        assert_eq!(small, Descriptors { public: 100, idle, wanted: 100 + 12_500 });
        let text = small.warning(200, &settings(8, 10_000)).unwrap();
        assert!(text.contains("leaves 100") && text.contains("12600"), "{text}");
        let large = Descriptors::plan(1 << 20, 10, 2, &settings(8, 10_000)).unwrap();
        let idle = IdleLimits { crowded: 10_000, max: 2500 };
        assert_eq!((large.public, large.idle), ((1 << 20) - 100, idle));
        assert_eq!(large.warning(1 << 20, &settings(8, 10_000)), None);
    }

    #[test]
    fn too_few_descriptors_are_an_error_with_the_fix() {
        let text = Descriptors::plan(1024, 10, 120, &settings(8, 10_000)).unwrap_err().to_string();
        assert!(text.contains("976 of them") && text.contains("at least 1650"), "{text}");
    }
}

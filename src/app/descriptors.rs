//! How the process's file descriptors are shared out: what the gateway itself needs is reserved,
//! the rest is for clients.

use crate::{http::sockets::idle::IdleLimits, settings::Settings};

/// Sockets of the admin listener at once.
pub const ADMIN_SOCKETS: usize = 16;
/// Epoll instance, its duplicate, and the waker of a tokio runtime.
const PER_RUNTIME: usize = 3;
/// A duplicate of the listening socket, and a connection that is accepted only to be closed.
const PER_WORKER: usize = 2;
/// The subscriber's connection; the issuer's key set; name servers; files that are read again.
const OTHERS: usize = 24;
/// The threads of Redis commands besides the workers: the link's and the admin listener's.
const OTHER_POOLS: usize = 2;
/// With fewer sockets for clients the gateway does not start.
const MIN_PUBLIC: usize = 16;
/// One in this many public sockets is kept free of idle ones; if fewer are free, one in this many
/// may be idle.
const IDLE_SHARE: usize = 4;

/// The descriptors of a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptors {
    /// Sockets of the public listener at once.
    pub public: usize,
    /// Of these, without an event stream: as many as leave room for streams.
    pub idle: IdleLimits,
    /// The limit that `limits.max_connections` calls for.
    pub wanted: usize,
}

impl Descriptors {
    /// Shares `limit` descriptors out, of which `open` are in use.
    ///
    /// # Errors
    /// Too few are left for clients; the text says how many it takes.
    pub fn plan(
        limit: usize,
        open: usize,
        workers: usize,
        settings: &Settings,
    ) -> Result<Self, String> {
        let pools = settings.redis.pool_size * (workers + OTHER_POOLS);
        // Each worker, the admin listener's, and the link.
        let runtimes = PER_RUNTIME * (workers + OTHER_POOLS);
        let reserved =
            open + pools + runtimes + PER_WORKER * (workers + 1) + ADMIN_SOCKETS + OTHERS;
        let public = limit.saturating_sub(reserved);
        let max = settings.limits.max_connections;
        if public < MIN_PUBLIC {
            return Err(format!(
                "{limit} open files are allowed, and {reserved} are reserved ({pools} of them for \
                 redis.pool_size x (server.workers + 2)): raise `ulimit -n` (LimitNOFILE=) to at \
                 least {}, or lower redis.pool_size or server.workers",
                reserved + MIN_PUBLIC,
            ));
        }
        // Clients that all connect again at once may all be in their handshakes.
        let crowded = max.min(public - public / IDLE_SHARE);
        let idle = IdleLimits { crowded, max: (public.min(max) / IDLE_SHARE).max(MIN_PUBLIC / 2) };
        Ok(Self { public, idle, wanted: reserved + max + max / IDLE_SHARE })
    }

    /// Whether `limits.max_connections` streams fit, each with a socket of its own.
    pub fn warning(&self, limit: usize, settings: &Settings) -> Option<String> {
        let max = settings.limits.max_connections;
        (self.public < max).then(|| {
            format!(
                "{limit} open files are allowed, which leaves {} for clients, fewer than \
                 limits.max_connections = {max}: raise `ulimit -n` (LimitNOFILE=) to {}, or lower \
                 limits.max_connections",
                self.public, self.wanted,
            )
        })
    }
}

/// Raises the soft limit of open files to the hard limit; returns what is allowed now.
pub fn raise_limit() -> usize {
    let limit = rlimit::increase_nofile_limit(u64::MAX).unwrap_or(1024);
    usize::try_from(limit).unwrap_or(usize::MAX)
}

/// Descriptors that are open now.
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
        let text = Descriptors::plan(1024, 10, 120, &settings(8, 10_000)).unwrap_err();
        assert!(text.contains("976 of them") && text.contains("at least 1650"), "{text}");
    }
}

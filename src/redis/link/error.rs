//! Why a link ends.

use redis::RedisError;

use crate::redis::{commands::CommandError, library::LibraryError, link_state::TICK_TIMEOUT};

/// Why a link ended, or could not be set up. Only logged: the supervisor retries in any case.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    #[error("could not connect")]
    Connect(#[source] RedisError),
    #[error("could not prepare the function library")]
    Library(#[from] LibraryError),
    #[error("a command on the link failed")]
    Command(#[from] RedisError),
    #[error("the clock could not be advanced")]
    Tick(#[from] CommandError),
    #[error("another client keeps writing the key {0:?}; allow only gateways to write it (ACL)")]
    ForeignClock(String),
    #[error("the connection was closed")]
    Closed,
    #[error("no tick for {} s", TICK_TIMEOUT.as_secs())]
    Silent,
    #[error("the system clock of Redis jumped by {0} ms")]
    ClockJumped(u64),
    #[error("the instance has ended")]
    InstanceEnded,
}

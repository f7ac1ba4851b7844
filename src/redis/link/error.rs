//! Why a link ends.

use redis::RedisError;

use crate::redis::{
    library::LibraryError, link_state::WATERMARK_TIMEOUT, watermark::WatermarkError,
};

/// Why a link ended, or could not be set up. Only logged: the supervisor retries in any case.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    #[error("could not connect")]
    Connect(#[source] RedisError),
    #[error("could not prepare the function library")]
    Library(#[from] LibraryError),
    #[error("a command on the link failed")]
    Command(#[from] RedisError),
    #[error("could not take a watermark")]
    Watermark(#[from] WatermarkError),
    #[error("another server answers at this address")]
    OtherServer,
    #[error("the connection was closed")]
    Closed,
    #[error("no watermark for {} s", WATERMARK_TIMEOUT.as_secs())]
    Silent,
    #[error("the system clock of Redis jumped by {0} ms")]
    ClockJumped(u64),
    #[error("the instance has ended")]
    InstanceEnded,
}

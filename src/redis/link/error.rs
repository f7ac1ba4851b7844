//! Why a link ends.

use redis::RedisError;

use crate::redis::{
    library::LibraryError,
    link_state::WATERMARK_TIMEOUT,
    watermark::WatermarkError,
    wire::{EndReason, Notice, OpenError},
};

/// Why a link ended, or could not be set up. Only logged: the supervisor retries in any case.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    #[error("redis.url is invalid")]
    Url(#[source] RedisError),
    #[error("could not connect")]
    Connect(#[from] OpenError),
    #[error("could not prepare the function library")]
    Library(#[from] LibraryError),
    #[error("a command on the link failed")]
    Command(#[from] RedisError),
    #[error("could not take a watermark")]
    Watermark(#[from] WatermarkError),
    #[error("the connection ended")]
    Ended(#[source] EndReason),
    #[error("Redis has moved the slots of {0} channels to another server")]
    SubscriptionsEnded(usize),
    #[error("no watermark for {} s", WATERMARK_TIMEOUT.as_secs())]
    Silent,
    #[error("the system clock of Redis jumped by {0} ms")]
    ClockJumped(u64),
    #[error("the instance has ended")]
    InstanceEnded,
}

/// Today every notice ends the link: the next one subscribes again.
impl From<Notice> for LinkError {
    fn from(notice: Notice) -> Self {
        match notice {
            Notice::SubscriptionsEnded(channels) => Self::SubscriptionsEnded(channels.len()),
            Notice::End(reason) => Self::Ended(reason),
        }
    }
}

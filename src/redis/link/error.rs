//! Why a link ends.

use redis::RedisError;

use crate::{
    redis::{
        library::LibraryError,
        link_state::WATERMARK_TIMEOUT,
        locate::LocateError,
        watermark::WatermarkError,
        wire::{EndReason, OpenError},
    },
    settings::ServerAddress,
};

/// Why a link ended, or could not be set up. Only logged: the supervisor retries in any case.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    #[error("could not find the server")]
    Locate(#[from] LocateError),
    /// The sentinels name another primary.
    #[error("the primary is now {0}")]
    PrimaryMoved(ServerAddress),
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
    #[error("the server is a node of a cluster")]
    IsCluster,
    #[error("could not look for another server at this address")]
    Probe(#[source] RedisError),
    #[error("another server answers at this address")]
    OtherServer,
    #[error("no watermark for {} s", WATERMARK_TIMEOUT.as_secs())]
    Silent,
    #[error("the system clock of Redis jumped by {0} ms")]
    ClockJumped(u64),
    #[error("the instance has ended")]
    InstanceEnded,
}

impl LinkError {
    /// Whether the cluster executes no commands, because the master of a slot has failed. Messages
    /// still arrive from the others.
    pub(super) fn is_cluster_down(&self) -> bool {
        match self {
            Self::Watermark(WatermarkError::Command(error)) => {
                error.reply().and_then(RedisError::code) == Some("CLUSTERDOWN")
            }
            _ => false,
        }
    }
}

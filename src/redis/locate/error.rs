//! Why the server to connect to is not known.

use std::{io, sync::Arc};

use redis::RedisError;

use crate::{error_chain::ErrorChain, settings::ServerAddress};

/// Why the server to connect to is not known.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LocateError {
    /// None of the sentinels names a primary.
    #[error("no sentinel names the primary ({})", list(.0))]
    NoPrimary(Arc<[(ServerAddress, SentinelError)]>),
    /// Too few sentinels agree.
    #[error(
        "only {agree} of {known} sentinels name this server as the primary; the gateway must reach \
         most of the sentinels"
    )]
    NoMajority {
        /// Number of sentinels that name it.
        agree: usize,
        /// Number of sentinels that are known.
        known: usize,
    },
    /// The sentinels have not replied so far.
    #[error("the sentinels have not replied within redis.command_timeout")]
    NoAnswer,
    /// No node of the cluster accepts a connection.
    #[error("no seed of the cluster can be reached ({})", list(.0))]
    NoSeed(Arc<[(ServerAddress, io::Error)]>),
}

/// Why a sentinel has not named a primary.
#[derive(Debug, thiserror::Error)]
pub enum SentinelError {
    /// No reply in time.
    #[error("no reply within redis.command_timeout")]
    Timeout,
    /// The credentials are not accepted.
    #[error("login refused, check redis.sentinel_username and redis.sentinel_password")]
    Login(#[source] RedisError),
    /// It does not know the name.
    #[error("monitors no primary with this name, check the name at the end of redis.url")]
    UnknownMaster,
    /// It is not a sentinel.
    #[error("not a sentinel, check redis.url")]
    NoSentinel,
    /// It cannot be reached, or replied with an error.
    #[error(transparent)]
    Redis(RedisError),
}

impl From<RedisError> for SentinelError {
    fn from(error: RedisError) -> Self {
        let text = error.detail().unwrap_or_default();
        let refused = matches!(error.code(), Some("NOAUTH" | "WRONGPASS" | "NOPERM"))
            || error.kind() == redis::ErrorKind::AuthenticationFailed;
        if refused {
            Self::Login(error)
        } else if text.contains("No such master") {
            Self::UnknownMaster
        } else if text.contains("unknown command 'SENTINEL'") {
            Self::NoSentinel
        } else {
            Self::Redis(error)
        }
    }
}

/// `host:port: error; host:port: error`
fn list<E: std::error::Error>(errors: &[(ServerAddress, E)]) -> String {
    let one = |(server, error): &(ServerAddress, E)| format!("{server}: {}", ErrorChain(error));
    errors.iter().map(one).collect::<Vec<_>>().join("; ")
}

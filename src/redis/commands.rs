//! Sends commands to Redis through a pool of connections and waits for each reply for at most
//! `redis.command_timeout`. A pool belongs to the runtime of one thread.

use std::{sync::Arc, time::Duration};

use deadpool::{
    Runtime,
    managed::{self, TimeoutType},
};
use redis::{
    AsyncConnectionConfig, Cmd, ErrorKind, FromRedisValue, IntoConnectionInfo, Pipeline,
    RedisError, ToRedisArgs,
};
use secrecy::ExposeSecret;

use super::{
    key_names::KeyNames,
    pool::{LinkServer, SameServerManager, SameServerPool},
};
use crate::{log_limit::LogOnce, settings, state::clock::unix_ms};

/// Maximum number of foreign keys that are remembered as logged.
const FOREIGN_KEYS: usize = 1000;
/// Minimum time between log lines about further keys, ms.
const FOREIGN_LOG_MS: u64 = 10_000;
/// Shared by all threads, each of which has its own pool.
static FOREIGN: LogOnce = LogOnce::new(FOREIGN_KEYS, FOREIGN_LOG_MS);

/// Logs, once for each key, that it holds a value of a type that the gateway never writes. `fault`
/// names the key and the fix, as the library does.
pub fn log_foreign_key(fault: &str) {
    if FOREIGN.allow(fault.as_bytes(), unix_ms()) {
        tracing::error!(fault, "a key in Redis has the wrong type");
    }
}

/// Logs a foreign key whose name only the caller knows, like [`log_foreign_key`].
pub fn log_foreign(key: &str) {
    log_foreign_key(&format!(
        "the key {key:?} holds a value of a type that the gateway never writes; run DEL {key:?}"
    ));
}

/// Whether Redis refused a command because its key holds a value of another type.
pub fn is_wrong_type(error: &RedisError) -> bool {
    error.code() == Some("WRONGTYPE")
}

/// The text of the library's `SSE wrong-type: <text>`.
fn wrong_type(error: &RedisError) -> Option<&str> {
    let detail = (error.code() == Some("SSE")).then(|| error.detail()).flatten()?;
    detail.strip_prefix("wrong-type: ")
}

/// Why a command has no usable reply.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The command was not executed: retry.
    #[error("Redis is unavailable")]
    Unavailable(#[source] UnavailableError),
    /// The command was sent. It may or may not have been executed.
    #[error("Redis did not reply")]
    NoReply(#[source] NoReplyError),
    /// Redis replied with an error.
    #[error("Redis returned an error")]
    Rejected(#[source] RedisError),
    /// The reply is not one of those that the function library returns.
    #[error("unexpected reply of the function library: {0:?}")]
    UnexpectedReply(String),
}

/// Why a command was not executed.
#[derive(Debug, thiserror::Error)]
pub enum UnavailableError {
    /// There is no connection, or Redis refuses commands for now, for example while it starts.
    #[error(transparent)]
    Redis(RedisError),
    /// A new connection was not ready in time.
    #[error("no connection within redis.command_timeout")]
    ConnectTimeout,
    /// All connections of the pool were in use for too long.
    #[error("all connections are in use; raise redis.pool_size")]
    PoolExhausted,
    /// The pool itself failed.
    #[error(transparent)]
    Pool(PoolError),
}

/// Why no reply to a command arrived.
#[derive(Debug, thiserror::Error)]
pub enum NoReplyError {
    /// It did not arrive in time.
    #[error("no reply within redis.command_timeout")]
    Timeout,
    /// The connection broke.
    #[error(transparent)]
    Connection(RedisError),
}

impl CommandError {
    /// Whether Redis refuses the user or the password, so that a retry cannot succeed.
    pub fn is_login_refusal(&self) -> bool {
        let (Self::Rejected(e) | Self::Unavailable(UnavailableError::Redis(e))) = self else {
            return false;
        };
        e.kind() == ErrorKind::AuthenticationFailed
            || e.code().is_some_and(|code| ["WRONGPASS", "NOAUTH"].contains(&code))
    }

    /// Whether a key holds a value of another type.
    pub fn is_wrong_type(&self) -> bool {
        matches!(self, Self::Rejected(e) if is_wrong_type(e) || wrong_type(e).is_some())
    }
}

impl From<RedisError> for CommandError {
    fn from(e: RedisError) -> Self {
        let temporary = ["LOADING", "MASTERDOWN", "READONLY", "CLUSTERDOWN", "TRYAGAIN", "BUSY"];
        if e.is_io_error() || e.is_timeout() || e.is_connection_dropped() {
            Self::NoReply(NoReplyError::Connection(e))
        } else if let Some(fault) = wrong_type(&e) {
            log_foreign_key(fault);
            Self::Rejected(e)
        } else if e.code().is_some_and(|code| temporary.contains(&code)) {
            Self::Unavailable(UnavailableError::Redis(e))
        } else {
            Self::Rejected(e)
        }
    }
}

impl From<PoolError> for UnavailableError {
    fn from(error: PoolError) -> Self {
        match error {
            PoolError::Backend(error) => Self::Redis(error),
            PoolError::Timeout(TimeoutType::Wait) => Self::PoolExhausted,
            PoolError::Timeout(_) => Self::ConnectTimeout,
            error => Self::Pool(error),
        }
    }
}

/// The address in a URL of Redis, without credentials.
fn address(url: &str) -> Result<Arc<str>, RedisError> {
    Ok(url.into_connection_info()?.addr().to_string().into())
}

type PoolError = managed::PoolError<RedisError>;

/// A pool of connections, for all commands except those on the link.
#[derive(Clone)]
pub struct Commands {
    pool: SameServerPool,
    /// Where Redis is, `host:port` or the path of a socket, without credentials: for logs.
    pub address: Arc<str>,
    /// Names of keys and functions.
    pub keys: Arc<KeyNames>,
    timeout: Duration,
}

impl Commands {
    /// Creates a pool. It connects when the first command is sent, to the server of the link if
    /// there is one.
    ///
    /// # Errors
    /// `redis.url` is invalid.
    pub fn new(
        settings: &settings::Redis,
        server: Option<Arc<LinkServer>>,
    ) -> Result<Self, RedisError> {
        let timeout = settings.command_timeout;
        let config = AsyncConnectionConfig::new()
            .set_response_timeout(Some(timeout))
            .set_connection_timeout(Some(timeout));
        let manager = SameServerManager::new(settings.url.expose_secret(), config, server)?;
        let pool = SameServerPool::builder(manager)
            .max_size(settings.pool_size)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(timeout))
            .create_timeout(Some(timeout))
            .recycle_timeout(Some(timeout))
            .build()
            .map_err(|e| RedisError::from(std::io::Error::other(e)))?;
        let address = address(settings.url.expose_secret())?;
        Ok(Self { pool, address, keys: Arc::new(KeyNames::new(settings)), timeout })
    }

    pub(super) async fn connection(
        &self,
    ) -> Result<managed::Object<SameServerManager>, CommandError> {
        self.pool.get().await.map_err(|error| CommandError::Unavailable(error.into()))
    }

    /// Runs one command.
    ///
    /// # Errors
    /// See [`CommandError`]; a reply of another type than `T` counts as rejected.
    pub async fn run<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, CommandError> {
        let mut connection = self.connection().await?;
        let reply =
            tokio::time::timeout(self.timeout, command.query_async(&mut connection.connection))
                .await;
        reply.map_err(|_| CommandError::NoReply(NoReplyError::Timeout))?.map_err(CommandError::from)
    }

    /// Runs several commands in one pipeline.
    ///
    /// # Errors
    /// As [`Self::run`]. If commands fail, the first error is returned, unless the pipeline ignores
    /// errors.
    pub async fn run_all<T: FromRedisValue>(&self, commands: &Pipeline) -> Result<T, CommandError> {
        let mut connection = self.connection().await?;
        let reply =
            tokio::time::timeout(self.timeout, commands.query_async(&mut connection.connection))
                .await;
        reply.map_err(|_| CommandError::NoReply(NoReplyError::Timeout))?.map_err(CommandError::from)
    }

    /// A call of a function of the library, to which arguments can be added.
    pub fn call<K: ToRedisArgs>(&self, function: &str, keys: &[K]) -> Cmd {
        let mut command = redis::cmd("FCALL");
        command.arg(self.keys.function(function)).arg(keys.len()).arg(keys);
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_contains_no_credentials() {
        for (url, expected) in [
            ("redis://127.0.0.1:7000", "127.0.0.1:7000"),
            ("redis://user:hush@redis.example/3", "redis.example:6379"),
            ("rediss://:hush@redis.example:7001", "redis.example:7001"),
            ("unix:///run/redis.sock?pass=hush", "/run/redis.sock"),
        ] {
            assert_eq!(&*address(url).unwrap(), expected);
        }
    }
}

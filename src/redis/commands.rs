//! Commands to Redis through a pool, each with a bounded wait. A pool belongs to one thread's
//! runtime.

use std::{fmt, sync::Arc, time::Duration};

use deadpool_redis::{Manager, Pool, Runtime};
use redis::{
    AsyncConnectionConfig, Cmd, FromRedisValue, IntoConnectionInfo, Pipeline, RedisError,
    ToRedisArgs,
};
use secrecy::ExposeSecret;

use super::key_names::KeyNames;
use crate::{log_limit::LogOnce, settings, state::clock::unix_ms};

/// Foreign keys that are remembered as logged.
const FOREIGN_KEYS: usize = 1000;
/// Between log lines about further ones, ms.
const FOREIGN_LOG_MS: u64 = 10_000;
/// One for the process: each thread has a pool of its own.
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

/// Whether the key of a command holds a value of another type.
pub fn is_wrong_type(error: &RedisError) -> bool {
    error.code() == Some("WRONGTYPE")
}

/// The text of the library's `SSE wrong-type: <text>`.
fn wrong_type(error: &RedisError) -> Option<&str> {
    let detail = (error.code() == Some("SSE")).then(|| error.detail()).flatten()?;
    detail.strip_prefix("wrong-type: ")
}

/// Why a command has no answer.
#[derive(Debug)]
pub enum CommandError {
    /// Redis cannot be reached, or is starting: nothing was done, try again.
    Unavailable(String),
    /// The command was sent and has no answer: whether it was done is not known.
    NoReply(String),
    /// Redis answered with an error.
    Rejected(RedisError),
}

impl CommandError {
    /// Whether a key holds a value of another type.
    pub fn is_wrong_type(&self) -> bool {
        matches!(self, Self::Rejected(e) if is_wrong_type(e) || wrong_type(e).is_some())
    }
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unavailable(text) | Self::NoReply(text) => {
                write!(f, "Redis is unavailable: {text}")
            }
            Self::Rejected(e) => write!(f, "Redis returned an error: {e}"),
        }
    }
}

impl From<RedisError> for CommandError {
    fn from(e: RedisError) -> Self {
        let passing = ["LOADING", "MASTERDOWN", "READONLY", "CLUSTERDOWN", "TRYAGAIN", "BUSY"];
        if e.is_io_error() || e.is_timeout() || e.is_connection_dropped() {
            Self::NoReply(e.to_string())
        } else if let Some(fault) = wrong_type(&e) {
            log_foreign_key(fault);
            Self::Rejected(e)
        } else if e.code().is_some_and(|c| passing.contains(&c)) {
            Self::Unavailable(e.to_string())
        } else {
            Self::Rejected(e)
        }
    }
}

/// The address in a URL of Redis, without credentials.
fn address(url: &str) -> Result<Arc<str>, RedisError> {
    Ok(url.into_connection_info()?.addr().to_string().into())
}

/// The way to Redis for everything but the subscriber's link.
#[derive(Clone)]
pub struct Commands {
    pool: Pool,
    /// Where Redis is, `host:port` or the path of a socket, without credentials: for logs.
    pub address: Arc<str>,
    /// Names of keys and functions.
    pub keys: Arc<KeyNames>,
    timeout: Duration,
}

impl Commands {
    /// A pool; it connects when the first command comes.
    ///
    /// # Errors
    /// The URL is none.
    pub fn new(settings: &settings::Redis) -> Result<Self, RedisError> {
        let timeout = settings.command_timeout;
        let config = AsyncConnectionConfig::new()
            .set_response_timeout(Some(timeout))
            .set_connection_timeout(Some(timeout));
        let manager = Manager::new_with_config(settings.url.expose_secret(), config)?;
        let pool = Pool::builder(manager)
            .max_size(settings.pool_size)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(timeout))
            .create_timeout(Some(timeout))
            .recycle_timeout(Some(timeout))
            .build()
            .map_err(|e| RedisError::from(std::io::Error::other(e.to_string())))?;
        let address = address(settings.url.expose_secret())?;
        Ok(Self { pool, address, keys: Arc::new(KeyNames::new(settings)), timeout })
    }

    async fn connection(&self) -> Result<deadpool_redis::Connection, CommandError> {
        self.pool.get().await.map_err(|e| CommandError::Unavailable(e.to_string()))
    }

    /// Runs one command.
    ///
    /// # Errors
    /// No answer, an error, or an answer of another form.
    pub async fn run<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, CommandError> {
        let mut connection = self.connection().await?;
        let answer = tokio::time::timeout(self.timeout, command.query_async(&mut connection)).await;
        answer
            .map_err(|_| CommandError::NoReply("no reply within redis.command_timeout".to_owned()))?
            .map_err(CommandError::from)
    }

    /// Runs several commands in one go.
    ///
    /// # Errors
    /// As with [`Self::run`]; the first error of a command counts, unless the pipeline ignores
    /// errors.
    pub async fn run_all<T: FromRedisValue>(&self, commands: &Pipeline) -> Result<T, CommandError> {
        let mut connection = self.connection().await?;
        let answer =
            tokio::time::timeout(self.timeout, commands.query_async(&mut connection)).await;
        answer
            .map_err(|_| CommandError::NoReply("no reply within redis.command_timeout".to_owned()))?
            .map_err(CommandError::from)
    }

    /// A call of a function of the library.
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

//! Pooled connections, which must reach the same server process as the link: two servers behind one
//! address have two histories (ARCHITECTURE.md#same-server).

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use deadpool::managed::{self, Metrics, Pool, RecycleError, RecycleResult};
use parking_lot::Mutex;
use redis::{
    AsyncConnectionConfig, RedisError, RedisResult,
    aio::{ConnectionLike, MultiplexedConnection},
};
use tokio::sync::Notify;

use super::locate::Locator;
use crate::settings::ServerAddress;

/// Attempts to reach the link's server, for example through a balancer of two servers. A failure
/// makes a new client wait for 10 s or more (`sse.busy`).
const ATTEMPTS: usize = 16;
/// A connection that has replied within this time is used again without a PING, as long as the link
/// to its server is up.
const FRESH: Duration = Duration::from_millis(100);

/// The server process of the link, by its run id; unknown while the link is down.
#[derive(Debug, Default)]
pub struct LinkServer {
    run_id: Mutex<Option<Arc<str>>>,
    mismatch: Notify,
}

impl LinkServer {
    /// Records the server of a link that is up, or `None` if there is no link.
    pub fn set(&self, run_id: Option<Arc<str>>) {
        *self.run_id.lock() = run_id;
    }

    /// The server of the link, by its run id.
    pub fn run_id(&self) -> Option<Arc<str>> {
        self.run_id.lock().clone()
    }

    /// Waits until a connection reaches another server than the link's.
    pub async fn mismatch(&self) {
        self.mismatch.notified().await;
    }

    /// Whether the link uses this server, or no server yet.
    fn allows(&self, run_id: &str) -> bool {
        self.run_id.lock().as_deref().is_none_or(|expected| expected == run_id)
    }

    /// Whether the link uses this server now.
    fn is(&self, run_id: &str) -> bool {
        self.run_id.lock().as_deref() == Some(run_id)
    }
}

/// A connection and the server process that it reaches.
pub struct PooledConnection {
    /// The connection.
    pub connection: MultiplexedConnection,
    run_id: Arc<str>,
    /// `None` for a Unix socket.
    address: Option<ServerAddress>,
    /// When it has replied last.
    pub replied: Instant,
}

/// Connects to Redis, and to the link's server only.
pub struct SameServerManager {
    locator: Locator,
    config: AsyncConnectionConfig,
    /// `None` for commands of the command line, which have no link.
    server: Option<Arc<LinkServer>>,
}

/// A pool of connections to the server of the link.
pub type SameServerPool = Pool<SameServerManager>;

impl SameServerManager {
    /// Connects to the server that `locator` finds.
    pub fn new(
        locator: Locator,
        config: AsyncConnectionConfig,
        server: Option<Arc<LinkServer>>,
    ) -> Self {
        Self { locator, config, server }
    }
}

/// Reads the run id of the server process that a connection reaches.
///
/// # Errors
/// The server does not reply, or does not permit INFO.
pub async fn run_id(connection: &mut impl ConnectionLike) -> RedisResult<Arc<str>> {
    let info: String = redis::cmd("INFO").arg("server").query_async(connection).await?;
    let run_id = info.lines().find_map(|line| line.strip_prefix("run_id:"));
    Ok(run_id.unwrap_or_default().trim().into())
}

/// The configuration of a connection whose opening and replies take at most `timeout` each.
pub fn timeouts(timeout: Duration) -> AsyncConnectionConfig {
    AsyncConnectionConfig::new()
        .set_connection_timeout(Some(timeout))
        .set_response_timeout(Some(timeout))
}

/// Reads the run id of the server process that a new connection reaches.
///
/// # Errors
/// The server is not found, or does not reply.
pub async fn reach(locator: &Locator, config: &AsyncConnectionConfig) -> RedisResult<Arc<str>> {
    run_id(&mut connect(locator, config).await?.connection).await
}

/// A connection to the server as it is located now, which may be any process.
///
/// # Errors
/// The server is not found, or cannot be reached.
pub(super) async fn connect(
    locator: &Locator,
    config: &AsyncConnectionConfig,
) -> RedisResult<PooledConnection> {
    let located = locator.locate().await.map_err(std::io::Error::other)?;
    let client = redis::Client::open(located.connection)?;
    let connection = client.get_multiplexed_async_connection_with_config(config).await?;
    let replied = Instant::now();
    Ok(PooledConnection { connection, run_id: "".into(), address: located.server, replied })
}

fn other_server() -> RedisError {
    std::io::Error::other(
        "redis.url leads to another server process than the one of the link; it must lead to one \
         server (the primary)",
    )
    .into()
}

impl managed::Manager for SameServerManager {
    type Type = PooledConnection;
    type Error = RedisError;

    async fn create(&self) -> RedisResult<PooledConnection> {
        let Some(server) = &self.server else {
            return Box::pin(connect(&self.locator, &self.config)).await;
        };
        for _ in 0..ATTEMPTS {
            // Boxed, because the future of every command contains this one.
            let mut pooled = Box::pin(connect(&self.locator, &self.config)).await?;
            pooled.run_id = Box::pin(run_id(&mut pooled.connection)).await?;
            if server.allows(&pooled.run_id) {
                return Ok(pooled);
            }
            server.mismatch.notify_one();
        }
        Err(other_server())
    }

    async fn recycle(
        &self,
        pooled: &mut PooledConnection,
        _: &Metrics,
    ) -> RecycleResult<RedisError> {
        if !self.locator.is_current(pooled.address.as_ref()) {
            return Err(RecycleError::message("the sentinels name another primary"));
        }
        if self.server.as_ref().is_some_and(|server| !server.allows(&pooled.run_id)) {
            return Err(RecycleError::Backend(other_server()));
        }
        let is_linked = self.server.as_ref().is_some_and(|server| server.is(&pooled.run_id));
        if is_linked && pooled.replied.elapsed() < FRESH {
            return Ok(());
        }
        let ping = redis::cmd("PING");
        let pong: String = Box::pin(ping.query_async(&mut pooled.connection)).await?;
        match pong.as_str() {
            "PONG" => Ok(()),
            _ => Err(RecycleError::message("unexpected reply to PING")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_server_is_allowed_until_the_link_is_up() {
        let server = LinkServer::default();
        assert!(server.allows("a") && server.allows("b"));
        server.set(Some("a".into()));
        assert!(server.allows("a") && !server.allows("b"));
        server.set(None);
        assert!(server.allows("b"));
    }
}

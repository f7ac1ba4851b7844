//! Pooled connections, which must reach the same server process as the link: two servers behind one
//! address have two histories (ARCHITECTURE.md#same-server).

use std::sync::Arc;

use deadpool::managed::{self, Metrics, Pool, RecycleError, RecycleResult};
use deadpool_redis::Manager;
use parking_lot::Mutex;
use redis::{
    AsyncConnectionConfig, IntoConnectionInfo, ProtocolVersion, RedisError, RedisResult,
    aio::MultiplexedConnection,
};

/// Attempts to reach the link's server, for example through a balancer.
const ATTEMPTS: usize = 8;

/// The server process of the link, by its run id; unknown while the link is down.
#[derive(Debug, Default)]
pub struct LinkServer(Mutex<Option<Arc<str>>>);

impl LinkServer {
    /// Records the server of a link that is up, or `None` if there is no link.
    pub fn set(&self, run_id: Option<Arc<str>>) {
        *self.0.lock() = run_id;
    }

    /// Whether the link uses this server, or no server yet.
    fn allows(&self, run_id: &str) -> bool {
        self.0.lock().as_deref().is_none_or(|expected| expected == run_id)
    }
}

/// A connection and the server process that it reaches.
pub struct PooledConnection {
    /// The connection.
    pub connection: MultiplexedConnection,
    run_id: Arc<str>,
}

/// Connects to Redis, and to the link's server only.
pub struct SameServerManager {
    manager: Manager,
    /// `None` for commands of the command line, which have no link.
    server: Option<Arc<LinkServer>>,
}

/// A pool of connections to the server of the link.
pub type SameServerPool = Pool<SameServerManager>;

impl SameServerManager {
    /// Connects to the server at `url`.
    ///
    /// # Errors
    /// The URL is invalid.
    pub fn new(
        url: &str,
        config: AsyncConnectionConfig,
        server: Option<Arc<LinkServer>>,
    ) -> RedisResult<Self> {
        Ok(Self { manager: Manager::new_with_config(url, config)?, server })
    }
}

/// Opens a RESP3 connection outside the pool.
///
/// # Errors
/// The URL is invalid, or the server is unavailable.
pub async fn connect(
    address: impl IntoConnectionInfo,
    config: &AsyncConnectionConfig,
) -> RedisResult<MultiplexedConnection> {
    let info = address.into_connection_info()?;
    let resp3 = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
    let client = redis::Client::open(info.set_redis_settings(resp3))?;
    client.get_multiplexed_async_connection_with_config(config).await
}

/// Reads the run id of the server process that a connection reaches.
///
/// # Errors
/// The server does not reply, or does not permit INFO.
pub async fn run_id(connection: &mut MultiplexedConnection) -> RedisResult<Arc<str>> {
    let info: String = redis::cmd("INFO").arg("server").query_async(connection).await?;
    let run_id = info.lines().find_map(|line| line.strip_prefix("run_id:"));
    Ok(run_id.unwrap_or_default().trim().into())
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
            let connection = self.manager.create().await?;
            return Ok(PooledConnection { connection, run_id: "".into() });
        };
        for _ in 0..ATTEMPTS {
            let mut connection = self.manager.create().await?;
            let run_id = run_id(&mut connection).await?;
            if server.allows(&run_id) {
                return Ok(PooledConnection { connection, run_id });
            }
        }
        Err(other_server())
    }

    async fn recycle(
        &self,
        pooled: &mut PooledConnection,
        metrics: &Metrics,
    ) -> RecycleResult<RedisError> {
        if self.server.as_ref().is_some_and(|server| !server.allows(&pooled.run_id)) {
            return Err(RecycleError::Backend(other_server()));
        }
        self.manager.recycle(&mut pooled.connection, metrics).await
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

//! Sends commands to Redis through a pool of connections and waits for each reply for at most
//! `redis.command_timeout`. A pool belongs to the runtime of one thread.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use deadpool::{
    Runtime,
    managed::{self, TimeoutType},
};
use futures_util::future::join_all;
use redis::{Cmd, ErrorKind, FromRedisValue, Pipeline, RedisError, RedisResult, ToRedisArgs};
use tokio::time::error::Elapsed;

use super::{
    cluster::pools::ServerPools,
    key_names::KeyNames,
    locate::Locator,
    pool::{SameServerManager, SameServerPool, timeouts},
    servers::{NodeInfo, ServerInfo},
};
use crate::{core::part::ServerIndex, log_limit::LogOnce, settings, state::clock::unix_ms};

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

/// Codes of errors that end without a change of the command.
const TEMPORARY: [&str; 9] = [
    "LOADING",
    "MASTERDOWN",
    "READONLY",
    "CLUSTERDOWN",
    "TRYAGAIN",
    "BUSY",
    "MOVED",
    "ASK",
    "NOREPLICAS",
];

/// Whether Redis refused a command only for now.
fn is_temporary(error: &RedisError) -> bool {
    let detail = error.detail().unwrap_or_default();
    // The server of a key changed while a function ran.
    error.code().is_some_and(|code| TEMPORARY.contains(&code))
        || is_not_adopted(error)
        || detail.contains("non local key")
}

/// Whether the library refused a write because no gateway has adopted the server.
fn is_not_adopted(error: &RedisError) -> bool {
    error.code() == Some("SSE")
        && error.detail().is_some_and(|detail| detail.starts_with("not-adopted:"))
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
    /// No server of the cluster is known to own the key.
    #[error("no server of the cluster owns the key now")]
    NoOwner,
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
    /// The error with which Redis replied; `None` if it did not reply.
    pub fn reply(&self) -> Option<&RedisError> {
        match self {
            Self::Rejected(e) | Self::Unavailable(UnavailableError::Redis(e)) => Some(e),
            _ => None,
        }
    }

    /// Whether Redis refuses the user or the password, so that a retry cannot succeed.
    pub fn is_login_refusal(&self) -> bool {
        self.reply().is_some_and(|e| {
            e.kind() == ErrorKind::AuthenticationFailed
                || e.code().is_some_and(|code| ["WRONGPASS", "NOAUTH"].contains(&code))
        })
    }

    /// Whether a key holds a value of another type.
    pub fn is_wrong_type(&self) -> bool {
        matches!(self, Self::Rejected(e) if is_wrong_type(e) || wrong_type(e).is_some())
    }

    /// Whether the library refused a write because no gateway has adopted the server.
    pub fn is_not_adopted(&self) -> bool {
        self.reply().is_some_and(is_not_adopted)
    }

    /// Whether Redis has fewer replicas than `min-replicas-to-write` and refuses all writes.
    pub fn is_without_replicas(&self) -> bool {
        self.reply().and_then(RedisError::code) == Some("NOREPLICAS")
    }
}

impl From<RedisError> for CommandError {
    fn from(e: RedisError) -> Self {
        if e.is_io_error() || e.is_timeout() || e.is_connection_dropped() {
            Self::NoReply(NoReplyError::Connection(e))
        } else if let Some(fault) = wrong_type(&e) {
            log_foreign_key(fault);
            Self::Rejected(e)
        } else if is_temporary(&e) {
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

type PoolError = managed::PoolError<RedisError>;

/// Room in the buffers of a call, enough to open a session.
const CALL_ARGUMENTS: usize = 20;
const CALL_BYTES: usize = 480;

/// Pools of connections, for all commands except those on the links.
#[derive(Clone)]
pub struct Commands {
    pool: SameServerPool,
    /// `None` for one server only.
    cluster: Option<Arc<ServerPools>>,
    /// The server of the link; `None` for commands of the command line without a cluster.
    server: Option<Arc<ServerInfo>>,
    /// Finds the server.
    pub locator: Locator,
    /// Names of keys and functions.
    pub keys: Arc<KeyNames>,
    timeout: Duration,
}

impl Commands {
    /// Creates a pool. It connects when the first command is sent, to the server of the link if
    /// there is one.
    pub fn new(
        settings: &settings::Redis,
        locator: Locator,
        server: Option<Arc<ServerInfo>>,
    ) -> Self {
        let timeout = settings.command_timeout;
        let process = server.as_ref().map(|server| server.state.server.clone());
        let manager = SameServerManager::new(locator.clone(), timeouts(timeout), process);
        let pool = SameServerPool::builder(manager)
            .max_size(settings.pool_size)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(timeout))
            .create_timeout(Some(timeout))
            .recycle_timeout(Some(timeout))
            .build()
            .expect("timeouts have a runtime");
        let keys = Arc::new(KeyNames::new(settings));
        Self { pool, cluster: None, server, locator, keys, timeout }
    }

    /// The same, for all nodes if the server turns out to be a node of a cluster.
    pub fn with_cluster(self, pools: ServerPools) -> Self {
        Self { cluster: Some(Arc::new(pools)), ..self }
    }

    /// Where Redis is, `host:port` or the path of a socket, without credentials: for logs.
    pub fn address(&self) -> Arc<str> {
        self.locator.address()
    }

    pub(super) async fn connection(
        &self,
    ) -> Result<managed::Object<SameServerManager>, CommandError> {
        self.pool.get().await.map_err(|error| CommandError::Unavailable(error.into()))
    }

    /// The pools of a cluster's nodes, if there is a cluster.
    fn cluster(&self) -> Option<&ServerPools> {
        self.cluster.as_deref().filter(|pools| pools.is_cluster())
    }

    /// Whether the commands reach the nodes of a cluster, each of which has some of the keys.
    pub fn is_cluster(&self) -> bool {
        self.cluster().is_some()
    }

    /// The commands for one server.
    pub fn of_server(&self, server: &Arc<ServerInfo>) -> Self {
        self.cluster().map_or_else(|| self.clone(), |pools| pools.of_server(server))
    }

    /// The same, shared.
    pub fn shared_of_server(self: &Arc<Self>, server: &Arc<ServerInfo>) -> Arc<Self> {
        self.cluster().map_or_else(|| self.clone(), |pools| pools.shared_of_server(server))
    }

    /// The commands for each server: the masters of a cluster, or the one server.
    pub fn each_server(&self) -> Vec<Self> {
        self.cluster().map_or_else(|| vec![self.clone()], ServerPools::each_server)
    }

    /// The commands for the server that owns a key.
    ///
    /// # Errors
    /// No server of the cluster is known to own it.
    pub fn of_key(&self, key: &str) -> Result<Self, CommandError> {
        self.cluster().map_or_else(|| Ok(self.clone()), |pools| pools.of_key(key.as_bytes()))
    }

    /// Whether they reach one node of a cluster.
    pub fn is_node(&self) -> bool {
        self.node().is_some()
    }

    /// What is known of the node of a cluster that they reach.
    pub fn node(&self) -> Option<&NodeInfo> {
        self.server.as_ref()?.node.as_ref()
    }

    /// The key that describes the server; `None`: a node that owns no slot.
    pub fn node_key(&self) -> Option<String> {
        match self.node() {
            Some(node) => node.tag(&self.keys.broadcast_tag()).map(|tag| self.keys.node_of(&tag)),
            None => Some(self.keys.node()),
        }
    }

    /// Runs one command, on the server that owns its key.
    ///
    /// # Errors
    /// See [`CommandError`]; a reply of another type than `T` counts as rejected.
    pub async fn run<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, CommandError> {
        let Some(cluster) = self.cluster() else { return self.run_here(command).await };
        let reply = cluster.of_command(command)?.run_here(command).await;
        reply.inspect_err(|error| report_moved(cluster, error))
    }

    async fn run_here<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, CommandError> {
        let mut connection = self.connection().await?;
        let reply = command.query_async(&mut connection.connection);
        let reply = tokio::time::timeout(self.timeout, reply).await;
        finish(connection, reply)
    }

    /// Runs several commands in one pipeline, on the server that owns the key of the first one.
    ///
    /// # Errors
    /// As [`Self::run`]. If commands fail, the first error is returned, unless the pipeline ignores
    /// errors.
    pub async fn run_all<T: FromRedisValue>(&self, commands: &Pipeline) -> Result<T, CommandError> {
        let Some(cluster) = self.cluster() else { return self.run_all_here(commands).await };
        let first = commands.cmd_iter().next();
        let first = first.ok_or(CommandError::Unavailable(UnavailableError::NoOwner))?;
        let replies = cluster.of_command(first)?.run_all_here(commands).await;
        replies.inspect_err(|error| report_moved(cluster, error))
    }

    async fn run_all_here<T: FromRedisValue>(
        &self,
        commands: &Pipeline,
    ) -> Result<T, CommandError> {
        let mut connection = self.connection().await?;
        let reply = commands.query_async(&mut connection.connection);
        let reply = tokio::time::timeout(self.timeout, reply).await;
        finish(connection, reply)
    }

    /// Runs independent commands, in one pipeline for each server: commands for one server are
    /// executed in order. Returns the replies in the order of the commands.
    pub async fn run_each<T: FromRedisValue>(
        &self,
        commands: Vec<Cmd>,
    ) -> Vec<Result<T, Arc<CommandError>>> {
        let Some(cluster) = self.cluster() else { return self.run_each_here(commands).await };
        let mut replies: Vec<Option<Result<T, Arc<CommandError>>>> = Vec::new();
        let mut groups: HashMap<ServerIndex, (Commands, Vec<usize>, Vec<Cmd>)> = HashMap::new();
        for (n, command) in commands.into_iter().enumerate() {
            replies.push(None);
            match cluster.of_command(&command) {
                Ok(owner) => {
                    let index = owner.server.as_ref().map(|server| server.index);
                    let (_, numbers, group) = groups
                        .entry(index.unwrap_or_default())
                        .or_insert_with(|| (owner, Vec::new(), Vec::new()));
                    numbers.push(n);
                    group.push(command);
                }
                Err(error) => replies[n] = Some(Err(Arc::new(error))),
            }
        }
        let runs = groups.into_values().map(|(owner, numbers, group)| async move {
            (numbers, owner.run_each_here::<T>(group).await)
        });
        for (numbers, group) in join_all(runs).await {
            for (n, reply) in numbers.into_iter().zip(group) {
                replies[n] = Some(reply.inspect_err(|error| report_moved(cluster, error)));
            }
        }
        replies.into_iter().flatten().collect()
    }

    async fn run_each_here<T: FromRedisValue>(
        &self,
        commands: Vec<Cmd>,
    ) -> Vec<Result<T, Arc<CommandError>>> {
        let mut pipeline = redis::pipe();
        pipeline.ignore_errors();
        let count = commands.len();
        commands.into_iter().for_each(|command| {
            pipeline.add_command(command);
        });
        match self.run_all_here::<Vec<RedisResult<T>>>(&pipeline).await {
            Ok(replies) => replies.into_iter().map(|r| r.map_err(|e| Arc::new(e.into()))).collect(),
            Err(error) => {
                let error = Arc::new(error);
                (0..count).map(|_| Err(error.clone())).collect()
            }
        }
    }

    /// A call of a function of the library, to which arguments can be added.
    pub fn call<K: ToRedisArgs>(&self, function: &str, keys: &[K]) -> Cmd {
        let mut command = Cmd::with_capacity(CALL_ARGUMENTS, CALL_BYTES);
        command.arg("FCALL").arg(self.keys.function(function)).arg(keys.len()).arg(keys);
        command
    }
}

/// Takes the reply of a command, and returns its connection to the pool, unless that may be broken.
fn finish<T>(
    mut connection: managed::Object<SameServerManager>,
    reply: Result<RedisResult<T>, Elapsed>,
) -> Result<T, CommandError> {
    let reply = reply
        .map_err(|_| CommandError::NoReply(NoReplyError::Timeout))
        .and_then(|reply| reply.map_err(CommandError::from));
    match reply {
        Err(CommandError::NoReply(_)) => drop(managed::Object::take(connection)),
        _ => connection.replied = Instant::now(),
    }
    reply
}

/// A server that does not own a key (any more): the slots are read again.
fn report_moved(cluster: &ServerPools, error: &CommandError) {
    if error.reply().is_some_and(is_moved) {
        cluster.report_stale();
    }
}

/// Whether a server answered that another one owns the key, or that nobody does.
pub fn is_moved(error: &RedisError) -> bool {
    error.code().is_some_and(|code| matches!(code, "MOVED" | "ASK" | "CLUSTERDOWN" | "TRYAGAIN"))
}

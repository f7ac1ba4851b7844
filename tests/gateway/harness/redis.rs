//! A redis-server for one test, and a publisher like that of a backend.

use super::{GUARD, SLOTS, eventually, process};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, FromRedisValue, RedisResult};
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use tokio::sync::SemaphorePermit;

/// The fields of a stream entry.
type Fields = Vec<(String, Vec<u8>)>;

/// The server program: that of the environment variable `REDIS_SERVER` (see `make test-matrix`), by
/// default `redis-server`.
pub fn server_program() -> OsString {
    std::env::var_os("REDIS_SERVER").unwrap_or_else(|| "redis-server".into())
}

/// A redis-server on 127.0.0.1, stopped when dropped.
pub struct Redis {
    port: u16,
    dir: PathBuf,
    /// `appendfsync` of the append-only file; `None`: nothing is written to disk.
    fsync: Option<&'static str>,
    /// Further arguments of redis-server.
    arguments: Vec<String>,
    child: Mutex<Option<Child>>,
    _slot: Option<SemaphorePermit<'static>>,
}

impl Redis {
    /// A running, empty Redis.
    pub async fn start() -> Redis {
        let redis = Redis::reserve().await;
        redis.start_again().await;
        redis
    }

    /// A running, empty Redis for a test that has a slot already.
    pub async fn start_beside() -> Redis {
        let redis = Redis::new(None, None);
        redis.start_again().await;
        redis
    }

    /// A Redis with an address that does not run yet; [`Redis::start_again`] starts it.
    pub async fn reserve() -> Redis {
        Redis::new(Some(SLOTS.acquire().await.expect("never closed")), None)
    }

    fn new(slot: Option<SemaphorePermit<'static>>, fsync: Option<&'static str>) -> Redis {
        let port = process::free_port();
        let dir = std::env::temp_dir().join(format!("sse-test-{}-{port}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a temporary directory");
        Redis { port, dir, fsync, arguments: vec![], child: Mutex::new(None), _slot: slot }
    }

    /// A running Redis that writes every command to its append-only file; with `fsync` "always"
    /// before it replies.
    pub async fn start_persistent(fsync: &'static str) -> Redis {
        let mut redis = Redis::reserve().await;
        redis.fsync = Some(fsync);
        redis.start_again().await;
        redis
    }

    /// A running Redis with further arguments.
    pub async fn start_with(arguments: &[&str]) -> Redis {
        let mut redis = Redis::reserve().await;
        redis.arguments = arguments.iter().map(ToString::to_string).collect();
        redis.start_again().await;
        redis
    }

    /// A node of a cluster that does not run yet. It takes no slot of its own.
    pub fn cluster_node(fsync: Option<&'static str>, settings: &[(&str, &str)]) -> Redis {
        let mut node = Redis::new(None, fsync);
        let bus = process::free_port().to_string();
        let fixed = [("cluster-enabled", "yes"), ("cluster-port", &bus)];
        let all = fixed.iter().chain(settings);
        node.arguments =
            all.flat_map(|(name, value)| [format!("--{name}"), (*value).to_owned()]).collect();
        node
    }

    /// The port of the cluster bus.
    pub fn bus_port(&self) -> &str {
        let name = self.arguments.iter().position(|argument| argument == "--cluster-port");
        &self.arguments[name.expect("a node of a cluster") + 1]
    }

    /// A running replica of a primary, or of a proxy in front of it (`host:port`). It takes no slot
    /// of its own: a test that waits for a second one could wait for tests that do the same.
    pub async fn replica_of(address: &str) -> Redis {
        let replica = Redis::new(None, None);
        replica.start_again().await;
        replica.replicate(address).await;
        replica
    }

    /// Makes this server a replica, and waits until it has received the data.
    pub async fn replicate(&self, address: &str) {
        let (host, port) = address.split_once(':').expect("host:port");
        self.command::<()>(&["REPLICAOF", host, port]).await;
        eventually("a synchronised replica", || async {
            let info: String = self.command(&["INFO", "replication"]).await;
            info.contains("master_link_status:up").then_some(())
        })
        .await;
    }

    /// Waits until this replica has received everything that was written to `primary`.
    pub async fn receives_all_of(&self, primary: &Redis) {
        eventually("a replica that is up to date", || async {
            let info: String = primary.command(&["INFO", "replication"]).await;
            let written = offset(&info, "master_repl_offset")?;
            let info: String = self.command(&["INFO", "replication"]).await;
            (offset(&info, "slave_repl_offset")? >= written).then_some(())
        })
        .await;
    }

    /// Makes a replica a primary.
    pub async fn promote(&self) {
        self.command::<()>(&["REPLICAOF", "NO", "ONE"]).await;
    }

    /// Starts the server (again) on its port: empty, or with the data of its append-only file.
    pub async fn start_again(&self) {
        let append_only = if self.fsync.is_some() { "yes" } else { "no" };
        let fsync = self.fsync.unwrap_or("everysec");
        let mut command = Command::new(server_program());
        command
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--appendonly", append_only, "--appendfsync", fsync])
            .args(["--repl-diskless-sync-delay", "0", "--dir"])
            .arg(&self.dir)
            // The same value as in deploy/redis/redis.conf.
            .args(["--proto-max-bulk-len", "1mb"])
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        process::die_with_parent(&mut command);
        let child = command.spawn().expect("REDIS_SERVER, or redis-server on the PATH");
        let pid = child.id();
        *self.child.lock().unwrap() = Some(child);
        // The process id proves that this server responds, and no other one on its port.
        eventually("redis-server", || async {
            let mut conn = self.try_conn().await.ok()?;
            let info: String =
                redis::cmd("INFO").arg("server").query_async(&mut conn).await.ok()?;
            info.contains(&format!("process_id:{pid}\r")).then_some(())
        })
        .await;
    }

    /// Kills the server, as in a crash. Its data is lost unless it is persistent.
    pub fn stop(&self) {
        if let Some(mut child) = self.child.lock().unwrap().take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// `host:port`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The value for the setting `redis.url`.
    pub fn url(&self) -> String {
        format!("redis://{}", self.address())
    }

    pub fn pid(&self) -> u32 {
        let child = self.child.lock().unwrap();
        child.as_ref().expect("a running Redis").id()
    }

    /// Sends SIGSTOP: connections stay open, but get no replies.
    pub fn freeze(&self) {
        process::freeze(self.pid());
    }

    /// Sends SIGCONT.
    pub fn thaw(&self) {
        process::signal(self.pid(), libc::SIGCONT);
    }

    /// A new connection, whose commands wait for up to [`GUARD`].
    pub async fn conn(&self) -> MultiplexedConnection {
        self.try_conn().await.expect("a connection to Redis")
    }

    /// A new connection, or the error.
    pub async fn try_conn(&self) -> RedisResult<MultiplexedConnection> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(GUARD))
            .set_response_timeout(Some(GUARD));
        redis::Client::open(self.url())?.get_multiplexed_async_connection_with_config(&config).await
    }

    /// Host and port.
    pub fn address_parts(&self) -> (String, String) {
        ("127.0.0.1".to_owned(), self.port.to_string())
    }

    /// Whether the process was started and not stopped.
    pub fn is_running(&self) -> bool {
        self.child.lock().unwrap().is_some()
    }

    /// Runs one command on a new connection, and returns the error.
    pub async fn try_command<T: FromRedisValue>(
        &self,
        words: &[impl redis::ToRedisArgs],
    ) -> RedisResult<T> {
        let mut command = redis::Cmd::new();
        for word in words {
            command.arg(word);
        }
        command.query_async(&mut self.try_conn().await?).await
    }

    /// Runs one command on a new connection.
    pub async fn command<T: FromRedisValue>(
        &self,
        words: &[impl redis::ToRedisArgs + std::fmt::Debug],
    ) -> T {
        self.try_command(words).await.unwrap_or_else(|e| panic!("{words:?}: {e}"))
    }

    /// Deletes all keys.
    pub async fn flushall(&self) {
        self.command::<()>(&["FLUSHALL"]).await;
    }

    /// A publisher on a new connection.
    pub async fn publisher(&self) -> Publisher {
        Publisher { conn: self.conn().await }
    }

    /// `FCALL sse_publish`. Returns the event's id, or the error.
    pub async fn durable(
        &self,
        channel: &str,
        kind: &str,
        payload: impl AsRef<[u8]>,
    ) -> Result<String, String> {
        self.publisher().await.durable(channel, kind, payload, &[]).await
    }

    /// A durable publish as of a backend that retries while no gateway has adopted the server.
    pub async fn durable_retried(&self, channel: &str, kind: &str, payload: &str) -> String {
        eventually("the adoption of the server", || async {
            match self.durable(channel, kind, payload).await {
                Err(error) if error.starts_with("not-adopted") => None,
                published => Some(published.expect("published")),
            }
        })
        .await
    }

    /// A plain `PUBLISH`. Returns the number of subscribers that received it.
    pub async fn plain(&self, channel: impl AsRef<[u8]>, message: impl AsRef<[u8]>) -> i64 {
        self.publisher().await.plain(channel, message).await
    }

    /// All entries of `sse:rejected:{broadcast}`.
    pub async fn rejected(&self) -> Vec<Rejected> {
        let rows: Vec<(String, Fields)> =
            self.command(&["XRANGE", "sse:rejected:{broadcast}", "-", "+"]).await;
        rows.into_iter()
            .map(|(_, fields)| {
                let field = |name: &str| {
                    let found = fields.iter().find(|(key, _)| key == name);
                    found.map(|(_, value)| value.clone()).unwrap_or_default()
                };
                Rejected {
                    channel: field("channel"),
                    reason: String::from_utf8_lossy(&field("reason")).into_owned(),
                    message: field("message"),
                }
            })
            .collect()
    }

    /// The ids in a channel's log, oldest first.
    pub async fn log_ids(&self, channel: &str) -> Vec<String> {
        let rows: Vec<(String, Fields)> =
            self.command(&["XRANGE", &log_key(channel), "-", "+"]).await;
        let epoch = |fields: &Fields| {
            let field = fields.iter().find(|(name, _)| name == "e");
            field.map(|(_, epoch)| String::from_utf8_lossy(epoch).into_owned()).unwrap_or_default()
        };
        rows.iter().map(|(id, fields)| format!("{id}.{}", epoch(fields))).collect()
    }
}

fn offset(info: &str, name: &str) -> Option<u64> {
    let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.parse().ok()
}

/// The key of a channel's log.
pub fn log_key(channel: &str) -> String {
    format!("sse:log:{}", slot(channel))
}

/// What ends the names of a channel's keys.
pub fn slot(channel: &str) -> String {
    match channel.strip_prefix("broadcast:") {
        Some(topic) => format!("{{broadcast}}:{topic}"),
        None => format!("{{{channel}}}"),
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.stop();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// An entry of `sse:rejected:{broadcast}`.
#[derive(Debug)]
pub struct Rejected {
    /// The channel as given by the publisher.
    pub channel: Vec<u8>,
    /// The code of the rejection.
    pub reason: String,
    /// The message as published.
    pub message: Vec<u8>,
}

/// A backend's connection to Redis. Clones share the connection.
#[derive(Clone)]
pub struct Publisher {
    conn: MultiplexedConnection,
}

impl Publisher {
    /// A publisher on this connection.
    pub fn on(conn: MultiplexedConnection) -> Publisher {
        Publisher { conn }
    }

    /// `FCALL sse_publish 1 <channel> <type> <payload> <options>...`. Returns the event's id, or
    /// the error: `<code> <text>` for rejections (without the prefix `SSE`), other errors
    /// unchanged.
    pub async fn durable(
        &mut self,
        channel: &str,
        kind: &str,
        payload: impl AsRef<[u8]>,
        options: &[&str],
    ) -> Result<String, String> {
        self.durable_bytes(channel.as_bytes(), kind.as_bytes(), payload, options).await
    }

    /// [`Publisher::durable`] for names that are not UTF-8.
    pub async fn durable_bytes(
        &mut self,
        channel: &[u8],
        kind: &[u8],
        payload: impl AsRef<[u8]>,
        options: &[&str],
    ) -> Result<String, String> {
        let mut command = redis::cmd("FCALL");
        command.arg("sse_publish").arg(1).arg(channel).arg(kind);
        command.arg(payload.as_ref());
        for option in options {
            command.arg(option);
        }
        let answer: RedisResult<String> = command.query_async(&mut self.conn).await;
        answer.map_err(|error| match (error.code(), error.detail()) {
            (Some("SSE"), Some(detail)) => detail.to_string(),
            _ => error.to_string(),
        })
    }

    /// A plain `PUBLISH`. Returns the number of subscribers that received it.
    pub async fn plain(&mut self, channel: impl AsRef<[u8]>, message: impl AsRef<[u8]>) -> i64 {
        redis::cmd("PUBLISH")
            .arg(channel.as_ref())
            .arg(message.as_ref())
            .query_async(&mut self.conn)
            .await
            .expect("PUBLISH")
    }

    /// Publishes `(channel, type, payload)` durably in one round trip. Returns the ids in order.
    pub async fn durable_batch(
        &mut self,
        events: &[(String, String, String)],
    ) -> RedisResult<Vec<String>> {
        let mut pipe = redis::pipe();
        for (channel, kind, payload) in events {
            pipe.cmd("FCALL").arg("sse_publish").arg(1).arg(channel);
            pipe.arg(kind).arg(payload);
        }
        pipe.query_async(&mut self.conn).await
    }
}

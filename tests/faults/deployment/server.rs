//! A redis-server process (or a sentinel) behind a proxy that can cut it off.

use super::clock;
use crate::harness::{Proxy, eventually, process};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, FromRedisValue, RedisResult};
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

/// Maximum time to connect, and to wait for a reply. Like that of a careful backend.
const TIMEOUT: Duration = Duration::from_secs(1);

/// Maximum time until a server runs.
const LIMIT: Duration = Duration::from_secs(60);

/// A server process; killed when dropped.
pub struct Server {
    port: u16,
    dir: PathBuf,
    arguments: Vec<String>,
    child: Mutex<Option<Child>>,
    /// Whether [`Server::set_clock`] has an effect, which makes reading the time slower.
    pub has_clock: bool,
    /// What gateways, replicas and sentinels connect to.
    pub proxy: Proxy,
    /// Of a node of a cluster: what other nodes connect to, and the address that it connects from.
    pub bus: Option<(Proxy, IpAddr)>,
}

impl Server {
    /// A server with an address that does not run yet.
    pub async fn reserve() -> Server {
        let port = process::free_port();
        let dir = std::env::temp_dir().join(format!("sse-faults-{}-{port}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a temporary directory");
        let proxy = Proxy::start(&format!("127.0.0.1:{port}")).await;
        let (arguments, child) = (Vec::new(), Mutex::new(None));
        Server { port, dir, arguments, child, has_clock: false, proxy, bus: None }
    }

    /// A running server with an append-only file, and these arguments in addition.
    pub async fn start(arguments: &[&str]) -> Server {
        let mut server = Server::reserve().await;
        server.configure(arguments);
        server.run().await;
        server
    }

    /// Sets the arguments: those of every server with data, and these.
    pub fn configure(&mut self, arguments: &[&str]) {
        let common = ["--save", "", "--appendonly", "yes", "--repl-diskless-sync-delay", "0"];
        let limits = ["--proto-max-bulk-len", "1mb", "--maxmemory-policy", "noeviction"];
        let all = common.iter().chain(&limits).chain(arguments);
        self.arguments = all.map(|argument| argument.to_string()).collect();
    }

    /// Starts the process (again) and waits until it responds.
    pub async fn run(&self) {
        self.run_with(&self.arguments).await;
    }

    async fn run_with(&self, arguments: &[String]) {
        self.spawn(arguments);
        let deadline = std::time::Instant::now() + LIMIT;
        while !self.responds().await {
            // Another process may have used the port meanwhile.
            assert!(std::time::Instant::now() < deadline, "{} does not start", self.address());
            self.spawn(arguments);
        }
    }

    /// Starts the process again as it was before any failover, if it was a primary.
    pub async fn run_as_primary(&self) {
        let at = self.arguments.iter().position(|argument| argument == "--replicaof");
        let mut arguments = self.arguments.clone();
        if let Some(at) = at {
            arguments.drain(at..at + 3);
        }
        self.run_with(&arguments).await;
    }

    /// Starts the process with these arguments, without waiting.
    pub fn spawn(&self, arguments: &[String]) {
        let mut command = Command::new("redis-server");
        // A sentinel takes its file first.
        let (file, options) = match arguments.first() {
            Some(first) if !first.starts_with("--") => arguments.split_at(1),
            _ => arguments.split_at(0),
        };
        let log = std::fs::File::options().create(true).append(true).open(self.path("log"));
        let log = log.expect("a log file");
        command
            .args(file)
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1"])
            .arg("--dir")
            .arg(&self.dir)
            .args(options)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(Stdio::null());
        if self.has_clock {
            self.set_clock(0);
            command.env("LD_PRELOAD", clock::library()).env("SSE_CLOCK", self.path("clock"));
        }
        process::die_with_parent(&mut command);
        let child = command.spawn().expect("redis-server is installed");
        *self.child.lock().unwrap() = Some(child);
    }

    /// Waits until this process, and no other one on its port, responds and has its data. Returns
    /// `false` if it has ended.
    async fn responds(&self) -> bool {
        let pid = self.pid();
        eventually("a redis-server", || async {
            let ended = self.child.lock().unwrap().as_mut().map(Child::try_wait);
            if let Some(Ok(Some(_))) = ended {
                tokio::time::sleep(Duration::from_millis(200)).await;
                return Some(false);
            }
            let info: String = self.try_command(&["INFO"]).await.ok()?;
            let is_own = info.contains(&format!("process_id:{pid}\r"));
            (is_own && info.contains("loading:0\r")).then_some(true)
        })
        .await
    }

    /// Sets the clock of the process relative to that of the system.
    pub fn set_clock(&self, offset_s: i64) {
        std::fs::write(self.path("clock"), offset_s.to_string()).expect("a file");
    }

    /// A file of this server.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The address that no proxy hides.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The address of the proxy, which a server announces.
    pub fn announced(&self) -> String {
        self.proxy.address().to_string()
    }

    /// The port of the proxy.
    pub fn announced_port(&self) -> u16 {
        self.proxy.address().port()
    }

    fn pid(&self) -> u32 {
        self.child.lock().unwrap().as_ref().expect("a running server").id()
    }

    /// Whether the process was started and not killed.
    pub fn is_running(&self) -> bool {
        self.child.lock().unwrap().is_some()
    }

    /// Sends SIGKILL and waits for the end.
    pub fn kill(&self) {
        if let Some(mut child) = self.child.lock().unwrap().take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Sends SIGSTOP.
    pub fn freeze(&self) {
        process::freeze(self.pid());
    }

    /// Sends SIGCONT.
    pub fn thaw(&self) {
        process::signal(self.pid(), libc::SIGCONT);
    }

    /// A new connection that bypasses the proxy.
    pub async fn connect(&self) -> RedisResult<MultiplexedConnection> {
        connect(&self.address()).await
    }

    /// Runs a command; panics on an error.
    pub async fn command<T: FromRedisValue>(&self, words: &[&str]) -> T {
        let answer = self.try_command(words).await;
        answer.unwrap_or_else(|error| panic!("{words:?} on {}: {error}", self.address()))
    }

    /// Runs a command.
    pub async fn try_command<T: FromRedisValue>(&self, words: &[&str]) -> RedisResult<T> {
        let mut command = redis::Cmd::new();
        command.arg(words);
        command.query_async(&mut self.connect().await?).await
    }

    /// A line of INFO.
    pub async fn info(&self, section: &str, name: &str) -> Option<String> {
        let info: String = self.try_command(&["INFO", section]).await.ok()?;
        let value = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        value.map(|value| value.trim().to_owned())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("the log of redis-server {} is {}", self.port, self.path("log").display());
        } else {
            let _ = std::fs::remove_dir_all(&self.dir);
        }
    }
}

/// Connects to `host:port` with short timeouts.
pub async fn connect(address: &str) -> RedisResult<MultiplexedConnection> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(TIMEOUT))
        .set_response_timeout(Some(TIMEOUT));
    let client = redis::Client::open(format!("redis://{address}"))?;
    client.get_multiplexed_async_connection_with_config(&config).await
}

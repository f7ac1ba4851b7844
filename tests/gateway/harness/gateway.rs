//! A gateway process of this build.

use super::metrics::Metrics;
use super::ticket::{SECRET, Ticket, ticket};
use super::{Redis, Sse, encode, eventually, process};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use tokio::process::Child;

/// The gateway's program.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_sse-gateway");

/// Settings of a gateway to start.
#[derive(Clone)]
pub struct Builder {
    program: String,
    env: BTreeMap<String, String>,
    config: Option<String>,
    process_env: BTreeMap<&'static str, String>,
    open_files: Option<u64>,
}

impl Builder {
    /// Sets `SSE_GATEWAY__<key>`, e.g. `.env("HISTORY__MAX_LEN", "10")`.
    pub fn env(mut self, key: &str, value: &str) -> Builder {
        self.env.insert(key.to_string(), value.to_string());
        self
    }

    /// Runs another build of the gateway.
    pub fn program(mut self, path: &str) -> Builder {
        self.program = path.to_string();
        self
    }

    /// Sets a variable of the environment that is no setting.
    pub fn process_env(mut self, key: &'static str, value: &str) -> Builder {
        self.process_env.insert(key, value.to_string());
        self
    }

    /// Allows it this many open files (`ulimit -n`, soft and hard).
    pub fn open_files(mut self, limit: u64) -> Builder {
        self.open_files = Some(limit);
        self
    }

    /// Leaves a setting of the harness out.
    pub fn unset(mut self, key: &str) -> Builder {
        self.env.remove(key);
        self
    }

    /// Speaks to Redis at this URL (a [`super::Proxy`]'s) instead.
    pub fn redis_url(self, url: &str) -> Builder {
        self.env("REDIS__URL", url)
    }

    /// The command, with the settings in its environment and none from process_env.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("SSE_GATEWAY__") {
                command.env_remove(name);
            }
        }
        for (key, value) in &self.env {
            command.env(format!("SSE_GATEWAY__{key}"), value);
        }
        command.envs(&self.process_env).args(arguments).stdin(Stdio::null());
        process::die_with_parent(&mut command);
        if let Some(limit) = self.open_files {
            process::limit_open_files(&mut command, limit);
        }
        command
    }

    /// Has a settings file, too.
    pub fn config(mut self, path: &str) -> Builder {
        self.config = Some(path.to_string());
        self
    }

    /// Starts it and waits until it is ready.
    pub async fn start(&self) -> Gateway {
        let gateway = self.start_unready().await;
        gateway.ready().await;
        gateway
    }

    /// Starts it and waits only until it listens.
    pub async fn start_unready(&self) -> Gateway {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        let mut command = self.command(&["serve"]);
        command.args(self.config.iter().flat_map(|path| ["--config", path]));
        command.stdout(Stdio::null()).stderr(writer);
        let mut command = tokio::process::Command::from(command);
        let mut child = command.kill_on_drop(true).spawn().expect("the gateway");
        drop(command);
        let log = Log::default();
        let pump = log.clone();
        std::thread::spawn(move || pump.fill(reader));
        let (public, admin) = eventually("the line \"listening\"", || {
            let exited = child.try_wait().expect("a child");
            if let Some(status) = exited {
                std::thread::sleep(std::time::Duration::from_millis(50));
                panic!("the gateway ended with {status}:\n{}", log.text());
            }
            std::future::ready(log.listening())
        })
        .await;
        Gateway {
            public,
            admin,
            log,
            pid: child.id().expect("a living child"),
            child: Mutex::new(Some(child)),
            http: reqwest::Client::new(),
            admin_http: unpooled_client(),
        }
    }
}

/// A running gateway; killed when dropped. Prints the end of its log if the test panics.
pub struct Gateway {
    /// The public listener.
    pub public: SocketAddr,
    /// The admin listener.
    pub admin: SocketAddr,
    log: Log,
    pid: u32,
    child: Mutex<Option<Child>>,
    http: reqwest::Client,
    admin_http: reqwest::Client,
}

impl Gateway {
    /// Settings for a test: free ports, JSON log, a known secret, a short drain.
    pub fn builder(redis: &Redis) -> Builder {
        let program = PROGRAM.to_string();
        let (env, process_env) = (BTreeMap::new(), BTreeMap::new());
        let builder = Builder { program, env, config: None, process_env, open_files: None };
        builder
            .env("SERVER__LISTEN", "127.0.0.1:0")
            .env("ADMIN__LISTEN", "127.0.0.1:0")
            .env("REDIS__URL", &redis.url())
            .env("TICKETS__SECRET", SECRET)
            .env("LOG__FORMAT", "json")
            .env("DRAIN__DELAY", "100ms")
            .env("DRAIN__WINDOW", "500ms")
    }

    /// [`Gateway::builder`] without a recorder. Where a machine is so busy that the link to Redis is
    /// given up, a recorder may lawfully tell `unrecorded`; tests of durable events leave it out.
    pub fn durable_only(redis: &Redis) -> Builder {
        Gateway::builder(redis).env("PUBLISHERS__PLAIN", "off")
    }

    /// A ready gateway with the harness's settings.
    pub async fn start(redis: &Redis) -> Gateway {
        Gateway::builder(redis).start().await
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// A URL on the public listener.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.public)
    }

    /// A URL on the admin listener.
    pub fn admin_url(&self, path: &str) -> String {
        format!("http://{}{path}", self.admin)
    }

    /// The URL a browser opens with this ticket; `query` is appended as it is (`&topics=a`).
    pub fn events_url(&self, ticket: &Ticket, query: &str) -> String {
        self.url(&format!("/events?ticket={}{query}", ticket.jwt()))
    }

    /// A stream for a user with a fresh ticket; its `sse.connected` has been read and checked.
    pub async fn connect(&self, user: &str) -> Sse {
        self.connect_with(&ticket(user), "").await
    }

    /// A stream with this ticket and query; its `sse.connected` has been read and checked.
    pub async fn connect_with(&self, ticket: &Ticket, query: &str) -> Sse {
        let mut sse = Sse::connect(&self.events_url(ticket, query), &[]).await;
        sse.connected().await;
        sse
    }

    /// A user that comes back with a fresh ticket and the id in the query; `sse.connected` read.
    pub async fn resume(&self, user: &str, last_id: &str) -> Sse {
        let query = format!("&lastEventId={}", encode(last_id));
        self.connect_with(&ticket(user), &query).await
    }

    /// Status and body of a path of the admin listener.
    pub async fn admin_get(&self, path: &str) -> (u16, String) {
        let answer = self.admin_http.get(self.admin_url(path)).send().await;
        let answer = answer.unwrap_or_else(|e| panic!("GET {path}: {e}"));
        let status = answer.status().as_u16();
        (status, answer.text().await.expect("a body"))
    }

    /// A client for requests to the public listener. It keeps connections alive.
    pub fn http(&self) -> &reqwest::Client {
        &self.http
    }

    /// A client for requests to the admin listener. It uses a new connection for each request.
    pub fn admin_http(&self) -> &reqwest::Client {
        &self.admin_http
    }

    /// Waits until `/readyz` says 200.
    pub async fn ready(&self) {
        eventually("/readyz to say 200", || async {
            (self.admin_get("/readyz").await.0 == 200).then_some(())
        })
        .await;
    }

    /// Waits until `/readyz` says anything but 200.
    pub async fn not_ready(&self) {
        eventually("/readyz not to say 200", || async {
            (self.admin_get("/readyz").await.0 != 200).then_some(())
        })
        .await;
    }

    /// A scrape of `/metrics`.
    pub async fn metrics(&self) -> Metrics {
        let (status, text) = self.admin_get("/metrics").await;
        assert_eq!(status, 200);
        Metrics::parse(&text)
    }

    /// One metric's value (the sum over the series that have these labels).
    pub async fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.metrics().await.get(name, labels)
    }

    /// Waits until a metric has reached `least`.
    pub async fn metric_reaches(&self, name: &str, labels: &[(&str, &str)], least: f64) {
        eventually(&format!("{name} {labels:?} >= {least}"), || async {
            (self.metric(name, labels).await >= least).then_some(())
        })
        .await;
    }

    /// Whether this instance writes plain publishes down.
    pub async fn is_recorder(&self) -> bool {
        self.metric("sse_recorder_role", &[("role", "writer")]).await == 1.0
    }

    /// Waits until this instance is the recorder (a plain PUBLISH before that may be lost).
    pub async fn wait_for_recorder(&self) {
        eventually("this gateway to be the recorder", || async {
            self.is_recorder().await.then_some(())
        })
        .await;
    }

    /// Sends SIGTERM.
    pub fn term(&self) {
        process::signal(self.pid, libc::SIGTERM);
    }

    /// Sends SIGHUP.
    pub fn hup(&self) {
        process::signal(self.pid, libc::SIGHUP);
    }

    /// SIGSTOP: from now on it does nothing; the kernel still takes connections for it.
    pub fn freeze(&self) {
        process::freeze(self.pid);
    }

    /// SIGCONT.
    pub fn thaw(&self) {
        process::signal(self.pid, libc::SIGCONT);
    }

    /// Kills it as a crash would.
    pub fn kill9(&self) {
        process::signal(self.pid, libc::SIGKILL);
    }

    /// Waits for the end of the process.
    pub async fn wait_exit(&self) -> ExitStatus {
        let child = self.child.lock().unwrap().take();
        let mut child = child.expect("not waited for yet");
        let ended = tokio::time::timeout(super::GUARD, child.wait()).await;
        let Ok(status) = ended else {
            panic!("still running:\n{}", self.log_text());
        };
        status.expect("a status")
    }

    /// Memory of its own (stacks, heap) in bytes.
    pub fn anonymous(&self) -> u64 {
        process::anonymous(self.pid)
    }

    /// The log so far.
    pub fn log_text(&self) -> String {
        self.log.text()
    }

    /// Whether the log so far has this text in any line.
    pub fn log_contains(&self, text: &str) -> bool {
        self.log.text().contains(text)
    }

    /// Waits until the log has this text.
    pub async fn wait_for_log(&self, text: &str) {
        eventually(&format!("{text:?} in the log"), || {
            std::future::ready(self.log_contains(text).then_some(()))
        })
        .await;
    }
}

/// A client without keep-alive: a kept connection may be closed by the server at the very moment
/// it is used again.
fn unpooled_client() -> reqwest::Client {
    reqwest::Client::builder().pool_max_idle_per_host(0).build().expect("a client")
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let text = self.log.text();
            let lines: Vec<&str> = text.lines().collect();
            let tail = &lines[lines.len().saturating_sub(40)..];
            eprintln!("log of gateway {}:\n{}\n", self.pid, tail.join("\n"));
        }
    }
}

/// The lines of a process's log, filled by a thread of its own so that it never blocks on us.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn fill(&self, reader: impl Read) {
        let mut reader = BufReader::new(reader);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).unwrap_or(0) > 0 {
            let text = String::from_utf8_lossy(&line).trim_end().to_string();
            self.0.lock().unwrap().push(text);
            line.clear();
        }
    }

    fn text(&self) -> String {
        self.0.lock().unwrap().join("\n")
    }

    /// The addresses in the line that says `listening`.
    fn listening(&self) -> Option<(SocketAddr, SocketAddr)> {
        let lines = self.0.lock().unwrap();
        let mut lines = lines.iter();
        lines.find_map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).ok()?;
            let address = |name: &str| line[name].as_str()?.parse().ok();
            let listening = line["message"] == "listening";
            listening.then_some((address("public")?, address("admin")?))
        })
    }
}

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

/// The path of the gateway binary.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_sse-gateway");

/// Settings for a gateway process.
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

    /// Sets an environment variable that is not a setting.
    pub fn process_env(mut self, key: &'static str, value: &str) -> Builder {
        self.process_env.insert(key, value.to_string());
        self
    }

    /// Limits the number of open files (`ulimit -n`, soft and hard).
    pub fn open_files(mut self, limit: u64) -> Builder {
        self.open_files = Some(limit);
        self
    }

    /// Removes a setting, for example one of the harness.
    pub fn unset(mut self, key: &str) -> Builder {
        self.env.remove(key);
        self
    }

    /// Uses the Redis at this URL, for example that of a [`super::Proxy`].
    pub fn redis_url(self, url: &str) -> Builder {
        self.env("REDIS__URL", url)
    }

    /// The command, with only these settings in its environment.
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

    /// Sets the configuration file.
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
        Gateway::at(&redis.url())
    }

    /// [`Gateway::builder`] for the Redis at this URL.
    pub fn at(url: &str) -> Builder {
        let program = PROGRAM.to_string();
        let (env, process_env) = (BTreeMap::new(), BTreeMap::new());
        let builder = Builder { program, env, config: None, process_env, open_files: None };
        builder
            .env("SERVER__LISTEN", "127.0.0.1:0")
            .env("ADMIN__LISTEN", "127.0.0.1:0")
            .env("REDIS__URL", url)
            .env("TICKETS__SECRET", SECRET)
            .env("LOG__FORMAT", "json")
            .env("DRAIN__DELAY", "100ms")
            .env("DRAIN__WINDOW", "500ms")
    }

    /// [`Gateway::builder`] without a recorder. On a machine so busy that the link to Redis times
    /// out, a recorder may report `unrecorded` gaps, which tests of durable events do not expect.
    pub fn durable_only(redis: &Redis) -> Builder {
        Gateway::builder(redis).env("PUBLISHERS__PLAIN", "off")
    }

    /// A ready gateway with the default settings of the harness.
    pub async fn start(redis: &Redis) -> Gateway {
        Gateway::builder(redis).start().await
    }

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

    /// A stream for a user with a new ticket, after `sse.connected`.
    pub async fn connect(&self, user: &str) -> Sse {
        self.connect_with(&ticket(user), "").await
    }

    /// A stream with this ticket and query, after `sse.connected`. Reconnects after `sse.busy` of
    /// reason `redis-away`, like a browser: on a busy machine the link to Redis may time out.
    pub async fn connect_with(&self, ticket: &Ticket, query: &str) -> Sse {
        let url = self.events_url(ticket, query);
        eventually("a stream while Redis is available", || async {
            let mut sse = Sse::connect(&url, &[]).await;
            let first = sse.first().await;
            let is_away = first.event == "sse.busy" && first.json()["reason"] == "redis-away";
            assert!(is_away || first.event == "sse.connected", "{}", sse.dump());
            (!is_away).then_some(sse)
        })
        .await
    }

    /// A stream for a user that resumes with a new ticket and the id in the query, after
    /// `sse.connected`.
    pub async fn resume(&self, user: &str, last_id: &str) -> Sse {
        let query = format!("&lastEventId={}", encode(last_id));
        self.connect_with(&ticket(user), &query).await
    }

    /// Status and body of a GET request to the admin listener.
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

    /// Waits until `/readyz` returns 200.
    pub async fn ready(&self) {
        eventually("/readyz to say 200", || async {
            (self.admin_get("/readyz").await.0 == 200).then_some(())
        })
        .await;
    }

    /// Waits until `/readyz` returns a status other than 200.
    pub async fn not_ready(&self) {
        eventually("/readyz not to say 200", || async {
            (self.admin_get("/readyz").await.0 != 200).then_some(())
        })
        .await;
    }

    /// Scrapes `/metrics`.
    pub async fn metrics(&self) -> Metrics {
        let (status, text) = self.admin_get("/metrics").await;
        assert_eq!(status, 200);
        Metrics::parse(&text)
    }

    /// The value of a metric, summed over all series with these labels.
    pub async fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.metrics().await.get(name, labels)
    }

    /// Waits until a metric is at least `least`.
    pub async fn metric_reaches(&self, name: &str, labels: &[(&str, &str)], least: f64) {
        eventually(&format!("{name} {labels:?} >= {least}"), || async {
            (self.metric(name, labels).await >= least).then_some(())
        })
        .await;
    }

    /// Whether this instance is the recorder.
    pub async fn is_recorder(&self) -> bool {
        self.metric("sse_recorder_role", &[("role", "writer")]).await == 1.0
    }

    /// Waits until this instance is the recorder. Plain publishes before that may be lost.
    pub async fn wait_for_recorder(&self) {
        eventually("this gateway to be the recorder", || async {
            self.is_recorder().await.then_some(())
        })
        .await;
    }

    pub fn term(&self) {
        process::signal(self.pid, libc::SIGTERM);
    }

    pub fn hup(&self) {
        process::signal(self.pid, libc::SIGHUP);
    }

    /// Sends SIGSTOP. The kernel still accepts connections for the process.
    pub fn freeze(&self) {
        process::freeze(self.pid);
    }

    /// Sends SIGCONT.
    pub fn thaw(&self) {
        process::signal(self.pid, libc::SIGCONT);
    }

    /// Sends SIGKILL, which has the effect of a crash.
    pub fn kill9(&self) {
        process::signal(self.pid, libc::SIGKILL);
    }

    /// Waits until the process has exited.
    pub async fn wait_exit(&self) -> ExitStatus {
        let child = self.child.lock().unwrap().take();
        let mut child = child.expect("not waited for yet");
        let ended = tokio::time::timeout(super::GUARD, child.wait()).await;
        let Ok(status) = ended else {
            panic!("still running:\n{}", self.log_text());
        };
        status.expect("a status")
    }

    /// Anonymous memory (stacks, heap), bytes.
    pub fn anonymous(&self) -> u64 {
        process::anonymous(self.pid)
    }

    /// The log so far.
    pub fn log_text(&self) -> String {
        self.log.text()
    }

    /// Whether any line of the log so far contains this text.
    pub fn log_contains(&self, text: &str) -> bool {
        self.log.text().contains(text)
    }

    /// Waits until the log contains this text.
    pub async fn wait_for_log(&self, text: &str) {
        eventually(&format!("{text:?} in the log"), || {
            std::future::ready(self.log_contains(text).then_some(()))
        })
        .await;
    }
}

/// A client without keep-alive, because the server may close a kept connection at the very moment
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

/// The log lines of a process, read by a separate thread so that the process never blocks.
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

    /// The public and admin address in the line `listening`.
    fn listening(&self) -> Option<(SocketAddr, SocketAddr)> {
        let lines = self.0.lock().unwrap();
        let mut lines = lines.iter();
        lines.find_map(|line| {
            let Ok(line) = serde_json::from_str::<serde_json::Value>(line) else {
                return listening_in_text(line);
            };
            let address = |name: &str| line[name].as_str()?.parse().ok();
            let listening = line["message"] == "listening";
            listening.then_some((address("public")?, address("admin")?))
        })
    }
}

/// The same in a log of format `text`: `… listening public=<address> admin=<address> …`.
fn listening_in_text(line: &str) -> Option<(SocketAddr, SocketAddr)> {
    let (_, fields) = line.split_once(": listening ")?;
    let field = |name: &str| fields.split(' ').find_map(|f| f.strip_prefix(name)?.parse().ok());
    Some((field("public=")?, field("admin=")?))
}

//! Runs a Redis, a gateway and the tool for a test. All stop when dropped.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Maximum time for anything to start; never reached on a working machine.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// Content of `file("secret")`; in upper case, of `file("wrong-secret")`.
pub const SECRET: &str = "a secret of the load tester's own tests";
/// API key with all scopes.
const API_KEY: &str = "an api key of the load tester's own tests";

/// Redis and gateway of a test.
pub struct Harness {
    dir: PathBuf,
    redis_port: u16,
    port: u16,
    admin_port: u16,
    tls: bool,
    children: Vec<Child>,
}

impl Harness {
    /// Starts a gateway with default settings.
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// Starts a gateway with settings such as (`LIMITS__STALL`, `1s`).
    pub fn with(settings: &[(&str, &str)]) -> Self {
        Self::prepare().run(settings)
    }

    /// Starts a gateway with TLS and a temporary certificate.
    pub fn with_tls() -> Self {
        let mut harness = Self::prepare();
        harness.tls = true;
        harness.certificate();
        let (certificate, key) = (harness.file("server.pem"), harness.file("server.key"));
        harness.run(&[("SERVER__TLS__CERTIFICATE", &certificate), ("SERVER__TLS__KEY", &key)])
    }

    fn prepare() -> Self {
        let (redis_port, port, admin_port) = (free_port(), free_port(), free_port());
        let dir = std::env::temp_dir().join(format!("loadtest-test-{}-{port}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("secret"), SECRET).unwrap();
        std::fs::write(dir.join("wrong-secret"), SECRET.to_uppercase()).unwrap();
        std::fs::write(dir.join("api-key"), API_KEY).unwrap();
        Self { dir, redis_port, port, admin_port, tls: false, children: Vec::new() }
    }

    fn run(mut self, settings: &[(&str, &str)]) -> Self {
        let redis = Command::new("redis-server")
            .args([
                "--port",
                &self.redis_port.to_string(),
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--appendonly",
                "no",
            ])
            .current_dir(&self.dir)
            .stdout(Stdio::null())
            .kill_on_parent_exit()
            .spawn();
        self.children
            .push(redis.expect("redis-server must be on the PATH (apt-get install redis-server)"));
        let digest = sha256(API_KEY);
        let mut gateway = Command::new(gateway_binary());
        let defaults = [
            ("SERVER__LISTEN", format!("127.0.0.1:{}", self.port)),
            ("ADMIN__LISTEN", format!("127.0.0.1:{}", self.admin_port)),
            ("REDIS__URL", self.redis()),
            ("TICKETS__SECRET", SECRET.to_owned()),
            (
                "API_KEYS",
                format!(r#"[{{"sha256":"{digest}","scopes":["publish","tickets","admin"]}}]"#),
            ),
            ("LOG__LEVEL", "warn".to_owned()),
        ];
        for (key, value) in &defaults {
            gateway.env(format!("SSE_GATEWAY__{key}"), value);
        }
        for (key, value) in settings {
            gateway.env(format!("SSE_GATEWAY__{key}"), value);
        }
        let log = std::fs::File::create(self.dir.join("log")).unwrap();
        wait_for("redis-server", || TcpStream::connect(("127.0.0.1", self.redis_port)).is_ok());
        let gateway = gateway
            .arg("serve")
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .kill_on_parent_exit()
            .spawn()
            .unwrap();
        self.children.push(gateway);
        let started = Instant::now();
        while !self.admin("/readyz").starts_with("HTTP/1.1 200") {
            let log = std::fs::read_to_string(self.dir.join("log")).unwrap();
            assert!(
                self.children[1].try_wait().unwrap().is_none() && started.elapsed() < START_TIMEOUT,
                "the gateway is not ready:\n{log}"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        self
    }

    /// Runs the tool with the gateway's secret. Returns report, exit status and standard error.
    pub fn run_tool(&self, options: &str) -> (Value, i32, String) {
        finish(self.tool(&format!("--secret-file {} {options}", self.file("secret"))))
    }

    /// Returns the report of a run that must succeed.
    pub fn report(&self, options: &str) -> Value {
        let (report, status, error) = self.run_tool(options);
        assert_eq!(status, 0, "{error}\n{report:#}");
        report
    }

    /// Starts the tool with space-separated options; the scenario may be at any position.
    pub fn tool(&self, options: &str) -> Child {
        let scheme = if self.tls { "https" } else { "http" };
        let url = format!("{scheme}://127.0.0.1:{}/events", self.port);
        let pid = self.children[1].id().to_string();
        let (scenario, options): (Vec<_>, Vec<_>) =
            options.split_whitespace().partition(|word| SCENARIOS.contains(word));
        Command::new(env!("CARGO_BIN_EXE_loadtest"))
            .args(scenario)
            .args(["--url", &url, "--redis", &self.redis(), "--server-pid", &pid, "--json", "-"])
            .args(["--settle", "200ms"])
            .args(options)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_parent_exit()
            .spawn()
            .unwrap()
    }

    /// Returns the path of a file: `secret`, `wrong-secret`, `api-key`, `ca.pem`.
    pub fn file(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    /// Returns the value of a gateway metric, given by name and labels.
    pub fn metric(&self, line: &str) -> f64 {
        let text = self.admin("/metrics");
        text.lines().find_map(|found| found.strip_prefix(line)?.trim().parse().ok()).unwrap_or(0.0)
    }

    fn redis(&self) -> String {
        format!("redis://127.0.0.1:{}", self.redis_port)
    }

    fn admin(&self, path: &str) -> String {
        let mut text = String::new();
        if let Ok(mut socket) = TcpStream::connect(("127.0.0.1", self.admin_port)) {
            let _ = write!(
                socket,
                "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
            );
            let _ = std::io::Read::read_to_string(&mut socket, &mut text);
        }
        text
    }

    /// Creates `server.pem` and `server.key` for 127.0.0.1, signed by `ca.pem`.
    fn certificate(&self) {
        std::fs::write(self.dir.join("ext"), "subjectAltName=IP:127.0.0.1\n").unwrap();
        const EC: &str = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
        for line in [
            format!("req -x509 -days 2 -subj /CN=authority -keyout ca.key -out ca.pem {EC}"),
            format!("req -subj /CN=127.0.0.1 -keyout server.key -out server.csr {EC}"),
            "x509 -req -days 2 -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial \
             -extfile ext -out server.pem"
                .to_owned(),
        ] {
            let done =
                Command::new("openssl").args(line.split(' ')).current_dir(&self.dir).output();
            let done = done.expect("openssl must be on the PATH (apt-get install openssl)");
            assert!(
                done.status.success(),
                "openssl {line}: {}",
                String::from_utf8_lossy(&done.stderr)
            );
        }
    }
}

impl Drop for Harness {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

const SCENARIOS: [&str; 8] =
    ["idle", "broadcast", "users", "mixed", "storm", "stalled", "churn", "slow-publish"];

/// Waits for the tool. Returns report, exit status and standard error.
pub fn finish(tool: Child) -> (Value, i32, String) {
    let output = tool.wait_with_output().unwrap();
    let report = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    (
        report,
        output.status.code().expect("an exit status"),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

fn gateway_binary() -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_loadtest")).with_file_name("sse-gateway");
    let binary = std::env::var_os("SSE_GATEWAY_BIN").map_or(path, PathBuf::from);
    assert!(
        binary.exists(),
        "{} does not exist: run `cargo build --workspace`, or set SSE_GATEWAY_BIN",
        binary.display()
    );
    binary
}

fn sha256(text: &str) -> String {
    let mut child =
        Command::new("sha256sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    String::from_utf8_lossy(&output.stdout)[..64].to_owned()
}

fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < START_TIMEOUT, "{what} did not start");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Finds a port below the range of local ports for outgoing connections.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = (std::process::id() * 89 % 9_000) as u16;
    let candidates =
        (0..1000).map(|_| 22_000 + (first + NEXT.fetch_add(1, Ordering::Relaxed) * 7) % 10_000);
    candidates
        .into_iter()
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("a free port")
}

trait KillOnParentExit {
    fn kill_on_parent_exit(&mut self) -> &mut Self;
}

impl KillOnParentExit for Command {
    fn kill_on_parent_exit(&mut self) -> &mut Self {
        // SAFETY: only calls prctl between fork and exec.
        unsafe {
            self.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            })
        }
    }
}

//! Servers of the benchmark: how to find, start, subscribe to and publish to each.

use std::fs::{self, File};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use clap::Parser;
use jsonwebtoken::{EncodingKey, Header};

use super::Size;
use super::machine::first_line;
use crate::args::{Cli, Command as CliCommand, Common};

/// Maximum time until a server listens.
const START_TIMEOUT: Duration = Duration::from_secs(20);
const SECRET: &str = "a key of the benchmark, not used anywhere else";
/// Must match `peers/Caddyfile`.
const MERCURE_KEY: &str = "bench-bench-bench-bench-bench-bench";

/// Name of the gateway.
pub const GATEWAY: &str = "sse-gateway";

/// Server of the benchmark.
pub struct Server {
    /// Name of the server.
    pub name: &'static str,
    /// Description for readers.
    pub what: &'static str,
    /// Returns the version, or the reason why the server cannot be measured.
    pub version: fn() -> Result<String, String>,
    /// Start command for readers.
    pub started_by: &'static str,
    /// Starts the processes in a directory and on a port; the measured process is the last one.
    start: fn(&Path, u16) -> Result<Vec<Child>, String>,
    /// Options of loadtest for subscribing and publishing, in which `__PORT__`, `__REDIS_PORT__`,
    /// `__DIR__` and `__TOKEN__` are replaced.
    options: &'static [&'static str],
}

/// All servers. The port of Redis is always one above that of the server.
pub const SERVERS: [Server; 6] = [
    Server {
        name: GATEWAY,
        what: "this gateway: tickets, users, topics, event ids, log and resume, through Redis \
               (durable publish)",
        version: || sibling_binary("sse-gateway").and_then(|binary| version(&binary, "--version")),
        started_by: "redis-server --save '' --appendonly no --maxmemory-policy noeviction; \
                     SSE_GATEWAY__LIMITS__MAX_CONNECTIONS=19000 sse-gateway serve \
                     (otherwise default settings)",
        start: gateway,
        options: &[
            "--url",
            "http://127.0.0.1:__PORT__/events",
            "--secret-file",
            "__DIR__/secret",
            "--redis",
            "redis://127.0.0.1:__REDIS_PORT__",
        ],
    },
    Server {
        name: "plain-actix",
        what: "yardstick: actix-web, one broadcast channel read by all streams; one process, \
               no Redis, no tickets, no resume",
        version: || sibling_binary("yardstick-actix").map(|_| "actix-web 4".to_owned()),
        started_by: "yardstick-actix (2 workers)",
        start: |dir, port| yardstick("yardstick-actix", dir, port),
        options: YARDSTICK,
    },
    Server {
        name: "send-loop",
        what: "yardstick: a loop of send() over all sockets, the minimum cost of a delivery",
        version: || sibling_binary("yardstick-send").map(|_| "-".to_owned()),
        started_by: "yardstick-send (1 thread)",
        start: |dir, port| yardstick("yardstick-send", dir, port),
        options: YARDSTICK,
    },
    Server {
        name: "nchan",
        what: "Nchan in nginx, channels in Redis (distributed); no tickets",
        version: nchan_version,
        started_by: "redis-server as above; nginx -c loadtest/peers/nchan.conf",
        start: nchan,
        options: &[
            "--kind",
            "plain",
            "--url",
            "http://127.0.0.1:__PORT__/events/load",
            "--header",
            "Accept: text/event-stream",
            "--publish",
            "post",
            "--publish-url",
            "http://127.0.0.1:__PORT__/publish/load",
            "--redis",
            "redis://127.0.0.1:__REDIS_PORT__",
        ],
    },
    Server {
        name: "centrifugo",
        what: "Centrifugo, unidirectional SSE, Redis engine; anonymous clients",
        version: || version(Path::new("centrifugo"), "version"),
        started_by: "redis-server as above; centrifugo -c loadtest/peers/centrifugo.json",
        start: centrifugo,
        options: &[
            "--kind",
            "plain",
            "--url",
            "http://127.0.0.1:__PORT__/connection/uni_sse?cf_connect=%7B%22subs%22%3A%7B%22load%22%3A%7B%7D%7D%7D",
            "--publish",
            "post",
            "--publish-url",
            "http://127.0.0.1:__PORT__/api/publish",
            "--post-body",
            r#"{"channel":"load","data":{payload}}"#,
            "--redis",
            "redis://127.0.0.1:__REDIS_PORT__",
            "--post-header",
            "X-API-Key: bench",
            "--post-header",
            "Content-Type: application/json",
        ],
    },
    Server {
        name: "mercure",
        what: "Mercure hub, one node with Bolt (the open-source hub does not support Redis); \
               anonymous clients",
        version: || version(Path::new("mercure"), "version"),
        started_by: "mercure run --adapter caddyfile --config loadtest/peers/Caddyfile",
        start: mercure,
        options: &[
            "--kind",
            "plain",
            "--url",
            "http://127.0.0.1:__PORT__/.well-known/mercure?topic=load",
            "--publish",
            "post",
            "--publish-url",
            "http://127.0.0.1:__PORT__/.well-known/mercure",
            "--post-body",
            "topic=load&data={payload}",
            "--post-header",
            "Authorization: Bearer __TOKEN__",
            "--post-header",
            "Content-Type: application/x-www-form-urlencoded",
        ],
    },
];

const YARDSTICK: &[&str] = &[
    "--kind",
    "plain",
    "--url",
    "http://127.0.0.1:__PORT__/events",
    "--publish",
    "post",
    "--publish-url",
    "http://127.0.0.1:__PORT__/publish",
];

fn load_options(size: &Size) -> Vec<String> {
    let text = format!(
        "--rate {} --payload-bytes {} --duration {}s --settle 1s",
        size.rate, size.payload_bytes, size.load_s
    );
    text.split(' ').map(str::to_owned).collect()
}

/// Formats the loadtest command that measures a server.
pub fn command(server: &Server, size: &Size) -> String {
    let most = size.streams.last().copied().unwrap_or_default().to_string();
    let mut words = vec!["loadtest broadcast -n".to_owned(), most];
    let quoted = |word: &&str| {
        let plain = word.chars().all(|c| c.is_ascii_alphanumeric() || "-_:/.,=%".contains(c));
        if plain { (*word).to_owned() } else { format!("'{word}'") }
    };
    words.extend(server.options.iter().map(quoted));
    words.extend(["--server-pid".to_owned(), "PID".to_owned()]);
    words.extend(load_options(size));
    words.join(" ")
}

/// Running server with its helper processes. Dropping it stops them and deletes the directory.
pub struct RunningServer {
    processes: Vec<Child>,
    dir: PathBuf,
    port: u16,
    options: &'static [&'static str],
}

/// Starts a server and waits until it listens.
pub fn start(server: &Server) -> Result<RunningServer, String> {
    let port = free_ports()?;
    let dir = std::env::temp_dir().join(format!("loadtest-{}-{port}", std::process::id()));
    fs::create_dir_all(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    let mut running = RunningServer { processes: Vec::new(), dir, port, options: server.options };
    running.processes = (server.start)(&running.dir, port)?;
    wait_until_listening(port).map_err(|error| format!("{error}\n{}", running.log()))?;
    // The memory of the empty server is measured next, so its startup must be complete (Redis link,
    // workers). There is no event to wait for.
    std::thread::sleep(Duration::from_secs(2));
    Ok(running)
}

impl RunningServer {
    /// Returns the options of loadtest for the load of a benchmark.
    pub fn options(&self, size: &Size) -> Common {
        self.parsed(load_options(size))
    }

    /// Returns the options of loadtest for this server.
    pub fn common(&self) -> Common {
        self.parsed(Vec::new())
    }

    fn parsed(&self, more: Vec<String>) -> Common {
        let mut line = vec!["loadtest".to_owned(), "broadcast".to_owned()];
        line.extend(self.options.iter().map(|option| self.fill_placeholders(option)));
        line.extend(["--server-pid".to_owned(), self.pid().to_string()]);
        line.extend(more);
        match Cli::parse_from(line).command {
            CliCommand::Broadcast(common) => common,
            _ => unreachable!("the command line above says broadcast"),
        }
    }

    fn fill_placeholders(&self, option: &str) -> String {
        let mut filled = fill_placeholders(option, &self.dir, self.port);
        if filled.contains("__TOKEN__") {
            let claims = serde_json::json!({ "mercure": { "publish": ["*"] } });
            let token = jsonwebtoken::encode(
                &Header::default(),
                &claims,
                &EncodingKey::from_secret(MERCURE_KEY.as_bytes()),
            );
            filled = filled.replace("__TOKEN__", &token.unwrap_or_default());
        }
        filled
    }

    /// Returns the id of the measured process.
    pub fn pid(&self) -> u32 {
        self.processes.last().map(Child::id).unwrap_or_default()
    }

    /// Returns the output of the processes.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }
}

impl Drop for RunningServer {
    fn drop(&mut self) {
        for process in &mut self.processes {
            // SAFETY: signals a child that has not been waited for. The nginx master stops its
            // workers.
            unsafe { libc::kill(process.id().cast_signed(), libc::SIGTERM) };
            let end = Instant::now() + Duration::from_secs(2);
            while matches!(process.try_wait(), Ok(None)) && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(20));
            }
            let _ = process.kill();
            let _ = process.wait();
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn fill_placeholders(text: &str, dir: &Path, port: u16) -> String {
    let redis = (port + 1).to_string();
    text.replace("__DIR__", &dir.display().to_string())
        .replace("__PORT__", &port.to_string())
        .replace("__REDIS_PORT__", &redis)
}

/// Finds two adjacent free ports below the range of local ports for outgoing connections.
fn free_ports() -> Result<u16, String> {
    let free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    let candidates = (0..100).map(|_| fastrand::u16(10_000..16_000) * 2);
    candidates
        .into_iter()
        .find(|port| free(*port) && free(*port + 1))
        .ok_or("no two adjacent free ports found".to_owned())
}

fn wait_until_listening(port: u16) -> Result<(), String> {
    let end = Instant::now() + START_TIMEOUT;
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        if Instant::now() > end {
            return Err(format!("the server does not listen after {} s", START_TIMEOUT.as_secs()));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// Returns the path of a binary built together with this one.
fn sibling_binary(name: &str) -> Result<PathBuf, String> {
    let path = std::env::current_exe().map_err(|error| error.to_string())?.with_file_name(name);
    if path.exists() {
        Ok(path)
    } else {
        Err(format!("{} does not exist: run cargo build --release --workspace", path.display()))
    }
}

fn version(binary: &Path, argument: &str) -> Result<String, String> {
    first_line(&binary.display().to_string(), &[argument])
        .ok_or_else(|| format!("{} is not on the PATH", binary.display()))
}

fn spawn(dir: &Path, command: &mut Command) -> Result<Child, String> {
    let program = command.get_program().display().to_string();
    let failed = |error: std::io::Error| format!("{program}: {error}");
    let log = File::options().create(true).append(true).open(dir.join("log")).map_err(failed)?;
    let errors = log.try_clone().map_err(failed)?;
    // SAFETY: only sets a flag between fork and exec. The servers end with this tool, however it
    // ends.
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM);
            Ok(())
        })
    };
    command.stdin(Stdio::null()).stdout(log).stderr(errors).spawn().map_err(failed)
}

fn redis(dir: &Path, port: u16) -> Result<Child, String> {
    let port = port + 1;
    let options = [
        "--bind",
        "127.0.0.1",
        "--save",
        "",
        "--appendonly",
        "no",
        "--maxmemory-policy",
        "noeviction",
        "--port",
    ];
    let child = spawn(
        dir,
        Command::new("redis-server").args(options).arg(port.to_string()).current_dir(dir),
    )?;
    wait_until_listening(port)?;
    Ok(child)
}

fn gateway(dir: &Path, port: u16) -> Result<Vec<Child>, String> {
    fs::write(dir.join("secret"), SECRET).map_err(|error| error.to_string())?;
    let redis_child = redis(dir, port)?;
    let mut command = Command::new(sibling_binary("sse-gateway")?);
    command.arg("serve").env("SSE_GATEWAY__REDIS__URL", format!("redis://127.0.0.1:{}", port + 1));
    command
        .env("SSE_GATEWAY__SERVER__LISTEN", format!("127.0.0.1:{port}"))
        .env("SSE_GATEWAY__ADMIN__LISTEN", "127.0.0.1:0");
    command
        .env("SSE_GATEWAY__TICKETS__SECRET_FILE", dir.join("secret"))
        .env("SSE_GATEWAY__LIMITS__MAX_CONNECTIONS", "19000");
    command.env("SSE_GATEWAY__DRAIN__DELAY", "0s").env("SSE_GATEWAY__DRAIN__WINDOW", "0s");
    Ok(vec![redis_child, spawn(dir, &mut command)?])
}

fn yardstick(name: &str, dir: &Path, port: u16) -> Result<Vec<Child>, String> {
    Ok(vec![spawn(
        dir,
        Command::new(sibling_binary(name)?).args(["--listen", &format!("127.0.0.1:{port}")]),
    )?])
}

/// Writes the configuration of a peer and returns its path.
fn write_config(text: &str, name: &str, dir: &Path, port: u16) -> Result<PathBuf, String> {
    let file = dir.join(name);
    fs::write(&file, fill_placeholders(text, dir, port))
        .map_err(|error| format!("{}: {error}", file.display()))?;
    Ok(file)
}

fn nchan_version() -> Result<String, String> {
    let nginx = version(Path::new("nginx"), "-v")?;
    let package = first_line("dpkg-query", &["-W", "-f", "${Version}\n", "libnginx-mod-nchan"])
        .filter(|line| !line.starts_with("dpkg-query"));
    let package = package.ok_or(
        "libnginx-mod-nchan is not installed (apt-get install libnginx-mod-nchan nginx-light)",
    )?;
    Ok(format!("{}, libnginx-mod-nchan {package}", nginx.trim_start_matches("nginx version: ")))
}

fn nchan(dir: &Path, port: u16) -> Result<Vec<Child>, String> {
    let redis_child = redis(dir, port)?;
    let file = write_config(include_str!("../../peers/nchan.conf"), "nginx.conf", dir, port)?;
    Ok(vec![redis_child, spawn(dir, Command::new("nginx").arg("-p").arg(dir).arg("-c").arg(file))?])
}

fn centrifugo(dir: &Path, port: u16) -> Result<Vec<Child>, String> {
    let redis_child = redis(dir, port)?;
    let file =
        write_config(include_str!("../../peers/centrifugo.json"), "centrifugo.json", dir, port)?;
    Ok(vec![redis_child, spawn(dir, Command::new("centrifugo").arg("-c").arg(file))?])
}

fn mercure(dir: &Path, port: u16) -> Result<Vec<Child>, String> {
    let file = write_config(include_str!("../../peers/Caddyfile"), "Caddyfile", dir, port)?;
    Ok(vec![spawn(
        dir,
        Command::new("mercure")
            .args(["run", "--adapter", "caddyfile", "--config"])
            .arg(file)
            .env("HOME", dir),
    )?])
}

//! Running servers: starts and stops the processes, and creates the options of loadtest for them.

use std::fs::{self, File};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use clap::Parser;
use jsonwebtoken::{EncodingKey, Header};

use super::Server;
use crate::args::{Cli, Command as CliCommand, Common};
use crate::bench::machine::first_line;
use crate::bench::workload::{Size, Workload};

/// Maximum time until a server listens.
const START_TIMEOUT: Duration = Duration::from_secs(20);
/// Key of the gateway's tickets.
pub(super) const SECRET: &str = "a key of the benchmark, not used anywhere else";
/// Key of the peers' tokens; must match the files in `peers/`.
pub(super) const PEER_KEY: &str = "bench-bench-bench-bench-bench-bench";

/// Running server with its helper processes. Dropping it stops them and deletes the directory.
pub struct RunningServer {
    server: &'static Server,
    processes: Vec<Child>,
    dir: PathBuf,
    port: u16,
}

/// Starts a server and waits until it listens.
pub fn start(server: &'static Server) -> Result<RunningServer, String> {
    let port = free_ports()?;
    let dir = std::env::temp_dir().join(format!("loadtest-{}-{port}", std::process::id()));
    fs::create_dir_all(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    let mut running = RunningServer { server, processes: Vec::new(), dir, port };
    running.processes = (server.start)(&running.dir, port)?;
    wait_until_listening(port).map_err(|error| format!("{error}\n{}", running.log()))?;
    // The memory of the empty server is measured next, so its startup must be complete (Redis link,
    // workers). There is no event to wait for.
    std::thread::sleep(Duration::from_secs(2));
    Ok(running)
}

impl RunningServer {
    /// Returns the command of loadtest that measures a scenario.
    pub fn command(&self, workload: Workload, size: &Size) -> CliCommand {
        self.parsed(workload, &size.options(workload))
    }

    /// Returns the options of loadtest for this server.
    pub fn common(&self) -> Common {
        match self.parsed(Workload::Broadcast, "broadcast") {
            CliCommand::Broadcast(common) => common,
            _ => unreachable!("the command line above says broadcast"),
        }
    }

    fn parsed(&self, workload: Workload, scenario: &str) -> CliCommand {
        let mut line = vec!["loadtest".to_owned()];
        line.extend(scenario.split_whitespace().map(str::to_owned));
        line.extend(self.server.options(workload).iter().map(|option| self.filled(option)));
        line.extend(["--server-pid".to_owned(), self.pid().to_string()]);
        Cli::parse_from(line).command
    }

    fn filled(&self, option: &str) -> String {
        /// 2100-01-01.
        const EXPIRY_S: u64 = 4_102_444_800;
        let mut filled = fill_placeholders(option, &self.dir, self.port);
        if filled.contains("__TOKEN__") {
            // Mercure reads `mercure`, AnyCable `ext`.
            let claims = serde_json::json!({
                "mercure": { "publish": ["*"] },
                "ext": r#"{"user":"bench"}"#,
                "exp": EXPIRY_S,
            });
            let key = EncodingKey::from_secret(PEER_KEY.as_bytes());
            let token = jsonwebtoken::encode(&Header::default(), &claims, &key);
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

pub(super) fn fill_placeholders(text: &str, dir: &Path, port: u16) -> String {
    text.replace("__DIR__", &dir.display().to_string())
        .replace("__PORT__", &port.to_string())
        .replace("__REDIS_PORT__", &redis_port(port).to_string())
        .replace("__CONTROL_PORT__", &control_port(port).to_string())
}

/// Finds adjacent free ports below the range of local ports for outgoing connections: of the
/// server, of its Redis or control port, and of its origin.
fn free_ports() -> Result<u16, String> {
    let free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    let candidates = (0..100).map(|_| fastrand::u16(5_000..8_000) * 4);
    candidates
        .into_iter()
        .find(|port| free(*port) && free(redis_port(*port)) && free(origin_port(*port)))
        .ok_or("no three adjacent free ports found".to_owned())
}

/// Returns the port of the Redis of the server on `port`.
fn redis_port(port: u16) -> u16 {
    port + 1
}

/// Returns the control port of the server on `port`, which needs no Redis.
pub(super) fn control_port(port: u16) -> u16 {
    port + 1
}

/// Returns the port of the origin of the server on `port`.
pub(super) fn origin_port(port: u16) -> u16 {
    port + 2
}

/// Waits until a port accepts connections.
pub(super) fn wait_until_listening(port: u16) -> Result<(), String> {
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
pub(super) fn sibling_binary(name: &str) -> Result<PathBuf, String> {
    let path = std::env::current_exe().map_err(|error| error.to_string())?.with_file_name(name);
    if path.exists() {
        Ok(path)
    } else {
        Err(format!("{} does not exist: run cargo build --release --workspace", path.display()))
    }
}

pub(super) fn version(binary: &Path, argument: &str) -> Result<String, String> {
    first_line(&binary.display().to_string(), &[argument])
        .ok_or_else(|| format!("{} is not on the PATH", binary.display()))
}

pub(super) fn spawn(dir: &Path, command: &mut Command) -> Result<Child, String> {
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

/// Returns the URL of the Redis of the server on `port`.
pub(super) fn redis_url(port: u16) -> String {
    format!("redis://127.0.0.1:{}", redis_port(port))
}

pub(super) fn redis(dir: &Path, port: u16) -> Result<Child, String> {
    let port = redis_port(port);
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

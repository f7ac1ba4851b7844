//! A private Redis server: a child process on a free port, without files.

use std::{
    io,
    net::{Ipv4Addr, TcpListener},
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

const START: Duration = Duration::from_secs(10);
/// Another process may take the free port first.
const ATTEMPTS: usize = 5;

/// A running server. It ends when this value is dropped, and when this process ends for any reason.
pub struct PrivateRedis {
    child: Child,
    port: u16,
}

impl PrivateRedis {
    /// Starts `redis-server` or `valkey-server` and waits until it responds. Call this on the main
    /// thread: the server ends with the thread that started it.
    ///
    /// # Errors
    /// No server could be started; the text names the fix.
    pub fn start() -> Result<Self, String> {
        let mut last = String::new();
        for _ in 0..ATTEMPTS {
            match Self::attempt() {
                Ok(redis) => return Ok(redis),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    return Err("neither redis-server nor valkey-server is installed; run \
                                `apt-get install redis-server`, or set --redis"
                        .to_owned());
                }
                Err(e) => last = e.to_string(),
            }
        }
        Err(format!(
            "could not start a private Redis ({last}); install redis-server, or use --redis URL"
        ))
    }

    /// URL of the server.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    fn attempt() -> io::Result<Self> {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let child = match spawn("redis-server", port) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => spawn("valkey-server", port)?,
            other => other?,
        };
        let mut redis = Self { child, port };
        redis.wait()?;
        Ok(redis)
    }

    fn wait(&mut self) -> io::Result<()> {
        let client = redis::Client::open(self.url()).map_err(io::Error::other)?;
        let until = Instant::now() + START;
        while Instant::now() < until {
            if let Some(status) = self.child.try_wait()? {
                return Err(io::Error::other(format!("the server ended with {status}")));
            }
            if client
                .get_connection()
                .is_ok_and(|mut c| redis::cmd("PING").query::<String>(&mut c).is_ok())
            {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Err(io::Error::other("the server does not respond"))
    }
}

impl Drop for PrivateRedis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(program: &str, port: u16) -> io::Result<Child> {
    let mut command = Command::new(program);
    command
        .args([
            "--port",
            &port.to_string(),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
            "--dir",
            "/",
        ])
        .args(["--maxmemory-policy", "noeviction"])
        // deploy/redis/redis.conf explains this limit.
        .args(["--proto-max-bulk-len", "1mb"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // Ctrl-C must reach only the gateway, which drains first.
        .process_group(0);
    let parent = std::process::id() as libc::pid_t;
    // SAFETY: prctl and getppid are async-signal-safe and touch nothing of this process.
    unsafe {
        command.pre_exec(move || match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
            // The parent may have ended before prctl took effect.
            0 if libc::getppid() == parent => Ok(()),
            0 => Err(io::ErrorKind::BrokenPipe.into()),
            _ => Err(io::Error::last_os_error()),
        });
    }
    command.spawn()
}

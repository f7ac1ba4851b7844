//! A real Redis for `dev`: a child process on a free port, without files.

use std::{
    io,
    net::{Ipv4Addr, TcpListener},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use super::death::ends_with_parent;

const START: Duration = Duration::from_secs(10);
/// Interval at which [`PrivateRedis::keep`] looks whether it has ended.
const CHECK: Duration = Duration::from_secs(1);
/// Number of attempts: another process may take the free port first.
const ATTEMPTS: usize = 5;

/// Why there is no private Redis.
#[derive(Debug, thiserror::Error)]
pub enum PrivateRedisError {
    /// There is no server program.
    #[error(
        "neither redis-server nor valkey-server is installed; run `apt-get install redis-server`, \
         or set --redis"
    )]
    NotInstalled,
    /// The system has no free port.
    #[error("no private Redis could be started, because there is no free port; set --redis URL")]
    NoPort(#[source] io::Error),
    /// The server ended, or did not reply in time.
    #[error("no private Redis could be started at 127.0.0.1:{port}; set --redis URL")]
    NotStarted {
        /// Its port.
        port: u16,
        /// The reason.
        source: io::Error,
    },
}

/// A Redis process. It is killed when this value is dropped, and when this process ends in any way.
pub struct PrivateRedis {
    child: Child,
    program: &'static str,
    port: u16,
}

impl PrivateRedis {
    /// Starts `redis-server` or `valkey-server` and waits until it replies. Must be called on the
    /// main thread: the child ends with the thread that started it.
    ///
    /// # Errors
    /// See [`PrivateRedisError`].
    pub fn start() -> Result<Self, PrivateRedisError> {
        let mut attempts = 0;
        loop {
            attempts += 1;
            match Self::attempt() {
                Err(PrivateRedisError::NotStarted { .. }) if attempts < ATTEMPTS => {}
                result => return result,
            }
        }
    }

    /// The URL of the Redis.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Starts it again whenever it ends, at the same port and without data. Must run on the main
    /// thread.
    pub async fn keep(mut self) {
        loop {
            tokio::time::sleep(CHECK).await;
            if let Ok(None) = self.child.try_wait() {
                continue;
            }
            eprintln!("the private Redis has ended; starting it again without its data");
            if let Ok(child) = spawn(self.program, self.port) {
                self.child = child;
            }
        }
    }

    fn attempt() -> Result<Self, PrivateRedisError> {
        let port = free_port().map_err(PrivateRedisError::NoPort)?;
        let (program, child) = match spawn("redis-server", port) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                ("valkey-server", spawn("valkey-server", port))
            }
            other => ("redis-server", other),
        };
        let not_started = |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound => PrivateRedisError::NotInstalled,
            _ => PrivateRedisError::NotStarted { port, source },
        };
        let mut redis = Self { child: child.map_err(not_started)?, program, port };
        redis.wait().map_err(|source| PrivateRedisError::NotStarted { port, source })?;
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
        Err(io::Error::other(format!("no reply within {START:?}")))
    }
}

impl Drop for PrivateRedis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
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
        .stderr(Stdio::null());
    ends_with_parent(&mut command).spawn()
}

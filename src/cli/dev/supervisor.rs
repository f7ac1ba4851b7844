//! Starts the two gateways, and starts one again after it has ended.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    os::unix::process::CommandExt,
    process::{Command, ExitCode, Stdio},
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Child,
    sync::watch,
    time::sleep,
};

use super::{
    balancer::forward_all,
    death::ends_with_parent,
    gateway::{Instance, Ready},
    private_redis::PrivateRedis,
    settings::variable,
};
use crate::app::signals::Signals;

/// Time until a gateway that has ended is started again: long enough to see that the other one
/// suffices.
const RESTART: Duration = Duration::from_secs(2);
/// Exit status after a second signal.
const EXIT_SECOND_SIGNAL: i32 = 130;
const NUMBERS: [u8; 2] = [1, 2];

/// Keeps two gateways running.
pub struct Supervisor {
    /// Variables of both gateways.
    pub environment: Vec<(String, String)>,
    /// What both have in common.
    pub instance: Instance,
    /// Address of the first gateway's admin listener.
    pub admin_listen: SocketAddr,
    /// Unless another Redis is used.
    pub redis: Option<PrivateRedis>,
}

/// `dev` could not start.
#[derive(Debug, thiserror::Error)]
pub enum SupervisorError {
    /// Signals, or the listener, cannot be used.
    #[error("the listener and the handlers of signals could not be set up")]
    SetUp(#[source] io::Error),
    /// This program cannot be run as a child process.
    #[error("a gateway could not be started")]
    Start(#[source] io::Error),
}

/// How a gateway ended that was not to be started again.
type Ended = Result<(), ExitCode>;

impl Supervisor {
    /// Runs until a signal, then ends the gateways. `ready` is called when both are ready, with the
    /// address of the page.
    ///
    /// # Errors
    /// See [`SupervisorError`].
    pub fn run(
        self,
        listener: TcpListener,
        ready: impl FnOnce(SocketAddr, &[Ready]) + Send + 'static,
    ) -> Result<ExitCode, SupervisorError> {
        // On this thread: children end with the thread that started them.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.map_err(SupervisorError::SetUp)?.block_on(self.supervise(listener, ready))
    }

    async fn supervise(
        mut self,
        listener: TcpListener,
        ready: impl FnOnce(SocketAddr, &[Ready]) + Send + 'static,
    ) -> Result<ExitCode, SupervisorError> {
        let signals = Signals::listen().map_err(SupervisorError::SetUp)?;
        listener.set_nonblocking(true).map_err(SupervisorError::SetUp)?;
        let listener = tokio::net::TcpListener::from_std(listener);
        let listener = listener.map_err(SupervisorError::SetUp)?;
        let public = listener.local_addr().map_err(SupervisorError::SetUp)?;
        let pool = watch::Sender::new(Vec::new());
        let stop = watch::Sender::new(false);
        self.redis.take().map(|redis| tokio::spawn(redis.keep()));
        tokio::spawn(forward_all(listener, pool.subscribe()));
        tokio::spawn(announce(pool.subscribe(), move |gateways| ready(public, gateways)));
        tokio::spawn(stop_at_signal(signals, stop.clone()));
        let [first, second] = NUMBERS.map(|number| self.keep(number, &pool, &stop));
        Ok(match tokio::try_join!(first, second)? {
            (Ok(()), Ok(())) => ExitCode::SUCCESS,
            (Err(status), _) | (_, Err(status)) => status,
        })
    }

    /// Runs a gateway, and starts it again whenever it ends, until `stop`. If it ends before it was
    /// ever ready, stops everything: it has printed the reason.
    async fn keep(
        &self,
        number: u8,
        pool: &watch::Sender<Vec<Ready>>,
        stop: &watch::Sender<bool>,
    ) -> Result<Ended, SupervisorError> {
        let mut stopped = stop.subscribe();
        let mut stopped = async || drop(stopped.wait_for(|stop| *stop).await);
        let mut admin = if number == 1 { self.admin_listen } else { ([127, 0, 0, 1], 0).into() };
        let mut was_ready = false;
        loop {
            let mut child = self.start(number, admin)?;
            let ended = tokio::select! {
                ended = serve(&mut child, pool, |ready| {
                    was_ready = true;
                    // The printed address remains valid.
                    admin = ready.admin;
                }) => Some(ended),
                () = stopped() => None,
            };
            pool.send_modify(|ready| ready.retain(|gateway| gateway.number != number));
            let Some(status) = ended else {
                return terminate(child).await.map(Ok).map_err(SupervisorError::Start);
            };
            if !was_ready {
                stop.send_replace(true);
                return Ok(Err(status));
            }
            tokio::select! {
                () = sleep(RESTART) => {}
                () = stopped() => return Ok(Ok(())),
            }
        }
    }

    fn start(&self, number: u8, admin: SocketAddr) -> Result<Child, SupervisorError> {
        // Also if the file of this program has been replaced meanwhile.
        let mut command = Command::new("/proc/self/exe");
        let (name, value) = Instance { number, ..self.instance.clone() }.variable();
        command
            .arg0("sse-gateway")
            .arg("dev")
            .envs(self.environment.iter().cloned())
            .env(variable("ADMIN__LISTEN"), admin.to_string())
            .env(name, value)
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        ends_with_parent(&mut command);
        tokio::process::Command::from(command).spawn().map_err(SupervisorError::Start)
    }
}

/// Calls `both_ready` once, with the gateways in the order of their numbers.
async fn announce(mut pool: watch::Receiver<Vec<Ready>>, both_ready: impl FnOnce(&[Ready])) {
    if let Ok(gateways) = pool.wait_for(|ready| ready.len() == NUMBERS.len()).await {
        let mut gateways = gateways.clone();
        gateways.sort_by_key(|gateway| gateway.number);
        both_ready(&gateways);
    }
}

/// The first signal stops everything in order, the second one at once.
async fn stop_at_signal(mut signals: Signals, stop: watch::Sender<bool>) {
    signals.next().await;
    stop.send_replace(true);
    signals.next().await;
    std::process::exit(EXIT_SECOND_SIGNAL);
}

/// Adds a gateway to the pool when it is ready, and waits until it ends.
async fn serve(
    child: &mut Child,
    pool: &watch::Sender<Vec<Ready>>,
    on_ready: impl FnOnce(Ready),
) -> ExitCode {
    if let Some(ready) = ready(child).await {
        on_ready(ready);
        pool.send_modify(|all| all.push(ready));
    }
    let code = child.wait().await.ok().and_then(|status| status.code());
    code.and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from)
}

async fn ready(child: &mut Child) -> Option<Ready> {
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut()?).read_line(&mut line).await.ok()?;
    serde_json::from_str(&line).ok()
}

/// Lets a gateway drain.
async fn terminate(mut child: Child) -> io::Result<()> {
    if let Some(id) = child.id() {
        // SAFETY: kill has no preconditions. The child was not waited for, so its id is its own.
        unsafe { libc::kill(id as libc::pid_t, libc::SIGTERM) };
    }
    child.wait().await.map(drop)
}

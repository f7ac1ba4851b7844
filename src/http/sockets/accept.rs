//! Accepts the connections of one worker. All workers accept from the same socket, so a busy or
//! frozen worker does not delay new connections. With one socket per worker (SO_REUSEPORT), queued
//! connections would wait for their worker and be reset when it closes its socket. In exchange,
//! each connection wakes all sleeping workers.

use std::{
    future::poll_fn,
    io,
    net::{SocketAddr, TcpListener as StdTcpListener},
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use mio::net::{TcpListener, TcpStream};
use tokio::io::{Interest, unix::AsyncFd};

use super::{
    budget::{Granted, SocketBudget, WorkerLoad, WorkerSlots},
    tcp::{self, ClientTcp},
};
use crate::log_limit::LogLimit;

/// Minimum time between two log lines about failures, for all workers together.
pub const LOG_INTERVAL_MS: u64 = 10_000;
/// Pause after a failure that would occur again at once.
const PAUSE: Duration = Duration::from_millis(50);
/// Time for which a worker with more sockets lets the others accept first.
const YIELD: Duration = Duration::from_millis(5);
/// Number of idle sockets to close when the system is out of descriptors or memory.
const EVICTED_AT_ONCE: usize = 8;
/// Number of connections to accept before the worker's other tasks run.
const BATCH: usize = 16;

/// Accepts for one worker.
pub struct Acceptor {
    listener: AsyncFd<TcpListener>,
    budget: SocketBudget,
    load: WorkerLoad,
    slots: Rc<WorkerSlots>,
    log: Arc<LogLimit>,
    started: Instant,
}

/// A connection, already non-blocking: mio saves a system call for that.
type Accepted = (TcpStream, SocketAddr);

impl Acceptor {
    /// Creates an acceptor for a non-blocking listener. Call this inside the worker's runtime. All
    /// workers share `log`, whose times are in ms since `started`.
    ///
    /// # Errors
    /// The listener cannot be registered with the runtime.
    pub fn new(
        listener: StdTcpListener,
        budget: SocketBudget,
        load: WorkerLoad,
        log: Arc<LogLimit>,
        started: Instant,
    ) -> io::Result<Self> {
        tcp::set_inherited_options(&listener);
        let listener = TcpListener::from_std(listener);
        // SAFETY: a `TcpListener` owns its descriptor, which stays open and the same until it is
        // dropped.
        let listener = unsafe { AsyncFd::register_with_interest(listener, Interest::READABLE) }?;
        let slots = WorkerSlots::new(budget.clone(), load.clone());
        Ok(Self { listener, budget, load, slots, log, started })
    }

    /// Accepts until `stop` is ready, then accepts the connections queued so far and closes the
    /// listener.
    pub async fn run(self, stop: impl Future<Output = ()>, serve: impl Fn(ClientTcp)) {
        tokio::pin!(stop);
        for count in 1_usize.. {
            if count.is_multiple_of(BATCH) {
                tokio::task::yield_now().await;
            }
            let accepted = tokio::select! {
                biased;
                () = &mut stop => break,
                accepted = self.accept() => accepted,
            };
            match accepted {
                Ok(accepted) => self.admit(accepted).await.into_iter().for_each(&serve),
                Err(error) => self.failed(&error).await,
            }
        }
        while let Ok(accepted) = self.listener.get_ref().accept() {
            self.admit(accepted).await.into_iter().for_each(&serve);
        }
    }

    /// Waits for the next connection. A worker with more sockets lets the others try first.
    async fn accept(&self) -> io::Result<Accepted> {
        loop {
            if self.load.is_ahead() {
                tokio::time::sleep(YIELD).await;
            }
            let mut was_woken = false;
            let accepted = poll_fn(|cx| {
                if was_woken && self.load.is_ahead() {
                    return Poll::Ready(None);
                }
                was_woken = true;
                self.poll_accept(cx).map(Some)
            });
            if let Some(accepted) = accepted.await {
                return accepted;
            }
        }
    }

    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<Accepted>> {
        loop {
            let mut ready = ready!(self.listener.poll_read_ready(cx))?;
            if let Ok(accepted) = ready.try_io(|listener| listener.get_ref().accept()) {
                return Poll::Ready(accepted);
            }
        }
    }

    /// Assigns a slot to a connection. Without a free slot, the connection is closed at once,
    /// because all slots may be in use for hours.
    async fn admit(&self, (stream, address): Accepted) -> Option<ClientTcp> {
        loop {
            match self.budget.grant().await {
                Granted::Slot(permit) => {
                    self.budget.counters.accepted.inc();
                    // With `[::]`, a client of IPv4 has a mapped address.
                    let address = SocketAddr::new(address.ip().to_canonical(), address.port());
                    return Some(ClientTcp::new(stream.into(), address, self.slots.slot(permit)));
                }
                Granted::Later => {}
                Granted::None => {
                    self.budget.counters.refused.inc();
                    return None;
                }
            }
        }
    }

    /// Handles a failure. Accepting always continues, because every failure may be temporary.
    async fn failed(&self, error: &io::Error) {
        let reason = Reason::of(error);
        self.budget.counters.errors.with_label_values(&[reason.name()]).inc();
        if reason == Reason::Aborted {
            return;
        }
        let now_ms = self.started.elapsed().as_millis() as u64;
        if let Some(suppressed) = self.log.allow(now_ms) {
            let reason = reason.name();
            tracing::warn!(%error, suppressed, reason, "cannot accept a connection");
        }
        if matches!(reason, Reason::Descriptors | Reason::Memory) {
            let _ = (0..EVICTED_AT_ONCE).take_while(|_| self.budget.idle.evict_oldest()).count();
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Why a connection could not be accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    /// The process or the system is out of descriptors (EMFILE, ENFILE).
    Descriptors,
    /// The system is out of memory (ENOMEM, ENOBUFS).
    Memory,
    /// The client has disconnected, or its network has failed (accept(2), "Error handling").
    Aborted,
    /// Any other failure.
    Other,
}

impl Reason {
    /// Label of `sse_accept_errors_total` (`src/metrics.rs` initialises every value).
    fn name(self) -> &'static str {
        match self {
            Self::Descriptors => "descriptors",
            Self::Memory => "memory",
            Self::Aborted => "aborted",
            Self::Other => "other",
        }
    }

    fn of(error: &io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EMFILE | libc::ENFILE) => Self::Descriptors,
            Some(libc::ENOMEM | libc::ENOBUFS) => Self::Memory,
            Some(
                libc::ECONNABORTED
                | libc::EINTR
                | libc::EPROTO
                | libc::EPERM
                | libc::ENETDOWN
                | libc::ENETUNREACH
                | libc::EHOSTDOWN
                | libc::EHOSTUNREACH
                | libc::ENONET
                | libc::ENOPROTOOPT
                | libc::EOPNOTSUPP,
            ) => Self::Aborted,
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_classified_by_their_remedy() {
        let reason = |code| Reason::of(&io::Error::from_raw_os_error(code));
        assert_eq!(reason(libc::EMFILE), Reason::Descriptors);
        assert_eq!(reason(libc::ENFILE), Reason::Descriptors);
        assert_eq!(reason(libc::ENOBUFS), Reason::Memory);
        assert_eq!(reason(libc::ECONNABORTED), Reason::Aborted);
        assert_eq!(reason(libc::EINVAL), Reason::Other);
    }
}

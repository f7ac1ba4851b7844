//! Accepts the connections of one worker. All workers accept from the same socket: none of its
//! connections is bound to a worker, so one that is busy, or frozen, strands nobody. With a socket
//! for each worker (SO_REUSEPORT) the connections queued at it would wait for it, and be reset when
//! it closes. The price is that each connection wakes all workers that sleep.

use std::{
    future::poll_fn,
    io,
    net::SocketAddr,
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use futures_util::FutureExt;
use tokio::net::{TcpListener, TcpStream};

use super::{
    budget::{Granted, Load, SocketBudget},
    tcp::ClientTcp,
};
use crate::log_limit::LogLimit;

/// The log gets at most one line about failures in this time, from all workers together.
pub const LOG_INTERVAL_MS: u64 = 10_000;
/// After a failure that another attempt would only repeat.
const PAUSE: Duration = Duration::from_millis(50);
/// A worker that is ahead lets the others accept first for this long.
const YIELD: Duration = Duration::from_millis(5);
/// Idle sockets that are closed when the system is out of descriptors or memory.
const EVICTED_AT_ONCE: usize = 8;
/// After this many in a row the worker's other tasks get their turn.
const BATCH: usize = 16;

/// Accepts for one worker.
pub struct Acceptor {
    listener: TcpListener,
    budget: SocketBudget,
    load: Load,
    log: Arc<LogLimit>,
    started: Instant,
}

type Accepted = (TcpStream, SocketAddr);

impl Acceptor {
    /// Accepts from a listener that does not block. Call it inside the worker's runtime. All
    /// workers share `log`, a limit in ms since `started`.
    ///
    /// # Errors
    /// The listener cannot be watched.
    pub fn new(
        listener: std::net::TcpListener,
        budget: SocketBudget,
        load: Load,
        log: Arc<LogLimit>,
        started: Instant,
    ) -> io::Result<Self> {
        Ok(Self { listener: TcpListener::from_std(listener)?, budget, load, log, started })
    }

    /// Accepts until `stop` is ready, then what is queued by then, then closes the listener.
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
        while let Some(Ok(accepted)) = self.listener.accept().now_or_never() {
            self.admit(accepted).await.into_iter().for_each(&serve);
        }
    }

    /// The next connection. A worker that is ahead gives the others the first try at each.
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
                self.listener.poll_accept(cx).map(Some)
            });
            if let Some(accepted) = accepted.await {
                return accepted;
            }
        }
    }

    /// Gives it a slot; without one it is closed at once, since one may not be free for hours.
    async fn admit(&self, (stream, address): Accepted) -> Option<ClientTcp> {
        loop {
            match self.budget.grant().await {
                Granted::Slot(permit) => {
                    self.budget.counters.accepted.inc();
                    let stream = unassumed(stream).ok()?;
                    let slot = self.budget.slot(permit, self.load.clone());
                    return Some(ClientTcp::new(stream, address, slot));
                }
                Granted::Later => {}
                Granted::None => {
                    self.budget.counters.refused.inc();
                    return None;
                }
            }
        }
    }

    /// Never ends the accepting: whatever it is, it may pass.
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

/// Registers an accepted socket anew. As accepted, tokio assumes that it can be read: then a client
/// that has sent its request and gone meanwhile is noticed only when its request was handled, and
/// would take over the stream with which it came back. From here on the end comes with the first
/// readiness, together with the request.
fn unassumed(stream: TcpStream) -> io::Result<TcpStream> {
    TcpStream::from_std(stream.into_std()?)
}

/// Why a connection could not be accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    /// The process or the system has no descriptor left (EMFILE, ENFILE).
    Descriptors,
    /// The system has no memory left (ENOMEM, ENOBUFS).
    Memory,
    /// The client has gone already, or its network has failed (accept(2), "Error handling").
    Aborted,
    /// Anything else.
    Other,
}

impl Reason {
    /// The label of the metric, which lists all of them from the start (`src/metrics.rs`).
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
    fn errors_are_told_apart_by_what_helps() {
        let reason = |code| Reason::of(&io::Error::from_raw_os_error(code));
        assert_eq!(reason(libc::EMFILE), Reason::Descriptors);
        assert_eq!(reason(libc::ENFILE), Reason::Descriptors);
        assert_eq!(reason(libc::ENOBUFS), Reason::Memory);
        assert_eq!(reason(libc::ECONNABORTED), Reason::Aborted);
        assert_eq!(reason(libc::EINVAL), Reason::Other);
    }
}

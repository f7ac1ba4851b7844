//! Returns memory to the system. glibc keeps memory that a storm of reconnects or a flood of queued
//! events has fragmented: after 5,000 streams had reconnected and closed, 65 MB remained, and 22 MB
//! after a trim. Traffic without streams has the same effect.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    core::transport::Transport, metrics::Metrics, state::limits::connections::ConnectionLimit,
};

/// Interval of checks. A trim blocks allocations for some ms, so it normally needs
/// [`HEAVY_TRAFFIC`], and waits until that is over: 128 clients that connect at the same time use
/// 3 MB, which nobody needs afterwards.
const INTERVAL: Duration = Duration::from_millis(250);
/// Number of sockets, connections, catch-ups or overflows since the last trim that cause a trim.
const HEAVY_TRAFFIC: u64 = 100;
/// Interval of trims during heavy traffic that does not end.
const BUSY_INTERVAL: Duration = Duration::from_secs(10);
/// Interval of trims after any traffic at all, because a single socket may have used much memory.
const MAX_INTERVAL: Duration = Duration::from_secs(60);
/// Time after a trim until another one: what was counted may have freed its memory only then.
const SETTLE: Duration = Duration::from_secs(5);
/// Number of requests that count like one socket.
const REQUESTS_PER_SOCKET: u64 = 10;

/// Trims repeatedly. Does not return.
pub async fn trim_regularly(metrics: Arc<Metrics>, connections: Arc<ConnectionLimit>) {
    let (mut seen, mut last, mut at, mut is_settled) = (0, 0, Instant::now(), true);
    loop {
        tokio::time::sleep(INTERVAL).await;
        let done = turnover(&metrics, &connections);
        let is_over = done == std::mem::replace(&mut last, done) || at.elapsed() >= BUSY_INTERVAL;
        // The sum may decrease slightly: connections count as taken before they count as opened.
        let new = done.saturating_sub(seen);
        let is_due = new >= HEAVY_TRAFFIC && is_over || new > 0 && at.elapsed() >= MAX_INTERVAL;
        if is_due || !is_settled && at.elapsed() >= SETTLE {
            (seen, at, is_settled) = (done, Instant::now(), !is_due);
            // On a separate thread, because it takes longer than a worker may wait.
            let _ = actix_rt::task::spawn_blocking(trim).await;
        }
    }
}

/// Number of sockets, connections, catch-ups and overflows that have ended so far.
fn turnover(metrics: &Metrics, connections: &ConnectionLimit) -> u64 {
    let sum = |vec: &prometheus::IntCounterVec, labels: &[&str]| -> u64 {
        labels.iter().map(|label| vec.with_label_values(&[label]).get()).sum()
    };
    let opened = sum(&metrics.opened, &Transport::ALL.map(Transport::name));
    let ended = opened.saturating_sub(connections.count() as u64);
    let accepted = sum(&metrics.sockets_accepted, &["public"]);
    let open = metrics.sockets.with_label_values(&["public"]).get();
    let closed = accepted.saturating_sub(u64::try_from(open).unwrap_or(0));
    let requests = metrics.requests.get() / REQUESTS_PER_SOCKET;
    let replayed = metrics.replayed.get() / HEAVY_TRAFFIC;
    opened + ended + accepted + closed + requests + metrics.overflows.get() + replayed
}

#[cfg(target_env = "gnu")]
fn trim() {
    // SAFETY: callable at any time, from any thread.
    unsafe { libc::malloc_trim(0) };
}

/// Only glibc needs this.
#[cfg(not(target_env = "gnu"))]
fn trim() {}

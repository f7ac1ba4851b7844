//! Gives memory back to the system. glibc keeps what a storm of reconnects or a flood of queued events has scattered over its heaps:
//! measured, 65 MB stayed after 5,000 streams had come back and gone, 22 MB after a trim.

use std::{sync::Arc, time::Duration};

use crate::state::instance::Instance;

/// A trim holds up allocations for some ms: it is done this often at the most, and only when much has come and gone.
const EVERY: Duration = Duration::from_secs(10);
/// So many connections opened, joins or overflows are much.
const MUCH: u64 = 100;
/// So many requests leave about as little behind as one stream.
const REQUESTS_PER_STREAM: u64 = 10;

/// Trims as long as the instance lives.
pub async fn give_back(instance: Arc<Instance>) {
    let mut seen = 0;
    loop {
        tokio::time::sleep(EVERY).await;
        let done = turnover(&instance);
        // A connection that is being let in counts as taken before it counts as opened: the sum may fall by a little.
        if done.saturating_sub(seen) >= MUCH {
            seen = done;
            // A thread of its own: it takes longer than a worker may wait.
            let _ = actix_rt::task::spawn_blocking(trim).await;
        }
    }
}

/// What has come and gone so far.
fn turnover(instance: &Instance) -> u64 {
    let metrics = &instance.metrics;
    let opened: u64 = ["stream", "poll"].iter().map(|t| metrics.opened.with_label_values(&[t]).get()).sum();
    let gone = opened.saturating_sub(instance.gate.taken() as u64);
    let requests = instance.requests() / REQUESTS_PER_STREAM;
    opened + gone + requests + metrics.overflows.get() + metrics.replayed.get() / MUCH
}

#[cfg(target_env = "gnu")]
fn trim() {
    // SAFETY: callable at any time, from any thread.
    unsafe { libc::malloc_trim(0) };
}

/// Other allocators look after themselves.
#[cfg(not(target_env = "gnu"))]
fn trim() {}

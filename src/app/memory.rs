//! Returns freed memory to the system. jemalloc does so within 10 s, when a thread allocates, but
//! threads that are idle after a storm of reconnects do not.

use std::{ptr::null_mut, time::Duration};

/// Interval of checks.
const INTERVAL: Duration = Duration::from_secs(1);

/// Returns memory regularly. Does not return.
pub async fn return_regularly() {
    loop {
        tokio::time::sleep(INTERVAL).await;
        // On a separate thread, because it may take some ms.
        let _ = actix_rt::task::spawn_blocking(return_unused).await;
    }
}

/// Returns what has been unused for long enough in all arenas (`MALLCTL_ARENAS_ALL`).
fn return_unused() {
    let name = c"arena.4096.decay".as_ptr();
    // SAFETY: the name is a C string, and this control takes and returns no value. Errors are
    // ignored: the process would only use more memory.
    unsafe { tikv_jemalloc_sys::mallctl(name, null_mut(), null_mut(), null_mut(), 0) };
}

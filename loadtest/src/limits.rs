//! The system's limits that a run would hit.

/// Files beside the streams' sockets.
const SPARE_FILES: u64 = 100;

/// Raises the soft limit of open files to the hard one; Err names the fix if that is too low for `streams`, of which one connection
/// carries `streams_each`.
pub fn open_files(streams: u32, streams_each: u32) -> Result<(), String> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` lives during both calls.
    let hard = unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit);
        limit.rlim_cur = limit.rlim_max;
        libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
        limit.rlim_max
    };
    let needed = u64::from(streams.div_ceil(streams_each)) + SPARE_FILES;
    if needed > hard {
        return Err(format!(
            "{streams} streams need {needed} open files, and the limit is {hard}: raise it (ulimit -Hn {needed}, or nofile in \
             /etc/security/limits.conf), or hold fewer streams (--streams {})",
            hard.saturating_sub(SPARE_FILES) * u64::from(streams_each)
        ));
    }
    Ok(())
}

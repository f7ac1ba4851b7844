//! System limits that affect a run.

/// Open files in addition to the sockets of the streams.
const SPARE_FILES: u64 = 100;

/// Raises the soft limit of open files to the hard limit. Fails with advice if that is too low for
/// `streams`, of which each connection carries `streams_per_connection`.
pub fn open_files(streams: u32, streams_per_connection: u32) -> Result<(), String> {
    let hard_limit = rlimit::increase_nofile_limit(u64::MAX)
        .map_err(|e| format!("the limit of open files cannot be read or raised ({e})"))?;
    check(streams, streams_per_connection, hard_limit)
}

fn check(streams: u32, streams_per_connection: u32, hard_limit: u64) -> Result<(), String> {
    let needed = u64::from(streams.div_ceil(streams_per_connection)) + SPARE_FILES;
    if needed <= hard_limit {
        return Ok(());
    }
    let fewer = match hard_limit.saturating_sub(SPARE_FILES) * u64::from(streams_per_connection) {
        0 => String::new(),
        most => format!(", or open fewer streams (--streams {most})"),
    };
    Err(format!(
        "{streams} streams need {needed} open files, but the hard limit is {hard_limit}: raise it \
         (`ulimit -n {needed}` as root, or nofile in /etc/security/limits.conf){fewer}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the number that follows `word` in an error.
    fn number(error: &str, word: &str) -> Option<u64> {
        let rest = error.split_once(word)?.1;
        rest[..rest.find(|c: char| !c.is_ascii_digit())?].parse().ok()
    }

    #[test]
    fn advice_gives_the_exact_limits() {
        for (streams, each, hard_limit) in
            [(1000, 1, 150), (1000, 1, 101), (5000, 100, 149), (1001, 100, 110)]
        {
            let error = check(streams, each, hard_limit).unwrap_err();
            let files = number(&error, "ulimit -n ").unwrap();
            assert_eq!(check(streams, each, files), Ok(()));
            assert!(check(streams, each, files - 1).is_err(), "{error}");
            let most = u32::try_from(number(&error, "--streams ").unwrap()).unwrap();
            assert_eq!(check(most, each, hard_limit), Ok(()));
            assert!(check(most + 1, each, hard_limit).is_err(), "{error}");
        }
    }

    #[test]
    fn advice_never_suggests_zero_streams() {
        for hard_limit in [0, 80, 100] {
            let error = check(10, 1, hard_limit).unwrap_err();
            assert!(error.contains("ulimit -n 110") && !error.contains("--streams"), "{error}");
        }
    }
}

//! The parameter `since`: a time in the past.

use std::time::{Duration, UNIX_EPOCH};

use super::params::{BadRequest, Params};
use crate::core::{catch_up::CLOCK_SKEW_MS, event_options::duration_ms};

/// Numbers below this are seconds, not ms: as ms they are times before 1974.
const FIRST_MS: u64 = 100_000_000_000;
/// Maximum length of the value in an error, in characters.
const SHOWN_CHARS: usize = 64;

/// The time that `since` names, in ms since 1970; `None` without the parameter. `now_ms` is the
/// time of Redis.
///
/// # Errors
/// It is malformed or in the future.
pub fn since(params: &Params, now_ms: u64) -> Result<Option<u64>, BadRequest> {
    params.get("since").map(|text| parse(text, now_ms)).transpose()
}

fn parse(text: &str, now_ms: u64) -> Result<u64, BadRequest> {
    let bad = |problem: &str| {
        let got: String = text.chars().take(SHOWN_CHARS).collect();
        BadRequest { code: "bad-since", message: format!("since {problem} (got {got:?})") }
    };
    let since_ms = if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        match text.parse() {
            Ok(ms) if ms == 0 || ms >= FIRST_MS => Ok(ms),
            Ok(_) => Err(bad("must be in ms since 1970, not in seconds")),
            Err(_) => Err(bad("must not be in the future")),
        }
    } else if let Some(ms) = duration_ms(text) {
        Ok(now_ms.saturating_sub(ms))
    } else {
        rfc3339_ms(text).ok_or_else(|| {
            bad("must be a duration in ms, s, m, h or d such as 15m, a time such as \
                 2026-11-27T08:00:00Z (percent-encode its +), or ms since 1970")
        })
    }?;
    // The caller's clock may be slightly ahead of that of Redis.
    match since_ms > now_ms.saturating_add(CLOCK_SKEW_MS) {
        true => Err(bad("must not be in the future")),
        false => Ok(since_ms),
    }
}

/// A time of RFC 3339 in ms since 1970; `None` if it is malformed or before 1970.
fn rfc3339_ms(text: &str) -> Option<u64> {
    let text = text.to_ascii_uppercase();
    let (local, offset_ms) = match text.strip_suffix('Z') {
        Some(utc) => (utc, 0),
        None => {
            let (local, offset) = text.split_at_checked(text.len().checked_sub(6)?)?;
            (local, offset_ms(offset)?)
        }
    };
    let time = humantime::parse_rfc3339(&format!("{local}Z")).ok()?;
    let local_ms = time.duration_since(UNIX_EPOCH).ok()?.as_millis();
    u64::try_from(i64::try_from(local_ms).ok()? - offset_ms).ok()
}

/// `+hh:mm` or `-hh:mm`, in ms.
fn offset_ms(text: &str) -> Option<i64> {
    let (hours, minutes) = text.get(1..)?.split_once(':')?;
    let number = |part: &str, max| {
        let is_number = part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit());
        part.parse::<u64>().ok().filter(|number| is_number && *number <= max)
    };
    let minutes = number(hours, 23)? * 60 + number(minutes, 59)?;
    let ms = Duration::from_secs(minutes * 60).as_millis() as i64;
    match text.as_bytes()[0] {
        b'+' => Some(ms),
        b'-' => Some(-ms),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: u64 = 1_795_766_400_000; // 2026-11-27T08:00:00Z

    #[test]
    fn durations_times_and_ms_name_the_same_moment() {
        for text in [
            "15m",
            "900s",
            "900000ms",
            "2026-11-27T07:45:00Z",
            "2026-11-27t07:45:00.000z",
            "2026-11-27T09:15:00+01:30",
            "2026-11-26T23:45:00.0-08:00",
            "1795765500000",
        ] {
            assert_eq!(parse(text, NOW_MS).unwrap(), NOW_MS - 900_000, "{text}");
        }
        assert_eq!(parse("0", NOW_MS).unwrap(), 0);
        assert_eq!(parse("73000d", NOW_MS).unwrap(), 0);
        assert_eq!(parse("2026-11-27T08:00:00.250Z", NOW_MS).unwrap(), NOW_MS + 250);
    }

    #[test]
    fn malformed_and_future_times_are_rejected() {
        for (text, problem) in [
            ("", "a duration"),
            ("15", "in ms"),
            ("1795765500", "in ms"),
            ("99999999999999999999", "the future"),
            ("15M", "a duration"),
            ("10m 5m", "a duration"),
            ("-5m", "a duration"),
            ("yesterday", "a duration"),
            ("2026-11-27", "a duration"),
            ("2026-11-27 07:45:00", "a duration"),
            ("2026-11-27T09:15:00 01:30", "a duration"),
            ("2026-11-27T09:15:00+0130", "a duration"),
            ("2026-11-27T09:15:00+24:00", "a duration"),
            ("2026-11-27T07:45:00+é0:00", "a duration"),
            ("1969-12-31T23:59:59Z", "a duration"),
            ("2026-11-27T08:01:01Z", "the future"),
            ("1795766460001", "the future"),
        ] {
            let error = parse(text, NOW_MS).unwrap_err();
            assert_eq!(error.code, "bad-since");
            assert!(error.message.contains(problem), "{}", error.message);
            assert!(error.message.ends_with(&format!("(got {text:?})")), "{}", error.message);
        }
    }
}

//! Value parsers of the command line. Values without a sensible meaning are rejected with advice: a
//! rate of `inf` or a threshold of `nan` would pass every comparison, and the run might never end.

use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use crate::stamp::MIN_BYTES;

/// Maximum events per second; beyond what the publisher can reach.
pub const MAX_RATE: f64 = 1_000_000.0;
/// Maximum connects or disconnects per second.
const MAX_CONNECT_RATE: f64 = 100_000.0;
/// Minimum connects or disconnects per second: one in 1000 s. Much lower rates would overflow the
/// clock.
const MIN_CONNECT_RATE: f64 = 0.001;
/// Maximum threshold, far above any useful value.
const MAX_THRESHOLD: f64 = 1e9;
const MAX_PAYLOAD_BYTES: usize = 16 << 20;
/// Maximum duration of anything.
const MAX_TIME: Duration = Duration::from_secs(30 * 24 * 3600);
/// Maximum number of streams; each costs this tool about 1 KiB.
pub const MAX_STREAMS: i64 = 1_000_000;

/// Parses a rate in events per second; 0 means none.
pub fn rate(text: &str) -> Result<f64, String> {
    in_range(text, 0.0, MAX_RATE, "events per second, 0 for none")
}

/// Parses a connection rate per second.
pub fn connect_rate(text: &str) -> Result<f64, String> {
    in_range(
        text,
        MIN_CONNECT_RATE,
        MAX_CONNECT_RATE,
        "connection attempts per second; omit the option for no limit",
    )
}

/// Parses a disconnect rate per second.
pub fn churn_rate(text: &str) -> Result<f64, String> {
    in_range(
        text,
        MIN_CONNECT_RATE,
        MAX_CONNECT_RATE,
        "disconnects per second; for none, use the scenario `broadcast`",
    )
}

/// Parses a threshold.
pub fn threshold(text: &str) -> Result<f64, String> {
    in_range(text, 0.0, MAX_THRESHOLD, "omit the option for no threshold")
}

/// Parses a payload size in bytes.
pub fn payload_bytes(text: &str) -> Result<usize, String> {
    let what = "bytes; the minimum is the size of the embedded stamp";
    in_range(text, MIN_BYTES, MAX_PAYLOAD_BYTES, what)
}

/// Parses a duration, which may be 0.
pub fn time(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text)
        .map_err(|error| format!("must be a duration, for example 10s, 500ms or 2m ({error})"))?;
    if time <= MAX_TIME { Ok(time) } else { Err("must be at most 30 days".to_owned()) }
}

/// Parses a duration greater than 0.
pub fn time_above_0(text: &str) -> Result<Duration, String> {
    time(text).and_then(|time| {
        if time.is_zero() { Err("must be greater than 0".to_owned()) } else { Ok(time) }
    })
}

/// Parses a ticket lifetime of at least 1 s: tickets count whole seconds.
pub fn ttl(text: &str) -> Result<Duration, String> {
    time(text).and_then(|time| {
        if time.as_secs() > 0 { Ok(time) } else { Err("must be at least 1s".to_owned()) }
    })
}

/// Parses a number from `min` to `max`; rejects `nan`.
fn in_range<N: FromStr + PartialOrd + Display>(
    text: &str,
    min: N,
    max: N,
    what: &str,
) -> Result<N, String> {
    let number = text.parse().ok().filter(|number| *number >= min && *number <= max);
    number.ok_or_else(|| format!("must be a number from {min} to {max}: {what}"))
}

#[cfg(test)]
mod tests {
    use std::any::TypeId;

    use clap::{CommandFactory, Parser};

    use crate::args::Cli;

    /// Options that accept 0.
    const ZERO_OPTIONS: [&str; 6] = ["rate", "user-rate", "settle", "drain", "away", "server-pid"];

    /// Returns the (scenario, option) pairs of all options with a numeric or duration value.
    fn numeric() -> Vec<(String, String)> {
        let types = [
            TypeId::of::<f64>(),
            TypeId::of::<u32>(),
            TypeId::of::<u64>(),
            TypeId::of::<usize>(),
            TypeId::of::<std::time::Duration>(),
        ];
        let mut found = Vec::new();
        for scenario in Cli::command().get_subcommands() {
            for option in scenario.get_arguments() {
                let (kind, long) = (option.get_value_parser().type_id(), option.get_long());
                if types.iter().any(|numeric| kind == *numeric) {
                    found.push((scenario.get_name().to_owned(), long.unwrap().to_owned()));
                }
            }
        }
        assert!(found.len() > 100, "{found:?}");
        found
    }

    /// Returns the error for a value, or `None` if it is accepted.
    fn refusal(scenario: &str, option: &str, value: &str) -> Option<String> {
        Cli::try_parse_from(["loadtest", scenario, &format!("--{option}={value}")])
            .err()
            .map(|error| error.to_string())
    }

    #[test]
    fn nonsensical_numbers_are_rejected_by_every_option() {
        for (scenario, option) in numeric() {
            for value in [
                "-1",
                "-1s",
                "inf",
                "nan",
                "NaN",
                "-inf",
                "1e300",
                "99999999999999999999",
                "1000000years",
                "",
            ] {
                let error = refusal(&scenario, &option, value)
                    .filter(|error| error.contains(&format!("--{option}")));
                assert!(error.is_some(), "{scenario} --{option}={value} was accepted");
            }
        }
    }

    #[test]
    fn zero_is_accepted_only_where_meaningful() {
        for (scenario, option) in numeric() {
            let zeros = ["0", "0s"]
                .iter()
                .filter(|zero| refusal(&scenario, &option, zero).is_none())
                .count();
            let may = ZERO_OPTIONS.contains(&option.as_str())
                || option.starts_with("max-")
                || option.starts_with("min-");
            assert_eq!(zeros > 0, may, "{scenario} --{option}=0");
        }
    }

    #[test]
    fn rejected_values_report_the_valid_range() {
        for (option, value, fix) in [
            (
                "connect-rate",
                "0",
                "a number from 0.001 to 100000: connection attempts per second; omit the option",
            ),
            ("rate", "inf", "a number from 0 to 1000000: events per second, 0 for none"),
            ("payload-bytes", "3", "a number from 73 to 16777216: bytes; the minimum"),
            ("duration", "0s", "greater than 0"),
            ("duration", "ten", "10s, 500ms or 2m"),
            ("max-cpu-per-million", "nan", "a number from 0"),
        ] {
            let error = refusal("broadcast", option, value).unwrap_or_default();
            assert!(
                error.contains(&format!("--{option}")) && error.contains(fix),
                "{option}={value}: {error}"
            );
        }
        for (option, value) in
            [("connect-rate", "0.001"), ("rate", "2.5"), ("payload-bytes", "73"), ("drain", "0s")]
        {
            assert_eq!(refusal("broadcast", option, value), None);
        }
    }
}

//! Parsers of single values. An error states the problem and the fix and never contains a value
//! that may be secret.

use std::{
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    ops::RangeInclusive,
    path::PathBuf,
    time::Duration,
};

use ipnet::IpNet;
use toml::Value;

use super::{
    Fence, PlainPublish, RedisUrl,
    error::{ValueError, invalid},
};
use crate::core::{address::AddressHeader, presence};

/// Result of a parser; the error is the problem of a [`super::ConfigError`].
pub type Parsed<T> = Result<T, ValueError>;

/// How the names of the cookies of `tickets.session_cookie` begin.
pub const SESSION_COOKIE_PREFIX: &str = "sse_session_";
/// Maximum length of a cookie name.
const MAX_COOKIE_NAME: usize = 128;

/// The end of a message: the configured value. Not for values that may be secret.
fn got(value: &Value) -> String {
    match value {
        Value::String(s) => format!("(got {:?})", s.chars().take(64).collect::<String>()),
        Value::Integer(_) | Value::Float(_) | Value::Boolean(_) => format!("(got {value})"),
        other => format!("(got a {})", other.type_str()),
    }
}

/// A string.
pub fn text(value: &Value) -> Parsed<String> {
    match value {
        Value::String(s) => Ok(s.clone()),
        other => Err(invalid!("must be a string in quotes (got a {})", other.type_str())),
    }
}

/// A string, or `None` if it is empty.
pub fn optional_text(value: &Value) -> Parsed<Option<String>> {
    Ok(Some(text(value)?).filter(|s| !s.is_empty()))
}

/// A string that is not empty.
pub fn non_empty(value: &Value) -> Parsed<String> {
    optional_text(value)?.ok_or_else(|| invalid!("must not be empty; set a value"))
}

/// A path, or `None` if it is empty.
pub fn path(value: &Value) -> Parsed<Option<PathBuf>> {
    Ok(optional_text(value)?.map(PathBuf::from))
}

/// An http or https URL without credentials, or `None` if it is empty.
pub fn web_url(value: &Value) -> Parsed<Option<reqwest::Url>> {
    let Some(s) = optional_text(value)? else { return Ok(None) };
    // The value is not shown: it may contain a password.
    let url = reqwest::Url::parse(&s).ok();
    let url = url.filter(|u| matches!(u.scheme(), "http" | "https") && u.has_host());
    match url {
        None => Err(invalid!(
            "must be an http or https URL, for example \
                     \"https://id.example.com/.well-known/jwks.json\""
        )),
        Some(url) if !url.username().is_empty() || url.password().is_some() => {
            Err(invalid!("must not contain a user or password; key sets are public, remove them"))
        }
        Some(url) => Ok(Some(url)),
    }
}

/// `address:port`; a host name such as `localhost` is resolved.
pub fn address(value: &Value) -> Parsed<Option<SocketAddr>> {
    let s = text(value)?;
    let found = s.to_socket_addrs().ok().and_then(|mut all| all.next());
    found.map(Some).ok_or_else(|| {
        invalid!(
            "must be ADDRESS:PORT, for example \"127.0.0.1:8080\" or \"[::]:8080\" {}",
            got(value)
        )
    })
}

/// An integer within `range`.
pub fn number(value: &Value, range: RangeInclusive<u64>) -> Parsed<u64> {
    let n = match value {
        Value::Integer(n) => u64::try_from(*n).ok(),
        Value::String(s) => s.trim().parse().ok(),
        _ => None,
    };
    n.filter(|n| range.contains(n)).ok_or_else(|| {
        invalid!("must be an integer from {} to {} {}", range.start(), range.end(), got(value))
    })
}

/// A number of bytes: `65536`, `64KiB`, `16MiB`, `1GiB`.
pub fn bytes(value: &Value, range: RangeInclusive<u64>) -> Parsed<usize> {
    let n = match value {
        Value::Integer(n) => u64::try_from(*n).ok(),
        Value::String(s) => bytes_with_unit(s.trim()),
        _ => None,
    };
    n.filter(|n| range.contains(n)).map(|n| n as usize).ok_or_else(|| {
        invalid!(
            "must be a size from {} to {} bytes, for example 65536, \"64KiB\" or \"16MiB\" {}",
            range.start(),
            range.end(),
            got(value)
        )
    })
}

fn bytes_with_unit(s: &str) -> Option<u64> {
    let digits = s.find(|c: char| !c.is_ascii_digit()).unwrap_or(s.len());
    let unit = match s[digits..].trim() {
        "" | "B" => 1u64,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    s[..digits].parse::<u64>().ok()?.checked_mul(unit)
}

/// A duration with its unit (`250ms`, `15s`, `5m`, `24h`); `0` needs no unit.
pub fn duration(value: &Value, range: RangeInclusive<Duration>) -> Parsed<Duration> {
    let parsed = match value {
        Value::Integer(0) => Some(Duration::ZERO),
        Value::String(s) if s.trim() == "0" => Some(Duration::ZERO),
        Value::String(s) => humantime::parse_duration(s.trim()).ok(),
        _ => None,
    };
    parsed.filter(|d| range.contains(d)).ok_or_else(|| {
        invalid!(
            "must be a duration with its unit from {} to {}, for example \"15s\", \"5m\" or \
             \"24h\" {}",
            show_duration(*range.start()),
            show_duration(*range.end()),
            got(value)
        )
    })
}

/// Formats a duration; in days if possible, because `humantime` uses months of 30.44 days.
pub fn show_duration(duration: Duration) -> String {
    const DAY_S: u64 = 86_400;
    match duration.as_secs() {
        s if s >= DAY_S && s % DAY_S == 0 => format!("{}d", s / DAY_S),
        _ => humantime::format_duration(duration).to_string(),
    }
}

/// A list of strings: an array, a JSON array in a string, or words separated by commas.
pub fn words(value: &Value) -> Parsed<Vec<String>> {
    match value {
        Value::Array(items) => items.iter().map(text).collect(),
        Value::String(s) if s.trim_start().starts_with('[') => words(&json(s)?),
        Value::String(s) => {
            Ok(s.split(',').map(str::trim).filter(|w| !w.is_empty()).map(str::to_owned).collect())
        }
        other => Err(invalid!(
            "must be a list of strings, for example [\"a\", \"b\"] (got a {})",
            other.type_str()
        )),
    }
}

/// `true` or `false`.
pub fn flag(value: &Value) -> Parsed<bool> {
    match value {
        Value::Boolean(flag) => Ok(*flag),
        Value::String(s) if s == "true" => Ok(true),
        Value::String(s) if s == "false" => Ok(false),
        _ => Err(invalid!("must be true or false {}", got(value))),
    }
}

/// `record`, `relay` or `off`.
pub fn plain_publish(value: &Value) -> Parsed<PlainPublish> {
    match text(value)?.as_str() {
        "record" => Ok(PlainPublish::Record),
        "relay" => Ok(PlainPublish::Relay),
        "off" => Ok(PlainPublish::Off),
        _ => Err(invalid!("must be \"record\", \"relay\" or \"off\" {}", got(value))),
    }
}

/// `auto`, `strict` or `off`.
pub fn fence(value: &Value) -> Parsed<Fence> {
    let name = text(value)?;
    [Fence::Auto, Fence::Strict, Fence::Off]
        .into_iter()
        .find(|fence| fence.name() == name)
        .ok_or_else(|| invalid!("must be \"auto\", \"strict\" or \"off\" {}", got(value)))
}

/// Networks (`10.0.0.0/8`) or single addresses.
pub fn networks(value: &Value) -> Parsed<Vec<IpNet>> {
    let network = |word: &String| {
        let single = || word.parse::<IpAddr>().map(IpNet::from);
        word.parse().or_else(|_| single()).map_err(|_| {
            invalid!(
                "must list networks or addresses, for example \"10.0.0.0/8\" or \"fd00::1\" \
                 (got {word:?})"
            )
        })
    };
    words(value)?.iter().map(network).collect()
}

/// `x-forwarded-for` or `forwarded`.
pub fn address_header(value: &Value) -> Parsed<AddressHeader> {
    let name = text(value)?;
    let known = [AddressHeader::XForwardedFor, AddressHeader::Forwarded];
    let found = known.into_iter().find(|header| header.name().eq_ignore_ascii_case(&name));
    found.ok_or_else(|| invalid!("must be \"x-forwarded-for\" or \"forwarded\" {}", got(value)))
}

/// `text` or `json`; true for `json`.
pub fn log_format(value: &Value) -> Parsed<bool> {
    match text(value)?.as_str() {
        "text" => Ok(false),
        "json" => Ok(true),
        _ => Err(invalid!("must be \"text\" or \"json\" {}", got(value))),
    }
}

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// A level, or a list of `target=level` directives and levels separated by commas.
pub fn log_level(value: &Value) -> Parsed<String> {
    let s = text(value)?;
    // The filter would interpret any other word as the name of a target, and disable all others.
    let is_level = |word: &str| LEVELS.iter().any(|level| level.eq_ignore_ascii_case(word));
    let is_directive = |word: &str| match word.rsplit_once('=') {
        Some((target, level)) => !target.is_empty() && is_level(level),
        None => is_level(word),
    };
    let valid = s.split(',').all(|word| is_directive(word.trim()))
        && s.parse::<tracing_subscriber::filter::Targets>().is_ok();
    if valid {
        return Ok(s);
    }
    Err(invalid!(
        "must be error, warn, info, debug, trace or off, or a filter such as \
         \"sse_gateway=debug,info\" {}",
        got(value)
    ))
}

/// A prefix of keys or channels. Braces would move the hash tag, which selects the slot.
pub fn prefix(value: &Value, min_len: usize) -> Parsed<String> {
    let s = text(value)?;
    let allowed = |b: u8| b.is_ascii_graphic() && !b"*?[]{}\\'\"".contains(&b);
    if (min_len..=64).contains(&s.len()) && s.bytes().all(allowed) {
        return Ok(s);
    }
    Err(invalid!(
        "must have {min_len} to 64 printable ASCII characters without space, quotes and \
         * ? [ ] {{ }} \\ {}",
        got(value)
    ))
}

/// Topic patterns: names, `prefix*` or `*`.
pub fn topics(value: &Value) -> Parsed<Vec<String>> {
    let words = words(value)?;
    match crate::core::topics::Topics::parse(words.iter().map(String::as_str)) {
        Ok(_) => Ok(words),
        Err(error) => Err(invalid!("{error}")),
    }
}

/// Topic patterns for clients without a ticket. The topic of presence needs a ticket that names it.
pub fn anonymous_topics(value: &Value) -> Parsed<Vec<String>> {
    let words = topics(value)?;
    match words.iter().any(|word| word == presence::TOPIC) {
        true => Err(invalid!(
            "must not contain {:?}, which only tickets can allow; remove it",
            presence::TOPIC
        )),
        false => Ok(words),
    }
}

/// A cookie name (RFC 6265 section 4.1.1), or `None` if it is empty.
pub fn cookie_name(value: &Value) -> Parsed<Option<String>> {
    let Some(name) = optional_text(value)? else { return Ok(None) };
    let is_token =
        name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b));
    if !is_token || name.len() > MAX_COOKIE_NAME {
        return Err(invalid!(
            "must be a cookie name: 1 to {MAX_COOKIE_NAME} letters, digits or \
             ! # $ % & ' * + - . ^ _ ` | ~, for example \"__Host-sse\" {}",
            got(value)
        ));
    }
    if name.starts_with(SESSION_COOKIE_PREFIX) {
        return Err(invalid!(
            "must not begin with {SESSION_COOKIE_PREFIX}, which names the cookies of \
             tickets.session_cookie; choose another name {}",
            got(value)
        ));
    }
    Ok(Some(name))
}

/// Origins (`https://app.example.com`), or `*` alone.
pub fn origins(value: &Value) -> Parsed<Vec<String>> {
    let words = words(value)?;
    let valid = |origin: &str| {
        origin == "*"
            || origin.split_once("://").is_some_and(|(scheme, host)| {
                matches!(scheme, "http" | "https")
                    && !host.is_empty()
                    && !host.contains(['/', '*', ' '])
            })
    };
    match words.iter().find(|origin| !valid(origin)) {
        Some(bad) => Err(invalid!(
            "must list origins of the form scheme://host[:port], or only \"*\" (got {bad:?})"
        )),
        None if words.len() > 1 && words.iter().any(|origin| origin == "*") => {
            Err(invalid!("must be either [\"*\"] or a list of origins; remove one of them"))
        }
        None => Ok(words),
    }
}

/// A URL of Redis. The value is not shown: it may contain a password.
pub fn redis_url(value: &Value) -> Parsed<RedisUrl> {
    RedisUrl::parse(&text(value)?).map_err(|error| invalid!("{error}"))
}

pub(super) fn json(s: &str) -> Parsed<Value> {
    serde_json::from_str::<Value>(s).map_err(ValueError::Json)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn string(s: &str) -> Value {
        Value::String(s.to_owned())
    }

    #[test]
    fn durations_name_range_example_and_value() {
        let range = Duration::from_secs(1)..=Duration::from_secs(3600);
        assert_eq!(duration(&string("60s"), range.clone()).unwrap(), Duration::from_secs(60));
        let error = duration(&string("1"), range).unwrap_err().to_string();
        for part in ["from 1s to 1h", "for example", "(got \"1\")"] {
            assert!(error.contains(part), "{error}");
        }
        let year = Duration::ZERO..=Duration::from_secs(365 * 86_400);
        assert!(duration(&string("x"), year).unwrap_err().to_string().contains("from 0s to 365d"));
    }

    #[test]
    fn sizes_with_units_and_overflow() {
        assert_eq!(bytes(&string("64 KiB"), 1..=1 << 20).unwrap(), 65536);
        assert_eq!(bytes(&Value::Integer(7), 1..=9).unwrap(), 7);
        for bad in ["64 kilo", "-1", "KiB", "99999999999999999999GiB", "18014398509481984KiB"] {
            assert!(bytes(&string(bad), 0..=u64::MAX).is_err(), "{bad}");
        }
    }

    #[test]
    fn unknown_log_levels_are_errors() {
        for valid in ["info", "WARN", "off", "sse_gateway=debug,info", "a::b=trace, warn"] {
            assert!(log_level(&string(valid)).is_ok(), "{valid}");
        }
        for bad in ["warning", "loud", "", "sse_gateway", "very=loud=x", "=info", "info,"] {
            assert!(log_level(&string(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn cookie_name_is_a_token_other_than_a_session_cookie() {
        for name in ["sse", "__Host-sse_ticket", "SSE_SESSION_a", "!#$%&'*+-.^_`|~"] {
            assert_eq!(cookie_name(&string(name)).unwrap().as_deref(), Some(name));
        }
        assert_eq!(cookie_name(&string("")).unwrap(), None);
        for bad in ["a b", "a=b", "a;b", "a,b", "\"a\"", "a\n", "ä", "a/b", &"a".repeat(129)] {
            let error = cookie_name(&string(bad)).unwrap_err().to_string();
            assert!(error.contains("for example"), "{error}");
        }
        let error = cookie_name(&string("sse_session_x")).unwrap_err().to_string();
        assert!(error.contains("choose another name"), "{error}");
    }

    #[test]
    fn anonymous_topics_exclude_presence() {
        assert_eq!(anonymous_topics(&string("news,pre*")).unwrap(), ["news", "pre*"]);
        assert!(anonymous_topics(&string("news,presence")).is_err());
    }

    #[test]
    fn lists_come_in_three_forms() {
        let expected = ["a", "b"];
        let array = Value::Array(vec![string("a"), string("b")]);
        assert_eq!(words(&array).unwrap(), expected);
        assert_eq!(words(&string("[\"a\", \"b\"]")).unwrap(), expected);
        assert_eq!(words(&string("a, b,")).unwrap(), expected);
        assert!(words(&Value::Boolean(true)).is_err());
    }
}

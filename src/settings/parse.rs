//! Parsers of single values. An error says what is wrong and how to mend it: `fault; fix`.

use std::{
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    path::PathBuf,
    time::Duration,
};

use ipnet::IpNet;
use toml::Value;

use super::{Algorithm, ApiKey, Bare, Scope, TicketKey};
use crate::core::address::AddressHeader;

/// Outcome of a parser; the error reads `fault; fix`.
pub type Parsed<T> = Result<T, String>;

/// What a value of the wrong kind is called, without showing the value: it may be a secret.
fn kind(value: &Value) -> &'static str {
    value.type_str()
}

/// A text.
pub fn text(value: &Value) -> Parsed<String> {
    match value {
        Value::String(s) => Ok(s.clone()),
        other => Err(format!("is a {}, not a string; write it in quotes", kind(other))),
    }
}

/// A text, or `None` if it is empty.
pub fn optional_text(value: &Value) -> Parsed<Option<String>> {
    Ok(Some(text(value)?).filter(|s| !s.is_empty()))
}

/// A path, or `None` if it is empty.
pub fn path(value: &Value) -> Parsed<Option<PathBuf>> {
    Ok(optional_text(value)?.map(PathBuf::from))
}

/// A URL of the web, or `None` if it is empty.
pub fn web_url(value: &Value) -> Parsed<Option<reqwest::Url>> {
    let Some(s) = optional_text(value)? else { return Ok(None) };
    // The value is not shown: it may hold a password.
    let url = reqwest::Url::parse(&s).ok().filter(|u| matches!(u.scheme(), "http" | "https") && u.has_host());
    match url.ok_or("is no URL; write e.g. \"https://id.example.com/.well-known/jwks.json\"")? {
        url if !url.username().is_empty() || url.password().is_some() => {
            Err("holds a user or a password; key sets are public, leave them out".to_owned())
        }
        url => Ok(Some(url)),
    }
}

/// `address:port`; a name such as `localhost` is looked up.
pub fn address(value: &Value) -> Parsed<Option<SocketAddr>> {
    let s = text(value)?;
    let found = s.to_socket_addrs().ok().and_then(|mut all| all.next());
    found.map(Some).ok_or_else(|| format!("{s:?} is no address; write IP:PORT, e.g. \"0.0.0.0:8080\""))
}

/// A whole number within `range`.
pub fn number(value: &Value, range: std::ops::RangeInclusive<u64>) -> Parsed<u64> {
    let n = match value {
        Value::Integer(n) => u64::try_from(*n).ok(),
        Value::String(s) => s.trim().parse().ok(),
        _ => None,
    };
    match n {
        Some(n) if range.contains(&n) => Ok(n),
        _ => Err(format!("is no whole number from {} to {}; write one", range.start(), range.end())),
    }
}

/// A number of bytes: `65536`, `64KiB`, `16MiB`, `1GiB`.
pub fn bytes(value: &Value, range: std::ops::RangeInclusive<u64>) -> Parsed<usize> {
    let n = match value {
        Value::Integer(n) => u64::try_from(*n).ok(),
        Value::String(s) => {
            let s = s.trim();
            let digits = s.find(|c: char| !c.is_ascii_digit()).unwrap_or(s.len());
            let unit = match s[digits..].trim() {
                "" | "B" => Some(1u64),
                "KiB" => Some(1 << 10),
                "MiB" => Some(1 << 20),
                "GiB" => Some(1 << 30),
                _ => None,
            };
            s[..digits].parse::<u64>().ok().zip(unit).and_then(|(n, unit)| n.checked_mul(unit))
        }
        _ => None,
    };
    match n {
        Some(n) if range.contains(&n) => Ok(n as usize),
        _ => Err(format!(
            "is no size from {} to {} bytes; write a whole number of bytes or e.g. \"64KiB\", \"16MiB\"",
            range.start(),
            range.end()
        )),
    }
}

/// A duration with its unit (`250ms`, `15s`, `5m`, `24h`); a bare `0` is allowed.
pub fn duration(value: &Value, range: std::ops::RangeInclusive<Duration>) -> Parsed<Duration> {
    let parsed = match value {
        Value::Integer(0) => Some(Duration::ZERO),
        Value::String(s) if s.trim() == "0" => Some(Duration::ZERO),
        Value::String(s) => humantime::parse_duration(s.trim()).ok(),
        _ => None,
    };
    match parsed {
        Some(d) if range.contains(&d) => Ok(d),
        _ => Err(format!(
            "is no duration from {} to {}; write it with its unit, e.g. \"15s\", \"5m\", \"24h\"",
            humantime::format_duration(*range.start()),
            humantime::format_duration(*range.end())
        )),
    }
}

/// A list of words: an array, a JSON array in a string, or words with commas between.
pub fn words(value: &Value) -> Parsed<Vec<String>> {
    match value {
        Value::Array(items) => items.iter().map(text).collect(),
        Value::String(s) if s.trim_start().starts_with('[') => words(&json(s)?),
        Value::String(s) => Ok(s.split(',').map(str::trim).filter(|w| !w.is_empty()).map(str::to_owned).collect()),
        other => Err(format!("is a {}, not a list; write e.g. [\"a\", \"b\"]", kind(other))),
    }
}

/// `true` or `false`.
pub fn flag(value: &Value) -> Parsed<bool> {
    match value {
        Value::Boolean(flag) => Ok(*flag),
        Value::String(s) if s == "true" => Ok(true),
        Value::String(s) if s == "false" => Ok(false),
        _ => Err("is neither true nor false; write one of them".to_owned()),
    }
}

/// `record`, `relay` or `off`.
pub fn bare(value: &Value) -> Parsed<Bare> {
    match text(value)?.as_str() {
        "record" => Ok(Bare::Record),
        "relay" => Ok(Bare::Relay),
        "off" => Ok(Bare::Off),
        other => Err(format!("{other:?} is unknown; write \"record\", \"relay\" or \"off\"")),
    }
}

/// Networks, as `10.0.0.0/8` or as a single address.
pub fn networks(value: &Value) -> Parsed<Vec<IpNet>> {
    let network = |word: &String| {
        let single = || word.parse::<IpAddr>().map(IpNet::from);
        word.parse()
            .or_else(|_| single())
            .map_err(|_| format!("{word:?} is no network; write e.g. \"10.0.0.0/8\", \"fd00::/8\" or a single address"))
    };
    words(value)?.iter().map(network).collect()
}

/// `x-forwarded-for` or `forwarded`.
pub fn address_header(value: &Value) -> Parsed<AddressHeader> {
    let name = text(value)?;
    let known = [AddressHeader::XForwardedFor, AddressHeader::Forwarded];
    let found = known.into_iter().find(|header| header.name().eq_ignore_ascii_case(&name));
    found.ok_or_else(|| format!("{name:?} is unknown; write \"x-forwarded-for\" or \"forwarded\""))
}

/// `text` or `json`: whether it is `json`.
pub fn log_format(value: &Value) -> Parsed<bool> {
    match text(value)?.as_str() {
        "text" => Ok(false),
        "json" => Ok(true),
        other => Err(format!("{other:?} is unknown; write \"text\" or \"json\"")),
    }
}

fn json(s: &str) -> Parsed<Value> {
    serde_json::from_str::<Value>(s).map_err(|e| format!("is no valid JSON ({e}); mend it"))
}

/// An array of tables, from TOML or as JSON in a string.
fn tables(value: &Value) -> Parsed<Vec<toml::Table>> {
    match value {
        Value::Array(items) => items
            .iter()
            .map(|item| {
                item.as_table()
                    .cloned()
                    .ok_or_else(|| "holds an entry that is no table; see config/gateway.toml".to_owned())
            })
            .collect(),
        Value::String(s) if s.trim().is_empty() => Ok(Vec::new()),
        Value::String(s) => match json(s)? {
            Value::String(_) => Err("is no list; write an array of tables".to_owned()),
            parsed => tables(&parsed),
        },
        other => Err(format!("is a {}, not a list; write an array of tables, see config/gateway.toml", kind(other))),
    }
}

fn only(table: &toml::Table, known: &[&str]) -> Parsed<()> {
    match table.keys().find(|k| !known.contains(&k.as_str())) {
        Some(k) => Err(format!("has an unknown member {k:?}; known are {}", known.join(", "))),
        None => Ok(()),
    }
}

/// `api_keys`: `[{ sha256 = "<64 hex digits>", scopes = ["publish", "tickets", "admin"] }]`.
pub fn api_keys(value: &Value) -> Parsed<Vec<ApiKey>> {
    tables(value)?.iter().map(api_key).collect()
}

fn api_key(table: &toml::Table) -> Parsed<ApiKey> {
    only(table, &["sha256", "scopes"])?;
    let sha256 = table
        .get("sha256")
        .and_then(Value::as_str)
        .and_then(crate::core::hex::decode32)
        .ok_or("has an entry without a valid sha256; write the 64 hex digits of `printf %s KEY | sha256sum`")?;
    let scopes = words(table.get("scopes").ok_or("has an entry without scopes; write e.g. scopes = [\"publish\"]")?)?;
    let scopes = scopes
        .iter()
        .map(|s| match s.as_str() {
            "publish" => Ok(Scope::Publish),
            "tickets" => Ok(Scope::Tickets),
            "admin" => Ok(Scope::Admin),
            other => Err(format!("has an unknown scope {other:?}; known are publish, tickets, admin")),
        })
        .collect::<Parsed<Vec<_>>>()?;
    Ok(ApiKey { sha256, scopes })
}

/// `tickets.keys`: `[{ kid, algorithm, secret | secret_file | public_key | public_key_file }]`.
pub fn ticket_keys(value: &Value) -> Parsed<Vec<TicketKey>> {
    tables(value)?.iter().map(ticket_key).collect()
}

fn ticket_key(table: &toml::Table) -> Parsed<TicketKey> {
    only(table, &["kid", "algorithm", "secret", "secret_file", "public_key", "public_key_file"])?;
    let member = |name: &str| table.get(name).map(text).transpose().map_err(|e| format!("{name} {e}"));
    let algorithm = match member("algorithm")?.as_deref() {
        Some("HS256") => Algorithm::HS256,
        Some("RS256") => Algorithm::RS256,
        Some("ES256") => Algorithm::ES256,
        Some("EdDSA") => Algorithm::EdDSA,
        _ => return Err("has an entry without a known algorithm; write HS256, RS256, ES256 or EdDSA".to_owned()),
    };
    let (inline, file) = match algorithm {
        Algorithm::HS256 => ("secret", "secret_file"),
        _ => ("public_key", "public_key_file"),
    };
    let (material, file) = match (member(inline)?, member(file)?.map(PathBuf::from)) {
        (Some(s), None) => (s.into_bytes(), None),
        (None, Some(path)) => (read_secret(&path)?, Some(path)),
        _ => {
            return Err(format!(
                "has an entry of {algorithm:?} that needs exactly one of {inline} and {file}; write one"
            ));
        }
    };
    let key = TicketKey { kid: member("kid")?, algorithm, material, file };
    let place = || key.file.as_ref().map(|path| format!(" in {}", path.display())).unwrap_or_default();
    key.decoding_key()
        .map_err(|e| format!("has a key{} that cannot be used ({e}); give a {algorithm:?} key in PEM", place()))?;
    Ok(key)
}

/// The content of a file that holds a secret, without the line break at its end.
pub fn read_secret(path: &std::path::Path) -> Parsed<Vec<u8>> {
    let mut content =
        std::fs::read(path).map_err(|e| format!("{} cannot be read ({e}); give a readable file", path.display()))?;
    while content.last().is_some_and(u8::is_ascii_whitespace) {
        content.pop();
    }
    if content.is_empty() {
        return Err(format!("{} is empty; put the secret into it", path.display()));
    }
    Ok(content)
}

use std::fmt;

use redis::RedisError;

/// Why a ticket was not issued or an event was not published.
#[derive(Debug)]
pub struct Error {
    code: String,
    message: String,
    is_retriable: bool,
    source: Option<RedisError>,
}

/// Codes of the gateway's function that end by themselves. Nothing was published.
const TEMPORARY_CODES: [&str; 2] = ["not-adopted", "too-often"];

/// Codes of Redis errors that end by themselves. The command was not executed.
const TEMPORARY: [&str; 9] = [
    "MOVED",
    "ASK",
    "TRYAGAIN",
    "CLUSTERDOWN",
    "LOADING",
    "MASTERDOWN",
    "NOREPLICAS",
    "READONLY",
    "BUSY",
];

impl Error {
    pub(crate) fn new(code: &str, message: impl Into<String>) -> Self {
        let (code, message) = (code.to_owned(), message.into());
        Self { code, message, is_retriable: false, source: None }
    }

    /// The error of a command that failed. `is_repeatable`: the command may be sent again although
    /// it is unknown whether it was executed.
    pub(crate) fn from_redis(source: RedisError, is_repeatable: bool) -> Self {
        let detail = source.detail().unwrap_or_default();
        let (code, message, is_retriable) = match source.code() {
            Some("SSE") => {
                let (code, reason) = detail.split_once(": ").unwrap_or((detail, ""));
                (code, reason.to_owned(), TEMPORARY_CODES.contains(&code))
            }
            Some("ERR") if detail.starts_with("Function not found") => {
                let reason = "the function of the gateway is missing: no gateway has connected to \
                              this Redis server yet, or key_prefix is not its redis.key_prefix";
                ("not-loaded", reason.to_owned(), true)
            }
            Some(code) if TEMPORARY.contains(&code) => ("redis-away", source.to_string(), true),
            Some(_) => ("redis-error", source.to_string(), false),
            None => ("redis-away", format!("Redis has not replied: {source}"), is_repeatable),
        };
        Self { code: code.to_owned(), message, is_retriable, source: Some(source) }
    }

    /// A short name of the problem that does not change, for example `too-large`.
    pub fn code(&self) -> &str {
        &self.code
    }

    /// Whether the same call may succeed later, and cannot publish the event twice.
    pub fn is_retriable(&self) -> bool {
        self.is_retriable
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| source as _)
    }
}

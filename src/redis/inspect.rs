//! Describes the server behind `redis.url` and judges its limits, for `check-config --connect`.
//! Nothing is loaded or changed.

pub mod cluster;
mod limits;
mod permissions;

use std::collections::HashMap;

use redis::Value;

use super::{
    commands::{CommandError, Commands},
    library::{self, LibraryError},
};
use crate::settings::Settings;

/// Settings of the server that are read with CONFIG.
const CONFIG_NAMES: [&str; 6] = [
    "appendfsync",
    "client-output-buffer-limit",
    "cluster-allow-pubsubshard-when-down",
    "cluster-require-full-coverage",
    "min-replicas-to-write",
    "proto-max-bulk-len",
];

/// Whether something needs attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is suitable.
    Ok,
    /// The gateway works, but events may be lost or delayed.
    Warning,
    /// The gateway cannot work.
    Error,
}

/// One property of the server, with a verdict and, unless that is `Ok`, the fix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The verdict.
    pub verdict: Verdict,
    /// What was found; ends with the fix if there is something to fix.
    pub text: String,
}

impl Finding {
    fn ok(text: impl Into<String>) -> Self {
        Self { verdict: Verdict::Ok, text: text.into() }
    }

    fn warning(text: impl Into<String>) -> Self {
        Self { verdict: Verdict::Warning, text: text.into() }
    }

    fn error(text: impl Into<String>) -> Self {
        Self { verdict: Verdict::Error, text: text.into() }
    }
}

/// What is known of the server.
#[derive(Debug)]
pub struct ServerReport {
    /// Names and values, in the order in which they are printed.
    pub facts: Vec<(&'static str, String)>,
    /// Limits and permissions.
    pub findings: Vec<Finding>,
}

impl ServerReport {
    /// Whether the gateway can use the server.
    pub fn is_usable(&self) -> bool {
        self.findings.iter().all(|finding| finding.verdict != Verdict::Error)
    }
}

/// The fields of INFO.
#[derive(Debug, Default)]
struct Info(HashMap<String, String>);

impl Info {
    fn parse(text: &str) -> Self {
        let fields = text.lines().filter_map(|line| line.trim().split_once(':'));
        Self(fields.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    fn text(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    fn number(&self, name: &str) -> u64 {
        self.text(name).parse().unwrap_or(0)
    }

    /// Product and version.
    fn product(&self) -> String {
        let others = [
            ("Valkey", "valkey_version"),
            ("Dragonfly", "dragonfly_version"),
            ("Garnet", "garnet_version"),
        ];
        let other = others.into_iter().find(|(_, field)| self.0.contains_key(*field));
        let (name, field) = other.unwrap_or(("Redis", "redis_version"));
        format!("{name} {}", self.text(field))
    }

    fn is_cluster(&self) -> bool {
        self.text("cluster_enabled") == "1"
    }

    /// `standalone`, `sentinel` or `cluster`. Valkey 9 has renamed the field.
    fn mode(&self) -> &str {
        match (self.text("redis_mode"), self.text("server_mode")) {
            _ if self.is_cluster() => "cluster",
            ("", mode) | (mode, _) => mode,
        }
    }

    fn is_replica(&self) -> bool {
        self.text("role") == "slave"
    }

    fn role(&self) -> String {
        if self.is_replica() {
            let (host, port) = (self.text("master_host"), self.text("master_port"));
            return format!("replica of {host}:{port}");
        }
        format!("primary, {} connected replicas", self.number("connected_slaves"))
    }
}

/// Reads everything that [`ServerReport`] contains.
///
/// # Errors
/// The server does not reply, or refuses the connection.
pub async fn inspect(
    commands: &Commands,
    settings: &Settings,
) -> Result<ServerReport, CommandError> {
    // A server that refuses PING refuses the connection: the caller reports that.
    commands.run::<Value>(&redis::cmd("PING")).await?;
    let mut findings =
        permissions::check(commands, settings.publishers.plain, settings.presence.enabled).await?;
    let mut facts = vec![("address", commands.address().to_string())];
    let info: Option<String> = permitted(commands.run(&redis::cmd("INFO")).await)?;
    let info = info.map(|text| Info::parse(&text));
    if let Some(info) = &info {
        facts.push(("mode", info.mode().to_owned()));
        facts.push(("server", info.product()));
        facts.push(("role", info.role()));
    }
    facts.push(("library", library_state(commands, info.as_ref()).await?));
    if let Some(info) = &info {
        let config = config(commands).await?;
        findings.extend(limits::check(info, config.as_ref(), settings));
    }
    Ok(ServerReport { facts, findings })
}

/// `None` if the server refuses this command; `permissions` reports that.
fn permitted<T>(reply: Result<T, CommandError>) -> Result<Option<T>, CommandError> {
    match reply {
        Ok(reply) => Ok(Some(reply)),
        Err(CommandError::Rejected(_)) => Ok(None),
        Err(away) => Err(away),
    }
}

/// The values of [`CONFIG_NAMES`]; `None` if CONFIG is not permitted.
async fn config(commands: &Commands) -> Result<Option<HashMap<String, String>>, CommandError> {
    permitted(commands.run(redis::cmd("CONFIG").arg("GET").arg(&CONFIG_NAMES)).await)
}

/// Version, generation and adoption of the function library.
async fn library_state(commands: &Commands, info: Option<&Info>) -> Result<String, CommandError> {
    let loaded = match library::loaded(commands).await {
        Ok(loaded) => loaded,
        Err(LibraryError::Command(away)) => return Err(away),
        Err(_) => return Ok("unknown".to_owned()),
    };
    let Some((version, generation)) = loaded else {
        return Ok("not loaded (a gateway loads it when it connects)".to_owned());
    };
    let node = redis::cmd("HMGET")
        .arg(commands.node_key().unwrap_or_else(|| commands.keys.node()))
        .arg(&["run_id", "replid", "epoch"])
        .to_owned();
    let node = permitted(commands.run::<Vec<Option<String>>>(&node).await)?.unwrap_or_default();
    let adopted = match (info, &node[..]) {
        (Some(info), [Some(run_id), Some(replid), Some(epoch)])
            if run_id == info.text("run_id") && replid == info.text("master_replid") =>
        {
            format!("adopted in epoch {epoch}")
        }
        (None, _) => "adoption unknown".to_owned(),
        _ => "not adopted".to_owned(),
    };
    Ok(format!("version {version}, generation {generation}, {adopted}"))
}

/// The text of an error in a list of replies.
fn error_text(reply: &Value) -> Option<String> {
    match reply {
        Value::ServerError(error) => {
            Some(format!("{} {}", error.code(), error.details().unwrap_or_default()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mode_has_a_name_in_every_product() {
        for (text, expected) in [
            ("redis_mode:standalone\r\ncluster_enabled:0\r\n", "standalone"),
            ("server_mode:sentinel\r\n", "sentinel"),
            ("redis_mode:standalone\r\ncluster_enabled:1\r\n", "cluster"),
        ] {
            assert_eq!(Info::parse(text).mode(), expected);
        }
    }

    #[test]
    fn each_product_is_named() {
        for (text, expected) in [
            ("redis_version:7.0.15\r\n", "Redis 7.0.15"),
            ("redis_version:7.2.4\r\nvalkey_version:9.1.2\r\n", "Valkey 9.1.2"),
            ("redis_version:7.4.0\r\ndragonfly_version:df-v1.30.0\r\n", "Dragonfly df-v1.30.0"),
        ] {
            assert_eq!(Info::parse(text).product(), expected);
        }
    }
}

//! Loads the Lua library into Redis. Its name contains version and prefix; only a newer version
//! replaces it
//! (ARCHITECTURE.md#function-library).

use std::collections::HashMap;

use redis::{RedisError, Value};

mod rules;

use super::commands::{CommandError, Commands};
use crate::{
    error_chain::ErrorChain,
    settings::{Fence, Settings},
};

/// Version of the library. Its functions also accept the calls of the previous version, because
/// gateways are updated one by one.
pub const VERSION: u32 = 11;
/// The text of the library, in this order.
pub(super) const SOURCE: &str = concat!(
    include_str!("library/names.lua"),
    include_str!("library/server.lua"),
    include_str!("library/channels.lua"),
    include_str!("library/positions.lua"),
    include_str!("library/clock.lua"),
    include_str!("library/slots.lua"),
    include_str!("library/adoption.lua"),
    include_str!("library/rivals.lua"),
    include_str!("library/watermark.lua"),
    include_str!("library/texts.lua"),
    include_str!("library/options.lua"),
    include_str!("library/retained.lua"),
    include_str!("library/unseen.lua"),
    include_str!("library/events.lua"),
    include_str!("library/recorder.lua"),
    include_str!("library/sessions.lua"),
    include_str!("library/presence.lua"),
    include_str!("library/register.lua"),
);
/// Maximum time by which retained values outlive their retention, in ms: one hour.
const MAX_KEPT_SLACK_MS: u64 = 3_600_000;
/// Libraries have the function `save` since this version.
const SAVES_SINCE: u32 = 5;
/// Smallest `proto-max-bulk-len` that Redis accepts.
const SMALLEST_BULK_BYTES: u64 = 1 << 20;
/// Bytes of an argument besides the payload (envelope, type, key), rounded up.
const BESIDE_PAYLOAD_BYTES: u64 = 64 << 10;
/// A limit above this many times what is needed gets a warning: a few messages of that size in a
/// row exceed Redis's default `client-output-buffer-limit pubsub 32mb 8mb 60`.
const MAX_EXCESS: u64 = 4;
/// The warning about a primary that can be isolated without notice.
const UNFENCED: &str = "the server has replicas, redis.fence is not strict and \
    min-replicas-to-write is 0: an isolated primary that does not restart accepts events that are \
    lost in a failover; set redis.fence to strict, or run `CONFIG SET min-replicas-to-write 1`";
/// The first version with Functions.
const OLDEST: (u32, u32) = (7, 0);

/// Why Redis cannot be used. The texts name the fix.
#[derive(Debug, thiserror::Error)]
pub enum LibraryError {
    /// A command failed.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// Redis has no Functions.
    #[error("Redis {0} has no Functions; use Redis 7.0, Valkey 7.2 or later")]
    TooOld(String),
    /// Functions are not available to this user.
    #[error(
        "FUNCTION LIST was refused; use Redis 7.0, Valkey 7.2 or later, and allow the user +@all \
         or at least +function +fcall"
    )]
    Forbidden(#[source] RedisError),
    /// Another key prefix gives the same function names.
    #[error(
        "the library {0} belongs to another redis.key_prefix that gives the same function names; \
         choose a prefix with different letters or digits"
    )]
    NameTaken(String),
    /// Redis refuses to load the library.
    #[error(
        "the library {library} cannot be loaded; if another library has functions named \
         {functions}_* (see FUNCTION LIST), give this gateway another redis.key_prefix"
    )]
    NotLoaded {
        /// Name of the library.
        library: String,
        /// What the names of its functions begin with.
        functions: String,
        /// The reply of Redis.
        #[source]
        reply: Option<RedisError>,
    },
}

/// Problems with the server that are logged and do not prevent its use.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Warnings {
    /// The run id of the server process.
    pub run_id: String,
    /// Each names the problem and the fix.
    pub texts: Vec<String>,
}

/// Version and generation of a library. A library is replaced by a higher one only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Revision {
    /// The version of the code.
    version: u32,
    /// The generation of the settings in it, `history.generation`.
    generation: u32,
}

impl Revision {
    fn of(settings: &Settings) -> Self {
        Self { version: VERSION, generation: settings.history.generation }
    }

    /// The name of the library under a function prefix.
    fn name(self, prefix: &str) -> String {
        format!("sse_gateway_v{}_g{}_{prefix}", self.version, self.generation)
    }

    /// The revision and the function prefix in the name of a library.
    fn parse(name: &str) -> Option<(Self, &str)> {
        let (version, rest) = name.strip_prefix("sse_gateway_v")?.split_once('_')?;
        // Libraries up to version 3 had no generation.
        let numbered = rest.strip_prefix('g').and_then(|rest| rest.split_once('_'));
        let generation = numbered.and_then(|(generation, _)| generation.parse().ok());
        let prefix = match (generation, numbered) {
            (Some(_), Some((_, prefix))) => prefix,
            _ => rest,
        };
        let version = version.parse().ok()?;
        Some((Self { version, generation: generation.unwrap_or(0) }, prefix))
    }
}

/// A line of a library with another key prefix than `sse:`, if no other library defines that
/// function.
const ALIAS: &str = "redis.register_function('sse_publish', replying(publish))";
/// The function prefix that belongs to the default key prefix.
const DEFAULT: &str = "sse";

/// The library's text for these prefixes and settings.
fn source(commands: &Commands, settings: &Settings, alias: bool) -> String {
    let (keys, history, rules) = (&commands.keys, &settings.history, &settings.channels);
    let kept_ms = history.kept_retention.as_millis() as u64;
    // Rules contain no placeholder; what replaces the others may.
    SOURCE
        .replace("@RULES@", &rules::table(rules))
        .replace("@RETENTIONS@", &rules.retentions().to_string())
        .replace("@LONGEST_RETENTION_MS@", &rules.longest_ms().to_string())
        .replace("@LIBRARY@", &Revision::of(settings).name(keys.function_prefix()))
        .replace("@KEY_PREFIX@", keys.key_prefix())
        .replace("@CHANNEL_PREFIX@", keys.channel_prefix())
        .replace("@FENCE@", settings.redis.fence.name())
        .replace("@DEDUPE_WINDOW_MS@", &history.dedupe_window.as_millis().to_string())
        .replace("@MAX_KEPT@", &history.max_kept.to_string())
        .replace("@KEPT_RETENTION_MS@", &kept_ms.to_string())
        .replace("@KEPT_SLACK_MS@", &(kept_ms / 100).min(MAX_KEPT_SLACK_MS).to_string())
        .replace("@F@", keys.function_prefix())
        .replace("@ALIAS@", if alias { ALIAS } else { "" })
}

/// Checks the server, and loads the library unless Redis has this one or a higher one.
/// `is_replicated`: the caller knows that the data of this server is or was on other servers, too.
///
/// # Errors
/// See [`LibraryError`].
pub async fn ensure(
    commands: &Commands,
    settings: &Settings,
    is_replicated: bool,
) -> Result<Warnings, LibraryError> {
    let mut warnings = check_server(commands, settings).await?;
    if settings.redis.url.login.db() != 0 {
        warnings.texts.push(
            "redis.url selects a database other than 0: all databases share Pub/Sub and Functions, \
             so gateways on different databases need different values of redis.key_prefix"
                .to_owned(),
        );
    }
    warnings.texts.extend(load(commands, settings, is_replicated).await?);
    Ok(warnings)
}

/// Whether the server is a node of a cluster.
///
/// # Errors
/// See [`LibraryError`].
pub async fn is_cluster(commands: &Commands) -> Result<bool, LibraryError> {
    let info: String = commands.run(redis::cmd("INFO").arg("cluster")).await?;
    Ok(info.lines().any(|line| line.trim() == "cluster_enabled:1"))
}

async fn check_server(commands: &Commands, settings: &Settings) -> Result<Warnings, LibraryError> {
    let info: String = commands
        .run(redis::cmd("INFO").arg(&["server", "memory", "cluster", "replication"]))
        .await?;
    let field = |name: &str| {
        info.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
    };
    // Valkey also reports the Redis version that it is compatible with, under this name.
    let version = field("redis_version").unwrap_or("0.0");
    if is_too_old(version) {
        return Err(LibraryError::TooOld(version.to_owned()));
    }
    let run_id = field("run_id").unwrap_or_default().to_owned();
    let mut warnings = Warnings { run_id, texts: Vec::new() };
    match field("maxmemory_policy") {
        Some("noeviction") | None => {}
        Some(policy) => warnings.texts.push(eviction_warning(policy)),
    }
    let has_replicas = field("connected_slaves").is_some_and(|number| number != "0");
    if has_replicas && settings.redis.fence != Fence::Strict {
        let least: Option<u64> = config(commands, "min-replicas-to-write").await;
        warnings.texts.extend((least == Some(0)).then(|| UNFENCED.to_owned()));
    }
    // On a cluster MIGRATE sends each key as one argument: the limit must exceed the largest log.
    if field("cluster_enabled") != Some("1") {
        let max_event_bytes = settings.channels.largest_event_bytes() as u64;
        warnings.texts.extend(
            config(commands, "proto-max-bulk-len")
                .await
                .and_then(|limit| check_argument(limit, max_event_bytes)),
        );
    }
    Ok(warnings)
}

/// Whether a `redis_version` is lower than the first one with Functions.
pub(super) fn is_too_old(version: &str) -> bool {
    let mut parts = version.split('.').map(|p| p.parse::<u32>().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) < OLDEST
}

/// The warning about a `maxmemory-policy` other than `noeviction`.
pub(super) fn eviction_warning(policy: &str) -> String {
    format!(
        "maxmemory-policy is {policy}: Redis may evict logs and sessions, and events could be \
         lost without notice; run `CONFIG SET maxmemory-policy noeviction`"
    )
}

/// A number in the server's configuration; `None` if CONFIG is not permitted or does not know it.
async fn config(commands: &Commands, name: &str) -> Option<u64> {
    let mut command = redis::cmd("CONFIG");
    command.arg("GET").arg(name);
    let found: HashMap<String, String> = commands.run(&command).await.ok()?;
    found.get(name)?.parse().ok()
}

/// The warning about a server that accepts arguments of up to `limit` bytes, if it needs one.
pub(super) fn check_argument(limit: u64, max_event_bytes: u64) -> Option<String> {
    let longest = max_event_bytes + BESIDE_PAYLOAD_BYTES;
    let needed = longest.next_multiple_of(SMALLEST_BULK_BYTES);
    if limit < longest {
        Some(format!(
            "proto-max-bulk-len is {limit}: events of the largest max_event_bytes \
             ({max_event_bytes}) are refused; run \
             `CONFIG SET proto-max-bulk-len {needed}` and set it in redis.conf"
        ))
    } else if limit > (longest * MAX_EXCESS).max(SMALLEST_BULK_BYTES) {
        Some(format!(
            "proto-max-bulk-len is {limit}: a few plain PUBLISH commands of that size exceed \
             client-output-buffer-limit pubsub and disconnect every gateway; run \
             `CONFIG SET proto-max-bulk-len {needed}` and set it in redis.conf"
        ))
    } else {
        None
    }
}

/// A function library that is loaded in Redis.
struct Loaded {
    name: String,
    code: String,
}

async fn libraries(commands: &Commands) -> Result<Vec<Loaded>, LibraryError> {
    let mut command = redis::cmd("FUNCTION");
    command.arg("LIST").arg("LIBRARYNAME").arg("sse_gateway_*").arg("WITHCODE");
    let listed = commands.run::<Vec<HashMap<String, Value>>>(&command).await;
    let listed = listed.map_err(|fault| match fault {
        CommandError::Rejected(e) => LibraryError::Forbidden(e),
        away => LibraryError::Command(away),
    })?;
    let text = |entry: &HashMap<String, Value>, member: &str| {
        entry
            .get(member)
            .and_then(|v| redis::from_redis_value::<String>(v.clone()).ok())
            .unwrap_or_default()
    };
    Ok(listed
        .iter()
        .map(|e| Loaded { name: text(e, "library_name"), code: text(e, "library_code") })
        .collect())
}

/// Version and generation of the highest library for this key prefix, if one is loaded.
///
/// # Errors
/// See [`CommandError`]; FUNCTION LIST may be refused.
pub(super) async fn loaded(commands: &Commands) -> Result<Option<(u32, u32)>, LibraryError> {
    let prefix = commands.keys.function_prefix();
    let all = libraries(commands).await?;
    let revisions = all.iter().filter_map(|l| Revision::parse(&l.name));
    let own = revisions.filter(|(_, p)| *p == prefix).map(|(revision, _)| revision).max();
    Ok(own.map(|r| (r.version, r.generation)))
}

/// What a loaded library means for this gateway.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    /// It is the one that this gateway would load.
    Same,
    /// It has the same version and generation, but other settings.
    OtherSettings,
    /// It is higher.
    Higher,
}

fn found(ours: &[Loaded], own: Revision, variants: &[String]) -> Option<Found> {
    let revision = |l: &Loaded| Revision::parse(&l.name).map(|(revision, _)| revision);
    if ours.iter().any(|l| revision(l) > Some(own)) {
        return Some(Found::Higher);
    }
    let equal = ours.iter().find(|l| revision(l) == Some(own))?;
    Some(if variants.contains(&equal.code) { Found::Same } else { Found::OtherSettings })
}

/// Loads the library. Returns a warning if other settings than this gateway's are active.
async fn load(
    commands: &Commands,
    settings: &Settings,
    is_replicated: bool,
) -> Result<Option<String>, LibraryError> {
    let (prefix, own) = (commands.keys.function_prefix(), Revision::of(settings));
    let name = own.name(prefix);
    let variants =
        [source(commands, settings, false), source(commands, settings, prefix != DEFAULT)];
    let mut reply = None;
    // A second round if another gateway loads one at the same time.
    for _ in 0..3 {
        let (ours, others): (Vec<Loaded>, Vec<Loaded>) = libraries(commands)
            .await?
            .into_iter()
            .partition(|l| Revision::parse(&l.name).is_some_and(|(_, p)| p == prefix));
        let prefix_line = format!("local PREFIX = '{}'", commands.keys.key_prefix());
        if let Some(foreign) = ours.iter().find(|l| !l.code.contains(&prefix_line)) {
            return Err(LibraryError::NameTaken(foreign.name.clone()));
        }
        match found(&ours, own, &variants) {
            Some(Found::OtherSettings) => return Ok(Some(other_settings(&name, own))),
            Some(Found::Same | Found::Higher) => return Ok(None),
            None => {}
        }
        let mut step = redis::pipe();
        step.atomic();
        // The name `sse_publish` belongs to the default prefix. A library of another prefix has it
        // only while no other library exists.
        for borrower in others.iter().filter(|l| prefix == DEFAULT && l.code.contains(ALIAS)) {
            step.cmd("FUNCTION")
                .arg("LOAD")
                .arg("REPLACE")
                .arg(borrower.code.replace(ALIAS, ""))
                .ignore();
        }
        // A node without slots has assigned no position.
        for old in &ours {
            // The library's memory ends with it: it stores its clock.
            let saves = Revision::parse(&old.name).is_some_and(|(r, _)| r.version >= SAVES_SINCE);
            if let Some(node_key) = commands.node_key().filter(|_| saves) {
                step.add_command(commands.call("save", &[node_key])).ignore();
            }
            step.cmd("FUNCTION").arg("DELETE").arg(&old.name).ignore();
        }
        step.cmd("FUNCTION").arg("LOAD").arg(&variants[usize::from(others.is_empty())]).ignore();
        if is_replicated && !commands.is_node() {
            // The server may have lost this with its data: it must not take itself for a lone one.
            // A node of a cluster never does, and may not own the slot of this key.
            step.cmd("HSET").arg(commands.keys.node()).arg("replicated").arg(1).ignore();
        }
        match commands.run_all::<()>(&step).await {
            Ok(()) => tracing::info!(library = name, "library loaded"),
            Err(CommandError::Rejected(e)) => {
                tracing::debug!(error = %ErrorChain(&e), "library not loaded, retrying");
                reply = Some(e);
            }
            Err(away) => return Err(away.into()),
        }
    }
    Err(LibraryError::NotLoaded { library: name, functions: prefix.to_owned(), reply })
}

fn other_settings(name: &str, own: Revision) -> String {
    format!(
        "the library {name} in Redis was loaded by a gateway with other values of history.*, \
         channels, redis.fence or redis.channel_prefix, which stay active; to apply this \
         gateway's values, set history.generation to {} on all gateways",
        own.generation + 1
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn argument_limits_that_do_not_fit_get_a_warning_with_the_fix() {
        let (mib, event) = (1 << 20, 65_536);
        assert_eq!(check_argument(mib, event), None);
        assert!(check_argument(8 * mib, event).is_some());
        assert!(check_argument(15 * mib, event).is_some());
        assert!(check_argument(5 * mib, mib).is_some());
        let default = check_argument(512 * mib, event).unwrap();
        assert!(default.contains("CONFIG SET proto-max-bulk-len 1048576"), "{default}");
        let small = check_argument(mib, mib).unwrap();
        assert!(
            small.contains("refused") && small.contains("CONFIG SET proto-max-bulk-len 2097152"),
            "{small}"
        );
        assert_eq!(check_argument(2 * mib, mib), None);
    }

    #[test]
    fn library_names_carry_version_and_generation() {
        let own = Revision { version: 4, generation: 2 };
        assert_eq!(own.name("sse"), "sse_gateway_v4_g2_sse");
        assert_eq!(Revision::parse("sse_gateway_v4_g2_sse"), Some((own, "sse")));
        let old = Revision { version: 3, generation: 0 };
        assert_eq!(Revision::parse("sse_gateway_v3_shop_1"), Some((old, "shop_1")));
        assert_eq!(Revision::parse("sse_gateway_v3_g_1"), Some((old, "g_1")));
        assert_eq!(Revision::parse("other_v3_sse"), None);
    }

    #[test]
    fn only_a_lower_library_is_replaced() {
        let own = Revision { version: 4, generation: 2 };
        let one = |version, generation, code: &str| {
            let name = Revision { version, generation }.name("sse");
            found(&[Loaded { name, code: code.into() }], own, &["text".to_owned()])
        };
        assert_eq!(one(4, 2, "text"), Some(Found::Same));
        assert_eq!(one(4, 2, "another text"), Some(Found::OtherSettings));
        assert_eq!(one(4, 3, "another text"), Some(Found::Higher));
        assert_eq!(one(5, 0, "another text"), Some(Found::Higher));
        assert_eq!((one(4, 1, "text"), one(3, 9, "text")), (None, None));
    }

    #[test]
    fn rules_are_looked_up_for_new_channels_only() {
        let uses = |word: &str| SOURCE.matches(word).count();
        assert_eq!((uses("local RULES = {"), uses("ipairs(RULES)"), uses("RULES")), (1, 1, 3));
        assert_eq!(uses("apply_rules"), 2, "its definition and one call");
        let (_, lookup) = SOURCE.split_once("function channel_of(").expect("channel_of");
        let cached = lookup.find("if channel then return channel end").expect("the cache");
        assert!(lookup.find("apply_rules").expect("a new channel") > cached);
    }

    #[test]
    fn library_text_is_shorter_than_the_smallest_argument_limit() {
        assert!((SOURCE.len() as u64) < SMALLEST_BULK_BYTES / 2);
    }
}

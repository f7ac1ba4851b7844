//! Verdicts on the limits and the persistence of a server.

use std::collections::HashMap;

use super::{Finding, Info};
use crate::{core::channel_rules::ChannelPolicy, redis::library, settings::Settings};

/// Recommended `client-output-buffer-limit pubsub`: hard limit, soft limit, seconds.
const PUBSUB_BUFFERS: (u64, u64, u64) = (256 << 20, 64 << 20, 60);
/// The part of `maxmemory` in use, in percent, from which there is a warning.
const MEMORY_PERCENT: u64 = 80;

/// Bytes of an entry besides the payload, as in docs/operations/redis.md.
const ENTRY_BYTES: u64 = 200;

type Config = HashMap<String, String>;

/// Judges the server. `config`: `None` if CONFIG is not permitted.
pub(super) fn check(info: &Info, config: Option<&Config>, settings: &Settings) -> Vec<Finding> {
    let mut findings = vec![server(info), memory(info), eviction(info)];
    let value = |name: &str| config.and_then(|config| config.get(name)).map(String::as_str);
    if config.is_none() {
        findings.push(Finding::warning(
            "CONFIG is not permitted: proto-max-bulk-len, client-output-buffer-limit, appendfsync \
             and min-replicas-to-write were not checked; allow the user +config|get, or compare \
             them with docs/operations/redis.md",
        ));
    }
    let bulk = value("proto-max-bulk-len").and_then(|limit| limit.parse().ok());
    findings.extend(bulk.map(|limit| argument(limit, info, settings)));
    findings.extend(value("client-output-buffer-limit").and_then(buffers));
    findings.push(persistence(info, value("appendfsync")));
    let minimum = value("min-replicas-to-write").and_then(|number| number.parse().ok());
    findings.extend(minimum.and_then(|minimum| replicas(info, minimum)));
    if info.is_cluster() {
        findings.extend(cluster(value));
    }
    findings
}

fn server(info: &Info) -> Finding {
    let product = info.product();
    if product.starts_with("Dragonfly") || product.starts_with("Garnet") {
        return Finding::error(format!(
            "{product} is not supported: use Redis 7.0, Valkey 7.2 or later"
        ));
    }
    if info.mode() == "sentinel" {
        return Finding::error(
            "redis.url leads to a Sentinel, not to a Redis server; see docs/operations/redis.md",
        );
    }
    if library::is_too_old(info.text("redis_version")) {
        return Finding::error(format!("{product} is too old: use Redis 7.0, Valkey 7.2 or later"));
    }
    if info.is_replica() {
        return Finding::error("the server is a replica; redis.url must lead to the primary");
    }
    Finding::ok(format!("{product}, primary"))
}

fn memory(info: &Info) -> Finding {
    let (limit, used) = (info.number("maxmemory"), info.number("used_memory"));
    let text = format!("maxmemory {limit} ({used} bytes in use)");
    if limit == 0 {
        return Finding::warning(
            "maxmemory is 0 (unlimited): the system may kill Redis when memory runs out; run \
             `CONFIG SET maxmemory <bytes>` and set it in redis.conf (docs/operations/sizing.md)",
        );
    }
    if used > limit / 100 * MEMORY_PERCENT {
        return Finding::warning(format!(
            "{text}: when it is full, durable publishes fail; raise maxmemory, or lower \
             history.max_len or history.retention"
        ));
    }
    // The masters of a cluster are reported together if the text is the same.
    Finding::ok(if info.is_cluster() { format!("maxmemory {limit}") } else { text })
}

fn eviction(info: &Info) -> Finding {
    match info.text("maxmemory_policy") {
        policy @ ("noeviction" | "") => Finding::ok(format!("maxmemory-policy {policy}")),
        policy => Finding::warning(library::eviction_warning(policy)),
    }
}

fn argument(limit: u64, info: &Info, settings: &Settings) -> Finding {
    let max_event_bytes = settings.channels.largest_event_bytes() as u64;
    if info.is_cluster() {
        return log_argument(limit, settings);
    }
    match library::check_argument(limit, max_event_bytes) {
        Some(warning) => Finding::warning(warning),
        None => Finding::ok(format!("proto-max-bulk-len {limit}")),
    }
}

/// On a cluster MIGRATE sends each key as one argument: the limit must exceed the largest log.
fn log_argument(limit: u64, settings: &Settings) -> Finding {
    let log_bytes = |policy: ChannelPolicy| {
        let event = policy.max_event_bytes as u64 + ENTRY_BYTES;
        // A log is trimmed when it exceeds its length by a tenth.
        policy.max_len.saturating_mul(event).saturating_mul(11) / 10
    };
    let largest = settings.channels.policies().map(log_bytes).max().unwrap_or(0);
    if limit < largest {
        return Finding::warning(format!(
            "proto-max-bulk-len is {limit}, but a log may have {largest} bytes: MIGRATE cannot \
             move its slot to another master; run `CONFIG SET proto-max-bulk-len {largest}` and \
             set it in redis.conf"
        ));
    }
    Finding::ok(format!("proto-max-bulk-len {limit}"))
}

fn cluster<'a>(value: impl Fn(&str) -> Option<&'a str>) -> Vec<Finding> {
    let mut findings = Vec::new();
    if value("cluster-require-full-coverage") == Some("yes") {
        findings.push(Finding::warning(
            "cluster-require-full-coverage is yes: the whole cluster refuses commands while one \
             slot has no master; run `CONFIG SET cluster-require-full-coverage no` and set it in \
             redis.conf",
        ));
    }
    if value("cluster-allow-pubsubshard-when-down") == Some("no") {
        findings.push(Finding::warning(
            "cluster-allow-pubsubshard-when-down is no: subscriptions end while the cluster is \
             down; run `CONFIG SET cluster-allow-pubsubshard-when-down yes` and set it in \
             redis.conf",
        ));
    }
    findings
}

/// The limits in `normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60`.
fn pubsub_limits(text: &str) -> Option<(u64, u64, u64)> {
    let mut words = text.split_whitespace().skip_while(|word| *word != "pubsub").skip(1);
    let mut next = || words.next()?.parse().ok();
    Some((next()?, next()?, next()?))
}

fn buffers(text: &str) -> Option<Finding> {
    let (hard, soft, seconds) = pubsub_limits(text)?;
    let (least_hard, least_soft, least_seconds) = PUBSUB_BUFFERS;
    let is_low = |limit: u64, least: u64| limit != 0 && limit < least;
    let found = format!("client-output-buffer-limit pubsub {hard} {soft} {seconds}");
    Some(if is_low(hard, least_hard) || is_low(soft, least_soft) {
        Finding::warning(format!(
            "{found}: a burst of events of that size disconnects gateways, whose clients then \
             catch up; run `CONFIG SET client-output-buffer-limit \"pubsub {least_hard} \
             {least_soft} {least_seconds}\"` and set it in redis.conf"
        ))
    } else {
        Finding::ok(found)
    })
}

fn persistence(info: &Info, fsync: Option<&str>) -> Finding {
    let persists = info.number("aof_enabled") == 1;
    match fsync {
        _ if !persists => Finding::warning(
            "appendonly is no: a restart of Redis loses the events since the last snapshot, and \
             clients get sse.gap with `reset`; run `CONFIG SET appendonly yes` and set it in \
             redis.conf",
        ),
        Some("no") => Finding::warning(
            "appendfsync is no: a crash of the machine loses the events of about 30 s; run \
             `CONFIG SET appendfsync everysec` and set it in redis.conf",
        ),
        Some("everysec") => {
            Finding::ok("appendonly yes, appendfsync everysec (a crash may lose events of 1 s)")
        }
        Some(fsync) => Finding::ok(format!("appendonly yes, appendfsync {fsync}")),
        None => Finding::ok("appendonly yes"),
    }
}

/// A server without replicas has nothing to fail over to.
fn replicas(info: &Info, minimum: u64) -> Option<Finding> {
    let connected = info.number("connected_slaves");
    if minimum > connected {
        return Some(Finding::warning(format!(
            "min-replicas-to-write is {minimum}, but {connected} replicas are connected: Redis \
             refuses writes (NOREPLICAS) until enough replicas are back"
        )));
    }
    if minimum == 0 && connected > 0 {
        return Some(Finding::warning(
            "min-replicas-to-write is 0: a primary that is cut off from its replicas accepts \
             events that are lost at the failover; run `CONFIG SET min-replicas-to-write 1` and \
             set it in redis.conf",
        ));
    }
    (connected > 0).then(|| Finding::ok(format!("min-replicas-to-write {minimum}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redis::inspect::Verdict;

    const HEALTHY: &str = "redis_version:7.0.15\r\nredis_mode:standalone\r\nrole:master\r\n\
        connected_slaves:1\r\nmaxmemory:1000000\r\nused_memory:1000\r\n\
        maxmemory_policy:noeviction\r\naof_enabled:1\r\ncluster_enabled:0\r\n";

    fn healthy() -> Config {
        [
            ("appendfsync", "everysec"),
            ("client-output-buffer-limit", "normal 0 0 0 pubsub 268435456 67108864 60"),
            ("min-replicas-to-write", "1"),
            ("proto-max-bulk-len", "1048576"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
    }

    /// The findings that are not `Ok` after one change of a healthy server.
    fn after(info: (&str, &str), config: Option<(&str, &str)>) -> Vec<Finding> {
        let info = Info::parse(&HEALTHY.replace(info.0, info.1));
        let mut values = healthy();
        values.extend(config.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let found = check(&info, Some(&values), &Settings::default());
        found.into_iter().filter(|finding| finding.verdict != Verdict::Ok).collect()
    }

    #[test]
    fn healthy_server_gets_no_warning() {
        assert_eq!(after(("", ""), None), []);
    }

    #[test]
    fn each_unsuitable_value_gets_one_finding_with_the_fix() {
        let none = ("", "");
        for (info, config, words) in [
            (("maxmemory:1000000", "maxmemory:0"), None, ["maxmemory is 0", "CONFIG SET"]),
            (("maxmemory:1000000", "maxmemory:1100"), None, ["maxmemory 1100", "raise"]),
            (("noeviction", "allkeys-lru"), None, ["allkeys-lru", "noeviction"]),
            (("aof_enabled:1", "aof_enabled:0"), None, ["appendonly is no", "appendonly yes"]),
            (none, Some(("appendfsync", "no")), ["appendfsync is no", "everysec"]),
            (
                none,
                Some(("client-output-buffer-limit", "pubsub 33554432 8388608 60")),
                ["33554432 8388608 60", "pubsub 268435456"],
            ),
            (none, Some(("proto-max-bulk-len", "536870912")), ["536870912", "1048576"]),
            (none, Some(("min-replicas-to-write", "0")), ["is 0", "min-replicas-to-write 1"]),
            (none, Some(("min-replicas-to-write", "2")), ["is 2", "NOREPLICAS"]),
        ] {
            let found = after(info, config);
            assert_eq!(found.len(), 1, "{words:?}: {found:?}");
            assert_eq!(found[0].verdict, Verdict::Warning);
            assert!(words.iter().all(|word| found[0].text.contains(word)), "{found:?}");
        }
    }

    #[test]
    fn unusable_servers_are_errors() {
        for (from, to) in [
            ("role:master", "role:slave"),
            ("redis_version:7.0.15", "redis_version:6.2.0"),
            ("redis_mode:standalone", "redis_mode:sentinel"),
            ("role:master", "role:master\r\ndragonfly_version:df-v1"),
        ] {
            let found = after((from, to), None);
            assert_eq!((found.len(), found[0].verdict), (1, Verdict::Error), "{to}: {found:?}");
        }
    }

    #[test]
    fn limits_without_config_are_reported_as_unchecked() {
        let found = check(&Info::parse(HEALTHY), None, &Settings::default());
        let unchecked = found.iter().filter(|finding| finding.text.contains("+config|get"));
        assert_eq!(unchecked.count(), 1, "{found:?}");
    }
}

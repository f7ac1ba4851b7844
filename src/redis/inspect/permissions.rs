//! Which commands this user may run. Each command is queued in a transaction that is discarded:
//! Redis checks permissions when it queues a command, and nothing is executed.

use redis::Value;

use super::{Finding, error_text};
use crate::{
    core::channel::Channel,
    redis::commands::{CommandError, Commands},
    settings::PlainPublish,
};

/// A user whose keys stand for those of all users.
const USER: &str = "0";

/// A command with the arguments that its permissions depend on.
type Probe = Vec<String>;

/// The probes of all commands that the gateway and its library need.
fn probes(
    commands: &Commands,
    plain: PlainPublish,
    has_presence: bool,
    is_cluster: bool,
) -> Vec<Probe> {
    let keys = &commands.keys;
    let node = commands.node_key().unwrap_or_else(|| keys.node());
    let (recorder, topics) = (keys.recorder(), keys.topics());
    let (live, rejected) = (keys.live_broadcast(), keys.rejected());
    let (user_log, user_live) = (keys.log(&Channel::User(USER.into())), keys.live_user(USER));
    let call = keys.function("watermark");
    let mut all = vec![
        format!("DEL {recorder}"),
        format!("EXISTS {recorder}"),
        format!("FCALL {call} 1 {node}"),
        "FUNCTION DELETE x".to_owned(),
        "FUNCTION LIST".to_owned(),
        "FUNCTION LOAD x".to_owned(),
        format!("GET {recorder}"),
        "HELLO 3".to_owned(),
        format!("HDEL {node} x"),
        format!("HEXISTS {node} x"),
        format!("HGET {recorder} x"),
        format!("HGETALL {node}"),
        format!("HLEN {node}"),
        format!("HMGET {node} x"),
        format!("HSET {node} x y"),
        "INFO".to_owned(),
        format!("PEXPIRE {recorder} 1"),
        format!("PEXPIREAT {recorder} 1"),
        "SCAN 0".to_owned(),
        format!("SET {recorder} x"),
        format!("SPUBLISH {live} x"),
        format!("SSUBSCRIBE {live}"),
        format!("SSUBSCRIBE {user_live}"),
        format!("SUNSUBSCRIBE {user_live}"),
        "TIME".to_owned(),
        format!("XADD {rejected} * x y"),
        format!("XADD {user_log} * x y"),
        format!("XINFO STREAM {user_log}"),
        format!("XRANGE {user_log} - +"),
        format!("XREVRANGE {user_log} + -"),
        format!("ZADD {topics} 0 x"),
        format!("ZRANGE {topics} 0 0"),
        format!("ZREMRANGEBYSCORE {topics} 0 0"),
        format!("ZREVRANGEBYSCORE {topics} 0 0"),
    ];
    if is_cluster {
        all.push(format!("CLUSTER KEYSLOT {recorder}"));
        all.extend(["CLUSTER NODES", "CLUSTER LINKS", "CLUSTER MYID"].map(str::to_owned));
    }
    if has_presence {
        let presence = keys.presence();
        all.push(format!("HDEL {presence} x"));
        all.push(format!("HGETALL {presence}"));
        all.push(format!("HRANDFIELD {presence} 1"));
        all.push(format!("ZRANGEBYSCORE {presence} 0 0"));
        all.push(format!("ZREM {presence} x"));
        all.push(format!("ZSCORE {presence} x"));
    }
    let [users, broadcasts] = keys.public_patterns();
    let user = keys.public_user(USER);
    match plain {
        PlainPublish::Record => {
            all.push(format!("PSUBSCRIBE {users} {broadcasts}"));
            all.push(format!("PUNSUBSCRIBE {users} {broadcasts}"));
        }
        PlainPublish::Relay => {
            all.push(format!("PSUBSCRIBE {broadcasts}"));
            all.push(format!("SUBSCRIBE {user}"));
            all.push(format!("UNSUBSCRIBE {user}"));
        }
        PlainPublish::Off => {}
    }
    all.iter().map(|text| text.split(' ').map(str::to_owned).collect()).collect()
}

/// Whether a reply means that the command is not available to this user. Other errors, such as
/// `MOVED` or `OOM`, concern this attempt only.
fn is_refusal(text: &str) -> bool {
    text.contains("NOPERM") || text.to_ascii_lowercase().contains("unknown command")
}

fn is_refused(reply: &Value) -> bool {
    error_text(reply).is_some_and(|text| is_refusal(&text))
}

fn name(probe: &Probe) -> String {
    match probe[0].as_str() {
        "FUNCTION" | "CLUSTER" => probe[..2].join(" "),
        name => name.to_owned(),
    }
}

/// One finding: all commands are permitted, or which are not.
///
/// # Errors
/// The server does not reply.
pub(super) async fn check(
    commands: &Commands,
    plain: PlainPublish,
    has_presence: bool,
) -> Result<Vec<Finding>, CommandError> {
    // Outside a transaction these do nothing. Without DISCARD a transaction could not be ended.
    let mut outside = redis::pipe();
    outside.cmd("DISCARD").cmd("EXEC").cmd("MULTI").cmd("DISCARD").ignore_errors();
    let refusals: Vec<bool> = match commands.run_all::<Vec<Value>>(&outside).await {
        Ok(replies) => replies.iter().map(is_refused).collect(),
        Err(CommandError::Rejected(_)) => vec![true; 3],
        Err(away) => return Err(away),
    };
    let unusable = ["DISCARD", "EXEC", "MULTI"].into_iter().zip(refusals);
    let unusable: Vec<&str> = unusable.filter(|(_, refused)| *refused).map(|(n, _)| n).collect();
    if !unusable.is_empty() {
        return Ok(vec![Finding::error(format!(
            "permissions: Redis refuses {}, and the others were not checked; allow the user what \
             docs/operations/redis.md lists",
            unusable.join(", ")
        ))]);
    }
    let probes = probes(commands, plain, has_presence, commands.is_node());
    let mut pipeline = redis::pipe();
    pipeline.cmd("MULTI");
    for probe in &probes {
        pipeline.cmd(&probe[0]).arg(&probe[1..]);
    }
    pipeline.cmd("DISCARD").ignore_errors();
    let replies: Vec<Value> = commands.run_all(&pipeline).await?;
    let denied: Vec<_> =
        probes.iter().zip(&replies[1..]).filter(|(_, reply)| is_refused(reply)).collect();
    let Some((_, reply)) = denied.first() else {
        return Ok(vec![Finding::ok("permissions: all commands that the gateway needs")]);
    };
    let mut names: Vec<String> = denied.iter().map(|(probe, _)| name(probe)).collect();
    names.dedup();
    Ok(vec![Finding::error(format!(
        "permissions: Redis refuses {} ({}); allow the user what docs/operations/redis.md lists",
        names.join(", "),
        error_text(reply).unwrap_or_default().trim(),
    ))])
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::{
        redis::{library, locate::Locator},
        settings::Settings,
    };

    #[test]
    fn every_command_of_the_library_is_probed() {
        let settings = Settings::default().redis;
        let commands = Commands::new(&settings, Locator::new(&settings).unwrap(), None);
        let probes = probes(&commands, PlainPublish::Off, true, true);
        let probed: BTreeSet<String> = probes.into_iter().map(|mut p| p.remove(0)).collect();
        let source = library::SOURCE;
        let called: BTreeSet<String> = ["call('", "attempt('", "in_parts('"]
            .iter()
            .flat_map(|call| source.split(call).skip(1))
            .filter_map(|rest| rest.split('\'').next())
            .filter(|name| name.bytes().all(|b| b.is_ascii_uppercase()))
            .map(str::to_owned)
            .collect();
        assert!(called.contains("XADD") && called.contains("SPUBLISH"), "{called:?}");
        let missing: Vec<_> = called.difference(&probed).collect();
        assert!(missing.is_empty(), "add probes for {missing:?}");
    }

    #[test]
    fn only_refusals_count() {
        assert!(is_refusal("NOPERM this user has no permissions to run the 'xadd' command"));
        assert!(is_refusal("ERR unknown command 'FUNCTION', with args beginning with: 'LIST'"));
        assert!(!is_refusal("MOVED 1 10.0.0.1:6379") && !is_refusal("OOM command not allowed"));
    }
}

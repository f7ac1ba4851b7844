//! The function library on a Redis Cluster.

use std::collections::HashMap;

use crate::harness::{Cluster, Gateway, Id, Redis, user};

type Fields = HashMap<String, String>;

/// A cluster of three masters with the library.
async fn cluster() -> Cluster {
    let cluster = Cluster::start(3).await;
    let text = library().await;
    for node in cluster.nodes() {
        load(node, &text).await;
    }
    cluster
}

/// The text of the library, as a gateway loads it.
async fn library() -> String {
    let redis = Redis::start_beside().await;
    let _gateway = Gateway::durable_only(&redis).start().await;
    let libraries: Vec<HashMap<String, redis::Value>> =
        redis.command(&["FUNCTION", "LIST", "WITHCODE"]).await;
    redis::from_redis_value(libraries[0]["library_code"].clone()).unwrap()
}

async fn load(node: &Redis, text: &str) {
    node.command::<String>(&["FUNCTION", "LOAD", "REPLACE", text]).await;
}

/// A node key in a slot of this node.
async fn node_key(cluster: &Cluster, n: usize) -> String {
    for suffix in 0.. {
        let tag = if suffix == 0 { "broadcast".to_owned() } else { format!("n{suffix}") };
        if cluster.owner_of(&format!("{{{tag}}}")).await == n {
            return format!("sse:node:{{{tag}}}");
        }
    }
    unreachable!("a suffix for each slot")
}

async fn call(node: &Redis, function: &str, key: &str, arguments: &[&str]) -> Fields {
    let mut words = vec!["FCALL", function, "1", key];
    words.extend(arguments);
    node.command(&words).await
}

async fn watermark(node: &Redis, key: &str) -> Fields {
    call(node, "sse_watermark", key, &["0-0.0"]).await
}

async fn adopt(node: &Redis, key: &str, arguments: &[&str]) -> Id {
    let mut all = vec!["0-0.0"];
    all.extend(arguments);
    let reply = call(node, "sse_adopt", key, &all).await;
    assert_eq!(reply["state"], "adopted", "{reply:?}");
    Id::of(&reply["h"])
}

async fn publish(node: &Redis, channel: &str) -> Result<Id, String> {
    node.durable(channel, "event", "1").await.map(|id| Id::of(&id))
}

async fn is_refused(node: &Redis, channel: &str) {
    let refused = publish(node, channel).await.unwrap_err();
    assert!(refused.starts_with("not-adopted:"), "{refused}");
}

/// A user whose channel belongs to this node.
pub async fn user_of(cluster: &Cluster, n: usize) -> String {
    for id in 0.. {
        if cluster.owner_of(&user(&id.to_string())).await == n {
            return user(&id.to_string());
        }
    }
    unreachable!("a user for each node")
}

/// An hour after a position: in its order and as an epoch.
fn hour_later(id: Id) -> String {
    Id { epoch: id.epoch + 3600 * 1296, ..id }.to_string()
}

#[tokio::test]
async fn each_server_of_a_cluster_must_be_adopted() {
    let cluster = cluster().await;
    for n in 0..3 {
        let (node, key) = (cluster.node(n), node_key(&cluster, n).await);
        let channel = user_of(&cluster, n).await;
        is_refused(node, &channel).await;
        assert_eq!(watermark(node, &key).await["state"], "unknown");
        let start = adopt(node, &key, &[]).await;
        assert_eq!(watermark(node, &key).await["state"], "adopted");
        let id = publish(node, &channel).await.unwrap();
        assert!(id > start && id.epoch == start.epoch, "{id} {start}");
    }
    // A broadcast has the slot of {broadcast}, and its key must say so.
    let owner = cluster.owner_of("broadcast:news").await;
    let error = publish(cluster.node(owner), "broadcast:news").await.unwrap_err();
    assert!(error.starts_with("bad-channel:") && error.contains("{broadcast}:news"), "{error}");
    let owner = cluster.owner_of("{broadcast}").await;
    publish(cluster.node(owner), "{broadcast}:news").await.unwrap();
}

#[tokio::test]
async fn moved_slot_accepts_events_after_an_adoption() {
    let cluster = cluster().await;
    let (a, b) = (cluster.node(0), cluster.node(1));
    let (key_a, key_b) = (node_key(&cluster, 0).await, node_key(&cluster, 1).await);
    let first_b = adopt(b, &key_b, &[]).await;
    let ahead = call(a, "sse_adopt", &key_a, &[&hour_later(first_b)]).await;
    let first_a = Id::of(&ahead["h"]);
    let (channel, other) = (user_of(&cluster, 0).await, user_of(&cluster, 1).await);
    let slot = cluster.slot_of(&channel).await;
    let before = publish(a, &channel).await.unwrap();
    publish(b, &other).await.unwrap();
    // While the slot moves, neither server accepts its events.
    cluster.begin_migration(slot, 1).await;
    let asked = publish(a, &channel).await.unwrap_err();
    assert!(asked.contains("Ask:"), "{asked}");
    let mut importing = b.conn().await;
    let mut pipe = redis::pipe();
    pipe.cmd("ASKING").cmd("FCALL").arg("sse_publish").arg(1).arg(&channel).arg("t").arg("1");
    let refused = pipe.query_async::<redis::Value>(&mut importing).await.unwrap_err();
    assert!(refused.to_string().contains("not-adopted"), "{refused}");
    cluster.move_keys(slot, 0, 1).await;
    cluster.end_migration(slot, 0, 1).await;
    cluster.is_ok().await;
    is_refused(b, &channel).await;
    assert_eq!(publish(b, &other).await.unwrap().epoch, first_b.epoch);
    crate::harness::eventually("an unknown server", || async {
        (watermark(b, &key_b).await["state"] == "unknown").then_some(())
    })
    .await;
    let (floor, epochs) = (before.to_string(), before.to_string());
    let epoch = epochs.rsplit('.').next().unwrap();
    let vouch = slot.to_string();
    let adopted = adopt(b, &key_b, &["FLOOR", &floor, "VOUCH", &vouch, epoch]).await;
    assert!(adopted.epoch > first_a.epoch && adopted > before, "{adopted} {before}");
    let after = publish(b, &channel).await.unwrap();
    assert!(after > before, "{after} {before}");
    let node: Fields = b.command(&["HGETALL", &key_b]).await;
    assert_eq!(node[&format!("slot:{slot}")], epoch);
    assert_eq!(node["continues"], first_b.to_string().rsplit('.').next().unwrap());
    assert_eq!(watermark(b, &key_b).await["state"], "adopted");
    // The former owner lost only this slot.
    crate::harness::eventually("an unknown server", || async {
        (watermark(a, &key_a).await["state"] == "unknown").then_some(())
    })
    .await;
    assert_eq!(adopt(a, &key_a, &[]).await.epoch, first_a.epoch);
    // The slot returns without a voucher.
    cluster.migrate(slot, 0).await;
    adopt(b, &key_b, &[]).await;
    let node: Fields = b.command(&["HGETALL", &key_b]).await;
    assert!(!node.contains_key(&format!("slot:{slot}")), "{node:?}");
    // The log has a later epoch than its server: the next adoption begins one after it.
    adopt(a, &key_a, &[]).await;
    is_refused(a, &channel).await;
    assert_eq!(watermark(a, &key_a).await["state"], "unknown");
    adopt(a, &key_a, &[]).await;
    let last = publish(a, &channel).await.unwrap();
    assert!(last > after, "{last} {after}");
    let ids = a.log_ids(&channel).await;
    assert_eq!(ids, [before, after, last].map(|id| id.to_string()));
}

async fn call_without_key(node: &Redis, function: &str) -> Fields {
    node.command(&["FCALL", function, "0"]).await
}

#[tokio::test]
async fn slot_that_was_away_for_a_moment_must_be_adopted_again() {
    let cluster = cluster().await;
    let (a, b) = (cluster.node(0), cluster.node(1));
    let (key_a, key_b) = (node_key(&cluster, 0).await, node_key(&cluster, 1).await);
    let first_a = adopt(a, &key_a, &[]).await;
    let channel = user_of(&cluster, 0).await;
    let slot = cluster.slot_of(&channel).await;
    publish(a, &channel).await.unwrap();
    cluster.migrate(slot, 1).await;
    // What a gateway asks before it adopts the new owner.
    let given = call_without_key(a, "sse_given").await;
    assert_eq!((&*given["state"], Id::of(&given["h"]).epoch), ("given", first_a.epoch));
    let (_, epochs) = given["h"].split_once('.').unwrap();
    let vouched = ["FLOOR", &given["h"], "VOUCH", &slot.to_string(), epochs];
    adopt(b, &key_b, &vouched).await;
    let log = format!("sse:log:{{{channel}}}");
    let vouchers: String = b.command(&["FCALL", "sse_vouched", "1", &log]).await;
    assert_eq!(vouchers, epochs);
    let at_b = publish(b, &channel).await.unwrap();
    cluster.migrate(slot, 0).await;
    // The first owner never had a watermark without the slot.
    is_refused(a, &channel).await;
    let unknown = a.try_command::<String>(&["FCALL", "sse_vouched", "1", &log]).await;
    assert!(
        unknown.unwrap_err().to_string().contains("not-adopted"),
        "a catch-up must wait for the adoption"
    );
    adopt(a, &key_a, &["FLOOR", &at_b.to_string()]).await;
    let back = publish(a, &channel).await.unwrap();
    assert!(back.epoch > at_b.epoch, "{back} after {at_b}");
}

#[tokio::test]
async fn only_slots_that_the_gateway_knows_are_adopted() {
    let cluster = cluster().await;
    let (a, key) = (cluster.node(0), node_key(&cluster, 0).await);
    let channel = user_of(&cluster, 0).await;
    let slot = cluster.slot_of(&channel).await;
    let known = format!("0-{},{}-5460", slot - 1, slot + 1);
    adopt(a, &key, &["SLOTS", &known]).await;
    is_refused(a, &channel).await;
    assert_eq!(watermark(a, &key).await["state"], "unknown");
    adopt(a, &key, &["SLOTS", "0-5460"]).await;
    publish(a, &channel).await.unwrap();
    assert_eq!(watermark(a, &key).await["state"], "adopted");
}

#[tokio::test]
async fn another_node_key_is_no_wipe() {
    let cluster = cluster().await;
    let owner = cluster.owner_of("{broadcast}").await;
    let node = cluster.node(owner);
    let old = "sse:node:{broadcast}";
    let start = adopt(node, old, &[]).await;
    let channel = user_of(&cluster, owner).await;
    publish(node, &channel).await.unwrap();
    let slot = cluster.slot_of("{broadcast}").await;
    cluster.migrate(slot, (owner + 1) % 3).await;
    let moved = node.try_command::<Fields>(&["FCALL", "sse_watermark", "1", old, "0-0.0"]).await;
    assert!(moved.unwrap_err().to_string().contains("Moved:"));
    let key = node_key(&cluster, owner).await;
    assert_ne!(key, old);
    assert_eq!(watermark(node, &key).await["state"], "unknown");
    assert_eq!(adopt(node, &key, &[]).await.epoch, start.epoch);
    assert_eq!(watermark(node, &key).await["state"], "adopted");
    assert_eq!(publish(node, &channel).await.unwrap().epoch, start.epoch);
    let fields: Fields = node.command(&["HGETALL", &key]).await;
    assert_eq!(fields["replicated"], "1");
    // A wipe is a new epoch.
    node.flushall().await;
    assert_eq!(watermark(node, &key).await["state"], "unknown");
    assert!(adopt(node, &key, &[]).await.epoch > start.epoch);
}

#[tokio::test]
async fn promoted_replica_of_a_cluster_must_be_adopted() {
    let mut cluster = cluster().await;
    let (key, channel) = (node_key(&cluster, 0).await, user_of(&cluster, 0).await);
    let replica = cluster.add_replica(0).await;
    let start = adopt(cluster.node(0), &key, &[]).await;
    let before = publish(cluster.node(0), &channel).await.unwrap();
    let mut reading = cluster.node(replica).conn().await;
    redis::cmd("READONLY").query_async::<()>(&mut reading).await.unwrap();
    let mut command = redis::cmd("FCALL");
    command.arg(&["sse_watermark", "1", &key, "0-0.0"]);
    let reply: Fields = command.query_async(&mut reading).await.unwrap();
    assert_eq!(reply["state"], "replica");
    cluster.node(replica).receives_all_of(cluster.node(0)).await;
    cluster.node(0).stop();
    cluster.is_promoted(replica).await;
    let new = cluster.node(replica);
    is_refused(new, &channel).await;
    let adopted = adopt(new, &key, &[]).await;
    assert!(adopted.epoch > start.epoch, "{adopted} {start}");
    assert!(publish(new, &channel).await.unwrap() > before);
}

#[tokio::test]
async fn plain_messages_are_recorded_across_slots() {
    let cluster = cluster().await;
    let owner = cluster.owner_of("{broadcast}").await;
    let n = (owner + 1) % 3;
    let broadcasts = cluster.node(owner);
    let start = adopt(broadcasts, "sse:node:{broadcast}", &[]).await;
    let node = cluster.node(n);
    adopt(node, &node_key(&cluster, n).await, &[]).await;
    let channel = user_of(&cluster, n).await;
    let recorder = "sse:recorder:{broadcast}";
    let held = call(broadcasts, "sse_lease", recorder, &["recorder", "me", "5000"]).await;
    let token = &held["token"];
    let later = hour_later(start);
    let record_after = |token: &str, marker: &str, number: &str, before: &str| {
        let words = ["FCALL", "sse_record_across", "1", &channel, token, marker, number, before];
        let words: Vec<String> =
            words.into_iter().chain(["PLAIN", "t", "1"]).map(str::to_owned).collect();
        async move { node.command::<String>(&words).await }
    };
    let record = |token: &str, marker: &str, number: &str| record_after(token, marker, number, "");
    assert_eq!(record_after(token, "m", "3", "1").await, "hole", "1 was not recorded");
    assert_eq!(record(token, "m", "1").await, "recorded");
    assert_eq!(record(token, "m", "1").await, "done");
    assert_eq!(record_after(token, "m", "7", "5").await, "hole", "5 was not recorded");
    assert_eq!(record(token, "m", "5").await, "recorded", "other channels had the others");
    assert_eq!(record_after(token, "m", "5", "1").await, "done");
    assert_eq!(record_after(token, "other", "6", "5").await, "hole", "another numbering");
    assert_eq!(record(token, "other", "1").await, "recorded");
    assert_eq!(record(&later, "other", "2").await, "recorded");
    assert_eq!(record(token, "other", "3").await, "fenced");
    assert_eq!(node.log_ids(&channel).await.len(), 4);
    let progress = |token: &str, number: &str| {
        let words = ["FCALL", "sse_progress", "1", recorder, token, "m", number, "1"];
        let words = words.map(str::to_owned);
        async move { broadcasts.command::<String>(&words).await }
    };
    assert_eq!(progress(token, "5").await, "done");
    assert_eq!(progress(token, "3").await, "done");
    let stored: Fields = broadcasts.command(&["HGETALL", recorder]).await;
    assert_eq!((&*stored["marker"], &*stored["n"]), ("m", "5"));
    assert_eq!(progress(&later, "6").await, "fenced");
    broadcasts.command::<i64>(&["DEL", recorder]).await;
    assert_eq!(progress(token, "6").await, "unknown");
    // A rejected message is kept in the slot of the broadcasts only.
    let reject = ["x", "1", "", "REJECT", "not-utf8", "message", "broadcast:news"];
    for (node, key) in [(broadcasts, "{broadcast}:news"), (node, &*channel)] {
        let mut words = vec!["FCALL", "sse_record_across", "1", key, token];
        words.extend(reject);
        assert_eq!(node.command::<String>(&words).await, "rejected not-utf8 ");
    }
    let rejected = broadcasts.rejected().await;
    assert_eq!(rejected.len(), 1, "{rejected:?}");
    assert_eq!(rejected[0].channel, b"broadcast:news");
}

#[tokio::test]
async fn session_keeps_its_first_broadcast() {
    let redis = Redis::start().await;
    let _gateway = Gateway::durable_only(&redis).start().await;
    let channel = user("1");
    let open = |connection: &'static str| {
        let words = ["digest", connection, "0", "0", "60000", "99999999999999", "99999999999999"];
        let words: Vec<&str> = words.into_iter().chain(["", "1000", "", "", "7-0.a"]).collect();
        let (redis, channel) = (&redis, &channel);
        async move { call(redis, "sse_open", channel, &words).await }
    };
    let opened = open("one").await;
    assert_eq!((&*opened["outcome"], &*opened["first_broadcast"]), ("opened", "7-0.a"));
    redis.flushall().await;
    let renew = |words: &'static [&'static str], channel: String| {
        let mut all = vec!["FCALL", "sse_renew", "1"];
        all.extend(words);
        let mut all: Vec<String> = all.into_iter().map(str::to_owned).collect();
        all.insert(3, channel);
        all
    };
    static SESSION: [&str; 10] =
        ["digest", "one", "1-0.a", "1", "99999999999999", "60000", "0", "9", "", "7-0.a"];
    let renewed: Vec<String> = redis.command(&renew(&SESSION, channel.clone())).await;
    assert_eq!(renewed, ["ok"]);
    assert_eq!(open("two").await["first_broadcast"], "7-0.a");
    // Gateways of library 5 do not name it.
    redis.flushall().await;
    let renewed: Vec<String> = redis.command(&renew(&SESSION[..9], channel.clone())).await;
    assert_eq!(renewed, ["ok"]);
    let resumed = open("three").await;
    assert_eq!((&*resumed["outcome"], &*resumed["first_broadcast"]), ("resumed", ""));
}

#[tokio::test]
async fn session_of_an_earlier_library_is_resumed() {
    let redis = Redis::start().await;
    let _gateway = Gateway::durable_only(&redis).start().await;
    let channel = user("1");
    let key = format!("sse:session:{{{channel}}}:digest");
    // As libraries up to version 6 stored it.
    let fields = [
        "connection",
        "one",
        "first",
        "1-0.a",
        "opened_ms",
        "5",
        "until_ms",
        "99999999999999",
        "opens_until_ms",
        "0",
        "generation",
        "5",
        "proof",
        "p",
    ];
    let store = [&["HSET", key.as_str()], &fields[..]].concat();
    redis.command::<i64>(&store).await;
    let channel = channel.as_str();
    let renew = ["FCALL", "sse_renew", "1", channel, "digest", "one", "1-0.a", "5", "9", "60000"];
    let renew = [&renew[..], &["0", "5", "p", ""]].concat();
    assert_eq!(redis.command::<Vec<String>>(&renew).await, ["ok"]);
    assert_eq!(redis.command::<String>(&["TYPE", &key]).await, "hash");
    assert!(redis.command::<i64>(&["PTTL", &key]).await > 0, "it was renewed");
    let until = "99999999999999";
    let words = ["digest", "two", "0", "0", "60000", until, until, "", "1000", "p", ""];
    let resumed = call(&redis, "sse_open", channel, &words).await;
    assert_eq!((&*resumed["outcome"], &*resumed["first"]), ("resumed", "1-0.a"));
    assert_eq!((&*resumed["opened_ms"], &*resumed["proof"]), ("5", "p"));
    assert_eq!(redis.command::<String>(&["TYPE", &key]).await, "string");
    let again = call(&redis, "sse_open", channel, &words).await;
    assert_eq!((&*again["outcome"], &*again["first"]), ("resumed", "1-0.a"));
}

#[tokio::test]
async fn cluster_moves_slots_and_promotes_replicas() {
    let mut cluster = Cluster::start(3).await;
    let slot = cluster.slot_of("{broadcast}").await;
    let from = cluster.owner_of_slot(slot).await;
    let to = (from + 1) % 3;
    cluster.command_at::<()>("{broadcast}", &["SET", "a:{broadcast}", "1"]).await;
    cluster.migrate(slot, to).await;
    assert_eq!(cluster.owner_of("{broadcast}").await, to);
    let moved: String = cluster.command_at("{broadcast}", &["GET", "a:{broadcast}"]).await;
    assert_eq!(moved, "1");
    let replica = cluster.add_replica(to).await;
    cluster.node(to).stop();
    cluster.is_promoted(replica).await;
    let kept: String = cluster.command_at("{broadcast}", &["GET", "a:{broadcast}"]).await;
    assert_eq!(kept, "1");
    cluster.node(to).start_again().await;
    cluster.is_ok().await;
}

//! `UNSEEN`: an event that no stream of its user is handed in time is stored for the backend, once.

use std::collections::HashMap;

use crate::harness::cluster_load::{gateway as gateway_of, user_at};
use crate::harness::{Cluster, Gateway, Redis, eventually, ticket, user};

const UNDELIVERED: &str = "sse:undelivered:{broadcast}";

async fn unseen(redis: &Redis, name: &str, payload: &str, time: &str) -> String {
    let channel = user(name);
    let words = ["FCALL", "sse_publish", "1", &channel, "t", payload, "UNSEEN", time];
    eventually("an adopted server", async || redis.try_command::<String>(&words).await.ok()).await
}

type Entry = (String, HashMap<String, Vec<u8>>);

/// The payloads in the stream of undelivered events, as channel and payload.
async fn undelivered(redis: &Redis) -> Vec<(String, String)> {
    let entries: Vec<Entry> = redis.command(&["XRANGE", UNDELIVERED, "-", "+"]).await;
    let of = |fields: &HashMap<String, Vec<u8>>, name: &str| {
        String::from_utf8_lossy(&fields[name]).into_owned()
    };
    entries.iter().map(|(_, fields)| (of(fields, "channel"), of(fields, "payload"))).collect()
}

async fn wait_for_undelivered(redis: &Redis, payload: &str) -> Vec<(String, String)> {
    eventually("an undelivered event", async || {
        let all = undelivered(redis).await;
        all.iter().any(|(_, found)| found == payload).then_some(all)
    })
    .await
}

/// Nothing waits any more.
async fn all_settled(redis: &Redis) {
    eventually("the end of all waiting", async || {
        let keys: Vec<String> = redis.command(&["KEYS", "sse:unseen:*"]).await;
        keys.is_empty().then_some(())
    })
    .await;
}

#[tokio::test]
async fn only_unseen_events_are_stored_for_the_backend() {
    let redis = Redis::start().await;
    let gateways = [Gateway::start(&redis).await, Gateway::start(&redis).await];
    let mut sse = gateways[0].connect("1").await;
    // Long enough that the report that it was seen comes first on a busy machine, too.
    let live = unseen(&redis, "1", "live", "60s").await;
    assert_eq!(sse.app_event().await.id, Some(live));
    // Handed over by a replay.
    let same = ticket("2");
    let cursor = gateways[1].connect_with(&same, "").await.last_id().to_owned();
    let replayed = unseen(&redis, "2", "replayed", "60s").await;
    let mut late = gateways[1].connect_with(&same, &format!("&lastEventId={cursor}")).await;
    assert_eq!(late.app_event().await.id, Some(replayed));
    let position = unseen(&redis, "3", "nobody", "1s").await;
    let all = wait_for_undelivered(&redis, "nobody").await;
    all_settled(&redis).await;
    assert_eq!(all, [(user("3"), "nobody".to_owned())]);
    let entries: Vec<Entry> = redis.command(&["XRANGE", UNDELIVERED, "-", "+"]).await;
    let stored = (&*entries[0].1["id"], &*entries[0].1["type"]);
    assert_eq!(stored, (position.as_bytes(), &b"t"[..]));
}

#[tokio::test]
async fn crashes_neither_lose_nor_repeat_an_undelivered_event() {
    let redis = Redis::start_persistent("always").await;
    let first = Gateway::start(&redis).await;
    for n in 0..20 {
        unseen(&redis, &n.to_string(), &n.to_string(), "1s").await;
    }
    first.kill9();
    // The memory of the library ends, too.
    redis.stop();
    redis.start_again().await;
    let gateways = [Gateway::start(&redis).await, Gateway::start(&redis).await];
    all_settled(&redis).await;
    // An instance that ended between storing and removing has left one behind.
    let position = unseen(&redis, "0", "again", "5s").await;
    let stored =
        ["FCALL", "sse_undelivered", "1", UNDELIVERED, "user:0:events", &position, "t", "again"];
    assert_eq!(redis.command::<String>(&stored).await, "stored");
    all_settled(&redis).await;
    let mut payloads: Vec<_> = undelivered(&redis).await.into_iter().map(|(_, p)| p).collect();
    payloads.sort();
    let mut expected: Vec<_> = (0..20).map(|n| n.to_string()).collect();
    expected.push("again".to_owned());
    expected.sort();
    assert_eq!(payloads, expected);
    drop(gateways);
}

#[tokio::test]
async fn undelivered_events_of_all_servers_are_stored() {
    let cluster = Cluster::start(3).await;
    let gateway = gateway_of(&cluster).start().await;
    let broadcasts = cluster.owner_of("{broadcast}").await;
    let name = user_at(&cluster, (broadcasts + 1) % 3, 0).await;
    unseen(cluster.node((broadcasts + 1) % 3), &name, "elsewhere", "1s").await;
    let all = wait_for_undelivered(cluster.node(broadcasts), "elsewhere").await;
    assert_eq!(all, [(user(&name), "elsewhere".to_owned())]);
    drop(gateway);
}

#[tokio::test]
async fn foreign_keys_stop_nothing() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(&redis).await;
    unseen(&redis, "1", "first", "1s").await;
    wait_for_undelivered(&redis, "first").await;
    drop(gateway);
    redis.command::<()>(&["SET", "sse:unseen:{user:9:events}", "x"]).await;
    let mut connection = redis.conn().await;
    let mut command = redis::cmd("HSET");
    command.arg(b"sse:unseen:{user:\xff:events}").arg("a").arg("b");
    command.query_async::<i64>(&mut connection).await.unwrap();
    let mut command = redis::cmd("HSET");
    command.arg("sse:unseen:{user:8:events}").arg(b"\xff").arg("1 t\njunk");
    command.query_async::<i64>(&mut connection).await.unwrap();
    let _gateway = Gateway::start(&redis).await;
    unseen(&redis, "8", "real", "1s").await;
    wait_for_undelivered(&redis, "real").await;
    eventually("the end of what is due", async || {
        let left: i64 = redis.command(&["EXISTS", "sse:unseen:{user:8:events}"]).await;
        (left == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn unseen_takes_a_duration_and_a_user() {
    let redis = Redis::start().await;
    let _gateway = Gateway::start(&redis).await;
    for (channel, time) in
        [("user:1:events", "soon"), ("user:1:events", "8d"), ("broadcast:a", "5s")]
    {
        let words = ["FCALL", "sse_publish", "1", channel, "t", "", "UNSEEN", time];
        let error = redis.try_command::<String>(&words).await.unwrap_err().to_string();
        assert!(error.contains("bad-unseen"), "{channel} {time}: {error}");
    }
}

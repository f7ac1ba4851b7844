//! Presence: one event for the first and one for the last stream of a user, over all instances, and
//! only for tickets that may see them.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::gateway::Builder;
use crate::harness::keys::api_keys;
use crate::harness::{Cluster, Event, Gateway, Redis, Sse, eventually, ticket, topic, user};

const KEY: &str = "an admin's key";
const USERS: &str = "sse:presence:{broadcast}";
const LEASES: &str = "sse:presence-leases:{broadcast}";
/// For tests in which it must not end.
const LONG: &str = "1h";

fn builder(redis: &Redis, lease: &str, linger: &str) -> Builder {
    with_presence(Gateway::durable_only(redis), lease, linger)
}

fn with_presence(builder: Builder, lease: &str, linger: &str) -> Builder {
    builder
        .env("PRESENCE__ENABLED", "true")
        .env("PRESENCE__LEASE", lease)
        .env("PRESENCE__LINGER", linger)
        .env("API_KEYS", &api_keys(&[(KEY, "admin")]))
}

async fn json_of(response: reqwest::Response) -> Value {
    serde_json::from_str(&response.text().await.expect("a body")).expect("JSON")
}

/// Status and body of `GET /presence?<query>` with this API key.
pub async fn ask_with(gateway: &Gateway, query: &str, key: &str) -> (u16, Value) {
    let request = gateway.admin_http().get(gateway.admin_url(&format!("/presence?{query}")));
    let response = request.bearer_auth(key).send().await.expect("a response");
    (response.status().as_u16(), json_of(response).await)
}

async fn ask(gateway: &Gateway, query: &str) -> (u16, Value) {
    ask_with(gateway, query, KEY).await
}

/// Waits until a user has so many connections, and returns whether the user is online.
async fn connections(gateway: &Gateway, id: &str, count: u64) -> bool {
    eventually(&format!("{count} connections of {id}"), || async {
        let (status, found) = ask(gateway, &format!("user={id}")).await;
        (status == 200 && found["connections"] == count).then(|| found["online"] == true)
    })
    .await
}

/// The presence events of a user in the log, oldest first.
async fn logged(redis: &Redis, id: &str) -> Vec<String> {
    let key = crate::harness::log_key(&topic("presence"));
    let entries: Vec<(String, Vec<String>)> = redis.command(&["XRANGE", &key, "-", "+"]).await;
    types_about(&entries, id)
}

/// The types of the events about a user among the entries of a log.
fn types_about(entries: &[(String, Vec<String>)], id: &str) -> Vec<String> {
    let data = json!({ "user": id }).to_string();
    let field = |fields: &[String], name: &str| {
        let pair = fields.chunks(2).find(|pair| pair[0] == name);
        pair.map(|pair| pair[1].clone()).unwrap_or_default()
    };
    let own = entries.iter().filter(|(_, fields)| field(fields, "d") == data);
    own.map(|(_, fields)| field(fields, "t")).collect()
}

/// A stream that sees presence events.
async fn watch(gateway: &Gateway) -> Sse {
    gateway.connect_with(&ticket("watcher").claim("presence", json!(true)), "").await
}

/// The next event with this name about this user.
async fn next_about(watcher: &mut Sse, name: &str, id: &str) -> Event {
    let about = |event: &Event| event.event == name && event.json()["user"] == id;
    watcher.until(about).await.pop().expect("the one that was found")
}

#[tokio::test]
async fn first_and_last_stream_give_one_event_each() {
    let redis = Redis::start().await;
    let builder = builder(&redis, LONG, "100ms");
    let (one, two) = tokio::join!(builder.start(), builder.start());
    let mut watcher = watch(&two).await;
    let first = one.connect("a\"b").await;
    let online = next_about(&mut watcher, "sse.online", "a\"b").await;
    assert!(online.id.is_some(), "it can be replayed");
    let second = two.connect("a\"b").await;
    connections(&one, "a%22b", 2).await;
    drop(first);
    assert!(connections(&one, "a%22b", 1).await);
    let instances: Option<String> = redis.command(&["HGET", USERS, "a\"b"]).await;
    assert_eq!(instances.as_deref(), Some("1"));
    drop(second);
    next_about(&mut watcher, "sse.offline", "a\"b").await;
    assert!(!connections(&two, "a%22b", 0).await);
    assert_eq!(logged(&redis, "a\"b").await, ["sse.online", "sse.offline"]);
    assert_eq!(one.metric("sse_presence_users", &[]).await, 0.0);
    // A graceful end does not wait for the lease.
    let _stream = one.connect("7").await;
    next_about(&mut watcher, "sse.online", "7").await;
    one.term();
    next_about(&mut watcher, "sse.offline", "7").await;
    assert!(one.wait_exit().await.success());
    eventually("the end of the lease", || async {
        (redis.command::<usize>(&["ZCARD", LEASES]).await == 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn reconnect_within_linger_gives_no_event() {
    let redis = Redis::start().await;
    let builder = builder(&redis, LONG, LONG);
    let (one, two) = tokio::join!(builder.start(), builder.start());
    let stream = one.connect("1").await;
    assert!(connections(&two, "1", 1).await);
    drop(stream);
    assert!(connections(&two, "1", 0).await, "offline before the end of the linger");
    // Polls count while they wait; the linger covers the time between them.
    let url = two.url(&format!("/events/poll?ticket={}", ticket("1").jwt()));
    let position = json_of(two.http().get(&url).send().await.unwrap()).await;
    let at = crate::harness::encode(position["lastEventId"].as_str().unwrap());
    let poll = two.http().get(format!("{url}&wait=30&lastEventId={at}")).send();
    let waiting = tokio::spawn(poll);
    assert!(connections(&one, "1", 1).await);
    redis.durable(&user("1"), "a", "1").await.unwrap();
    waiting.await.unwrap().unwrap();
    assert!(connections(&one, "1", 0).await);
    assert_eq!(logged(&redis, "1").await, ["sse.online"]);
}

#[tokio::test]
async fn users_of_a_killed_instance_go_offline_once() {
    let redis = Redis::start().await;
    // Channel rules neither refuse presence events nor make them ephemeral.
    let rules = r#"[{"match":"broadcast:*","rate":1,"ephemeral":true}]"#;
    let builder = builder(&redis, "2s", "4s").env("CHANNELS", rules);
    let (killed, other) = tokio::join!(builder.start(), builder.start());
    let mut watcher = watch(&other).await;
    let mut streams = Vec::new();
    for id in ["stays", "goes-1", "both", "goes-2"] {
        streams.push(killed.connect(id).await);
        next_about(&mut watcher, "sse.online", id).await;
    }
    streams.push(other.connect("both").await);
    connections(&other, "both", 2).await;
    killed.kill9();
    streams.push(other.connect("stays").await);
    let mut offline = Vec::new();
    while offline.len() < 2 {
        let event = watcher.next_of("sse.offline").await;
        offline.push(event.json()["user"].as_str().expect("a user").to_owned());
    }
    offline.sort();
    assert_eq!(offline, ["goes-1", "goes-2"]);
    for id in ["stays", "both"] {
        assert!(connections(&other, id, 1).await);
        assert_eq!(logged(&redis, id).await, ["sse.online"], "{id}");
    }
    for id in ["goes-1", "goes-2"] {
        assert_eq!(logged(&redis, id).await, ["sse.online", "sse.offline"], "{id}");
    }
    let keys: Vec<String> = redis.command(&["KEYS", &format!("{USERS}:*")]).await;
    assert_eq!(keys.len(), 1, "the users of the killed instance are gone: {keys:?}");
}

#[tokio::test]
async fn instance_that_lost_its_lease_reports_again() {
    let redis = Redis::start().await;
    let frozen = builder(&redis, "1s", "100ms").start().await;
    let other = builder(&redis, "1s", "100ms").start().await;
    let mut watcher = watch(&other).await;
    let _stream = frozen.connect("1").await;
    next_about(&mut watcher, "sse.online", "1").await;
    frozen.freeze();
    next_about(&mut watcher, "sse.offline", "1").await;
    frozen.thaw();
    next_about(&mut watcher, "sse.online", "1").await;
    assert!(connections(&other, "1", 1).await);
    frozen.metric_reaches("sse_presence_reports_total", &[("outcome", "lost")], 1.0).await;
}

#[tokio::test]
async fn presence_is_restored_after_redis_lost_it() {
    let redis = Redis::start().await;
    let gateway = builder(&redis, LONG, LONG).start().await;
    let _stream = gateway.connect("stays").await;
    let leaves = gateway.connect("leaves").await;
    for id in ["stays", "leaves"] {
        connections(&gateway, id, 1).await;
    }
    redis.flushall().await;
    assert!(connections(&gateway, "stays", 1).await && connections(&gateway, "leaves", 1).await);
    assert_eq!(logged(&redis, "stays").await, ["sse.online"], "one event in the new history");
    redis.stop();
    drop(leaves);
    assert_eq!(ask(&gateway, "user=stays").await.0, 503);
    redis.start_again().await;
    assert!(connections(&gateway, "stays", 1).await);
    assert_eq!(logged(&redis, "stays").await, ["sse.online"]);
    eventually("the users", || async {
        let users: Vec<String> = redis.command(&["HKEYS", USERS]).await;
        (users == ["stays"]).then_some(())
    })
    .await;
}

#[tokio::test]
async fn restart_with_all_data_gives_no_event() {
    let redis = Redis::start_persistent("always").await;
    // A lease that ends while nobody can renew it.
    let gateway = builder(&redis, "1s", LONG).start().await;
    let _stream = gateway.connect("1").await;
    assert!(connections(&gateway, "1", 1).await);
    redis.stop();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    redis.start_again().await;
    gateway.metric_reaches("sse_presence_reports_total", &[("outcome", "lost")], 1.0).await;
    // The former name has ended, and the user is counted once.
    eventually("one lease and one count", || async {
        let leases: usize = redis.try_command(&["ZCARD", LEASES]).await.ok()?;
        let count: Option<String> = redis.try_command(&["HGET", USERS, "1"]).await.ok()?;
        (leases == 1 && count.as_deref() == Some("1")).then_some(())
    })
    .await;
    assert!(connections(&gateway, "1", 1).await);
    assert_eq!(logged(&redis, "1").await, ["sse.online"]);
}

#[tokio::test]
async fn tickets_without_the_claim_never_see_presence() {
    let redis = Redis::start().await;
    let gateway = builder(&redis, LONG, LONG).start().await;
    let with_claim = ticket("with").topics(&["news"]).claim("presence", json!(true));
    let mut sees = gateway.connect_with(&with_claim, "").await;
    let start = sees.last_id().to_owned();
    let kinds =
        [("a", "*", ""), ("b", "presence", ""), ("c", "pre*", ""), ("d", "*", "&topics=presence")];
    let mut blind = Vec::new();
    for (id, pattern, query) in kinds {
        let ticket = ticket(id).topics(&[pattern]);
        let mut stream = Sse::connect(&gateway.events_url(&ticket, query), &[]).await;
        let first = stream.connected().await;
        assert!(!first.data.contains("presence"), "{}", first.data);
        blind.push((id, stream));
    }
    let _stream = gateway.connect("1").await;
    next_about(&mut sees, "sse.online", "1").await;
    // A publisher cannot forge one, and may use the topic otherwise.
    let forged = redis.durable(&topic("presence"), "sse.online", r#"{"user":"2"}"#).await;
    assert!(forged.unwrap_err().starts_with("reserved-type"));
    redis.durable(&topic("presence"), "other", "1").await.unwrap();
    sees.next_of("other").await;
    for (id, stream) in &mut blind {
        redis.durable(&user(id), "own", "1").await.unwrap();
        assert_eq!(stream.app_event().await.event, "own", "{id} live");
        let (_, pattern, query) = kinds.into_iter().find(|kind| kind.0 == *id).unwrap();
        let query = format!("{query}&lastEventId={start}");
        // The session's first cursor is the client's: its own event before is replayed.
        let url = gateway.events_url(&ticket(id).topics(&[pattern]), &query);
        let mut resumed = Sse::connect(&url, &[]).await;
        resumed.connected().await;
        assert_eq!(resumed.app_event().await.event, "own", "{id} replayed");
    }
    let query = format!("&lastEventId={start}&topics=presence");
    let with_claim = ticket("with").claim("presence", json!(true));
    let mut replayed = gateway.connect_with(&with_claim, &query).await;
    next_about(&mut replayed, "sse.online", "1").await;
}

#[tokio::test]
async fn users_of_a_topic_are_found_on_all_instances() {
    let redis = Redis::start().await;
    let builder = builder(&redis, LONG, LONG);
    let (one, two) = tokio::join!(builder.start(), builder.start());
    let mut streams = Vec::new();
    for (gateway, id, pattern) in [
        (&one, "1", "news"),
        (&one, "2", "*"),
        (&two, "1", "news"),
        (&two, "3", "ne*"),
        (&two, "4", "sport"),
    ] {
        streams.push(gateway.connect_with(&ticket(id).topics(&[pattern]), "").await);
    }
    // Both instances have reported, so the question goes to both.
    connections(&one, "2", 1).await;
    connections(&one, "4", 1).await;
    let all = json!({"topic": "news", "users": ["1", "2", "3"], "online": 3, "complete": true});
    // An instance on a busy machine may answer too late.
    eventually("the answers of both", || async {
        (ask(&one, "topic=news").await == (200, all.clone())).then_some(())
    })
    .await;
    let (_, found) = ask(&two, "topic=presence").await;
    assert_eq!(found["users"], json!([]), "patterns do not match it");
    for query in ["", "user=", "user=a%20b", "topic=a*", "user=1&topic=news"] {
        let (status, body) = ask(&one, query).await;
        assert_eq!((status, &body["error"]), (400, &json!("bad-request")), "{query}");
    }
    two.freeze();
    let part = json!({"topic": "news", "users": ["1", "2"], "online": 2, "complete": false});
    eventually("the answer of the other one", || async {
        (ask(&one, "topic=news").await == (200, part.clone())).then_some(())
    })
    .await;
    two.thaw();
    let (status, _) = one.admin_get("/presence?user=1").await;
    assert_eq!(status, 401, "without a key");
}

#[tokio::test]
async fn presence_moves_with_the_slot_of_broadcasts() {
    let cluster = Cluster::start(2).await;
    let url = format!("redis+cluster://{}", cluster.addresses().join(","));
    let gateway = with_presence(Gateway::at(&url), "5s", "100ms");
    let gateway = gateway.env("PUBLISHERS__PLAIN", "off").start().await;
    let mut watcher = watch(&gateway).await;
    let _stays = gateway.connect("stays").await;
    let leaves = gateway.connect("leaves").await;
    next_about(&mut watcher, "sse.online", "leaves").await;
    connections(&gateway, "stays", 1).await;
    let slot = cluster.slot_of(USERS).await;
    let from = cluster.owner_of_slot(slot).await;
    cluster.migrate(slot, 1 - from).await;
    drop(leaves);
    next_about(&mut watcher, "sse.offline", "leaves").await;
    assert!(connections(&gateway, "stays", 1).await);
    let key = crate::harness::log_key(&topic("presence"));
    let entries: Vec<(String, Vec<String>)> =
        cluster.command_at(&key, &["XRANGE", &key, "-", "+"]).await;
    assert_eq!(types_about(&entries, "stays"), ["sse.online"]);
    assert_eq!(types_about(&entries, "leaves"), ["sse.online", "sse.offline"]);
}

/// A report of an instance: `words` are its name, the number and the rest.
async fn report(redis: &Redis, lease_ms: &str, words: &[&str]) -> Result<Vec<String>, String> {
    let head = ["FCALL", "sse_presence", "1", USERS, words[0], words[1], lease_ms, "3600000"];
    redis.try_command(&[&head, &words[2..]].concat()).await.map_err(|e| e.to_string())
}

#[tokio::test]
async fn no_lease_ends_while_redis_was_silent() {
    let redis = Redis::start().await;
    let _gateway = Gateway::durable_only(&redis).start().await;
    report(&redis, "1000", &["a", "1", "BEGIN", "1", "1"]).await.expect("a reply");
    // Longer than the lease, without any report.
    tokio::time::sleep(Duration::from_millis(1200)).await;
    report(&redis, "1000", &["b", "1", "BEGIN"]).await.expect("a reply");
    let reply = report(&redis, "1000", &["a", "2", "KEEP"]).await.expect("a reply");
    assert_eq!(reply[1], "ok");
}

#[tokio::test]
async fn repeated_and_late_reports_change_nothing() {
    let redis = Redis::start().await;
    let _gateway = Gateway::durable_only(&redis).start().await;
    let report = async |words: &[&str]| report(&redis, "3600000", words).await;
    let state = async |words: &[&str]| report(words).await.expect("a reply")[1].clone();
    assert_eq!(state(&["a", "2", "KEEP"]).await, "unknown");
    for _ in 0..2 {
        assert_eq!(state(&["a", "2", "BEGIN", "1", "1", "2", "3"]).await, "ok");
    }
    assert_eq!(state(&["a", "1", "KEEP", "1", "0"]).await, "ok", "late");
    let instances: Option<String> = redis.command(&["HGET", USERS, "1"]).await;
    assert_eq!(instances.as_deref(), Some("1"));
    assert_eq!(state(&["a", "3", "KEEP", "1", "1"]).await, "ok", "repeated");
    let users: Vec<String> = redis.command(&["HGETALL", USERS]).await;
    assert_eq!((users.len(), logged(&redis, "1").await), (4, vec!["sse.online".to_owned()]));
    for wrong in [
        &["a b", "4", "KEEP"][..],
        &["a", "x", "KEEP"],
        &["a", "4", "OTHER"],
        &["a", "4", "KEEP", "1"],
        &["a", "4", "KEEP", "1", "-1"],
        &["a", "4", "KEEP", "a b", "1"],
        &["a", "4", "KEEP", "*", "1"],
        &[&["a", "4", "KEEP"][..], &["1"; 1002]].concat(),
    ] {
        let error = report(wrong).await.expect_err("an error");
        assert!(error.contains("usage"), "{error}");
    }
    assert_eq!(state(&["a", "4", "END"]).await, "ok");
    assert_eq!(state(&["a", "5", "BEGIN", "1", "1"]).await, "unknown", "a name has one lease");
}

#[tokio::test]
async fn disabled_presence_makes_no_call_and_writes_no_key() {
    let redis = Redis::start().await;
    let builder = Gateway::durable_only(&redis).env("API_KEYS", &api_keys(&[(KEY, "admin")]));
    let gateway = builder.start().await;
    drop(gateway.connect("1").await);
    gateway.metric_reaches("sse_connections_closed_total", &[], 1.0).await;
    let (status, body) = ask(&gateway, "user=1").await;
    assert_eq!((status, &body["error"]), (409, &json!("presence-disabled")));
    gateway.term();
    assert!(gateway.wait_exit().await.success());
    let keys: Vec<String> = redis.command(&["KEYS", "*presence*"]).await;
    assert_eq!(keys, [""; 0]);
    let stats: String = redis.command(&["INFO", "commandstats"]).await;
    for command in ["zscore", "zrem", "hrandfield", "zrangebyscore"] {
        assert!(!stats.contains(&format!("cmdstat_{command}:")), "{stats}");
    }
}

//! Keys of the gateway to which another client has written a value of another type: operations that
//! need the key fail with its name, all others continue, and everything works again when the key is
//! deleted.

use crate::harness::keys::api_keys;
use crate::harness::{Gateway, Redis, Sse, eventually, log_key, ticket, topic, user};

const NODE: &str = "sse:node:{broadcast}";
const WRONG: &str = "wrong-type";

async fn world() -> (Redis, Gateway, Sse) {
    let redis = Redis::start().await;
    let gateway = Gateway::builder(&redis).env("SERVER__HEARTBEAT", "1s").start().await;
    gateway.wait_for_recorder().await;
    let stream = gateway.connect("2").await;
    (redis, gateway, stream)
}

/// The key of the session of a user.
async fn session_key(redis: &Redis, owner: &str) -> String {
    let pattern = format!("sse:session:{{{}}}:*", user(owner));
    let keys: Vec<String> = redis.command(&["KEYS", &pattern]).await;
    keys.into_iter().next().expect("a session")
}

/// Replaces a key by a value of another type.
async fn damage(redis: &Redis, key: &str) {
    redis.command::<i64>(&["DEL", key]).await;
    // No key of the gateway is a set.
    redis.command::<i64>(&["SADD", key, "foreign"]).await;
}

async fn delete_key(redis: &Redis, key: &str) {
    redis.command::<i64>(&["DEL", key]).await;
}

/// The number of lines of the log that name this text, once there is one.
async fn lines(gateway: &Gateway, text: &str) -> usize {
    gateway.wait_for_log(text).await;
    gateway.log_text().lines().filter(|line| line.contains(text)).count()
}

/// The most frequent message among warnings and errors, and how often it was logged.
fn most_frequent_warning(gateway: &Gateway) -> (usize, String) {
    let mut counts = std::collections::HashMap::<String, usize>::new();
    for line in gateway.log_text().lines() {
        let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
        if line["level"] == "WARN" || line["level"] == "ERROR" {
            *counts.entry(line["message"].to_string()).or_default() += 1;
        }
    }
    counts.into_iter().map(|(message, n)| (n, message)).max().unwrap_or_default()
}

/// Waits until this number of messages was rejected as `wrong-type`, and checks that there are no
/// more. (An event may arrive before it is counted.)
async fn rejected(gateway: &Gateway, messages: f64) {
    let labels = [("reason", WRONG)];
    gateway.metric_reaches("sse_rejected_total", &labels, messages).await;
    assert_eq!(gateway.metric("sse_rejected_total", &labels).await, messages);
}

async fn refused(redis: &Redis, channel: &str, key: &str) {
    let refusal = redis.durable(channel, "a", "1").await.expect_err(key);
    assert!(
        refusal.starts_with("wrong-type: ") && refusal.contains(&format!("DEL \"{key}\"")),
        "{refusal}"
    );
    assert!(!refusal.contains("script:"), "{refusal}");
}

#[tokio::test]
async fn wrong_type_log_rejects_only_its_own_messages() {
    let (redis, gateway, mut other) = world().await;
    let log = "sse:log:{user:1:events}";
    damage(&redis, log).await;
    let mut publisher = redis.publisher().await;
    for n in 0..5 {
        publisher.plain(user("1"), format!("lost {n}")).await;
        publisher.plain(user("2"), format!("{n}")).await;
        assert_eq!(other.app_event().await.data, n.to_string(), "{}", other.dump());
    }
    rejected(&gateway, 5.0).await;
    let kept = redis.rejected().await;
    assert_eq!(kept.len(), 5);
    for (n, entry) in kept.iter().enumerate() {
        assert_eq!(
            (entry.channel.as_slice(), entry.reason.as_str()),
            (user("1").as_bytes(), WRONG)
        );
        assert_eq!(entry.message, format!("lost {n}").into_bytes());
    }
    assert_eq!(lines(&gateway, "are rejected (wrong-type)").await, 1, "{}", gateway.log_text());
    gateway.wait_for_log("\"channel\":\"user:1:events\"").await;
    refused(&redis, &user("1"), log).await;
    delete_key(&redis, log).await;
    publisher.plain(user("1"), "again").await;
    eventually("it is recorded", || async {
        (redis.log_ids(&user("1")).await.len() == 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn wrong_type_log_reports_trimmed_and_streams_continue() {
    let (redis, _gateway, mut other) = world().await;
    for channel in [user("1"), topic("t")] {
        let log = log_key(&channel);
        let cursor = redis.durable(&channel, "a", "1").await.unwrap();
        damage(&redis, &log).await;
        // A gateway without broadcasts in memory, which could prove that no event is missing.
        let gateway = Gateway::durable_only(&redis).start().await;
        let mut stream = gateway.resume("1", &cursor).await;
        let gap = stream.app_event().await;
        assert_eq!(gap.json()["reason"], "trimmed", "{}", stream.dump());
        assert_eq!(gap.json()["channels"][0], channel.as_str());
        let id = redis.durable(&topic("u"), "b", "1").await.unwrap();
        assert_eq!(stream.app_event().await.id.as_ref(), Some(&id), "the stream is live");
        assert_eq!(other.next_of("b").await.id, Some(id));
        assert_eq!(lines(&gateway, &format!("DEL \\\"{log}")).await, 1, "{}", gateway.log_text());
        delete_key(&redis, &log).await;
    }
}

#[tokio::test]
async fn wrong_type_dedupe_key_rejects_only_its_event() {
    let (redis, gateway, mut other) = world().await;
    damage(&redis, "sse:dedupe:{user:2:events} k").await;
    let mut publisher = redis.publisher().await;
    publisher.plain(user("2"), r#"{"type":"a","payload":1,"id":"k"}"#).await;
    publisher.plain(user("2"), r#"{"type":"a","payload":2,"id":"l"}"#).await;
    assert_eq!(other.app_event().await.data, "2");
    rejected(&gateway, 1.0).await;
    let refusal = publisher
        .durable(&user("2"), "a", "1", &["KEY", "k"])
        .await
        .expect_err("the key is damaged");
    assert!(refusal.starts_with("wrong-type"), "{refusal}");
}

#[tokio::test]
async fn wrong_type_topics_key_rejects_only_broadcasts() {
    let (redis, gateway, mut other) = world().await;
    let cursor = redis.durable(&topic("t"), "first", "1").await.unwrap();
    assert_eq!(other.app_event().await.event, "first");
    damage(&redis, "sse:topics:{broadcast}").await;
    // The topic of a recent event is still known to the library, so another one is used.
    redis.plain(topic("u"), "lost").await;
    redis.plain(user("2"), "1").await;
    assert_eq!(other.app_event().await.data, "1", "{}", other.dump());
    rejected(&gateway, 1.0).await;
    refused(&redis, &topic("u"), "sse:topics:{broadcast}").await;
    assert!(redis.log_ids(&topic("u")).await.is_empty(), "rejected events are not stored");
    // The active topics are unknown, so clients that need them from Redis get a gap.
    let fresh = Gateway::durable_only(&redis).start().await;
    let mut stream = fresh.resume("1", &cursor).await;
    let first = stream.app_event().await;
    assert_eq!(first.json()["reason"], "trimmed", "{}", stream.dump());
    delete_key(&redis, "sse:topics:{broadcast}").await;
    let id = redis.durable(&topic("t"), "a", "1").await.unwrap();
    assert_eq!(stream.app_event().await.id, Some(id));
}

#[tokio::test]
async fn wrong_type_session_gets_busy_and_one_log() {
    let (redis, gateway, _other) = world().await;
    let same = ticket("1");
    drop(gateway.connect_with(&same, "").await);
    gateway.metric_reaches("sse_connections_closed_total", &[("reason", "client-gone")], 1.0).await;
    let key = session_key(&redis, "1").await;
    damage(&redis, &key).await;
    for _ in 0..3 {
        let mut busy = Sse::connect(&gateway.events_url(&same, ""), &[]).await;
        assert_eq!((busy.status, busy.event().await.event.as_str()), (200, "sse.busy"));
    }
    assert_eq!(lines(&gateway, &key).await, 1, "{}", gateway.log_text());
    gateway.wait_for_log("run DEL").await;
    gateway.connect("1").await;
    delete_key(&redis, &key).await;
    gateway.connect_with(&same, "").await;
}

#[tokio::test]
async fn wrong_type_revocation_does_not_affect_other_sessions() {
    let redis = Redis::start().await;
    let gateway = Gateway::durable_only(&redis).env("TICKETS__RECONNECT_GRACE", "6s").start().await;
    let _one = gateway.connect("1").await;
    let _two = gateway.connect("2").await;
    let key = "sse:revoked:{user:1:events}";
    damage(&redis, key).await;
    for _ in 0..2 {
        let mut busy = Sse::connect(&gateway.events_url(&ticket("1"), ""), &[]).await;
        assert_eq!(busy.event().await.event, "sse.busy");
    }
    assert_eq!(lines(&gateway, key).await, 1, "{}", gateway.log_text());
    // The session of the other user, renewed in the same call: its time to live rises again.
    let session = session_key(&redis, "2").await;
    // A new session lives at least until its ticket can no longer open one, and then by renewals.
    let text: String = redis.command(&["GET", &session]).await;
    let mut fields: Vec<&str> = text.split(' ').collect();
    fields[5] = "0";
    redis.command::<String>(&["SET", &session, &fields.join(" "), "PX", "7000"]).await;
    let mut before = i64::MAX;
    for _ in 0.. {
        let ttl: i64 = redis.command(&["PTTL", &session]).await;
        assert!(ttl >= 0, "the session has ended");
        if ttl > before {
            break;
        }
        before = ttl;
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    delete_key(&redis, key).await;
    gateway.connect("1").await;
}

#[tokio::test]
async fn wrong_type_node_key_is_named_and_works_after_del() {
    let (redis, gateway, mut other) = world().await;
    damage(&redis, NODE).await;
    gateway.wait_for_log("a key in Redis has the wrong type").await;
    gateway.wait_for_log(&format!("run DEL \\\"{NODE}\\\"")).await;
    // The link has no watermark.
    gateway.metric_reaches("sse_redis_reconnects_total", &[], 1.0).await;
    let (lines_of_one_kind, message) = most_frequent_warning(&gateway);
    assert!(lines_of_one_kind <= 3, "{message} was logged {lines_of_one_kind} times");
    let meanwhile = redis.durable(&user("2"), "a", "1").await.expect("the clock is in memory");
    delete_key(&redis, NODE).await;
    gateway.ready().await;
    assert_eq!(other.next_of("sse.gap").await.json()["reason"], "reset");
    assert_eq!(other.next_of("a").await.id, Some(meanwhile));
    let id = redis.durable(&user("2"), "b", "1").await.unwrap();
    assert_eq!(other.next_of("b").await.id, Some(id));
    let count = lines(&gateway, "a key in Redis has the wrong type").await;
    assert_eq!(count, 1, "{}", gateway.log_text());
}

#[tokio::test]
async fn wrong_type_recorder_key_stops_plain_publishes_only() {
    let (redis, gateway, mut other) = world().await;
    for key in ["sse:recorder:{broadcast}", "sse:lease:recorder:{broadcast}"] {
        damage(&redis, key).await;
        gateway.wait_for_log(&format!("run DEL \\\"{key}\\\"")).await;
        let id = redis.durable(&user("2"), "a", "1").await.unwrap();
        assert_eq!(other.next_of("a").await.id, Some(id));
        // Streams get watermarks.
        let before = other.next_of("sse.heartbeat").await.id;
        assert!(other.next_of("sse.heartbeat").await.id > before);
        delete_key(&redis, key).await;
        gateway.wait_for_recorder().await;
        let records = async || {
            redis.plain(user("2"), "plain").await;
            (redis.log_ids(&user("2")).await.len() > 2).then_some(())
        };
        eventually("plain publishes are recorded", records).await;
    }
}

#[tokio::test]
async fn wrong_type_list_of_rejections_stops_nothing() {
    let (redis, gateway, mut other) = world().await;
    damage(&redis, "sse:rejected:{broadcast}").await;
    redis.plain(user("2"), b"\xff").await;
    redis.plain(user("2"), "good").await;
    assert_eq!(other.app_event().await.data, "good");
    gateway.metric_reaches("sse_rejected_total", &[("reason", "not-utf8")], 1.0).await;
}

#[tokio::test]
async fn unwritable_rejections_are_rarely_logged() {
    let redis = Redis::start().await;
    let gateway = Gateway::builder(&redis).env("PUBLISHERS__PLAIN", "relay").start().await;
    damage(&redis, "sse:rejected:{broadcast}").await;
    for _ in 0..50 {
        redis.plain(topic("t"), b"\xff").await;
    }
    gateway.metric_reaches("sse_rejected_total", &[], 50.0).await;
    gateway.wait_for_log("could not write a rejected message").await;
    delete_key(&redis, "sse:rejected:{broadcast}").await;
    // Messages are written in order, so this one is the last.
    redis.plain(topic("t"), b"last \xff").await;
    eventually("the last one", || async {
        redis.rejected().await.iter().any(|r| r.message == b"last \xff").then_some(())
    })
    .await;
    let count = lines(&gateway, "could not write a rejected message").await;
    assert!(count <= 3, "{count} lines");
}

#[tokio::test]
async fn publishing_without_redis_is_rarely_logged() {
    let redis = Redis::start().await;
    let keys = api_keys(&[("a publisher's key", "publish")]);
    let gateway = Gateway::durable_only(&redis).env("API_KEYS", &keys).start().await;
    redis.stop();
    for _ in 0..20 {
        let post = gateway.http().post(gateway.url("/publish")).bearer_auth("a publisher's key");
        let event = r#"{"channel":"user:1:events","payload":1}"#;
        assert_eq!(post.body(event).send().await.unwrap().status(), 503);
    }
    let count = lines(&gateway, "POST /publish").await;
    assert!((1..=3).contains(&count), "{count} lines");
}

#[tokio::test]
async fn publish_to_a_wrong_type_log_gets_409() {
    let redis = Redis::start().await;
    let keys = api_keys(&[("a publisher's key", "publish")]);
    let gateway = Gateway::durable_only(&redis).env("API_KEYS", &keys).start().await;
    damage(&redis, "sse:log:{user:1:events}").await;
    let post = gateway.http().post(gateway.url("/publish")).bearer_auth("a publisher's key");
    let answer = post.body(r#"{"channel":"user:1:events","payload":1}"#).send().await.unwrap();
    assert_eq!(answer.status(), 409);
    let body = answer.text().await.unwrap();
    assert!(body.contains("\"wrong-type\"") && body.contains("DEL"), "{body}");
}

#[tokio::test]
async fn recorded_metric_excludes_duplicates() {
    let (redis, gateway, mut other) = world().await;
    let mut publisher = redis.publisher().await;
    for n in 0..3 {
        publisher.plain(user("2"), format!(r#"{{"type":"a","payload":{n},"id":"k"}}"#)).await;
    }
    publisher.plain(user("2"), "last").await;
    assert_eq!(other.app_event().await.data, "0");
    assert_eq!(other.app_event().await.data, "last");
    gateway.metric_reaches("sse_plain_recorded_total", &[], 2.0).await;
    assert_eq!(gateway.metric("sse_plain_recorded_total", &[]).await, 2.0);
}

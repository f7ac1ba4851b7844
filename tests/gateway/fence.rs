//! The fence: which servers accept durable publishes (`redis.fence`), and which ones a gateway
//! adopts.

use std::time::{Duration, Instant};

use crate::harness::keys::api_keys;
use crate::harness::{Gateway, Id, Proxy, Redis, eventually, now_ms, ticket, topic, user};

/// The code of a refused publish.
const NOT_ADOPTED: &str = "not-adopted:";

async fn publish(redis: &Redis, name: &str) -> Result<Id, String> {
    redis.durable(&user("1"), name, "1").await.map(|id| Id::of(&id))
}

async fn accepts(redis: &Redis) -> bool {
    accepts_event(redis, "probe").await
}

async fn accepts_event(redis: &Redis, name: &str) -> bool {
    match publish(redis, name).await {
        Ok(_) => true,
        Err(error) => {
            assert!(error.starts_with(NOT_ADOPTED), "{error}");
            false
        }
    }
}

/// Waits until the library checks each write again, because no watermark was taken for 2 s.
async fn unwatched() {
    let until_ms = now_ms() + 2200;
    eventually("a server without watermarks", || async { (now_ms() > until_ms).then_some(()) })
        .await;
}

/// Waits until the node key says that the server is not alone.
async fn marked(redis: &Redis) {
    eventually("a node key with `replicated`", || async {
        let marked: Option<String> =
            redis.command(&["HGET", "sse:node:{broadcast}", "replicated"]).await;
        marked
    })
    .await;
}

/// `POST /publish`, on a gateway with [`keys`].
async fn post(gateway: &Gateway) -> reqwest::Response {
    let event = serde_json::json!({"channel": user("1"), "type": "refused", "payload": 1});
    let request = gateway.http().post(gateway.url("/publish")).bearer_auth("key");
    request.body(event.to_string()).send().await.expect("a response")
}

fn keys() -> String {
    api_keys(&[("key", "publish")])
}

async fn stop(gateway: &Gateway) {
    gateway.kill9();
    gateway.wait_exit().await;
}

/// Time from the first line of the log with one text to the next one with the other.
async fn between(gateway: &Gateway, one: &str, other: &str) -> Duration {
    let time = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
        humantime::parse_rfc3339(line["timestamp"].as_str().expect("a time")).expect("RFC 3339")
    };
    eventually(other, || {
        let text = gateway.log_text();
        let mut lines = text.lines().skip_while(|line| !line.contains(one));
        let begin = lines.next().map(time);
        let end = lines.find(|line| line.contains(other)).map(time);
        let times = begin.zip(end);
        std::future::ready(times.map(|(begin, end)| end.duration_since(begin).expect("order")))
    })
    .await
}

#[tokio::test]
async fn lone_server_accepts_events_without_a_gateway() {
    let redis = Redis::start_persistent("always").await;
    let gateway = Gateway::durable_only(&redis).start().await;
    stop(&gateway).await;
    unwatched().await;
    let before = publish(&redis, "before").await.unwrap();
    redis.stop();
    redis.start_again().await;
    let after = publish(&redis, "after").await.unwrap();
    assert!(after.epoch > before.epoch, "{before} {after}");
    // A wipe makes no other server the primary.
    redis.flushall().await;
    unwatched().await;
    publish(&redis, "wiped").await.unwrap();
}

#[tokio::test]
async fn server_that_had_a_replica_waits_for_a_gateway() {
    let primary = Redis::start_persistent("always").await;
    let gateway = Gateway::durable_only(&primary).start().await;
    {
        let _replica = Redis::replica_of(&primary.address()).await;
        marked(&primary).await;
    }
    stop(&gateway).await;
    unwatched().await;
    assert!(accepts(&primary).await, "the same process, which a gateway had adopted");
    primary.stop();
    primary.start_again().await;
    assert!(!accepts(&primary).await, "the replica may be the primary now");
    let gateway = Gateway::durable_only(&primary).start().await;
    gateway.ready().await;
    assert!(accepts(&primary).await);
}

#[tokio::test]
async fn replica_that_no_gateway_has_seen_ends_self_adoption() {
    let primary = Redis::start_persistent("always").await;
    stop(&Gateway::durable_only(&primary).start().await).await;
    primary.stop();
    primary.start_again().await;
    assert!(accepts(&primary).await, "a lone server has adopted itself");
    let replica = Redis::replica_of(&primary.address()).await;
    eventually("a refused event", || async { (!accepts(&primary).await).then_some(()) }).await;
    drop(replica);
    primary.stop();
    primary.start_again().await;
    assert!(!accepts(&primary).await, "the node key remembers the replica");
}

#[tokio::test]
async fn returning_primary_acknowledges_nothing() {
    let old = Redis::start_persistent("always").await;
    let new = Redis::replica_of(&old.address()).await;
    let proxy = Proxy::start(&old.address()).await;
    let builder = Gateway::durable_only(&old).redis_url(&proxy.redis_url());
    let gateway = builder.env("API_KEYS", &keys()).start().await;
    let mut stream = gateway.connect("1").await;
    publish(&old, "first").await.unwrap();
    assert_eq!(stream.app_event().await.event, "first");
    new.receives_all_of(&old).await;
    old.stop();
    new.promote().await;
    proxy.switch(&new.address());
    // The gateway may still be ready because it has not noticed yet.
    new.durable_retried(&user("1"), "second", "1").await;
    assert_eq!(stream.app_event().await.event, "sse.gap");
    assert_eq!(stream.app_event().await.event, "second");
    // The old primary returns with its data, and the proxy follows `role:master`.
    old.start_again().await;
    proxy.switch(&old.address());
    gateway.wait_for_log("the server knows less than this gateway has seen").await;
    let began = Instant::now();
    while began.elapsed().as_secs() < 3 {
        assert!(!accepts(&old).await, "{}", gateway.log_text());
        let response = post(&gateway).await;
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers()["retry-after"], "1");
        let body = response.text().await.unwrap();
        assert!(body.contains("not-adopted") || body.contains("redis-away"), "{body}");
    }
    gateway.not_ready().await;
    // It becomes a replica, and loses nothing that it acknowledged.
    old.replicate(&new.address()).await;
    proxy.switch(&new.address());
    gateway.ready().await;
    publish(&new, "third").await.unwrap();
    assert_eq!(stream.app_event().await.event, "third", "{}", stream.dump());
}

#[tokio::test]
async fn failback_to_the_same_process_needs_an_adoption() {
    let a = Redis::start().await;
    let b = Redis::replica_of(&a.address()).await;
    let proxy = Proxy::start(&a.address()).await;
    let gateway = Gateway::durable_only(&a).redis_url(&proxy.redis_url()).start().await;
    marked(&a).await;
    for (new, old) in [(&b, &a), (&a, &b)] {
        new.receives_all_of(old).await;
        proxy.down();
        gateway.not_ready().await;
        unwatched().await;
        new.promote().await;
        old.replicate(&new.address()).await;
        assert!(!accepts(new).await, "no gateway has adopted this primary");
        proxy.switch(&new.address());
        proxy.up();
        gateway.ready().await;
        assert!(accepts(new).await);
    }
}

#[tokio::test]
async fn strict_adoption_expires_without_watermarks() {
    let redis = Redis::start().await;
    let builder = Gateway::durable_only(&redis).env("REDIS__FENCE", "strict");
    let gateway = builder.start().await;
    assert!(accepts(&redis).await);
    // It lasts from the last watermark on, which is no older than this.
    let began = Instant::now();
    let age_s = gateway.metric("sse_watermark_age_seconds", &[]).await;
    stop(&gateway).await;
    eventually("an expired adoption", || async { (!accepts(&redis).await).then_some(()) }).await;
    let lasted_s = age_s + began.elapsed().as_secs_f64();
    assert!(lasted_s >= 8.0, "{lasted_s} s");
    let gateway = builder.start().await;
    gateway.ready().await;
    assert!(accepts(&redis).await);
    let mut stream = gateway.connect("1").await;
    publish(&redis, "end").await.unwrap();
    stream.until(|event| event.event == "end").await;
}

#[tokio::test]
async fn watermark_of_no_gateway_prolongs_no_adoption() {
    let redis = Redis::start().await;
    let gateway = Gateway::durable_only(&redis).env("REDIS__FENCE", "strict").start().await;
    stop(&gateway).await;
    eventually("an expired adoption", || async {
        redis
            .command::<redis::Value>(&["FCALL", "sse_watermark", "1", "sse:node:{broadcast}", ""])
            .await;
        (!accepts(&redis).await).then_some(())
    })
    .await;
}

#[tokio::test]
async fn empty_server_is_adopted_if_no_other_one_answers() {
    let redis = Redis::start().await;
    let gateway = Gateway::durable_only(&redis).start().await;
    let mut stream = gateway.connect("1").await;
    publish(&redis, "before").await.unwrap();
    assert_eq!(stream.app_event().await.event, "before");
    redis.stop();
    redis.start_again().await;
    let unknown = "the server knows less than this gateway has seen";
    let waited = between(&gateway, unknown, "link to Redis is up").await;
    assert!(waited.as_secs() >= 4, "{waited:?}");
    gateway.ready().await;
    publish(&redis, "after").await.unwrap();
    assert_eq!(stream.app_event().await.json()["reason"], "reset");
    assert_eq!(stream.app_event().await.event, "after");
}

#[tokio::test]
async fn empty_server_of_a_replicated_primary_acknowledges_nothing() {
    let redis = Redis::start().await;
    let replica = Redis::replica_of(&redis.address()).await;
    let gateway = Gateway::durable_only(&redis).start().await;
    publish(&redis, "before").await.unwrap();
    redis.stop();
    redis.start_again().await;
    gateway.wait_for_log("the server knows less than this gateway has seen").await;
    let began = Instant::now();
    while began.elapsed().as_secs() < 3 {
        assert!(!accepts(&redis).await, "{}", gateway.log_text());
    }
    drop(replica);
}

#[tokio::test]
async fn missing_replica_delays_only_new_tickets() {
    let primary = Redis::start().await;
    let replica = Redis::replica_of(&primary.address()).await;
    let gateway = Gateway::durable_only(&primary).env("API_KEYS", &keys()).start().await;
    marked(&primary).await;
    let (used, fresh) = (ticket("1"), ticket("2"));
    let mut stream = gateway.connect_with(&used, "").await;
    publish(&primary, "first").await.unwrap();
    let cursor = stream.app_event().await.id.unwrap();
    replica.command::<()>(&["REPLICAOF", "NO", "ONE"]).await;
    primary.command::<()>(&["CONFIG", "SET", "min-replicas-to-write", "1"]).await;
    eventually("NOREPLICAS", || async {
        publish(&primary, "refused").await.err().filter(|error| error.contains("NOREPLICAS"))
    })
    .await;
    assert_eq!(post(&gateway).await.status(), 503);
    // Watermarks continue, and the link stays.
    let links = gateway.metric("sse_redis_reconnects_total", &[]).await;
    unwatched().await;
    gateway.ready().await;
    assert_eq!(gateway.metric("sse_redis_reconnects_total", &[]).await, links);
    // A session that exists is resumed, and takes over; a new ticket must wait.
    let query = format!("&lastEventId={cursor}");
    let mut resumed = gateway.connect_with(&used, &query).await;
    assert_eq!(stream.next_of("sse.closing").await.json()["reason"], "taken-over");
    let mut refused = crate::harness::Sse::connect(&gateway.events_url(&fresh, ""), &[]).await;
    assert_eq!(refused.first().await.event, "sse.busy", "{}", refused.dump());
    primary.command::<()>(&["CONFIG", "SET", "min-replicas-to-write", "0"]).await;
    primary.durable(&topic("t"), "last", "1").await.unwrap();
    assert_eq!(resumed.app_event().await.event, "last");
    gateway.connect_with(&fresh, "").await;
}

#[tokio::test]
async fn planned_failover_is_no_reset() {
    let a = Redis::start().await;
    let b = Redis::replica_of(&a.address()).await;
    let proxy = Proxy::start(&a.address()).await;
    let builder = Gateway::durable_only(&a).redis_url(&proxy.redis_url());
    let (gateway, other) = (builder.start().await, builder.start().await);
    let mut stream = gateway.connect("1").await;
    let mut second = other.connect("1").await;
    marked(&a).await;
    for (round, (new, old)) in [(&b, &a), (&a, &b)].into_iter().enumerate() {
        let names = [format!("before-{round}"), format!("after-{round}")];
        publish(old, &names[0]).await.unwrap();
        let (host, port) = new.address_parts();
        old.command::<()>(&["FAILOVER", "TO", &host, &port]).await;
        eventually("a failover", || async {
            let info: String = new.command(&["INFO", "replication"]).await;
            (info.contains("role:master") && info.contains("state=online")).then_some(())
        })
        .await;
        proxy.switch(&new.address());
        eventually("an adoption", || async { accepts_event(new, &names[1]).await.then_some(()) })
            .await;
        for sse in [&mut stream, &mut second] {
            for name in &names {
                assert_eq!(&sse.app_event().await.event, name, "{}", sse.dump());
            }
        }
    }
}

#[tokio::test]
async fn first_and_last_replica_are_no_new_epoch() {
    let redis = Redis::start().await;
    let gateway = Gateway::durable_only(&redis).start().await;
    let mut stream = gateway.connect("1").await;
    redis.command::<()>(&["CONFIG", "SET", "repl-backlog-ttl", "1"]).await;
    let replication = || async { redis.command::<String>(&["INFO", "replication"]).await };
    {
        let _replica = Redis::replica_of(&redis.address()).await;
        marked(&redis).await;
    }
    eventually("a freed backlog", || async {
        replication().await.contains("repl_backlog_active:0").then_some(())
    })
    .await;
    let before = publish(&redis, "before").await.unwrap();
    unwatched().await;
    let after = publish(&redis, "after").await.unwrap();
    assert_eq!(before.epoch, after.epoch);
    for name in ["before", "after"] {
        assert_eq!(stream.app_event().await.event, name, "{}", stream.dump());
    }
    // It is remembered that there was a replica.
    stop(&gateway).await;
    marked(&redis).await;
}

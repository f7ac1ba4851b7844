//! Redis streams as external sources: each entry becomes an event, exactly once and in order.

use std::time::Duration;

use redis::RedisResult;

use crate::config::{GOOD, run};
use crate::harness::{
    Cluster, Gateway, Redis, eventually, eventually_within, gateway::Builder, log_key, topic, user,
};

/// A stream whose writer does not know the gateway.
pub const ORDERS: &str =
    r#"[{"stream": "orders", "channel": "broadcast:orders", "type": "order"}]"#;
pub const OF_ORDERS: (&str, &str) = ("source", "orders");

pub fn with(redis: &Redis, streams: &str) -> Builder {
    Gateway::durable_only(redis)
        .env("HISTORY__MAX_LEN", "100000")
        .env("SOURCES__REDIS_STREAMS", streams)
}

/// Waits until one of these gateways reads the stream `orders`, and returns its number.
pub async fn reader(gateways: &[&Gateway]) -> usize {
    eventually("a reader of the source", || async {
        for (n, gateway) in gateways.iter().enumerate() {
            if gateway.metric("sse_source_reader", &[OF_ORDERS]).await == 1.0 {
                return Some(n);
            }
        }
        None
    })
    .await
}

pub async fn start(redis: &Redis) -> Gateway {
    let gateway = with(redis, ORDERS).start().await;
    reader(&[&gateway]).await;
    // The group begins with entries that are written after it was created.
    group_exists(redis).await;
    gateway
}

async fn group_exists(redis: &Redis) {
    eventually("the consumer group", || async {
        let pending: RedisResult<redis::Value> =
            redis.try_command(&["XPENDING", "orders", "sse-gateway"]).await;
        pending.ok()
    })
    .await;
}

/// Writes entries with these numbers.
pub async fn write(redis: &Redis, numbers: impl IntoIterator<Item = u32>) {
    let mut pipeline = redis::pipe();
    for n in numbers {
        pipeline.cmd("XADD").arg(&["orders", "*", "n", &n.to_string()]);
    }
    pipeline.exec_async(&mut redis.conn().await).await.expect("written");
}

/// The numbers in the log of a channel.
pub async fn stored(redis: &Redis, channel: &str) -> Vec<u32> {
    type Fields = Vec<(String, String)>;
    let rows: RedisResult<Vec<(String, Fields)>> =
        redis.try_command(&["XRANGE", &log_key(channel), "-", "+"]).await;
    let number = |(_, fields): (String, Fields)| {
        let (_, payload) = fields.into_iter().find(|(name, _)| name == "d")?;
        let payload: serde_json::Value = serde_json::from_str(&payload).ok()?;
        payload["n"].as_str()?.parse().ok()
    };
    rows.unwrap_or_default().into_iter().filter_map(number).collect()
}

/// Waits until the log has at least `count` events, and checks that they are 0, 1, 2, ….
pub async fn all_stored(redis: &Redis, count: u32) {
    let numbers = eventually(&format!("{count} events"), || async {
        Some(stored(redis, &topic("orders")).await).filter(|all| all.len() >= count as usize)
    })
    .await;
    assert_eq!(numbers, (0..count).collect::<Vec<_>>());
}

/// Waits until nothing is unconfirmed.
pub async fn all_confirmed(redis: &Redis) {
    eventually("confirmed entries", || async {
        let (count, ..): (u64, redis::Value, redis::Value, redis::Value) =
            redis.command(&["XPENDING", "orders", "sse-gateway"]).await;
        (count == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn entries_of_others_become_events() {
    let redis = Redis::start().await;
    let streams = r#"[
        {"stream": "orders", "channel": "user:{userId}:events", "type": "order-{status}",
         "keep": "{orderId}"},
        {"stream": "app:ready", "name": "ready"},
        {"stream": "mail", "channel": "broadcast:mail", "envelope": "data"}]"#;
    let gateway = with(&redis, streams).start().await;
    for source in ["orders", "ready", "mail"] {
        gateway.metric_reaches("sse_source_reader", &[("source", source)], 1.0).await;
    }
    let mut sse = gateway.connect("42").await;
    let words = ["XADD", "orders", "*", "userId", "42", "orderId", "7", "status", "paid"];
    redis.command::<String>(&words).await;
    let event = sse.app_event().await;
    assert_eq!(event.event, "order-paid");
    assert_eq!(event.data, r#"{"userId":"42","orderId":"7","status":"paid"}"#);
    let words =
        ["XADD", "app:ready", "*", "channel", &user("42"), "type", "t", "payload", "[1, 2]"];
    redis.command::<String>(&words).await;
    let event = sse.app_event().await;
    assert_eq!((&*event.event, &*event.data), ("t", "[1, 2]"));
    let envelope = r#"{"type":"mail","payload":{ "id" : 1 }}"#;
    redis.command::<String>(&["XADD", "mail", "*", "data", envelope]).await;
    let event = sse.app_event().await;
    assert_eq!((&*event.event, &*event.data), ("mail", r#"{ "id" : 1 }"#));
    let kept: Vec<String> = redis.command(&["HKEYS", "sse:kept:{user:42:events}"]).await;
    assert!(kept.contains(&"7".to_owned()), "{kept:?}");
}

#[tokio::test]
async fn killed_readers_lose_and_repeat_nothing() {
    let redis = Redis::start().await;
    let mut gateways = vec![start(&redis).await, with(&redis, ORDERS).start().await];
    let mut written = 0;
    for _ in 0..3 {
        let n = reader(&gateways.iter().collect::<Vec<_>>()).await;
        // So many that the reader is killed in the middle.
        write(&redis, written..written + 2000).await;
        written += 2000;
        gateways.remove(n).kill9();
        write(&redis, written..written + 10).await;
        written += 10;
        gateways.push(with(&redis, ORDERS).start().await);
    }
    all_stored(&redis, written).await;
    all_confirmed(&redis).await;
}

#[tokio::test]
async fn entry_that_was_stored_and_not_confirmed_is_not_stored_again() {
    let redis = Redis::start().await;
    let first = start(&redis).await;
    first.kill9();
    first.wait_exit().await;
    // As a reader leaves it that dies after the second of three entries.
    write(&redis, 0..3).await;
    let group = ["GROUP", "sse-gateway", "another", "COUNT", "3", "STREAMS", "orders", ">"];
    /// Id and fields of an entry.
    type Entry = (String, Vec<String>);
    let read: Vec<(String, Vec<Entry>)> =
        redis.command(&[&["XREADGROUP"], &group[..]].concat()).await;
    let mut publisher = redis.publisher().await;
    for (n, (id, _)) in read[0].1.iter().take(2).enumerate() {
        let key = format!("orders:{id}");
        let payload = format!(r#"{{"n":"{n}"}}"#);
        let options = ["KEY", &key];
        publisher.durable(&topic("orders"), "order", payload, &options).await.expect("published");
    }
    write(&redis, 3..5).await;
    let second = with(&redis, ORDERS).start().await;
    all_stored(&redis, 5).await;
    all_confirmed(&redis).await;
    second.metric_reaches("sse_source_duplicates_total", &[OF_ORDERS], 2.0).await;
    assert_eq!(second.metric("sse_source_published_total", &[OF_ORDERS]).await, 3.0);
}

#[tokio::test]
async fn clean_shutdown_hands_the_source_over() {
    let redis = Redis::start().await;
    let (first, second) = (start(&redis).await, with(&redis, ORDERS).start().await);
    write(&redis, 0..100).await;
    let holder = async || {
        redis.command::<Option<String>>(&["GET", "sse:lease:source:orders:{broadcast}"]).await
    };
    let before = holder().await;
    first.term();
    assert!(first.wait_exit().await.success());
    // The lease was released: it did not have to expire.
    assert_ne!(holder().await, before);
    reader(&[&second]).await;
    write(&redis, 100..200).await;
    all_stored(&redis, 200).await;
    all_confirmed(&redis).await;
}

#[tokio::test]
async fn paused_reader_takes_nothing_from_its_successor() {
    let redis = Redis::start().await;
    let (first, second) = (start(&redis).await, with(&redis, ORDERS).start().await);
    for round in 0..3 {
        let from = round * 30;
        let reads_first = reader(&[&first, &second]).await == 0;
        let (paused, other) = if reads_first { (&first, &second) } else { (&second, &first) };
        paused.freeze();
        // Redis delivers these to the paused reader, which waits for entries.
        write(&redis, from..from + 10).await;
        reader(&[other]).await;
        write(&redis, from + 10..from + 20).await;
        all_stored(&redis, from + 20).await;
        paused.thaw();
        write(&redis, from + 20..from + 30).await;
        all_stored(&redis, from + 30).await;
        eventually("a single reader", || async {
            (paused.metric("sse_source_reader", &[OF_ORDERS]).await == 0.0).then_some(())
        })
        .await;
    }
    all_confirmed(&redis).await;
}

#[tokio::test]
async fn rejected_entries_are_kept_and_block_nothing() {
    let redis = Redis::start().await;
    let streams = r#"[{"stream": "orders", "channel": "user:{userId}:events"}]"#;
    let gateway = with(&redis, streams).env("HISTORY__MAX_EVENT_BYTES", "100").start().await;
    reader(&[&gateway]).await;
    group_exists(&redis).await;
    let mut sse = gateway.connect("1").await;
    let long = "x".repeat(200);
    for fields in [
        &["status", "paid"][..],
        &["userId", "two words"],
        &["userId", "1", "text", &long],
        &["userId", "1", "n", "4"],
    ] {
        redis.command::<String>(&[&["XADD", "orders", "*"], fields].concat()).await;
    }
    assert_eq!(sse.app_event().await.data, r#"{"userId":"1","n":"4"}"#);
    all_confirmed(&redis).await;
    let rejected = redis.rejected().await;
    assert_eq!(rejected.len(), 3, "{rejected:?}");
    let of = |reason: &str| {
        rejected.iter().find(|entry| entry.reason == reason).expect("a rejected entry")
    };
    assert_eq!(of("bad-entry").message, br#"{"status":"paid"}"#);
    assert_eq!(of("bad-channel").channel, b"user:two words:events");
    assert_eq!(of("too-large").channel, b"user:1:events");
    assert_eq!(gateway.metric("sse_source_rejected_total", &[OF_ORDERS]).await, 3.0);
    assert_eq!(gateway.metric("sse_rejected_total", &[("reason", "bad-entry")]).await, 1.0);
    gateway.wait_for_log("rejected an entry of a source").await;
    gateway.wait_for_log("no field \\\"userId\\\"").await;
}

#[tokio::test]
async fn restart_of_redis_loses_and_repeats_nothing() {
    let redis = Redis::start_persistent("always").await;
    let _gateway = start(&redis).await;
    write(&redis, 0..1000).await;
    redis.stop();
    redis.start_again().await;
    write(&redis, 1000..1010).await;
    all_stored(&redis, 1010).await;
    all_confirmed(&redis).await;
}

#[tokio::test]
async fn stream_can_be_on_another_redis() {
    let (redis, other) = (Redis::start().await, Redis::start_beside().await);
    let streams = format!(
        r#"[{{"stream": "orders", "channel": "broadcast:orders", "url": "{}",
             "start": "beginning"}}]"#,
        other.url()
    );
    write(&other, 0..3).await;
    let gateway = with(&redis, &streams).start().await;
    all_stored(&redis, 3).await;
    other.stop();
    gateway.wait_for_log("could not read the source; trying again").await;
    other.start_again().await;
    // It is empty now, and the entry comes after the position of the source.
    write(&other, 3..4).await;
    all_stored(&redis, 4).await;
}

#[tokio::test]
async fn missing_replicas_delay_entries_in_order() {
    let redis = Redis::start().await;
    let gateway = start(&redis).await;
    write(&redis, 0..1).await;
    all_stored(&redis, 1).await;
    redis.command::<()>(&["CONFIG", "SET", "min-replicas-to-write", "1"]).await;
    gateway.wait_for_log("could not read the source; trying again").await;
    redis.command::<()>(&["CONFIG", "SET", "min-replicas-to-write", "0"]).await;
    write(&redis, 1..50).await;
    all_stored(&redis, 50).await;
}

#[tokio::test]
async fn channel_rate_slows_a_source_down_and_drops_nothing() {
    let redis = Redis::start().await;
    let rules = r#"[{"match": "broadcast:orders", "rate": 20}]"#;
    let gateway = with(&redis, ORDERS).env("CHANNELS", rules).start().await;
    reader(&[&gateway]).await;
    group_exists(&redis).await;
    write(&redis, 0..50).await;
    all_stored(&redis, 50).await;
    assert_eq!(gateway.metric("sse_source_rejected_total", &[OF_ORDERS]).await, 0.0);
}

#[tokio::test]
async fn entries_reach_all_servers_of_a_cluster() {
    let cluster = Cluster::start(3).await;
    let url = format!("redis+cluster://{}", cluster.addresses().join(","));
    let streams = r#"[{"stream": "orders", "channel": "user:{u}:events", "start": "beginning"}]"#;
    let builder =
        Gateway::at(&url).env("PUBLISHERS__PLAIN", "off").env("SOURCES__REDIS_STREAMS", streams);
    let (first, second) = (builder.start().await, builder.start().await);
    let write = async |numbers: std::ops::Range<u32>| {
        for n in numbers {
            let (n, u) = (n.to_string(), (n % 7).to_string());
            let words = ["XADD", "orders", "*", "n", &n, "u", &u];
            cluster.command_at::<String>("orders", &words).await;
        }
    };
    write(0..70).await;
    match reader(&[&first, &second]).await {
        0 => first.kill9(),
        _ => second.kill9(),
    }
    write(70..140).await;
    for u in 0..7 {
        let channel = user(&u.to_string());
        let node = cluster.node(cluster.owner_of(&log_key(&channel)).await);
        let expected: Vec<u32> = (0..140).filter(|n| n % 7 == u).collect();
        let all = eventually("all entries of a user", || async {
            Some(stored(node, &channel).await).filter(|all| all.len() >= expected.len())
        })
        .await;
        assert_eq!(all, expected, "{channel}");
    }
}

#[tokio::test]
async fn check_config_says_whether_sources_can_be_used() {
    let redis = Redis::start().await;
    let url = redis.url();
    let check = |streams: &str| {
        let settings = [GOOD, ("REDIS__URL", &*url), ("SOURCES__REDIS_STREAMS", streams)];
        run(&["check-config", "--connect"], &settings)
    };
    let ran = check(ORDERS);
    assert!(ran.out.contains("ok: source orders: "), "{}", ran.out);
    assert_eq!(redis.command::<u64>(&["DBSIZE"]).await, 0, "it has written nothing");
    let away = check(r#"[{"stream": "orders", "url": "redis://:hush@127.0.0.1:1"}]"#);
    assert!(away.out.contains("error: source orders: could not"), "{}", away.out);
    assert!(away.code == Some(69) && !away.out.contains("hush"), "{}", away.out);
    redis.command::<()>(&["SET", "orders", "x"]).await;
    let wrong = check(ORDERS);
    assert!(wrong.out.contains("is not a stream"), "{}", wrong.out);
    assert_eq!(wrong.code, Some(78));
    let invalid = check(r#"[{"group": "g"}]"#);
    assert!(invalid.err.contains("sources.redis_streams: stream 1: stream is missing"));
    assert_eq!(invalid.code, Some(78));
}

/// 10,000 entries, and kills at random times (`make test-sources`).
#[tokio::test]
#[ignore = "takes minutes: make test-sources"]
async fn ten_thousand_entries_arrive_once_despite_random_kills() {
    const COUNT: u32 = 10_000;
    let redis = Redis::start_persistent("always").await;
    let mut gateways = vec![start(&redis).await, with(&redis, ORDERS).start().await];
    let writer = async {
        for n in (0..COUNT).step_by(10) {
            // A backend tries again while Redis is unavailable, also what may have been executed.
            write_once(&redis, n..n + 10).await;
            tokio::time::sleep(Duration::from_millis(fastrand::u64(0..40))).await;
        }
    };
    let killer = async {
        loop {
            tokio::time::sleep(Duration::from_millis(fastrand::u64(200..3000))).await;
            if fastrand::u8(0..4) == 0 {
                redis.stop();
                redis.start_again().await;
                continue;
            }
            let n = fastrand::usize(0..gateways.len());
            gateways.remove(n).kill9();
            gateways.push(with(&redis, ORDERS).start_unready().await);
        }
    };
    tokio::select! {
        () = writer => {}
        _ = killer => {}
    }
    let numbers = eventually_within(Duration::from_secs(120), "all events", || async {
        Some(stored(&redis, &topic("orders")).await).filter(|all| all.len() >= COUNT as usize)
    })
    .await;
    assert_eq!(numbers, (0..COUNT).collect::<Vec<_>>());
}

/// Writes entries whose ids are their numbers, as often as necessary.
async fn write_once(redis: &Redis, numbers: std::ops::Range<u32>) {
    for n in numbers {
        let (id, n) = (format!("{}-1", n + 1), n.to_string());
        eventually("a written entry", || async {
            let written: RedisResult<String> =
                redis.try_command(&["XADD", "orders", &id, "n", &n]).await;
            match written {
                Ok(_) => Some(()),
                // It was written, and the reply was lost.
                Err(error) => error.to_string().contains("equal or smaller").then_some(()),
            }
        })
        .await;
    }
}

//! Ids that the library never assigned: on live channels, in the node key, in logs, as arguments
//! and as clients' cursors. None of them may move the order ahead or stop publishing.

use redis::Value;
use std::collections::HashMap;

use crate::harness::{Event, Gateway, Id, Redis, Sse, eventually, log_key, now_ms, topic, user};

const HIGHEST: &str = "18446744073709551615-0.zzzzzzzzz";
const NODE: &str = "sse:node:{broadcast}";
const LIVE: &str = "sse:live:{broadcast}";
/// Maximum time by which a new id may be ahead of the clock, ms. Ids run ahead slightly after
/// resets.
const NEAR_MS: u64 = 60_000;
const WEEK_MS: u64 = 7 * 86_400_000;
/// Epochs that may start in one second.
const EPOCHS_PER_SECOND: u64 = 1296;

/// What `sse_watermark` returns.
async fn watermark(redis: &Redis, seen: &str) -> HashMap<String, String> {
    redis.command(&["FCALL", "sse_watermark", "1", NODE, seen]).await
}

/// The current position of the server.
async fn position(redis: &Redis) -> Id {
    // After a wipe, a gateway adopts the server within a second.
    let adopted = || async { watermark(redis, "").await.remove("h") };
    Id::of(&eventually("an adopted server", adopted).await)
}

/// Waits for two watermarks of the gateway, after which all earlier messages have had their effect.
async fn watermarks(gateway: &Gateway) {
    for _ in 0..2 {
        let age = || gateway.metric("sse_watermark_age_seconds", &[]);
        let before = std::cell::Cell::new(age().await);
        eventually("a watermark", || async {
            let now = age().await;
            (now < before.replace(now)).then_some(())
        })
        .await;
    }
}

fn is_near(id: Id) {
    let ahead_ms = id.ms.saturating_sub(now_ms());
    assert!(ahead_ms < NEAR_MS, "{id} is {ahead_ms} ms ahead");
    let ahead_s = (id.epoch / EPOCHS_PER_SECOND).saturating_sub(now_ms() / 1000);
    assert!(ahead_s < NEAR_MS / 1000, "the epoch of {id} is {ahead_s} s ahead");
}

/// Checks that publishing works, that open streams receive the event, and that the clock is
/// correct.
async fn works(redis: &Redis, streams: &mut [&mut Sse]) -> String {
    let id = redis.durable(&user("1"), "works", "1").await.expect("the publish succeeds");
    is_near(Id::of(&id));
    is_near(position(redis).await);
    for stream in streams {
        stream.until(|event| event.id.as_ref() == Some(&id)).await;
    }
    id
}

fn reason(gap: &Event) -> String {
    assert_eq!(gap.event, "sse.gap", "{gap}");
    gap.json()["reason"].as_str().expect("a reason").to_owned()
}

/// Publishes to a live channel, as only gateways and the library should.
async fn forge(redis: &Redis, channel: &str, message: &str) {
    redis.command::<i64>(&["SPUBLISH", channel, message]).await;
}

#[tokio::test]
async fn forged_live_messages_are_counted_and_rarely_logged() {
    const ROUNDS: usize = 20;
    let redis = Redis::start().await;
    let gateway = Gateway::start(&redis).await;
    let mut stream = gateway.connect("1").await;
    let real = position(&redis).await;
    let now = now_ms();
    let far = Id { ms: now + WEEK_MS + 60_000, seq: 0, ..real };
    let far_epoch = Id { epoch: (now + WEEK_MS + 60_000) / 1000 * EPOCHS_PER_SECOND, ..real };
    let large_seq = Id { seq: 9_007_199_254_740_992, ..real };
    let long_marker = "m".repeat(10_000);
    let own = format!("sse:live:{{{}}}", user("1"));
    let mut forged = vec![
        (LIVE, "epoch garbage".to_owned()),
        (LIVE, "unrecorded".to_owned()),
        (LIVE, format!("marker {long_marker}")),
        (LIVE, format!("{real} 0-0.0 - a,b t\nx")),
        (LIVE, format!("{real} {real} - t t\nx")),
        (&own, format!("{real} {real} - t\nx")),
        (&own, format!("revoke {}", far.ms)),
        (&own, "revoke soon".to_owned()),
        (&own, format!("taken-over x {} 1", far.ms)),
        (&own, format!("taken-over {long_marker} {now} 1")),
    ];
    for id in [HIGHEST.to_owned(), far.to_string(), far_epoch.to_string(), large_seq.to_string()] {
        forged.push((LIVE, format!("epoch {id}")));
        forged.push((LIVE, format!("unrecorded {id}")));
        forged.push((LIVE, format!("{id} 0-0.0 - t t\nx")));
        forged.push((&own, format!("{id} 0-0.0 - t\nx")));
        forged.push((&own, format!("{real} {id} - t\nx")));
    }
    for _ in 0..ROUNDS {
        for (channel, message) in &forged {
            forge(&redis, channel, message).await;
        }
    }
    let total = (ROUNDS * forged.len()) as f64;
    gateway.metric_reaches("sse_live_malformed_total", &[], total).await;
    assert_eq!(gateway.metric("sse_live_malformed_total", &[]).await, total);
    watermarks(&gateway).await;
    let id = works(&redis, &mut []).await;
    assert_eq!(stream.app_event().await.id, Some(id), "and nothing before it: {}", stream.dump());
    let mut again = gateway.connect("1").await;
    works(&redis, &mut [&mut again, &mut stream]).await;
    assert_eq!(position(&redis).await.epoch, real.epoch);
    // One in 10 s, however long this machine has taken.
    gateway.wait_for_log("ignored a malformed message").await;
    let lines = gateway.log_text().matches("ignored a malformed message").count();
    assert!((1..=3).contains(&lines), "{lines} lines");
}

#[tokio::test]
async fn forged_breaks_are_rarely_logged_and_lose_nothing() {
    const FORGED: u64 = 100;
    let redis = Redis::start().await;
    let gateway = Gateway::durable_only(&redis).start().await;
    let mut stream = gateway.connect("1").await;
    let real = position(&redis).await;
    for n in 1..=FORGED {
        forge(&redis, LIVE, &format!("unrecorded {}", Id { seq: real.seq + n, ..real })).await;
        forge(&redis, LIVE, &format!("epoch {}", Id { epoch: real.epoch + n, ..real })).await;
    }
    let id = works(&redis, &mut [&mut stream]).await;
    assert_eq!(Id::of(&id).epoch, real.epoch, "only the server starts epochs");
    // A forged epoch does not hide a real one.
    redis.flushall().await;
    assert_eq!(reason(&stream.next_of("sse.gap").await), "reset");
    works(&redis, &mut [&mut stream]).await;
    for text in ["new epoch: Redis", "plain publishes may be missing"] {
        gateway.wait_for_log(text).await;
        let lines = gateway.log_text().matches(text).count();
        assert!((1..=3).contains(&lines), "{lines} lines: {text}");
    }
}

#[tokio::test]
async fn watermark_argument_moves_the_clock_only_within_seven_days() {
    let redis = Redis::start().await;
    let gateway = Gateway::durable_only(&redis).start().await;
    let mut stream = gateway.connect("1").await;
    let real = position(&redis).await;
    let far = Id { ms: now_ms() + WEEK_MS + 60_000, seq: 0, ..real }.to_string();
    let far_epoch = Id { epoch: real.epoch + 8 * 86_400 * EPOCHS_PER_SECOND, ..real }.to_string();
    let sequence = format!("{}-18446744073709551615.1", now_ms());
    for seen in [HIGHEST, &far, &far_epoch, &sequence, "garbage", "", "-1", "1e300-0.1"] {
        for function in ["sse_watermark", "sse_adopt"] {
            redis.command::<Value>(&["FCALL", function, "1", NODE, seen]).await;
            works(&redis, &mut [&mut stream]).await;
        }
    }
    assert_eq!(position(&redis).await.epoch, real.epoch);
    // A possible one of this epoch moves the clock.
    let near = Id { ms: now_ms() + 30_000, seq: 5, ..real };
    watermark(&redis, &near.to_string()).await;
    assert!(Id::of(&works(&redis, &mut [&mut stream]).await) > near);
    // One of a later epoch shows that this server's history is not the one that gateways have seen.
    let later = Id { epoch: real.epoch + EPOCHS_PER_SECOND, ..near };
    assert_eq!(watermark(&redis, &later.to_string()).await["state"], "unknown");
    redis.command::<Value>(&["FCALL", "sse_adopt", "1", NODE, &later.to_string()]).await;
    assert_eq!(reason(&stream.next_of("sse.gap").await), "reset");
    assert!(Id::of(&works(&redis, &mut [&mut stream]).await) > later);
}

#[tokio::test]
async fn forged_node_key_starts_a_new_epoch_at_most() {
    let redis = Redis::start().await;
    let gateway = Gateway::durable_only(&redis).start().await;
    let mut stream = gateway.connect("1").await;
    let forged = ["zzzzzzzzz", "garbage!"];
    for field in ["epoch", "run_id", "replid", "clock", "start", "previous", "raised_ms"] {
        for value in forged {
            redis.command::<i64>(&["HSET", NODE, field, value]).await;
            watermarks(&gateway).await;
            works(&redis, &mut [&mut stream]).await;
        }
        // A gateway that starts now gets a link.
        let gateway = Gateway::durable_only(&redis).start().await;
        let mut stream = gateway.connect("1").await;
        works(&redis, &mut [&mut stream]).await;
    }
}

#[tokio::test]
async fn forged_clock_in_library_memory_is_forgotten() {
    let redis = Redis::start().await;
    let gateway = Gateway::durable_only(&redis).start().await;
    let mut stream = gateway.connect("1").await;
    let list = ["FUNCTION", "LIST", "LIBRARYNAME", "sse_gateway_*", "WITHCODE"];
    let all: Vec<HashMap<String, Value>> = redis.command(&list).await;
    let code: String = redis::from_redis_value(all[0]["library_code"].clone()).unwrap();
    let poisoned =
        code.replace("local clock_ms, clock_seq = 0, 0", "local clock_ms, clock_seq = 1e15, 0");
    assert_ne!(code, poisoned);
    redis.command::<String>(&["FUNCTION", "LOAD", "REPLACE", &poisoned]).await;
    works(&redis, &mut [&mut stream]).await;
    redis.flushall().await;
    works(&redis, &mut [&mut stream]).await;
}

/// Checks that a log whose last id no clock assigned starts again, and that every client with a
/// position in it gets `trimmed`.
async fn log_starts_again(forged: &str) {
    let redis = Redis::start().await;
    let gateway = Gateway::durable_only(&redis).start().await;
    let mut stream = gateway.connect("1").await;
    let cursor = works(&redis, &mut [&mut stream]).await;
    redis.durable(&user("1"), "lost", "1").await.unwrap();
    assert_eq!(stream.app_event().await.event, "lost");
    let epoch = position(&redis).await.epoch;
    redis.command::<String>(&["XADD", &log_key(&user("1")), forged, "f", "x"]).await;
    let id = redis.durable(&user("1"), "a", "1").await.expect("the publish succeeds");
    is_near(Id::of(&id));
    let mut resumed = gateway.resume("1", &cursor).await;
    for stream in [&mut stream, &mut resumed] {
        assert_eq!(reason(&stream.app_event().await), "trimmed", "{}", stream.dump());
        assert_eq!(stream.app_event().await.id.as_ref(), Some(&id), "{}", stream.dump());
    }
    works(&redis, &mut [&mut stream, &mut resumed]).await;
    assert_eq!(position(&redis).await.epoch, epoch, "the clock is unchanged");
}

#[tokio::test]
async fn log_with_an_id_in_the_far_future_starts_again_with_a_gap() {
    log_starts_again("18446744073709551615-18446744073709551615").await;
}

#[tokio::test]
async fn log_with_the_highest_sequence_starts_again_with_a_gap() {
    log_starts_again(&format!("{}-18446744073709551615", now_ms() + 1000)).await;
}

#[tokio::test]
async fn forged_dedupe_entry_hides_no_event() {
    let redis = Redis::start().await;
    let gateway = Gateway::durable_only(&redis).start().await;
    let mut stream = gateway.connect("1").await;
    for (n, forged) in [HIGHEST, "garbage", "1-0"].into_iter().enumerate() {
        let key = format!("k{n}");
        let dedupe = format!("sse:dedupe:{{{}}} {key}", user("1"));
        redis.command::<()>(&["SET", &dedupe, forged]).await;
        let mut publisher = redis.publisher().await;
        let id = publisher.durable(&user("1"), "a", "1", &["KEY", &key]).await.unwrap();
        assert_eq!(stream.app_event().await.id, Some(id));
    }
}

#[tokio::test]
async fn cursors_in_the_far_future_get_a_gap_and_move_no_clock() {
    let redis = Redis::start().await;
    let gateway = Gateway::durable_only(&redis).start().await;
    let real = position(&redis).await;
    let far = Id { ms: now_ms() + WEEK_MS + 60_000, ..real }.to_string();
    let week = Id { ms: now_ms() + WEEK_MS - 60_000, ..real }.to_string();
    let epoch = Id { epoch: real.epoch + EPOCHS_PER_SECOND, ..real }.to_string();
    let sequence = Id { seq: u64::MAX, ..real }.to_string();
    for cursor in [HIGHEST, &far, &week, &epoch, &sequence] {
        let mut stream = gateway.resume("1", cursor).await;
        let gap = stream.app_event().await;
        assert_eq!(reason(&gap), "unknown-id");
        assert_eq!(gap.json()["from"], *cursor);
        watermarks(&gateway).await;
        works(&redis, &mut [&mut stream]).await;
    }
    assert_eq!(position(&redis).await.epoch, real.epoch);
    let id = redis.durable(&topic("t"), "a", "1").await.unwrap();
    is_near(Id::of(&id));
}

/// A writer and a standby that count from the same marker, and that marker.
async fn writer_and_standby(redis: &Redis) -> (Gateway, Gateway, String) {
    let writer = Gateway::start(redis).await;
    writer.wait_for_recorder().await;
    let first = marker(redis).await;
    let standby = Gateway::start(redis).await;
    let common = marker_after(redis, &[&first]).await;
    (writer, standby, common)
}

async fn marker(redis: &Redis) -> String {
    redis.command(&["HGET", "sse:recorder:{broadcast}", "marker"]).await
}

/// Waits for a marker of the writer other than these.
async fn marker_after(redis: &Redis, earlier: &[&str]) -> String {
    eventually("another marker", || async {
        Some(marker(redis).await).filter(|marker| !earlier.contains(&marker.as_str()))
    })
    .await
}

/// Kills the writer while only the standby has some messages, and checks that these are recorded
/// without a gap.
async fn standby_takes_over(redis: &Redis, writer: &Gateway, standby: &Gateway) {
    let mut stream = standby.connect("1").await;
    writer.freeze();
    for n in 0..5 {
        redis.plain(user("1"), n.to_string()).await;
    }
    writer.kill9();
    standby.wait_for_recorder().await;
    for n in 0..5 {
        let event = stream.app_event().await;
        assert_eq!(event.data, n.to_string(), "{}", stream.dump());
    }
}

#[tokio::test]
async fn forged_marker_does_not_stop_the_standby() {
    let redis = Redis::start().await;
    let (writer, standby, common) = writer_and_standby(&redis).await;
    forge(&redis, LIVE, "marker forged").await;
    marker_after(&redis, &[&common, "forged"]).await;
    standby_takes_over(&redis, &writer, &standby).await;
}

/// docs/operations/runbook.md, "Foreign data in the gateway's keys".
#[tokio::test]
async fn runbook_restores_publishing_after_damaged_keys() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(&redis).await;
    gateway.wait_for_recorder().await;
    for key in [
        "sse:node:{broadcast}",
        "sse:recorder:{broadcast}",
        "sse:topics:{broadcast}",
        "sse:rejected:{broadcast}",
    ] {
        redis.command::<i64>(&["DEL", key]).await;
        redis.command::<()>(&["SET", key, "damaged"]).await;
    }
    let page = include_str!("../../docs/operations/runbook.md");
    let (_, section) =
        page.split_once("### Foreign data in the gateway's keys").expect("the section");
    let commands: Vec<&str> =
        section.lines().filter_map(|line| line.strip_prefix("redis-cli DEL ")).collect();
    assert!(!commands.is_empty(), "the runbook names the command");
    for command in commands {
        let keys: Vec<&str> = command.split_whitespace().take_while(|word| *word != "#").collect();
        redis.command::<i64>(&[&["DEL"], &keys[..]].concat()).await;
    }
    gateway.ready().await;
    gateway.wait_for_recorder().await;
    let mut stream = gateway.connect("1").await;
    works(&redis, &mut [&mut stream]).await;
    redis.plain(topic("t"), "plain").await;
    assert_eq!(stream.app_event().await.data, "plain");
}

//! Ids that the library never assigned: on live channels, in the clock, in logs, as arguments and
//! as clients' cursors. None of them may move the order ahead or stop publishing.

use redis::Value;
use std::collections::HashMap;

use crate::harness::{Event, Gateway, Id, Redis, Sse, eventually, now_ms, topic, user};

const HIGHEST: &str = "18446744073709551615-0";
/// Maximum time by which a new id may be ahead of the clock, ms. Ids run ahead slightly after
/// resets.
const NEAR_MS: u64 = 60_000;
const WEEK_MS: u64 = 7 * 86_400_000;

/// Waits for two ticks, after which all earlier messages have had their effect.
async fn ticks(redis: &Redis) {
    for _ in 0..2 {
        let ticked = || redis.command::<Option<String>>(&["HGET", "sse:clock", "ticked_ms"]);
        let before = ticked().await;
        eventually("a tick", || async { (ticked().await != before).then_some(()) }).await;
    }
}

fn is_near(id: &str) {
    let ahead_ms = Id::of(id).0.saturating_sub(now_ms());
    assert!(ahead_ms < NEAR_MS, "{id} is {ahead_ms} ms ahead");
}

/// Checks that publishing works, that open streams receive the event, and that the clock is
/// correct.
async fn works(redis: &Redis, streams: &mut [&mut Sse]) -> String {
    let id = redis.durable(&user("1"), "works", "1").await.expect("the publish succeeds");
    is_near(&id);
    let last: String = redis.command(&["HGET", "sse:clock", "last"]).await;
    is_near(&last);
    for stream in streams {
        assert_eq!(stream.next_of("works").await.id.as_ref(), Some(&id), "{}", stream.dump());
    }
    id
}

async fn seams(redis: &Redis) -> Vec<String> {
    let all: Vec<(String, Vec<String>)> = redis.command(&["XRANGE", "sse:seams", "-", "+"]).await;
    all.into_iter().map(|(_, fields)| fields[1].clone()).collect()
}

fn reason(gap: &Event) -> String {
    assert_eq!(gap.event, "sse.gap", "{gap}");
    gap.json()["reason"].as_str().expect("a reason").to_owned()
}

#[tokio::test]
async fn forged_tick_changes_nothing_even_after_a_restart() {
    let redis = Redis::start().await;
    let gateway = Gateway::durable_only(&redis).start().await;
    let mut stream = gateway.connect("1").await;
    let cursor = works(&redis, &mut [&mut stream]).await;
    redis.plain("sse:live:tick", format!("{HIGHEST} 0-0 0-0 - 0")).await;
    gateway.metric_reaches("sse_live_malformed_total", &[], 1.0).await;
    ticks(&redis).await;
    let next = works(&redis, &mut [&mut stream]).await;
    drop(gateway);
    let gateway = Gateway::durable_only(&redis).start().await;
    let mut stream = gateway.resume("1", &cursor).await;
    assert_eq!(stream.app_event().await.id, Some(next), "{}", stream.dump());
    works(&redis, &mut [&mut stream]).await;
    assert_eq!(seams(&redis).await, ["reset"], "only that of the empty Redis");
}

#[tokio::test]
async fn forged_live_messages_are_counted_and_rarely_logged() {
    const ROUNDS: usize = 20;
    let redis = Redis::start().await;
    let gateway = Gateway::start(&redis).await;
    let mut stream = gateway.connect("1").await;
    let (now, far) = (now_ms(), now_ms() + WEEK_MS + 60_000);
    let long_marker = "m".repeat(10_000);
    let live = user("1");
    let forged = [
        ("tick", format!("{HIGHEST} 0-0 0-0 - 0")),
        ("tick", format!("{far}-0 0-0 0-0 - 0")),
        ("tick", format!("{now}-9007199254740992 0-0 0-0 - 0")),
        ("tick", format!("{now}-0 {HIGHEST} 0-0 - 0")),
        ("tick", format!("{now}-0 0-0 {HIGHEST} - 0")),
        ("tick", "garbage".to_owned()),
        ("seam", format!("{HIGHEST} reset")),
        ("seam", format!("{far}-0 unrecorded")),
        ("seam", String::new()),
        ("control", format!("revoke 1 {far}")),
        ("control", "revoke 1 soon".to_owned()),
        ("control", format!("taken-over x {far} 1")),
        ("control", format!("taken-over {long_marker} {now} 1")),
        ("marker", long_marker.clone()),
        (&live, format!("{HIGHEST} 0-0 - t\nx")),
        (&live, format!("{far}-0 0-0 - t\nx")),
        (&live, format!("{now}-0 {HIGHEST} - t\nx")),
        (&live, format!("{now}-0 {now}-0 - t\nx")),
    ];
    let mut publisher = redis.publisher().await;
    for _ in 0..ROUNDS {
        for (channel, message) in &forged {
            publisher.plain(format!("sse:live:{channel}"), message).await;
        }
    }
    let total = (ROUNDS * forged.len()) as f64;
    gateway.metric_reaches("sse_live_malformed_total", &[], total).await;
    assert_eq!(gateway.metric("sse_live_malformed_total", &[]).await, total);
    ticks(&redis).await;
    let id = works(&redis, &mut []).await;
    assert_eq!(
        stream.app_event().await.id,
        Some(id),
        "without an earlier event: {}",
        stream.dump()
    );
    let mut again = gateway.connect("1").await;
    works(&redis, &mut [&mut again, &mut stream]).await;
    // One in 10 s, on a machine of any speed.
    let lines = gateway.log_text().matches("ignored a malformed message").count();
    assert!((1..=3).contains(&lines), "{lines} lines");
}

#[tokio::test]
async fn floods_of_forged_seams_are_rarely_logged() {
    const SEAMS: u64 = 300;
    let redis = Redis::start().await;
    let gateway = Gateway::durable_only(&redis).start().await;
    let mut stream = gateway.connect("1").await;
    let now = now_ms();
    let mut publisher = redis.publisher().await;
    for n in 1..=SEAMS {
        publisher.plain("sse:live:seam".to_owned(), &format!("{now}-{n} unrecorded")).await;
        publisher.plain("sse:live:seam".to_owned(), &format!("{}-0 reset", now + n)).await;
    }
    // This event has arrived after the forged messages.
    let id = redis.durable(&user("1"), "a", "1").await.unwrap();
    stream.until(|event| event.id.as_ref() == Some(&id)).await;
    // One of each in 10 s, on a machine of any speed.
    for text in ["new epoch: Redis", "plain publishes may be missing"] {
        let lines = gateway.log_text().matches(text).count();
        assert!((1..=3).contains(&lines), "{lines} lines: {text}");
    }
}

#[tokio::test]
async fn tick_moves_the_clock_at_most_seven_days() {
    let redis = Redis::start().await;
    let gateway = Gateway::durable_only(&redis).start().await;
    let mut stream = gateway.connect("1").await;
    let far = format!("{}-0", now_ms() + WEEK_MS + 60_000);
    let sequence = format!("{}-18446744073709551615", now_ms());
    for seen in [HIGHEST, &far, &sequence, "garbage", "", "-1", "1e300-0"] {
        redis.command::<i64>(&["FCALL", "sse_tick", "0", "0", seen]).await;
        works(&redis, &mut [&mut stream]).await;
    }
    assert_eq!(seams(&redis).await, ["reset"]);
    let near = format!("{}-5", now_ms() + 30_000);
    redis.command::<i64>(&["FCALL", "sse_tick", "0", "0", &near]).await;
    assert_eq!(reason(&stream.next_of("sse.gap").await), "reset");
    assert!(Id::of(&works(&redis, &mut [&mut stream]).await) > Id::of(&near));
}

#[tokio::test]
async fn forged_clock_starts_an_epoch_and_publishing_continues() {
    let redis = Redis::start().await;
    let gateway = Gateway::durable_only(&redis).start().await;
    let mut stream = gateway.connect("1").await;
    let far = format!("{}-0", now_ms() + WEEK_MS + 60_000);
    let sequence = format!("{}-18446744073709551615", now_ms());
    for (n, last) in [HIGHEST, &far, &sequence, "garbage", "0-0", "1-1"].into_iter().enumerate() {
        redis.command::<i64>(&["HSET", "sse:clock", "last", last]).await;
        works(&redis, &mut [&mut stream]).await;
        assert_eq!(seams(&redis).await.len(), n + 2, "one new epoch for {last}");
    }
    let cursor = stream.last_id().to_owned();
    drop(gateway);
    redis.command::<i64>(&["HSET", "sse:clock", "last", HIGHEST]).await;
    let gateway = Gateway::durable_only(&redis).start().await;
    let mut stream = gateway.resume("1", &cursor).await;
    assert_eq!(reason(&stream.app_event().await), "reset");
    works(&redis, &mut [&mut stream]).await;
}

#[tokio::test]
async fn forged_clock_fields_are_replaced_and_links_recover() {
    let redis = Redis::start().await;
    let _first = Gateway::durable_only(&redis).start().await;
    for field in ["epoch", "unrecorded", "ticked_ms", "raised_ms", "shorter_ms"] {
        for value in [HIGHEST, "garbage", "18446744073709551616"] {
            redis.command::<i64>(&["HSET", "sse:clock", field, value]).await;
            let gateway = Gateway::durable_only(&redis).start().await;
            let mut stream = gateway.connect("1").await;
            works(&redis, &mut [&mut stream]).await;
        }
    }
}

#[tokio::test]
async fn forged_id_in_library_memory_is_discarded() {
    let redis = Redis::start().await;
    let gateway = Gateway::durable_only(&redis).start().await;
    let mut stream = gateway.connect("1").await;
    let list = ["FUNCTION", "LIST", "LIBRARYNAME", "sse_gateway_*", "WITHCODE"];
    let all: Vec<HashMap<String, Value>> = redis.command(&list).await;
    let code: String = redis::from_redis_value(all[0]["library_code"].clone()).unwrap();
    let poisoned = code.replace("local given_ms = 0\n", "local given_ms = 1e18\n");
    assert_ne!(code, poisoned);
    redis.command::<String>(&["FUNCTION", "LOAD", "REPLACE", &poisoned]).await;
    works(&redis, &mut [&mut stream]).await;
    redis.flushall().await;
    works(&redis, &mut [&mut stream]).await;
}

/// Checks that a log whose last id no clock has assigned is started again, and that every client
/// with a position in it gets `trimmed`.
async fn log_starts_anew(forged: &str) {
    let redis = Redis::start().await;
    let gateway = Gateway::durable_only(&redis).start().await;
    let mut stream = gateway.connect("1").await;
    let cursor = works(&redis, &mut [&mut stream]).await;
    redis.durable(&user("1"), "lost", "1").await.unwrap();
    assert_eq!(stream.app_event().await.event, "lost");
    redis.command::<String>(&["XADD", "sse:log:user:1:events", forged, "f", "x"]).await;
    let id = redis.durable(&user("1"), "a", "1").await.expect("the publish succeeds");
    is_near(&id);
    let mut resumed = gateway.resume("1", &cursor).await;
    for stream in [&mut stream, &mut resumed] {
        assert_eq!(reason(&stream.app_event().await), "trimmed", "{}", stream.dump());
        assert_eq!(stream.app_event().await.id.as_ref(), Some(&id), "{}", stream.dump());
    }
    works(&redis, &mut [&mut stream, &mut resumed]).await;
    assert_eq!(seams(&redis).await, ["reset"], "the clock does not change");
}

#[tokio::test]
async fn log_with_far_future_id_restarts_with_gap() {
    log_starts_anew("18446744073709551615-18446744073709551615").await;
}

#[tokio::test]
async fn log_with_highest_sequence_restarts_with_gap() {
    log_starts_anew(&format!("{}-18446744073709551615", now_ms() + 1000)).await;
}

#[tokio::test]
async fn forged_dedupe_entry_drops_no_event() {
    let redis = Redis::start().await;
    let gateway = Gateway::durable_only(&redis).start().await;
    let mut stream = gateway.connect("1").await;
    for (n, forged) in [HIGHEST, "garbage"].into_iter().enumerate() {
        let key = format!("k{n}");
        redis.command::<()>(&["SET", &format!("sse:dedupe:user:1:events {key}"), forged]).await;
        let mut publisher = redis.publisher().await;
        let id = publisher.durable(&user("1"), "a", "1", &["KEY", &key]).await.unwrap();
        assert_eq!(stream.app_event().await.id, Some(id));
    }
}

#[tokio::test]
async fn far_future_cursors_get_gap_without_clock_change() {
    let redis = Redis::start().await;
    let gateway = Gateway::durable_only(&redis).start().await;
    let far = format!("{}-0", now_ms() + WEEK_MS + 60_000);
    let week = format!("{}-0", now_ms() + WEEK_MS - 60_000);
    let sequence = format!("{}-18446744073709551615", now_ms());
    for cursor in [HIGHEST, &far, &week, &sequence] {
        let mut stream = gateway.resume("1", cursor).await;
        let gap = stream.app_event().await;
        assert_eq!(reason(&gap), "unknown-id");
        assert_eq!(gap.json()["from"], *cursor);
        ticks(&redis).await;
        works(&redis, &mut [&mut stream]).await;
    }
    assert_eq!(seams(&redis).await, ["reset"]);
    let id = redis.durable(&topic("t"), "a", "1").await.unwrap();
    is_near(&id);
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
    redis.command(&["HGET", "sse:recorder", "marker"]).await
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
async fn standby_takes_over(redis: &Redis, writer: &Gateway, standby: &Gateway, forged: &str) {
    let mut stream = standby.connect("1").await;
    writer.freeze();
    for n in 0..5 {
        redis.plain(user("1"), n.to_string()).await;
    }
    if !forged.is_empty() {
        redis.plain("sse:live:tick", forged).await;
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
    redis.plain("sse:live:marker", "forged").await;
    marker_after(&redis, &[&common, "forged"]).await;
    standby_takes_over(&redis, &writer, &standby, "").await;
}

#[tokio::test]
async fn forged_record_number_discards_no_message() {
    let redis = Redis::start().await;
    let (writer, standby, common) = writer_and_standby(&redis).await;
    let last: String = redis.command(&["HGET", "sse:clock", "last"]).await;
    let forged = format!("{last} 0-0 0-0 {common} {}", u64::MAX);
    standby_takes_over(&redis, &writer, &standby, &forged).await;
}

#[tokio::test]
async fn forged_breaks_are_rarely_logged() {
    const FORGED: u64 = 50;
    let redis = Redis::start().await;
    let gateway = Gateway::durable_only(&redis).start().await;
    let epoch: String = redis.command(&["HGET", "sse:clock", "epoch"]).await;
    ticks(&redis).await;
    let mut publisher = redis.publisher().await;
    for n in 1..=FORGED {
        let id = Id(Id::of(&epoch).0 + n, 0).to_string();
        publisher.plain("sse:live:seam", format!("{id} unrecorded")).await;
        publisher.plain("sse:live:seam", format!("{id} reset")).await;
    }
    let mut stream = gateway.connect("1").await;
    works(&redis, &mut [&mut stream]).await;
    for reason in ["(reset)", "(unrecorded)"] {
        gateway.wait_for_log(reason).await;
        let lines = gateway.log_text().matches(reason).count();
        assert!((1..=3).contains(&lines), "{lines} lines {reason}: {}", gateway.log_text());
    }
}

/// docs/operations/runbook.md, "Foreign data in the gateway's keys".
#[tokio::test]
async fn runbook_restores_publishing_after_damaged_keys() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(&redis).await;
    gateway.wait_for_recorder().await;
    for key in
        ["sse:clock", "sse:settings", "sse:recorder", "sse:topics", "sse:seams", "sse:rejected"]
    {
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
    let settings = || redis.command::<i64>(&["EXISTS", "sse:settings"]);
    eventually("the settings to be written again", || async {
        (settings().await == 1).then_some(())
    })
    .await;
}

//! Clients get `sse.gap` if events may be missing, and only then.

use crate::harness::load::publish_batch;
use crate::harness::{
    Event, Gateway, Id, Published, Redis, Sse, eventually, log_key, now_ms, topic, user,
};

/// Checks the fields of a gap and returns it.
fn assert_gap(gap: Event, reason: &str, from: &str) -> Event {
    let data = gap.json();
    assert_eq!(gap.event, "sse.gap");
    assert_eq!(data["reason"], reason, "{gap}");
    assert_eq!(data["from"], from, "{gap}");
    assert!(data["channels"].is_array(), "{gap}");
    let restarts = reason == "unknown-id";
    assert_eq!(gap.id.is_some(), restarts, "{gap}");
    gap
}

/// The `channels` of a gap.
fn channels(gap: &Event) -> Vec<String> {
    serde_json::from_value(gap.json()["channels"].clone()).unwrap()
}

/// A gateway that keeps about ten events per channel, after 350 events on user 1's channel.
async fn trimmed_log() -> (Redis, Gateway, Vec<Published>) {
    let redis = Redis::start().await;
    let builder = Gateway::durable_only(&redis).env("HISTORY__MAX_LEN", "10");
    let gateway = builder.start().await;
    let mut publisher = redis.publisher().await;
    let mut published = Vec::new();
    publish_batch(&mut publisher, &[user("1")], 350, &mut published).await;
    (redis, gateway, published)
}

/// Checks that exactly these events arrive next.
async fn assert_published(sse: &mut Sse, due: &[Published]) {
    for expected in due {
        let event = sse.app_event().await;
        assert_eq!(event.own_id(), expected.id, "{}", sse.dump());
        assert_eq!(event.data, expected.data);
    }
}

#[tokio::test]
async fn trimmed_log_reports_gap_and_replays_the_rest() {
    let (redis, gateway, mut published) = trimmed_log().await;
    let left = redis.log_ids(&user("1")).await;
    let kept = published.len() - left.len();
    assert!(kept > 10 && left.len() >= 10, "{} left", left.len());
    // The client has received the last trimmed event: nothing is missing.
    let seen = published[kept - 1].id.to_string();
    let mut sse = gateway.resume("1", &seen).await;
    assert_published(&mut sse, &published[kept..]).await;
    // It has not received it, or none at all: one gap, then the remaining events.
    for cursor in [published[kept - 2].id, published[0].id] {
        let cursor = cursor.to_string();
        let mut sse = gateway.resume("1", &cursor).await;
        let gap = assert_gap(sse.app_event().await, "trimmed", &cursor);
        assert_eq!(channels(&gap), [user("1")]);
        assert_eq!(gap.last_id, cursor, "the browser keeps its cursor");
        assert_published(&mut sse, &published[kept..]).await;
        // Live events follow (and are part of the next iteration's replay).
        let mut publisher = redis.publisher().await;
        publish_batch(&mut publisher, &[user("1")], 1, &mut published).await;
        assert_published(&mut sse, &published[published.len() - 1..]).await;
    }
    let labels = [("reason", "trimmed")];
    assert_eq!(gateway.metric("sse_gaps_total", &labels).await, 2.0);
    assert_eq!(gateway.metric("sse_gaps_total", &[]).await, 2.0);
}

#[tokio::test]
async fn gap_names_only_the_trimmed_channel() {
    let (redis, gateway, _) = trimmed_log().await;
    // From here on, the topic's log is trimmed and the user's log is not.
    let quiet = redis.durable(&user("1"), "a", "").await.unwrap();
    let mut publisher = redis.publisher().await;
    let mut published = Vec::new();
    publish_batch(&mut publisher, &[topic("t")], 350, &mut published).await;
    let mine = redis.durable(&user("1"), "mine", "").await.unwrap();
    // The running instance still has everything in its replay cache.
    let mut sse = gateway.resume("1", &quiet).await;
    assert_published(&mut sse, &published).await;
    assert_eq!(sse.app_event().await.id.as_ref(), Some(&mine));
    // A new instance has only the logs.
    let gateway = Gateway::durable_only(&redis).start().await;
    let mut sse = gateway.resume("1", &quiet).await;
    let gap = assert_gap(sse.app_event().await, "trimmed", &quiet);
    assert_eq!(channels(&gap), [topic("t")]);
    let rest = sse.until(|event| event.event == "mine").await;
    assert_eq!(rest.last().unwrap().id, Some(mine.clone()));
    assert_eq!(rest[rest.len() - 2].own_id(), published[349].id);
    // Clients that may not see the topic miss nothing.
    let query = format!("&lastEventId={quiet}");
    let ticket = crate::harness::ticket("1").topics(&["other"]);
    let mut sse = gateway.connect_with(&ticket, &query).await;
    assert_eq!(sse.app_event().await.id, Some(mine));
}

#[tokio::test]
async fn log_emptied_by_an_operator_reports_trimmed() {
    let redis = Redis::start().await;
    let gateway = Gateway::durable_only(&redis).start().await;
    let before = gateway.connect("1").await.last_id().to_string();
    let first = redis.durable(&user("1"), "a", "1").await.unwrap();
    let last = redis.durable(&user("1"), "a", "2").await.unwrap();
    let key = log_key(&user("1"));
    redis.command::<i64>(&["XTRIM", &key, "MAXLEN", "0"]).await;
    for cursor in [&before, &first] {
        let mut sse = gateway.resume("1", cursor).await;
        assert_gap(sse.app_event().await, "trimmed", cursor);
        let id = redis.durable(&user("2"), "no", "").await.unwrap();
        assert!(Id::of(&id) > Id::of(&last));
    }
    // Clients that received the last event miss nothing, also after a new event.
    let mut caught_up = gateway.resume("1", &last).await;
    let id = redis.durable(&user("1"), "a", "3").await.unwrap();
    assert_eq!(caught_up.app_event().await.id, Some(id.clone()));
    let mut again = gateway.resume("1", &last).await;
    assert_eq!(again.app_event().await.id, Some(id.clone()));
    // Clients that did not receive it get a gap and the remaining events.
    let mut behind = gateway.resume("1", &first).await;
    assert_gap(behind.app_event().await, "trimmed", &first);
    assert_eq!(behind.app_event().await.id, Some(id));
}

#[tokio::test]
async fn expired_log_reports_expired_gap() {
    let redis = Redis::start().await;
    let builder = Gateway::durable_only(&redis).env("HISTORY__RETENTION", "8s");
    let gateway = builder.start().await;
    let cursor = redis.durable(&user("1"), "a", "1").await.unwrap();
    redis.durable(&user("1"), "a", "2").await.unwrap();
    // Within the retention the log exists.
    let mut sse = gateway.resume("1", &cursor).await;
    assert_eq!(sse.app_event().await.data, "2");
    drop(sse);
    wait_until_expired(&redis, &user("1")).await;
    let mut sse = gateway.resume("1", &cursor).await;
    let gap = assert_gap(sse.app_event().await, "expired", &cursor);
    let named = channels(&gap);
    assert!(named.contains(&user("1")), "{named:?}");
    let id = redis.durable(&user("1"), "a", "3").await.unwrap();
    assert_eq!(sse.app_event().await.id, Some(id.clone()));
    // The new log does not reach back to the cursor either; its events follow.
    let mut sse = gateway.resume("1", &cursor).await;
    assert_gap(sse.app_event().await, "expired", &cursor);
    assert_eq!(sse.app_event().await.id, Some(id));
}

/// Waits until the log of a channel has expired, and with it every cursor up to its last event.
async fn wait_until_expired(redis: &Redis, channel: &str) {
    let key = log_key(channel);
    eventually("the log to expire", || async {
        (redis.command::<i64>(&["EXISTS", &key]).await == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn raised_retention_still_reports_earlier_expiry() {
    let redis = Redis::start().await;
    let builder = Gateway::durable_only(&redis);
    let gateway = builder.clone().env("HISTORY__RETENTION", "1s").start().await;
    let cursor = gateway.connect("1").await.last_id().to_owned();
    redis.durable(&user("1"), "a", "1").await.unwrap();
    wait_until_expired(&redis, &user("1")).await;
    drop(gateway);
    // Twice: a second increase must not hide the first.
    for (retention, generation) in [("1h", "2"), ("24h", "3")] {
        let gateway = builder.clone().env("HISTORY__RETENTION", retention);
        let gateway = gateway.env("HISTORY__GENERATION", generation).start().await;
        let mut sse = gateway.resume("1", &cursor).await;
        let gap = assert_gap(sse.app_event().await, "expired", &cursor);
        assert!(channels(&gap).contains(&user("1")), "{gap}");
        // Later cursors get no gap.
        let first = redis.durable(&user("2"), "a", "1").await.unwrap();
        let next = redis.durable(&user("1"), "a", "2").await.unwrap();
        let mut sse = gateway.resume("1", &first).await;
        assert_eq!(sse.app_event().await.id, Some(next.clone()), "{}", sse.dump());
        redis.command::<()>(&["DEL", &log_key(&user("1"))]).await;
    }
}

#[tokio::test]
async fn log_older_than_retention_replays_without_gap() {
    let redis = Redis::start().await;
    let builder = Gateway::durable_only(&redis).env("HISTORY__RETENTION", "6s");
    let gateway = builder.start().await;
    // Without topics, so that only the user's log is read.
    let ticket = || crate::harness::ticket("1").topics(&[]);
    let mut sse = gateway.connect_with(&ticket(), "").await;
    let cursor = redis.durable(&user("1"), "a", "0").await.unwrap();
    let mut last = cursor.clone();
    // Events renew the expiry, so the log is complete although older than the retention.
    while Id::of(&last).ms < Id::of(&cursor).ms + 7500 {
        last = redis.durable(&user("1"), "a", "n").await.unwrap();
        sse.until(|event| event.id.as_ref() == Some(&last)).await;
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    let query = format!("&lastEventId={cursor}");
    let mut sse = gateway.connect_with(&ticket(), &query).await;
    let received = sse.until(|event| event.id.as_ref() == Some(&last)).await;
    assert!(received.iter().all(|e| e.event == "a"), "{}", sse.dump());
}

#[tokio::test]
async fn recent_cursor_without_a_log_gets_no_gap() {
    let redis = Redis::start().await;
    let gateway = Gateway::durable_only(&redis).start().await;
    let cursor = gateway.connect("1").await.last_id().to_string();
    for name in ["1", "2", "3"] {
        let mut sse = gateway.resume(name, &cursor).await;
        let id = redis.durable(&user(name), "a", "").await.unwrap();
        assert_eq!(sse.app_event().await.id, Some(id), "{}", sse.dump());
    }
}

#[tokio::test]
async fn malformed_last_event_id_reports_gap_and_restarts() {
    let redis = Redis::start().await;
    let gateway = Gateway::durable_only(&redis).start().await;
    redis.durable(&user("1"), "old", "").await.unwrap();
    let ahead = format!("{}-0", now_ms() + 3_600_000);
    let long = "9".repeat(400);
    let garbage = [
        "garbage",
        "-",
        "1",
        "1-",
        "-1",
        "1-1-1",
        "+1-1",
        "1--1",
        "žluť",
        "0x1-1",
        "99999999999999999999999-0",
        "18446744073709551615-18446744073709551615",
        "\"",
        "<b>",
        &long,
        &ahead,
    ];
    for cursor in garbage {
        let mut sse = gateway.resume("1", cursor).await;
        let gap = assert_gap(sse.app_event().await, "unknown-id", cursor);
        assert!(!channels(&gap).is_empty());
        let id = redis.durable(&user("1"), "new", "").await.unwrap();
        assert!(gap.own_id() < Id::of(&id));
        assert_eq!(sse.app_event().await.id, Some(id.clone()));
        drop(sse);
        // The gap's id is a valid cursor.
        let mut sse = gateway.resume("1", &gap.own_id().to_string()).await;
        assert_eq!(sse.app_event().await.id, Some(id));
    }
    let labels = [("reason", "unknown-id")];
    let received = gateway.metric("sse_gaps_total", &labels).await;
    assert_eq!(received, garbage.len() as f64);
}

#[tokio::test]
async fn malformed_last_event_id_header_reports_gap() {
    let redis = Redis::start().await;
    let gateway = Gateway::durable_only(&redis).start().await;
    let url = gateway.events_url(&crate::harness::ticket("1"), "");
    let mut sse = Sse::connect(&url, &[("Last-Event-ID", "what?")]).await;
    let first = sse.connected().await;
    assert_ne!(first.id.as_deref(), Some("what?"), "garbage is not repeated");
    assert_gap(sse.app_event().await, "unknown-id", "what?");
}

#[tokio::test]
async fn wiped_redis_reports_reset_live_and_on_resume() {
    let redis = Redis::start().await;
    let builder = Gateway::durable_only(&redis);
    let (one, two) = tokio::join!(builder.start(), builder.start());
    let mut streams = [one.connect("1").await, two.connect("1").await];
    let away = redis.durable(&user("1"), "a", "1").await.unwrap();
    for sse in &mut streams {
        assert_eq!(sse.app_event().await.id.as_ref(), Some(&away));
    }
    redis.flushall().await;
    for sse in &mut streams {
        let gap = sse.app_event().await;
        assert_eq!(gap.json()["reason"], "reset", "{}", sse.dump());
        assert_eq!(gap.id, None);
    }
    // Durable publishes continue on the same streams.
    let id = redis.durable(&user("1"), "b", "2").await.unwrap();
    assert!(Id::of(&id).epoch > Id::of(&away).epoch);
    for sse in &mut streams {
        assert_eq!(sse.app_event().await.id.as_ref(), Some(&id), "{}", sse.dump());
    }
    // Clients that were disconnected get one gap, then what remains, then live events.
    let mut published = vec![id];
    for gateway in [&one, &two] {
        let mut sse = gateway.resume("1", &away).await;
        assert_gap(sse.app_event().await, "reset", &away);
        for id in &published {
            assert_eq!(sse.app_event().await.id.as_ref(), Some(id), "{}", sse.dump());
        }
        let next = redis.durable(&topic("t"), "c", "3").await.unwrap();
        assert_eq!(sse.app_event().await.id.as_ref(), Some(&next));
        let mut sse = gateway.resume("1", published.last().unwrap()).await;
        assert_eq!(sse.app_event().await.id.as_ref(), Some(&next), "{}", sse.dump());
        published.push(next);
    }
}

#[tokio::test]
async fn more_topics_than_a_resume_reads_report_trimmed() {
    let redis = Redis::start().await;
    let builder = Gateway::durable_only(&redis);
    let gateway = builder.start().await;
    let cursor = redis.durable(&user("1"), "a", "1").await.unwrap();
    add_active_topics(&redis, 10_000).await;
    // A new instance, because the first one has everything in its replay cache.
    drop(gateway);
    let fresh = builder.start().await;
    let mut sse = fresh.resume("1", &cursor).await;
    let id = redis.durable(&user("1"), "a", "2").await.unwrap();
    assert_eq!(sse.app_event().await.id, Some(id), "all were read: {}", sse.dump());
    add_active_topics(&redis, 10_001).await;
    let fresh = builder.start().await;
    let gap = assert_gap(fresh.resume("1", &cursor).await.app_event().await, "trimmed", &cursor);
    assert_eq!(channels(&gap), ["broadcast:*"]);
}

/// Marks `count` topics (`noise-0`, …) as active. Publishing to each would take too long.
async fn add_active_topics(redis: &Redis, count: u64) {
    let now = now_ms();
    let mut pipeline = redis::pipe();
    for n in 0..count {
        pipeline
            .cmd("ZADD")
            .arg("sse:topics:{broadcast}")
            .arg(now + n)
            .arg(format!("noise-{n}"))
            .ignore();
    }
    pipeline.query_async::<()>(&mut redis.conn().await).await.unwrap();
}

#[tokio::test]
async fn topics_outside_the_ticket_cause_no_gap() {
    let redis = Redis::start().await;
    let builder = Gateway::durable_only(&redis);
    let gateway = builder.start().await;
    let cursor = redis.durable(&user("1"), "a", "1").await.unwrap();
    let mine = redis.durable(&topic("team-1"), "a", "2").await.unwrap();
    add_active_topics(&redis, 10_001).await;
    // A new instance reads the logs.
    drop(gateway);
    let fresh = builder.start().await;
    let query = format!("&lastEventId={cursor}");
    let mut sse =
        fresh.connect_with(&crate::harness::ticket("1").topics(&["team-*"]), &query).await;
    assert_eq!(sse.app_event().await.id, Some(mine), "{}", sse.dump());
    // A ticket for some of these topics gets no gap, because all of them were read.
    let mut sse =
        fresh.connect_with(&crate::harness::ticket("1").topics(&["noise-1*"]), &query).await;
    let next = redis.durable(&user("1"), "a", "3").await.unwrap();
    assert_eq!(sse.app_event().await.id, Some(next), "{}", sse.dump());
    // Beyond the maximum number of topics to scan, clients get a gap.
    add_active_topics(&redis, 100_100).await;
    let mut sse =
        fresh.connect_with(&crate::harness::ticket("1").topics(&["team-*"]), &query).await;
    let gap = assert_gap(sse.app_event().await, "trimmed", &cursor);
    assert_eq!(channels(&gap), ["broadcast:team-*"]);
}

#[tokio::test]
async fn plain_publishes_are_recorded_again_after_a_wipe() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(&redis).await;
    gateway.wait_for_recorder().await;
    let mut sse = gateway.connect("1").await;
    redis.plain(user("1"), "before").await;
    assert_eq!(sse.app_event().await.data, "before");
    redis.flushall().await;
    let gap = sse.next_of("sse.gap").await;
    assert_eq!(gap.json()["reason"], "reset");
    // The lease was wiped as well, so it takes a moment until there is a recorder again.
    let mut n = 0;
    let recorded = eventually("a recorded plain publish", || {
        n += 1;
        let message = format!("after {n}");
        let redis = &redis;
        async move {
            redis.plain(user("1"), message).await;
            redis.log_ids(&user("1")).await.first().cloned()
        }
    })
    .await;
    let event = sse.next_of("message").await;
    assert_eq!(event.id, Some(recorded));
}

#[tokio::test]
async fn publishing_limits_apply_again_after_a_wipe() {
    let redis = Redis::start().await;
    let builder = Gateway::durable_only(&redis).env("HISTORY__MAX_EVENT_BYTES", "100");
    let gateway = builder.start().await;
    let mut sse = gateway.connect("1").await;
    let over = "x".repeat(101);
    redis.durable(&user("1"), "a", &over).await.unwrap_err();
    redis.flushall().await;
    sse.next_of("sse.gap").await;
    eventually("the limit to hold again", || async {
        redis.durable(&user("2"), "a", &over).await.err()
    })
    .await;
}

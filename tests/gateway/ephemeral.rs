//! Ephemeral events are delivered live only, and never instead of others.

use crate::harness::{Gateway, Redis, ticket, topic, user};

async fn ephemeral(redis: &Redis, channel: &str, data: &str) {
    let words = ["FCALL", "sse_publish", "1", channel, "typing", data, "EPHEMERAL"];
    assert_eq!(redis.command::<String>(&words).await, "");
}

#[tokio::test]
async fn ephemeral_events_have_no_id_and_are_not_stored() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(&redis).await;
    gateway.wait_for_recorder().await;
    let same = ticket("1");
    let mut sse = gateway.connect_with(&same, "").await;
    let cursor = sse.last_id().to_owned();
    ephemeral(&redis, &topic("a"), "1").await;
    ephemeral(&redis, &user("1"), "2").await;
    for data in ["1", "2"] {
        let event = sse.app_event().await;
        assert_eq!((&*event.event, &*event.data, event.id), ("typing", data, None));
    }
    redis.plain(topic("a"), r#"{"type":"typing","payload":3,"ephemeral":true}"#).await;
    let event = sse.app_event().await;
    assert_eq!((&*event.data, event.id), ("3", None));
    assert_eq!(redis.command::<i64>(&["EXISTS", "sse:log:{broadcast}:a"]).await, 0);
    drop(sse);
    let mut sse = gateway.connect_with(&same, &format!("&lastEventId={cursor}")).await;
    redis.durable(&topic("a"), "next", "").await.unwrap();
    assert_eq!(sse.app_event().await.event, "next");
}

#[tokio::test]
async fn ephemeral_events_are_dropped_before_others() {
    let redis = Redis::start().await;
    let gateway = Gateway::durable_only(&redis)
        .env("LIMITS__QUEUE_BYTES", "200KiB")
        .env("LIMITS__STALL", "60s")
        .start()
        .await;
    let mut sse = gateway.connect("1").await;
    let mut publisher = redis.publisher().await;
    let payload = "x".repeat(60_000);
    // The client reads nothing: sockets and queue fill up with ephemeral events.
    for _ in 0..400 {
        ephemeral(&redis, &topic("a"), &payload).await;
    }
    gateway.metric_reaches("sse_ephemeral_dropped_total", &[], 1.0).await;
    let before = gateway.metric("sse_ephemeral_dropped_total", &[]).await;
    publisher.durable(&topic("a"), "kept", &payload, &[]).await.unwrap();
    publisher.durable(&topic("a"), "kept", &payload, &[]).await.unwrap();
    publisher.durable(&topic("a"), "last", "", &[]).await.unwrap();
    // Queued ephemeral events gave way.
    gateway.metric_reaches("sse_ephemeral_dropped_total", &[], before + 1.0).await;
    let events = sse.until(|event| event.event == "last").await;
    assert_eq!(events.iter().filter(|event| event.event == "kept").count(), 2);
    assert_eq!(gateway.metric("sse_queue_overflows_total", &[]).await, 0.0);
}

#[tokio::test]
async fn ephemeral_events_take_no_option_that_needs_storage() {
    let redis = Redis::start().await;
    let _gateway = Gateway::start(&redis).await;
    for option in [&["KEEP", "k"][..], &["FORGET", "k"], &["KEY", "k"], &["UNSEEN", "5s"]] {
        let mut words = vec!["FCALL", "sse_publish", "1", "user:1:events", "t", "", "EPHEMERAL"];
        words.extend(option);
        let error = redis.try_command::<String>(&words).await.unwrap_err().to_string();
        assert!(error.contains("bad-ephemeral"), "{option:?}: {error}");
    }
}

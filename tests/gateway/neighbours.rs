//! Other users of the same Redis that flush functions, write into logs, use a similar prefix or
//! fill the memory.

use std::{sync::Arc, time::Duration};

use crate::harness::{Gateway, Redis, eventually, topic, user};

#[tokio::test]
async fn flushed_functions_are_restored_under_plain_publishes() {
    let redis = Arc::new(Redis::start().await);
    let gateway = Gateway::start(&redis).await;
    gateway.wait_for_recorder().await;
    let noise = tokio::spawn({
        let redis = redis.clone();
        async move {
            let mut publisher = redis.publisher().await;
            let mut timer = tokio::time::interval(Duration::from_millis(50));
            loop {
                timer.tick().await;
                publisher.plain(topic("noise"), "x").await;
            }
        }
    });
    redis.command::<()>(&["FUNCTION", "FLUSH"]).await;
    eventually("the library to be there again", || async {
        redis.durable(&user("1"), "a", "1").await.ok()
    })
    .await;
    gateway.ready().await;
    noise.abort();
}

#[tokio::test]
async fn foreign_log_entries_do_not_prevent_a_replay() {
    let redis = Redis::start().await;
    let gateway = Gateway::durable_only(&redis).start().await;
    let cursor = redis.durable(&user("1"), "a", "1").await.unwrap();
    let mut conn = redis.conn().await;
    let mut pipeline = redis::pipe();
    for _ in 0..600 {
        pipeline
            .cmd("XADD")
            .arg("sse:log:{user:1:events}")
            .arg("*")
            .arg("foreign")
            .arg("x")
            .ignore();
    }
    pipeline.query_async::<()>(&mut conn).await.unwrap();
    let good = redis.durable(&user("1"), "a", "2").await.unwrap();
    let mut stream = gateway.resume("1", &cursor).await;
    assert_eq!(stream.next_of("a").await.id.as_ref(), Some(&good));
    for _ in 0..20 {
        let mut stream = gateway.resume("1", &cursor).await;
        assert_eq!(stream.next_of("a").await.id.as_ref(), Some(&good));
    }
    gateway.wait_for_log("skipped foreign entries").await;
    let lines = gateway.log_text().matches("skipped foreign entries").count();
    assert!((1..=3).contains(&lines), "{lines} lines: {}", gateway.log_text());
}

#[tokio::test]
async fn prefix_with_colliding_function_names_is_rejected() {
    let redis = Redis::start().await;
    let first = Gateway::durable_only(&redis).start().await;
    let second =
        Gateway::durable_only(&redis).env("REDIS__KEY_PREFIX", "-sse:").start_unready().await;
    second.wait_for_log("another redis.key_prefix").await;
    second.not_ready().await;
    first.ready().await;
    assert!(redis.durable(&user("1"), "a", "1").await.is_ok());
}

#[tokio::test]
async fn full_redis_rejects_events_but_ends_no_stream() {
    let redis = Redis::start().await;
    let gateway = Gateway::durable_only(&redis).start().await;
    let mut stream = gateway.connect("1").await;
    redis.command::<()>(&["CONFIG", "SET", "maxmemory", "1"]).await;
    assert!(redis.durable(&user("1"), "a", "refused").await.is_err());
    redis.command::<i64>(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
    eventually("the link to come back", || async {
        (gateway.metric("sse_redis_reconnects_total", &[]).await >= 1.0).then_some(())
    })
    .await;
    gateway.ready().await;
    gateway.connect("2").await;
    redis.command::<()>(&["CONFIG", "SET", "maxmemory", "0"]).await;
    let id = redis.durable(&user("1"), "a", "1").await.unwrap();
    assert_eq!(stream.app_event().await.id, Some(id), "{}", stream.dump());
}

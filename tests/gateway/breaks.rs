//! Breaks in the history: after Redis was restored, replaced or wiped, clients with an older cursor
//! get `sse.gap`.

use crate::harness::{Gateway, Id, Redis, Sse, user};

/// A Redis that was restored from an older snapshot while a stream was open.
struct Restored {
    redis: Redis,
    gateway: Gateway,
    saved: String,
    forgotten: String,
    stream: Sse,
}

async fn restored() -> Restored {
    let redis = Redis::start().await;
    let gateway = Gateway::durable_only(&redis).start().await;
    let mut stream = gateway.connect("1").await;
    let saved = redis.durable(&user("1"), "a", "1").await.unwrap();
    redis.command::<()>(&["SAVE"]).await;
    let forgotten = redis.durable(&user("1"), "a", "2").await.unwrap();
    for id in [&saved, &forgotten] {
        assert_eq!(stream.app_event().await.id.as_ref(), Some(id));
    }
    redis.stop();
    gateway.not_ready().await;
    redis.start_again().await;
    gateway.ready().await;
    Restored { redis, gateway, saved, forgotten, stream }
}

#[tokio::test]
async fn restored_redis_reports_reset_and_reuses_no_id() {
    let mut restored = restored().await;
    let gap = restored.stream.app_event().await;
    assert_eq!(gap.json()["reason"], "reset", "{}", restored.stream.dump());
    assert_eq!(gap.id, None, "the client keeps its cursor until the next event");
    let next = restored.redis.durable(&user("1"), "a", "3").await.unwrap();
    let (next_id, forgotten) = (Id::of(&next), Id::of(&restored.forgotten));
    assert!(next_id.epoch > forgotten.epoch);
    assert!(
        (next_id.ms, next_id.seq) > (forgotten.ms, forgotten.seq),
        "the clock is past all that any instance has seen"
    );
    assert_eq!(restored.stream.app_event().await.id, Some(next), "{}", restored.stream.dump());
}

#[tokio::test]
async fn resume_on_a_restored_redis_reports_reset() {
    let restored = restored().await;
    for cursor in [&restored.saved, &restored.forgotten] {
        let mut stream = restored.gateway.resume("1", cursor).await;
        let gap = stream.app_event().await;
        assert_eq!((gap.event.as_str(), gap.json()["reason"].as_str()), ("sse.gap", Some("reset")));
        assert_eq!(gap.json()["from"], **cursor);
        let next = restored.redis.durable(&user("1"), "a", "3").await.unwrap();
        let received = stream.until(|event| event.id.as_ref() == Some(&next)).await;
        assert!(received.iter().all(|event| event.data == "3"), "{}", stream.dump());
    }
}

#[tokio::test]
async fn next_gateway_restores_flushed_functions_without_loss() {
    let redis = Redis::start().await;
    let gateway = Gateway::durable_only(&redis).start().await;
    let cursor = redis.durable(&user("1"), "a", "1").await.unwrap();
    redis.command::<()>(&["FUNCTION", "FLUSH"]).await;
    let _second = Gateway::durable_only(&redis).start().await;
    let next = redis.durable(&user("1"), "a", "2").await.unwrap();
    let mut stream = gateway.resume("1", &cursor).await;
    assert_eq!(stream.app_event().await.id, Some(next), "{}", stream.dump());
}

#[tokio::test]
async fn wipe_between_events_reports_reset_and_loses_none() {
    let redis = Redis::start().await;
    let gateway = Gateway::durable_only(&redis).start().await;
    let mut stream = gateway.connect("1").await;
    let mut last = Id::of(stream.last_id());
    for _ in 0..3 {
        // In one transaction, so that most of it happens within one millisecond.
        let mut step = redis::pipe();
        step.atomic();
        for name in ["before", "before", "wipe", "between", "wipe", "after"] {
            match name {
                "wipe" => step.cmd("FLUSHALL").ignore(),
                kind => {
                    step.cmd("FCALL").arg("sse_publish").arg(1).arg(user("1")).arg(kind).arg("1")
                }
            };
        }
        let ids: Vec<String> = step.query_async(&mut redis.conn().await).await.unwrap();
        // They arrive live, each once; the gateway notices the wipe within a second.
        for id in ids {
            assert!(Id::of(&id) > last);
            last = Id::of(&id);
            assert_eq!(stream.app_event().await.id, Some(id), "{}", stream.dump());
        }
        let gap = stream.app_event().await;
        assert_eq!(gap.json()["reason"], "reset", "{}", stream.dump());
        let next = redis.durable(&user("1"), "next", "1").await.unwrap();
        assert!(Id::of(&next).epoch > last.epoch);
        last = Id::of(&next);
        assert_eq!(stream.app_event().await.id, Some(next), "{}", stream.dump());
    }
}

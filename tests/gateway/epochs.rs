//! New epochs: after Redis was wiped, restarted or replaced, clients get one `sse.gap` (`reset`)
//! and every event that is left, also with a lower id, or accepted before a gateway was connected.

use std::time::Duration;

use crate::harness::{Event, Gateway, Id, Proxy, Redis, Sse, eventually, now_ms, topic, user};

/// The names of all events up to and including `last`, without heartbeats.
async fn names_until(sse: &mut Sse, last: &str) -> Vec<String> {
    let events = sse.until(|event| event.event == last).await;
    names(&events)
}

/// The names of events, and the reasons of gaps, without heartbeats.
fn names(events: &[Event]) -> Vec<String> {
    let reason = |event: &Event| event.json()["reason"].as_str().unwrap_or_default().to_owned();
    let events = events.iter().filter(|event| event.event != "sse.heartbeat");
    events.map(|e| if e.event == "sse.gap" { reason(e) } else { e.event.clone() }).collect()
}

async fn publish(redis: &Redis, channel: &str, name: &str) -> Id {
    Id::of(&redis.durable(channel, name, "1").await.unwrap())
}

/// Waits until a gateway has noticed this number of new epochs.
async fn noticed(gateway: &Gateway, epochs: f64) {
    gateway.metric_reaches("sse_epoch_changes_total", &[], epochs).await;
}

#[tokio::test]
async fn wipe_reports_one_reset_to_open_stream() {
    let redis = Redis::start().await;
    let gateway = Gateway::durable_only(&redis).start().await;
    let mut stream = gateway.connect("1").await;
    publish(&redis, &user("1"), "before").await;
    redis.flushall().await;
    publish(&redis, &topic("t"), "between").await;
    noticed(&gateway, 1.0).await;
    publish(&redis, &topic("t"), "after").await;
    publish(&redis, &user("1"), "end").await;
    let received = names_until(&mut stream, "end").await;
    assert_eq!(received.iter().filter(|name| *name == "reset").count(), 1, "{received:?}");
    let events: Vec<_> = received.iter().filter(|name| *name != "reset").collect();
    assert_eq!(events, ["before", "between", "after", "end"], "{}", stream.dump());
    // Also without an event that shows the new epoch.
    redis.flushall().await;
    assert_eq!(stream.app_event().await.json()["reason"], "reset");
}

#[tokio::test]
async fn resume_after_wipe_reports_reset_and_replays_what_is_left() {
    let redis = Redis::start().await;
    let gateway = Gateway::durable_only(&redis).start().await;
    let cursor = gateway.connect("1").await.last_id().to_string();
    publish(&redis, &user("1"), "wiped").await;
    redis.flushall().await;
    publish(&redis, &topic("t"), "between").await;
    // Before the next watermark: the resume itself notices the wipe.
    let mut first = gateway.resume("1", &cursor).await;
    publish(&redis, &user("1"), "after").await;
    assert_eq!(names_until(&mut first, "after").await, ["reset", "between", "after"]);
    let other = Gateway::durable_only(&redis).start().await;
    for gateway in [&gateway, &other] {
        let mut stream = gateway.resume("1", &cursor).await;
        assert_eq!(names_until(&mut stream, "after").await, ["reset", "between", "after"]);
    }
    // The client has the last event: nothing more is missing.
    let mut stream = other.resume("1", first.last_id()).await;
    publish(&redis, &topic("t"), "next").await;
    assert_eq!(names_until(&mut stream, "next").await, ["next"]);
}

/// What a stream gets if Redis restarts from its append-only file. `is_early`: an event is
/// published before the gateway has connected.
async fn names_after_restart(redis: Redis, is_early: bool) -> Vec<String> {
    let gateway = Gateway::durable_only(&redis).start().await;
    let mut stream = gateway.connect("1").await;
    publish(&redis, &user("1"), "received").await;
    assert_eq!(stream.app_event().await.event, "received");
    gateway.freeze();
    publish(&redis, &topic("t"), "missed").await;
    redis.stop();
    redis.start_again().await;
    if is_early {
        publish(&redis, &topic("t"), "restarted").await;
    }
    gateway.thaw();
    noticed(&gateway, 1.0).await;
    gateway.ready().await;
    if !is_early {
        publish(&redis, &topic("t"), "restarted").await;
    }
    publish(&redis, &user("1"), "end").await;
    names_until(&mut stream, "end").await
}

#[tokio::test]
async fn restart_with_synchronous_file_loses_nothing() {
    for is_early in [true, false] {
        let redis = Redis::start_persistent("always").await;
        let received = names_after_restart(redis, is_early).await;
        assert_eq!(received, ["missed", "restarted", "end"], "{is_early}");
    }
}

/// The server adopts itself for the first event, which the link may bring before its watermark.
#[tokio::test]
async fn events_before_the_first_watermark_are_no_reset() {
    let redis = Redis::start_persistent("always").await;
    let proxy = Proxy::start(&redis.address()).await;
    let gateway = Gateway::durable_only(&redis).redis_url(&proxy.redis_url()).start().await;
    let mut stream = gateway.connect("1").await;
    publish(&redis, &user("1"), "received").await;
    assert_eq!(stream.app_event().await.event, "received");
    redis.stop();
    // Between the subscription and the watermark of the next link, several events are published.
    proxy.slow(Duration::from_millis(100));
    redis.start_again().await;
    let mut publisher = redis.publisher().await;
    let ready = async {
        noticed(&gateway, 1.0).await;
        gateway.ready().await;
    };
    let publishing = async {
        loop {
            publisher.durable(&topic("t"), "restarted", "", &[]).await.expect("published");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        () = ready => {}
        () = publishing => {}
    }
    proxy.up();
    publish(&redis, &user("1"), "end").await;
    let mut received = names_until(&mut stream, "end").await;
    received.retain(|name| name != "restarted");
    assert_eq!(received, ["end"]);
}

#[tokio::test]
async fn restart_with_asynchronous_file_may_lose_events() {
    for is_early in [true, false] {
        let redis = Redis::start_persistent("everysec").await;
        let mut received = names_after_restart(redis, is_early).await;
        assert_eq!(received.iter().filter(|name| *name == "reset").count(), 1, "{received:?}");
        received.retain(|name| name != "reset");
        assert_eq!(received, ["missed", "restarted", "end"], "{is_early}");
    }
}

#[tokio::test]
async fn restart_without_an_event_that_was_received_is_a_reset() {
    let redis = Redis::start_persistent("always").await;
    let gateway = Gateway::durable_only(&redis).start().await;
    let mut stream = gateway.connect("1").await;
    publish(&redis, &user("1"), "received").await;
    assert_eq!(stream.app_event().await.event, "received");
    gateway.freeze();
    redis.command::<i64>(&["DEL", "sse:log:{user:1:events}"]).await;
    redis.stop();
    redis.start_again().await;
    gateway.thaw();
    noticed(&gateway, 1.0).await;
    gateway.ready().await;
    publish(&redis, &user("1"), "end").await;
    assert_eq!(names_until(&mut stream, "end").await, ["reset", "end"]);
}

/// A primary, its replica, and a gateway; the latter two connect by proxies.
struct Pair {
    primary: Redis,
    replica: Redis,
    replication: Proxy,
    proxy: Proxy,
    gateway: Gateway,
}

async fn pair() -> Pair {
    let primary = Redis::start().await;
    let replication = Proxy::start(&primary.address()).await;
    let replica = Redis::replica_of(&replication.address().to_string()).await;
    let proxy = Proxy::start(&primary.address()).await;
    // Without the fence, each primary accepts events before a gateway has adopted it.
    let builder = Gateway::durable_only(&primary).redis_url(&proxy.redis_url());
    let gateway = builder.env("REDIS__FENCE", "off").start().await;
    Pair { primary, replica, replication, proxy, gateway }
}

#[tokio::test]
async fn promoted_replica_with_lower_ids_loses_only_what_it_lacks() {
    let Pair { primary, replica, replication, proxy, gateway } = pair().await;
    let epoch = publish(&primary, &user("1"), "start").await.epoch;
    // The clock of the primary is an hour ahead of that of the replica.
    let ahead = Id { epoch, ms: now_ms() + 3_600_000, seq: 0 }.to_string();
    primary
        .command::<redis::Value>(&["FCALL", "sse_watermark", "1", "sse:node:{broadcast}", &ahead])
        .await;
    let mut stream = gateway.connect("1").await;
    let cursor = stream.last_id().to_string();
    publish(&primary, &user("1"), "kept").await;
    replica.receives_all_of(&primary).await;
    replication.discard();
    let lost = publish(&primary, &user("1"), "lost").await;
    assert_eq!(names_until(&mut stream, "lost").await, ["kept", "lost"]);
    primary.stop();
    replica.promote().await;
    let early = publish(&replica, &topic("t"), "early").await;
    assert!(early.ms < lost.ms && early > lost, "{early} {lost}");
    publish(&replica, &user("1"), "early-too").await;
    proxy.switch(&replica.address());
    gateway.ready().await;
    publish(&replica, &topic("u"), "late").await;
    let expected = ["reset", "early", "early-too", "late"];
    assert_eq!(names_until(&mut stream, "late").await, expected, "{}", stream.dump());
    let mut resumed = gateway.resume("1", &cursor).await;
    let expected = ["reset", "kept", "early", "early-too", "late"];
    assert_eq!(names_until(&mut resumed, "late").await, expected, "{}", resumed.dump());
    let mut resumed = gateway.resume("1", &early.to_string()).await;
    assert_eq!(names_until(&mut resumed, "late").await, ["early-too", "late"]);
}

#[tokio::test]
async fn failback_to_the_same_process_is_a_new_epoch() {
    let Pair { primary: a, replica: b, proxy, gateway, replication: _replication } = pair().await;
    let mut stream = gateway.connect("1").await;
    let mut ids = vec![publish(&a, &user("1"), "a").await];
    assert_eq!(stream.app_event().await.event, "a");
    // Publishes after the last watermark of a server are checked again 2 s later.
    let unwatched_ms = now_ms() + 2500;
    for (new, old, names) in [(&b, &a, ["b", "b2"]), (&a, &b, ["a3", "a4"])] {
        new.receives_all_of(old).await;
        proxy.down();
        new.promote().await;
        old.replicate(&new.address()).await;
        eventually("a server without watermarks", || async {
            (now_ms() > unwatched_ms).then_some(())
        })
        .await;
        ids.push(publish(new, &topic("t"), names[0]).await);
        proxy.switch(&new.address());
        proxy.up();
        gateway.ready().await;
        ids.push(publish(new, &user("1"), names[1]).await);
        // The former primary follows, and has lost nothing.
        let received = names_until(&mut stream, names[1]).await;
        assert_eq!(received, names, "{}", stream.dump());
    }
    assert!(ids.is_sorted(), "{ids:?}");
    let epochs: std::collections::BTreeSet<_> = ids.iter().map(|id| id.epoch).collect();
    assert_eq!(epochs.len(), 3, "{ids:?}");
}

#[tokio::test]
async fn wipe_before_library_reload_begins_a_later_epoch() {
    let redis = Redis::start().await;
    let gateway = Gateway::durable_only(&redis).start().await;
    let start = publish(&redis, &user("1"), "start").await;
    gateway.kill9();
    gateway.wait_exit().await;
    // The epoch before was that of a server whose clock was an hour ahead.
    let ahead = Id { epoch: start.epoch + 3600 * 1296, ..start }.to_string();
    redis
        .command::<redis::Value>(&["FCALL", "sse_adopt", "1", "sse:node:{broadcast}", &ahead])
        .await;
    let cursor = publish(&redis, &user("1"), "cursor").await;
    publish(&redis, &user("1"), "lost").await;
    redis.flushall().await;
    let left = publish(&redis, &user("1"), "left").await;
    assert_eq!(left.epoch, cursor.epoch);
    let gateway = Gateway::durable_only(&redis).env("HISTORY__GENERATION", "2").start().await;
    let mut stream = gateway.resume("1", &cursor.to_string()).await;
    let next = publish(&redis, &user("1"), "next").await;
    assert!(next.epoch > cursor.epoch, "{next} {cursor}");
    assert_eq!(names_until(&mut stream, "next").await, ["reset", "left", "next"]);
}

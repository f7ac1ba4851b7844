//! Plain publishes: the three modes of `publishers.plain`, and the end of a recorder.

use crate::harness::{Event, Gateway, Id, Proxy, Redis, eventually, topic, user};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

#[tokio::test]
async fn record_mode_assigns_ids_and_replays() {
    let redis = Redis::start().await;
    let builder = Gateway::builder(&redis).env("PUBLISHERS__PLAIN", "record");
    let gateway = builder.start().await;
    gateway.wait_for_recorder().await;
    let cursor = gateway.connect("1").await.last_id().to_string();
    redis.plain(user("1"), r#"{"type":"a","payload":1}"#).await;
    redis.plain(topic("t"), "text").await;
    gateway.metric_reaches("sse_plain_recorded_total", &[], 2.0).await;
    let mut sse = gateway.resume("1", &cursor).await;
    let (a, b) = (sse.app_event().await, sse.app_event().await);
    assert_eq!((a.event.as_str(), b.data.as_str()), ("a", "text"));
    assert!(Id::of(&cursor) < a.own_id() && a.own_id() < b.own_id());
}

#[tokio::test]
async fn relay_mode_delivers_live_without_ids() {
    let redis = Redis::start().await;
    let builder = Gateway::builder(&redis).env("PUBLISHERS__PLAIN", "relay");
    let (one, two) = tokio::join!(builder.start(), builder.start());
    let mut streams = [one.connect("1").await, two.connect("1").await, two.connect("2").await];
    redis.plain(user("1"), r#"{"type":"a","payload":{"n": 1}}"#).await;
    redis.plain(topic("t"), "text").await;
    for sse in &mut streams[..2] {
        let cursor = sse.last_id().to_string();
        let event = sse.app_event().await;
        let received = (event.event.as_str(), event.data.as_str());
        assert_eq!(received, ("a", "{\"n\": 1}"));
        assert_eq!((event.id, event.last_id), (None, cursor));
    }
    for sse in &mut streams {
        let event = sse.app_event().await;
        let received = (event.event.as_str(), event.data.as_str(), event.id);
        assert_eq!(received, ("message", "text", None));
    }
    assert_eq!(redis.log_ids(&user("1")).await.len(), 0);
    assert_eq!(redis.log_ids(&topic("t")).await.len(), 0);
    // Invalid messages are rejected by each instance in this mode, too.
    redis.plain(user("1"), r#"{"type":"sse.gap","payload":1}"#).await;
    redis.plain(user("1"), b"\xff").await;
    // Durable publishes keep their ids.
    let id = redis.durable(&topic("t"), "d", "2").await.unwrap();
    for sse in &mut streams {
        assert_eq!(sse.app_event().await.id.as_ref(), Some(&id));
    }
    two.metric_reaches("sse_rejected_total", &[], 2.0).await;
    assert_eq!(two.metric("sse_plain_relayed_total", &[]).await, 2.0);
    // Relayed messages are not replayed.
    let cursor = Id { ms: Id::of(&id).ms - 1, seq: 0, ..Id::of(&id) }.to_string();
    drop(streams);
    redis.plain(user("1"), "lost to those who are away").await;
    let mut sse = one.resume("1", &cursor).await;
    assert_eq!(sse.app_event().await.id, Some(id));
}

#[tokio::test]
async fn relay_mode_delivers_events_larger_than_the_queue() {
    let redis = Redis::start().await;
    let gateway = Gateway::builder(&redis).env("PUBLISHERS__PLAIN", "relay").start().await;
    let mut sse = gateway.connect("1").await;
    // Each line adds overhead, so the frame exceeds 256 KiB. It is sent between others without a
    // pause.
    let large = "\n".repeat(50_000);
    let mut burst = redis::pipe();
    for message in ["before", &large, "after"] {
        burst.cmd("PUBLISH").arg(user("1")).arg(message).ignore();
    }
    burst.query_async::<()>(&mut redis.conn().await).await.unwrap();
    for message in ["before", &large, "after"] {
        let event = sse.app_event().await;
        assert!(event.data == message, "{} bytes instead of {}", event.data.len(), message.len());
    }
    assert_eq!(gateway.metric("sse_queue_overflows_total", &[]).await, 0.0);
}

#[tokio::test]
async fn off_mode_ignores_plain_publishes() {
    let redis = Redis::start().await;
    let builder = Gateway::builder(&redis).env("PUBLISHERS__PLAIN", "off");
    let gateway = builder.start().await;
    let mut sse = gateway.connect("1").await;
    let receivers = redis.plain(user("1"), "x").await + redis.plain(topic("t"), "x").await;
    assert_eq!(receivers, 0, "nobody listens");
    let id = redis.durable(&user("1"), "d", "").await.unwrap();
    assert_eq!(sse.app_event().await.id, Some(id));
    assert!(
        !gateway.admin_get("/metrics").await.1.contains("sse_recorder_role"),
        "no alert on \"nobody records\""
    );
}

/// Publishes increasing numbers on one channel, every few ms, until stopped.
struct Numbers {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<usize>,
}

impl Numbers {
    async fn start(redis: &Redis, channel: String) -> Numbers {
        Numbers::start_from(0, redis, channel).await
    }

    async fn start_from(first: usize, redis: &Redis, channel: String) -> Numbers {
        let mut publisher = redis.publisher().await;
        let stop = Arc::<AtomicBool>::default();
        let sent = Arc::new(AtomicUsize::new(first));
        let (stopped, counted) = (stop.clone(), sent.clone());
        let task = tokio::spawn(async move {
            let mut n = first;
            while !stopped.load(Ordering::Relaxed) {
                let message = format!("{{\"type\":\"n\",\"payload\":{n}}}");
                publisher.plain(&channel, message).await;
                n += 1;
                counted.store(n, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(3)).await;
            }
            n
        });
        Numbers { stop, sent, task }
    }

    async fn more(&self, n: usize) {
        let goal = self.sent.load(Ordering::Relaxed) + n;
        eventually("more numbers", || {
            let sent = self.sent.load(Ordering::Relaxed);
            std::future::ready((sent >= goal).then_some(()))
        })
        .await;
    }

    async fn stop(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap()
    }
}

/// The numbers among events. Checks that they are in id order, without duplicates.
fn numbers(events: &[Event]) -> Vec<usize> {
    let received: Vec<&Event> = events.iter().filter(|e| e.event == "n").collect();
    assert!(received.is_sorted_by(|a, b| a.own_id() < b.own_id()));
    let received: Vec<usize> = received.iter().map(|e| e.data.parse().unwrap()).collect();
    assert!(received.is_sorted_by(|a, b| a < b), "doubled or out of order: {received:?}");
    received
}

/// Two gateways on one Redis, of which the first is the recorder.
async fn recorder_and_other(redis: &Redis) -> (Gateway, Gateway) {
    let one = Gateway::start(redis).await;
    one.wait_for_recorder().await;
    let two = Gateway::start(redis).await;
    (one, two)
}

#[tokio::test]
async fn stopped_recorder_hands_over_without_loss() {
    let redis = Redis::start().await;
    let (mut recorder, mut other) = recorder_and_other(&redis).await;
    // Three hand-overs, each to a new instance.
    for _ in 0..3 {
        // If the recorder was paused for longer than its lease, the other one has taken over.
        if other.is_recorder().await {
            std::mem::swap(&mut recorder, &mut other);
        }
        recorder.wait_for_recorder().await;
        let mut sse = other.connect("1").await;
        let cursor = sse.last_id().to_string();
        let sent = Numbers::start(&redis, user("1")).await;
        sent.more(50).await;
        recorder.term();
        assert_eq!(recorder.wait_exit().await.code(), Some(0));
        other.wait_for_recorder().await;
        sent.more(50).await;
        let sent = sent.stop().await;
        let last = (sent - 1).to_string();
        let received = sse.until(|e| e.event == "n" && e.data == last).await;
        let whole: Vec<usize> = (0..sent).collect();
        assert_eq!(numbers(&received), whole);
        assert!(received.iter().all(|e| e.event != "sse.gap"), "{}", sse.dump());
        // The log contains the same.
        let mut sse = other.resume("1", &cursor).await;
        let received = sse.until(|e| e.event == "n" && e.data == last).await;
        assert_eq!(numbers(&received), whole);
        assert!(received.iter().all(|e| e.event == "n"), "{}", sse.dump());
        recorder = other;
        other = Gateway::start(&redis).await;
    }
}

#[tokio::test]
async fn killed_recorder_loses_nothing_without_a_gap() {
    let redis = Redis::start().await;
    let (recorder, other) = recorder_and_other(&redis).await;
    let mut sse = other.connect("1").await;
    let cursor = sse.last_id().to_string();
    let sent = Numbers::start(&redis, user("1")).await;
    sent.more(50).await;
    recorder.kill9();
    other.wait_for_recorder().await;
    sent.more(100).await;
    let sent = sent.stop().await;
    let last = (sent - 1).to_string();
    let received = sse.until(|e| e.event == "n" && e.data == last).await;
    assert_complete_or_gap(&received, sent);
    let mut sse = other.resume("1", &cursor).await;
    let again = sse.until(|e| e.event == "n" && e.data == last).await;
    assert_complete_or_gap(&again, sent);
    assert_eq!(numbers(&again), numbers(&received), "live and record agree");
    // Clients that resume after the loss get no gap.
    let last = received.last().unwrap().id.clone().unwrap();
    let mut sse = other.resume("1", &last).await;
    redis.durable(&user("1"), "end", "").await.unwrap();
    assert_eq!(sse.app_event().await.event, "end");
}

#[tokio::test]
async fn standby_without_a_link_has_no_role() {
    let redis = Redis::start().await;
    let writer = Gateway::start(&redis).await;
    writer.wait_for_recorder().await;
    let proxy = Proxy::start(&redis.address()).await;
    let other = Gateway::builder(&redis).redis_url(&proxy.redis_url()).start().await;
    let standby = [("role", "standby")];
    other.metric_reaches("sse_recorder_role", &standby, 1.0).await;
    proxy.down();
    other.metric_reaches("sse_recorder_role", &[("role", "none")], 1.0).await;
    assert_eq!(other.metric("sse_recorder_role", &standby).await, 0.0);
    proxy.up();
    other.metric_reaches("sse_recorder_role", &standby, 1.0).await;
}

#[tokio::test]
async fn killed_recorder_with_a_standby_loses_nothing() {
    let redis = Redis::start().await;
    let (mut recorder, mut other) = recorder_and_other(&redis).await;
    for _ in 0..3 {
        other.metric_reaches("sse_recorder_role", &[("role", "standby")], 1.0).await;
        let mut sse = other.connect("1").await;
        let sent = Numbers::start(&redis, user("1")).await;
        sent.more(50).await;
        recorder.kill9();
        recorder.wait_exit().await;
        other.wait_for_recorder().await;
        sent.more(50).await;
        let sent = sent.stop().await;
        let last = (sent - 1).to_string();
        let received = sse.until(|e| e.event == "n" && e.data == last).await;
        assert_eq!(numbers(&received), (0..sent).collect::<Vec<_>>());
        assert!(received.iter().all(|e| e.event != "sse.gap"), "{}", sse.dump());
        recorder = other;
        other = Gateway::start(&redis).await;
    }
}

/// Checks that no number is missing, or that a gap precedes the first event after the loss.
fn assert_complete_or_gap(received: &[Event], sent: usize) {
    let gap = received.iter().position(|e| e.event == "sse.gap");
    let got = numbers(received);
    let missing = (0..sent).find(|n| got.get(*n) != Some(n));
    let Some(missing) = missing else { return };
    let gap = gap.unwrap_or_else(|| panic!("{missing} was lost without a gap"));
    assert_eq!(received[gap].json()["reason"], "unrecorded");
    let behind = received.iter().filter(|e| e.event == "n").nth(missing);
    let behind = received.iter().position(|e| Some(e) == behind).unwrap();
    assert!(gap < behind, "the gap at {gap} comes after the loss at {behind}");
}

#[tokio::test]
async fn wiped_redis_loses_plain_publishes_only_with_gap() {
    let redis = Redis::start().await;
    let (_recorder, other) = recorder_and_other(&redis).await;
    let mut first = 0;
    for _ in 0..3 {
        let mut sse = other.connect("1").await;
        let sent = Numbers::start_from(first, &redis, user("1")).await;
        sent.more(50).await;
        redis.flushall().await;
        sent.more(500).await;
        let sent = sent.stop().await;
        // More messages, until there is a recorder again.
        let mut end = sent;
        eventually("a recorded plain publish", || {
            end += 1;
            let (n, redis) = (end - 1, &redis);
            async move {
                redis.plain(user("1"), format!("{{\"type\":\"n\",\"payload\":{n}}}")).await;
                redis.log_ids(&user("1")).await.pop()
            }
        })
        .await;
        redis.durable(&user("1"), "end", "").await.unwrap();
        let received = sse.until(|e| e.event == "end").await;
        // A gap must stand between numbers that are not consecutive.
        numbers(&received);
        let (mut next, mut gap) = (first, false);
        for event in received.iter().filter(|e| e.event != "sse.heartbeat") {
            gap |= event.event == "sse.gap";
            if event.event == "n" {
                let n: usize = event.data.parse().unwrap();
                // A busy recorder may have appended messages of the round before only now.
                next = next.min(n);
                assert!(n == next || gap, "{next}..{n} were lost without a gap");
                (next, gap) = (n + 1, false);
            }
        }
        first = end;
    }
}

#[tokio::test]
async fn restart_without_plain_publishes_reports_no_gap() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(&redis).await;
    gateway.wait_for_recorder().await;
    let cursor = gateway.connect("1").await.last_id().to_string();
    gateway.kill9();
    gateway.wait_exit().await;
    let gateway = Gateway::start(&redis).await;
    gateway.wait_for_recorder().await;
    let mut sse = gateway.resume("1", &cursor).await;
    let id = redis.durable(&user("1"), "a", "1").await.unwrap();
    assert_eq!(sse.app_event().await.id, Some(id), "{}", sse.dump());
}

#[tokio::test]
async fn plain_publishes_without_a_recorder_report_unrecorded() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(&redis).await;
    gateway.wait_for_recorder().await;
    let mut sse = gateway.connect("1").await;
    redis.plain(user("1"), "recorded").await;
    assert_eq!(sse.app_event().await.data, "recorded");
    let cursor = sse.last_id().to_string();
    drop(sse);
    gateway.kill9();
    gateway.wait_exit().await;
    redis.plain(user("1"), "missed").await;
    let gateway = Gateway::start(&redis).await;
    gateway.wait_for_recorder().await;
    let mut sse = gateway.resume("1", &cursor).await;
    let gap = sse.app_event().await;
    assert_eq!(gap.event, "sse.gap");
    assert_eq!(gap.json()["reason"], "unrecorded");
    assert_eq!(gap.id, None);
    redis.plain(user("1"), "received").await;
    assert_eq!(sse.app_event().await.data, "received");
}

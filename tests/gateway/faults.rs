//! Redis failures: streams stay open, and events published meanwhile are delivered afterwards.

use crate::harness::gateway::Builder;
use crate::harness::{
    Event, Gateway, Id, Load, Proxy, Published, Redis, Sse, assert_received, eventually, ticket,
    topic, user,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::task::JoinHandle;

/// A client that collects events until `end`.
struct Reader(JoinHandle<(Id, Vec<Event>)>);

impl Reader {
    async fn start(gateway: &Gateway, name: &str) -> Reader {
        let mut sse = gateway.connect(name).await;
        Reader(tokio::spawn(async move {
            let start = Id::of(sse.last_id());
            let received = sse.until(|event| event.event == "end").await;
            (start, received)
        }))
    }

    /// Checks that the stream survived and received every event once, without a gap.
    async fn check(self, name: &str, published: &[Published], end: &str) {
        let (start, mut received) = self.0.await.unwrap();
        assert_eq!(received.pop().unwrap().id.as_deref(), Some(end));
        let gap = received.iter().find(|e| e.event == "sse.gap");
        assert_eq!(gap, None);
        let mine = user(name);
        let due = |channel: &str| channel == mine || channel.starts_with("broadcast:");
        assert_received(published, &received, due, start, Id::of(end));
    }
}

fn channels() -> Vec<String> {
    vec![user("a"), user("b"), topic("t"), topic("u")]
}

/// A gateway whose history is long enough for a whole test.
fn durable_only(redis: &Redis) -> Builder {
    Gateway::durable_only(redis).env("HISTORY__MAX_LEN", "100000").env("SERVER__HEARTBEAT", "500ms")
}

/// A gateway that reaches Redis through `proxy`.
async fn gateway_behind(proxy: &Proxy, redis: &Redis) -> Gateway {
    durable_only(redis).redis_url(&proxy.redis_url()).start().await
}

/// Runs `fault` while events are published and two clients read. Checks that no stream ended and no
/// event was lost.
async fn assert_lossless_under_load<F: Future<Output = ()>>(
    redis: &Redis,
    gateway: &Gateway,
    fault: impl FnOnce() -> F,
) {
    let a = Reader::start(gateway, "a").await;
    let b = Reader::start(gateway, "b").await;
    let load = Load::start(redis, &channels(), 500).await;
    load.more(200).await;
    fault().await;
    load.more(200).await;
    gateway.ready().await;
    load.more(200).await;
    let closed = gateway.metric("sse_connections_closed_total", &[]).await;
    assert_eq!(closed, 0.0, "no stream ends");
    let published = load.stop().await;
    let end = redis.durable(&topic("end"), "end", "").await.unwrap();
    a.check("a", &published, &end).await;
    b.check("b", &published, &end).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repeatedly_cut_link_under_load_loses_nothing() {
    let redis = Redis::start().await;
    let proxy = Proxy::start(&redis.address()).await;
    let gateway = gateway_behind(&proxy, &redis).await;
    assert_lossless_under_load(&redis, &gateway, || async {
        for _ in 0..5 {
            proxy.cut();
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        gateway.ready().await;
        proxy.cut();
    })
    .await;
    gateway.metric_reaches("sse_redis_reconnects_total", &[], 2.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unreachable_redis_under_load_ends_no_stream() {
    let redis = Redis::start().await;
    let proxy = Proxy::start(&redis.address()).await;
    let gateway = gateway_behind(&proxy, &redis).await;
    assert_lossless_under_load(&redis, &gateway, || async {
        proxy.down();
        gateway.not_ready().await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(gateway.admin_get("/healthz").await.0, 200);
        assert_eq!(gateway.metric("sse_redis_link_up", &[]).await, 0.0);
        proxy.up();
    })
    .await;
    gateway.metric_reaches("sse_redis_link_up", &[], 1.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_link_is_detected_and_loses_nothing() {
    let redis = Redis::start().await;
    let proxy = Proxy::start(&redis.address()).await;
    let gateway = gateway_behind(&proxy, &redis).await;
    assert_lossless_under_load(&redis, &gateway, || async {
        proxy.discard();
        gateway.not_ready().await;
        proxy.up();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn paused_link_loses_nothing() {
    let redis = Redis::start().await;
    let proxy = Proxy::start(&redis.address()).await;
    let gateway = gateway_behind(&proxy, &redis).await;
    assert_lossless_under_load(&redis, &gateway, || async {
        for pause in [300, 1500] {
            proxy.pause();
            tokio::time::sleep(Duration::from_millis(pause)).await;
            proxy.up();
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_frozen_for_three_seconds_loses_nothing() {
    let redis = Redis::start().await;
    let builder = durable_only(&redis);
    let gateway = builder.start().await;
    assert_lossless_under_load(&redis, &gateway, || async {
        redis.freeze();
        tokio::time::sleep(Duration::from_secs(3)).await;
        redis.thaw();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_frozen_past_the_link_timeout_loses_nothing() {
    let redis = Redis::start().await;
    let builder = durable_only(&redis);
    let gateway = builder.start().await;
    assert_lossless_under_load(&redis, &gateway, || async {
        redis.freeze();
        gateway.not_ready().await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        redis.thaw();
    })
    .await;
}

#[tokio::test]
async fn heartbeats_without_redis_repeat_the_last_watermark() {
    let redis = Redis::start().await;
    let proxy = Proxy::start(&redis.address()).await;
    let gateway = gateway_behind(&proxy, &redis).await;
    let mut sse = gateway.connect("a").await;
    proxy.down();
    gateway.not_ready().await;
    // No instance receives this event now, so its id must be after every heartbeat id until then.
    let id = redis.durable(&user("a"), "missed", "").await.unwrap();
    for _ in 0..4 {
        let beat = sse.next_of("sse.heartbeat").await;
        assert!(beat.own_id() < Id::of(&id), "an idle id hides an event");
    }
    proxy.up();
    assert_eq!(sse.app_event().await.id, Some(id));
}

/// Publishes durably and retries on errors. Returns the confirmed events.
fn persistent_publisher(redis: Arc<Redis>, stop: Arc<AtomicBool>) -> JoinHandle<Vec<Published>> {
    tokio::spawn(async move {
        let (mut published, mut n) = (Vec::new(), 0);
        while !stop.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(5)).await;
            let Ok(conn) = redis.try_conn().await else {
                continue;
            };
            let mut publisher = crate::harness::Publisher::on(conn);
            while !stop.load(Ordering::Relaxed) {
                let channel = channels()[n % 4].clone();
                let data = format!("{n}");
                n += 1;
                let done = publisher.durable(&channel, "load", &data, &[]).await;
                let Ok(id) = done else { break };
                let id = Id::of(&id);
                published.push(Published { id, channel, data });
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
        published
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_restarted_empty_reports_reset_without_ending_streams() {
    let redis = Arc::new(Redis::start().await);
    let builder = durable_only(&redis);
    let (one, two) = tokio::join!(builder.start(), builder.start());
    let readers = [Reader::start(&one, "a").await, Reader::start(&two, "b").await];
    let stop = Arc::new(AtomicBool::new(false));
    let load = persistent_publisher(redis.clone(), stop.clone());
    let wait = || tokio::time::sleep(Duration::from_millis(500));
    wait().await;
    redis.stop();
    tokio::join!(one.not_ready(), two.not_ready());
    redis.start_again().await;
    tokio::join!(one.ready(), two.ready());
    // Publishing must work in the new epoch before more load follows.
    eventually("publishing again", || async {
        redis.durable(&topic("v"), "load", "again").await.ok()
    })
    .await;
    wait().await;
    stop.store(true, Ordering::Relaxed);
    let published = load.await.unwrap();
    let end = redis.durable(&topic("end"), "end", "").await.unwrap();
    for (reader, name) in readers.into_iter().zip(["a", "b"]) {
        let (start, mut received) = reader.0.await.unwrap();
        received.pop();
        received.retain(|e| e.data != "again");
        let gap = received.iter().rposition(|e| e.event == "sse.gap");
        let gap = gap.expect("a gap after the wipe");
        assert_eq!(received[gap].json()["reason"], "reset");
        // Everything of the new epoch follows it.
        let first = received[gap..].iter().find(|e| !e.is_system()).expect("an event").own_id();
        let restart = Id { epoch: first.epoch, ..Id::default() };
        let mine = user(name);
        let due = |channel: &str| channel == mine || channel.starts_with("broadcast:");
        // After the gap, every event arrives once.
        assert_received(&published, &received[gap..], due, restart, Id::of(&end));
        // Before it, events arrive in order and once. The last events may be lost; the gap
        // covers them.
        let before: Vec<Event> = received[..gap].to_vec();
        if let Some(last) = before.iter().rfind(|e| !e.is_system()) {
            let last = last.own_id();
            assert!(last < restart, "ids never go back");
            assert_received(&published, &before, due, start, last);
        }
    }
}

#[tokio::test]
async fn gateway_started_without_redis_is_busy_then_serves() {
    let redis = Redis::reserve().await;
    let gateway = Gateway::builder(&redis).start_unready().await;
    assert_eq!(gateway.admin_get("/healthz").await.0, 200);
    assert_eq!(gateway.admin_get("/readyz").await.0, 503);
    let same = ticket("1");
    for _ in 0..2 {
        let mut sse = Sse::connect(&gateway.events_url(&same, ""), &[]).await;
        assert_eq!(sse.status, 200);
        assert_eq!(sse.header("content-type"), Some("text/event-stream"));
        let busy = sse.event().await;
        assert_eq!(busy.event, "sse.busy");
        assert_eq!(busy.json()["reason"], "redis-away");
        assert_eq!(busy.id, None);
        let retry = busy.retry.unwrap();
        assert!((10_000..=30_000).contains(&retry), "{retry}");
        assert_eq!(sse.next_event().await, None, "it is closed");
    }
    // Tickets that can never be valid are still rejected immediately.
    let bad = ticket("1").secret("another-secret-of-at-least-32-bytes-x");
    let mut sse = Sse::connect(&gateway.events_url(&bad, ""), &[]).await;
    let body = sse.body().await;
    assert_eq!(sse.status, 401, "{body}");
    assert!(body.contains("ticket-bad-signature"), "{body}");
    assert!(gateway.metric("sse_busy_total", &[("reason", "redis-away")]).await >= 2.0);
    redis.start_again().await;
    gateway.ready().await;
    gateway.wait_for_recorder().await;
    let mut sse = gateway.connect_with(&same, "").await;
    redis.plain(user("1"), "hello").await;
    assert_eq!(sse.app_event().await.data, "hello");
    let id = redis.durable(&user("1"), "d", "").await.unwrap();
    assert_eq!(sse.app_event().await.id, Some(id));
}

#[tokio::test]
async fn known_ticket_without_redis_is_busy_not_rejected() {
    let redis = Redis::start().await;
    let proxy = Proxy::start(&redis.address()).await;
    let gateway = gateway_behind(&proxy, &redis).await;
    let same = ticket("a");
    let sse = gateway.connect_with(&same, "").await;
    let cursor = sse.last_id().to_string();
    drop(sse);
    proxy.down();
    gateway.not_ready().await;
    let header = [("Last-Event-ID", cursor.as_str())];
    let url = gateway.events_url(&same, "");
    let mut sse = Sse::connect(&url, &header).await;
    assert_eq!((sse.status, sse.event().await.event.as_str()), (200, "sse.busy"));
    assert_eq!(sse.last_id(), "", "the cursor does not change");
    let id = redis.durable(&user("a"), "d", "").await.unwrap();
    proxy.up();
    gateway.ready().await;
    let mut sse = Sse::connect(&url, &header).await;
    assert_eq!(sse.connected().await.id, Some(cursor));
    assert_eq!(sse.app_event().await.id, Some(id));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_on_both_sides_of_a_fault_agree() {
    let redis = Redis::start().await;
    let proxy = Proxy::start(&redis.address()).await;
    let (near, far) = tokio::join!(gateway_behind(&proxy, &redis), gateway_behind(&proxy, &redis));
    let direct = durable_only(&redis).start().await;
    let readers = [
        Reader::start(&near, "a").await,
        Reader::start(&far, "a").await,
        Reader::start(&direct, "a").await,
    ];
    let load = Load::start(&redis, &channels(), 500).await;
    for _ in 0..3 {
        load.more(100).await;
        proxy.down();
        load.more(100).await;
        proxy.up();
        load.more(100).await;
    }
    tokio::join!(near.ready(), far.ready());
    let published = load.stop().await;
    let end = redis.durable(&topic("end"), "end", "").await.unwrap();
    for reader in readers {
        reader.check("a", &published, &end).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recorder_cut_off_reports_at_most_unrecorded_gaps() {
    let redis = Redis::start().await;
    let proxy = Proxy::start(&redis.address()).await;
    let builder = durable_only(&redis).env("PUBLISHERS__PLAIN", "record");
    let gateway = builder.redis_url(&proxy.redis_url()).start().await;
    gateway.wait_for_recorder().await;
    let reader = Reader::start(&gateway, "a").await;
    let load = Load::start(&redis, &channels(), 200).await;
    for turn in 0..3 {
        redis.plain(user("a"), format!("plain {turn}")).await;
        load.more(50).await;
        proxy.cut();
        load.more(50).await;
        gateway.ready().await;
        eventually("plain publishes recorded again", || async {
            let before = gateway.metric("sse_plain_recorded_total", &[]).await;
            redis.plain(user("b"), "another's").await;
            tokio::time::sleep(Duration::from_millis(50)).await;
            (gateway.metric("sse_plain_recorded_total", &[]).await > before).then_some(())
        })
        .await;
    }
    let published = load.stop().await;
    let end = redis.durable(&topic("end"), "end", "").await.unwrap();
    let (start, mut received) = reader.0.await.unwrap();
    received.pop();
    let gaps = received.iter().filter(|e| e.event == "sse.gap");
    assert!(gaps.into_iter().all(|gap| gap.json()["reason"] == "unrecorded"));
    // Plain publishes must arrive at most once and in order.
    let plain = received.iter().filter(|e| e.event == "message");
    let plain: Vec<&str> = plain.map(|e| e.data.as_str()).collect();
    assert!(plain.is_sorted() && plain.windows(2).all(|pair| pair[0] != pair[1]), "{plain:?}");
    received.retain(|e| e.event != "message");
    let due = |channel: &str| channel != user("b");
    assert_received(&published, &received, due, start, Id::of(&end));
}

//! A slow client affects only itself: bounded memory, no lost event, no delay for others.

use crate::harness::gateway::Builder;
use crate::harness::http2::{DATA, Http2, INITIAL_WINDOW_SIZE, get};
use crate::harness::sse::{End, Request};
use crate::harness::{GUARD, Gateway, Id, Redis, Sse, encode, eventually, ticket, topic, user};
use std::time::{Duration, Instant};

const KIB: usize = 1024;
const MIB: u64 = 1 << 20;

/// A stream whose client has a small receive buffer, so that the gateway soon detects that it does
/// not read.
async fn narrow(gateway: &Gateway, name: &str, query: &str) -> Sse {
    let request = Request { receive_buffer: Some(4096), ..Request::default() };
    let url = gateway.events_url(&ticket(name), query);
    let mut sse = Sse::try_connect(&url, &request).await.expect("a response");
    sse.connected().await;
    sse
}

/// Publishes `n` numbered events of `size` bytes on one channel, from number `first` on.
async fn publish(redis: &Redis, channel: &str, first: usize, n: usize, size: usize) {
    let mut publisher = redis.publisher().await;
    let numbers: Vec<usize> = (first..first + n).collect();
    for batch in numbers.chunks(20) {
        let event = |n: &usize| (channel.to_string(), "big".to_string(), format!("{n:.<size$}"));
        publisher.durable_batch(&batch.iter().map(event).collect::<Vec<_>>()).await.expect("FCALL");
    }
}

/// Reads `n` numbered events, each once and in order, and nothing else.
async fn read_all(sse: &mut Sse, first: usize, n: usize) {
    let mut last = Id::default();
    for number in first..first + n {
        let event = sse.app_event().await;
        assert_eq!(event.event, "big", "{event}");
        assert_eq!(event.data.trim_end_matches('.'), number.to_string(), "{}", sse.dump());
        let id = event.own_id();
        assert!(id > last, "{id} after {last}");
        last = id;
    }
}

fn roomy(redis: &Redis) -> Builder {
    Gateway::builder(redis).env("HISTORY__MAX_LEN", "100000").env("SERVER__HEARTBEAT", "1h")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_that_reads_nothing_affects_only_itself() {
    let redis = Redis::start().await;
    let gateway = Gateway::builder(&redis)
        .env("HISTORY__MAX_LEN", "200")
        .env("LIMITS__STALL", "1h")
        .start()
        .await;
    let size = 64 * KIB - 16;
    let mut good = gateway.connect("1").await;
    // Two at a time, so that a reader that keeps up never overflows; the others get 125 MiB each.
    let mut pump = async |from: usize, to: usize| {
        for n in (from..to).step_by(2) {
            publish(&redis, &user("1"), n, 2, size).await;
            read_all(&mut good, n, 2).await;
        }
    };
    // After a warm-up, because the buffers of allocator, link and reader grow at first.
    pump(0, 200).await;
    let before = gateway.anonymous();
    let mut stalled = Vec::new();
    for _ in 0..3 {
        stalled.push(narrow(&gateway, "1", "").await);
    }
    pump(200, 2200).await;
    let grown = gateway.anonymous().saturating_sub(before);
    assert!(grown < 50 * MIB, "grown by {} MiB", grown / MIB);
    let metrics = gateway.metrics().await;
    let queued = metrics.get("sse_queued_bytes", &[]);
    assert!(queued <= 3.0 * 300.0 * 1024.0, "{queued} bytes queued");
    assert!(metrics.get("sse_queue_overflows_total", &[]) >= 3.0);
    assert_eq!(metrics.get("sse_connections", &[]), 4.0);
    // Other clients still connect and disconnect.
    let mut other = gateway.connect("2").await;
    let id = redis.durable(&user("2"), "small", "1").await.unwrap();
    assert_eq!(other.app_event().await.id, Some(id));
    let id = redis.durable(&user("1"), "small", "1").await.unwrap();
    assert_eq!(good.app_event().await.id, Some(id));
}

#[tokio::test]
async fn client_that_reads_nothing_is_disconnected() {
    let redis = Redis::start().await;
    let gateway = roomy(&redis).env("LIMITS__STALL", "4s").start().await;
    let mut good = gateway.connect("1").await;
    let mut stalled = narrow(&gateway, "2", "").await;
    let quiet = gateway.connect("3").await;
    // More than the sockets buffer, so that the gateway must wait while more events arrive.
    publish(&redis, &user("2"), 0, 200, 32 * KIB).await;
    let (started, mut published) = (Instant::now(), 0);
    while given_up(&gateway).await == 0.0 {
        assert!(started.elapsed() < GUARD, "not disconnected after {:?}", started.elapsed());
        publish(&redis, &user("2"), 200 + published, 1, 32 * KIB).await;
        publish(&redis, &user("1"), published, 1, 32 * KIB).await;
        read_all(&mut good, published, 1).await;
        published += 1;
    }
    // The socket is closed and its connection is released; a client without pending data is not
    // stalled.
    let rest = stalled.rest().await;
    assert_eq!(stalled.end, Some(End::Cut), "{}", stalled.dump());
    let got = rest.iter().filter(|e| !e.is_system()).count();
    assert!(got < 200 + published, "the client received all {got} events");
    let metrics = gateway.metrics().await;
    assert_eq!(metrics.get("sse_connections", &[]), 2.0);
    assert_eq!(metrics.get("sse_connections_closed_total", &[]), 1.0);
    // After a reconnect, the client receives the missed events.
    let mut back = gateway.resume("2", stalled.last_id()).await;
    read_all(&mut back, got, 200 + published - got).await;
    drop(quiet);
}

/// Stops reading while only one event of this size is in flight.
async fn is_given_up_with(gateway: &Gateway, redis: &Redis, name: &str, size: usize) {
    publish(redis, &user(name), 0, 1, size).await;
    eventually("it to be given up", async || (given_up(gateway).await == 1.0).then_some(())).await;
    let metrics = gateway.metrics().await;
    assert_eq!(metrics.get("sse_connections_closed_total", &[]), 1.0);
    assert_eq!(metrics.get("sse_queue_overflows_total", &[]), 0.0);
    eventually("its socket to be closed", async || {
        let public = [("listener", "public")];
        (gateway.metric("sse_sockets", &public).await == 0.0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn stalled_client_with_an_empty_queue_is_disconnected() {
    let redis = Redis::start().await;
    let gateway = roomy(&redis).env("LIMITS__STALL", "1s").start().await;
    // The kernel accepts the whole event, so the gateway has nothing more to write.
    let _stalled = narrow(&gateway, "1", "").await;
    is_given_up_with(&gateway, &redis, "1", 40 * KIB).await;
}

#[tokio::test]
async fn client_that_acknowledges_nothing_is_disconnected() {
    let redis = Redis::start().await;
    let gateway = roomy(&redis).env("LIMITS__STALL", "1s").start().await;
    let vanished = gateway.connect("1").await;
    vanished.lose_network();
    is_given_up_with(&gateway, &redis, "1", 100).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn steady_slow_reader_stays_connected() {
    const STALL: Duration = Duration::from_secs(3);
    let redis = Redis::start().await;
    let gateway = roomy(&redis).env("LIMITS__STALL", "3s").start().await;
    let request = Request { receive_buffer: Some(8 * KIB as u32), ..Request::default() };
    let url = gateway.events_url(&ticket("1"), "");
    let mut slow = Sse::try_connect(&url, &request).await.expect("a response");
    slow.connected().await;
    slow.read_slowly(4 * KIB, Duration::from_millis(200));
    // Each event takes longer than limits.stall, and there is always one in flight.
    publish(&redis, &user("1"), 0, 12, 64 * KIB - 16).await;
    let started = Instant::now();
    let mut read = 0;
    while started.elapsed() < 4 * STALL {
        read_all(&mut slow, read, 1).await;
        read += 1;
    }
    slow.read_slowly(64 * KIB, Duration::ZERO);
    read_all(&mut slow, read, 12 - read).await;
    assert_eq!(gateway.metric("sse_connections_closed_total", &[]).await, 0.0);
}

/// The path of a stream over HTTP/2.
fn events_path(name: &str) -> String {
    format!("/events?ticket={}", ticket(name).jwt())
}

/// Reads `bytes` bytes of DATA of stream 1.
async fn read_data(client: &mut Http2, bytes: usize) {
    let mut read = 0;
    while read < bytes {
        read += client.frame(DATA, 1).await.payload.len();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http2_reader_with_a_small_window_stays_connected() {
    const STEP: usize = 4 * KIB;
    let redis = Redis::start().await;
    let gateway = roomy(&redis).env("LIMITS__STALL", "3s").start().await;
    let mut client = Http2::connect(&gateway, &[(INITIAL_WINDOW_SIZE, 0)]).await;
    client.open_window(0, 16 << 20).await;
    client.send(&get(1, &events_path("1"))).await;
    client.open_window(1, 1000).await;
    client.text(1, "sse.connected").await;
    // At 16 KB/s each event takes 4 s, longer than limits.stall, while the next ones wait.
    publish(&redis, &user("1"), 0, 4, 65_000).await;
    for _ in 0..2 * 65_000 / STEP {
        client.open_window(1, STEP as u32).await;
        read_data(&mut client, STEP).await;
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    assert_eq!(gateway.metric("sse_connections_closed_total", &[]).await, 0.0);
    client.open_window(1, MIB as u32).await;
    read_data(&mut client, 65_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http2_reader_of_a_slow_socket_stays_connected() {
    const STEP: usize = 4 * KIB;
    let redis = Redis::start().await;
    let gateway = roomy(&redis).env("LIMITS__STALL", "3s").start().await;
    let windows = [(INITIAL_WINDOW_SIZE, 16 << 20)];
    let mut client = Http2::connect_narrow(&gateway, STEP as u32 * 2, &windows).await;
    client.open_window(0, 16 << 20).await;
    client.send(&get(1, &events_path("1"))).await;
    client.text(1, "sse.connected").await;
    publish(&redis, &user("1"), 0, 6, 65_000).await;
    // At 8 KB/s the socket of the gateway becomes writable every 4 s.
    for _ in 0..24 {
        client.read_some(STEP).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert_eq!(gateway.metric("sse_connections_closed_total", &[]).await, 0.0);
    read_data(&mut client, 6 * 65_000).await;
}

/// Number of streams that were closed as stalled.
async fn given_up(gateway: &Gateway) -> f64 {
    gateway.metric("sse_connections_closed_total", &[("reason", "stalled")]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_reader_receives_everything() {
    let redis = Redis::start().await;
    let small =
        roomy(&redis).env("HISTORY__MAX_EVENT_BYTES", "16KiB").env("LIMITS__QUEUE_BYTES", "32KiB");
    let gateway = small.env("LIMITS__STALL", "10s").start().await;
    let mut slow = narrow(&gateway, "1", "").await;
    slow.read_slowly(24 * KIB, Duration::from_millis(2));
    let reading = tokio::spawn(async move {
        read_all(&mut slow, 0, 1200).await;
        slow
    });
    publish(&redis, &user("1"), 0, 1200, 8 * KIB).await;
    let mut slow = reading.await.expect("all events, in order, once");
    let metrics = gateway.metrics().await;
    assert!(
        metrics.get("sse_queue_overflows_total", &[]) >= 1.0,
        "it never lost its place: the test proves nothing"
    );
    assert!(metrics.get("sse_catch_ups_total", &[("cause", "overflow")]) >= 1.0);
    assert!(metrics.get("sse_replayed_events_total", &[]) >= 1.0);
    assert_eq!(metrics.get("sse_connections_closed_total", &[]), 0.0);
    assert_eq!(metrics.get("sse_gaps_total", &[]), 0.0);
    // The stream is live again.
    let id = redis.durable(&user("1"), "small", "1").await.unwrap();
    assert_eq!(slow.app_event().await.id, Some(id));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_during_slow_catch_up_are_delivered() {
    let redis = Redis::start().await;
    let gateway = roomy(&redis).env("LIMITS__STALL", "1h").start().await;
    let start = gateway.connect("1").await.last_id().to_string();
    // More than the sockets buffer, so that the catch-up must wait for the reader; in steps, so
    // that the gateway has received all of it.
    for n in (0..1000).step_by(100) {
        publish(&redis, &user("1"), n, 100, 8 * KIB).await;
        gateway
            .metric_reaches("sse_events_relayed_total", &[("kind", "user")], (n + 100) as f64)
            .await;
    }
    let mut slow = narrow(&gateway, "1", &format!("&lastEventId={}", encode(&start))).await;
    gateway.metric_reaches("sse_queued_bytes", &[], 60.0 * 1024.0).await;
    assert_eq!(gateway.metric("sse_catch_ups_total", &[("cause", "resume")]).await, 1.0);
    // More than a catch-up queues ahead (64 KiB), and less than the limit of a queue (256 KiB).
    publish(&redis, &user("1"), 1000, 16, 8 * KIB).await;
    gateway.metric_reaches("sse_events_relayed_total", &[("kind", "user")], 1016.0).await;
    read_all(&mut slow, 0, 1016).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_client_gets_gap_after_trimming() {
    let redis = Redis::start().await;
    let gateway =
        roomy(&redis).env("HISTORY__MAX_LEN", "50").env("LIMITS__STALL", "1h").start().await;
    let mut stalled = narrow(&gateway, "1", "").await;
    publish(&redis, &user("1"), 0, 600, 32 * KIB).await;
    gateway.metric_reaches("sse_queue_overflows_total", &[], 1.0).await;
    redis.durable(&user("1"), "end", "").await.unwrap();
    let received = stalled.until(|event| event.event == "end").await;
    let mut expected = 0;
    let mut gaps = 0;
    for event in &received[..received.len() - 1] {
        if event.event == "sse.gap" {
            assert_eq!(event.json()["reason"], "trimmed");
            gaps += 1;
            continue;
        }
        let n: usize = event.data.trim_end_matches('.').parse().unwrap();
        assert!(
            n == expected || (gaps > 0 && n > expected),
            "{n} instead of {expected}, {gaps} gaps before"
        );
        expected = n + 1;
    }
    assert_eq!(expected, 600, "the newest events arrive");
    assert!(gaps >= 1, "events were lost silently");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn total_queue_limit_loses_no_event() {
    let redis = Redis::start().await;
    let bounds = roomy(&redis).env("HISTORY__MAX_EVENT_BYTES", "16KiB").env("LIMITS__STALL", "1h");
    let gateway = bounds
        .env("LIMITS__QUEUE_BYTES", "2MiB")
        .env("LIMITS__QUEUE_BYTES_TOTAL", "2MiB")
        .start()
        .await;
    let mut streams = Vec::new();
    for n in 0..16 {
        streams.push(narrow(&gateway, &n.to_string(), "").await);
    }
    // The sockets' buffers fill first. Then 16 queues of equal size grow until their sum exceeds
    // the limit, long before one of them alone does.
    let (mut published, mut queued_from) = (0, None);
    let metrics = loop {
        publish(&redis, &topic("t"), published, 4, 8 * KIB).await;
        published += 4;
        let goal = published as f64;
        gateway.metric_reaches("sse_events_relayed_total", &[("kind", "broadcast")], goal).await;
        let metrics = gateway.metrics().await;
        if queued_from.is_none() && metrics.get("sse_queued_bytes", &[]) >= 16.0 * 32.0 * 1024.0 {
            queued_from = Some(published);
        }
        if metrics.get("sse_queue_overflows_total", &[]) >= 1.0 {
            break metrics;
        }
        assert!(published < 4000, "no queue was dropped after {published} events");
    };
    let alone = (published - queued_from.unwrap_or(published)) * 8 * KIB;
    assert!(alone < 1 << 20, "a queue grew to {alone} bytes and more");
    let queued = metrics.get("sse_queued_bytes", &[]);
    assert!(queued <= 3.0 * MIB as f64, "{queued} bytes queued");
    // Further events do not exceed the limit.
    publish(&redis, &topic("t"), published, 400, 8 * KIB).await;
    published += 400;
    gateway
        .metric_reaches("sse_events_relayed_total", &[("kind", "broadcast")], published as f64)
        .await;
    eventually("the queues to be within their bound", || async {
        (gateway.metric("sse_queued_bytes", &[]).await <= 2.5 * MIB as f64).then_some(())
    })
    .await;
    for sse in &mut streams {
        read_all(sse, 0, published).await;
    }
    assert_eq!(gateway.metric("sse_gaps_total", &[]).await, 0.0);
}

/// Reads an HTTP/2 response until `count` numbers have arrived, in order.
async fn read_h2(
    answer: &mut reqwest::Response,
    parser: &mut crate::harness::parser::Parser,
    from: usize,
    to: usize,
) {
    let mut next = from;
    while next < to {
        let chunk = tokio::time::timeout(crate::harness::GUARD, answer.chunk())
            .await
            .expect("events in time");
        let chunk = chunk.expect("the stream is open").expect("the stream continues");
        for event in parser.feed(&chunk).into_iter().filter(|e| !e.is_system()) {
            assert_eq!(event.data.trim_end_matches('.'), next.to_string());
            next += 1;
        }
    }
    assert_eq!(next, to);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stalled_http2_stream_does_not_affect_its_neighbour() {
    let redis = Redis::start().await;
    let gateway = roomy(&redis).env("LIMITS__STALL", "5s").start().await;
    let client = reqwest::Client::builder()
        .http2_prior_knowledge()
        .http2_initial_stream_window_size(128 * KIB as u32)
        .http2_initial_connection_window_size(64 * MIB as u32)
        .build()
        .unwrap();
    let open = async |name: &str| {
        let answer =
            client.get(gateway.events_url(&ticket(name), "")).send().await.expect("a response");
        assert_eq!((answer.status().as_u16(), answer.version()), (200, reqwest::Version::HTTP_2));
        answer
    };
    let (mut good, stalled) = (open("1").await, open("1").await);
    let mut parser = crate::harness::parser::Parser::default();
    let mut published = 0;
    let started = Instant::now();
    while given_up(&gateway).await == 0.0 {
        assert!(started.elapsed() < GUARD, "not disconnected after {published} events");
        publish(&redis, &user("1"), published, 4, 32 * KIB).await;
        read_h2(&mut good, &mut parser, published, published + 4).await;
        published += 4;
    }
    // The other stream continues, and the connection accepts new ones.
    publish(&redis, &user("1"), published, 10, 32 * KIB).await;
    read_h2(&mut good, &mut parser, published, published + 10).await;
    let mut third = open("2").await;
    let mut parser = crate::harness::parser::Parser::default();
    publish(&redis, &user("2"), 0, 10, 32 * KIB).await;
    read_h2(&mut third, &mut parser, 0, 10).await;
    assert_eq!(gateway.metric("sse_connections", &[]).await, 2.0);
    assert_eq!(gateway.metric("sse_connections_closed_total", &[]).await, 1.0);
    drop(stalled);
}

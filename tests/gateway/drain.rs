//! Streams that end (drain, maximum age, vanished clients), without losing events.

use crate::harness::sse::{End, Request};
use crate::harness::{
    Event, GUARD, Gateway, Id, Load, Redis, Sse, assert_received, encode, eventually, process,
    ticket, topic, user,
};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drain_ends_streams_evenly_with_a_final_frame() {
    let redis = Redis::start().await;
    let window = Duration::from_secs(10);
    let builder = Gateway::builder(&redis).env("DRAIN__DELAY", "8s").env("DRAIN__WINDOW", "10s");
    let gateway = builder.start().await;
    let mut streams = Vec::new();
    for n in 0..24 {
        let sse = gateway.connect(&n.to_string()).await;
        assert_eq!(sse.header("connection"), Some("close"));
        streams.push(sse);
    }
    gateway.term();
    gateway.not_ready().await;
    let (status, body) = gateway.admin_get("/readyz").await;
    assert_eq!(status, 503);
    assert!(body.contains("draining"), "{body}");
    // During the delay the gateway still serves: new streams are admitted and events delivered.
    let late = gateway.connect("late").await;
    assert_eq!(gateway.metric("sse_connections", &[]).await, 25.0);
    assert_eq!(gateway.metric("sse_connections_closed_total", &[]).await, 0.0);
    assert_eq!(gateway.admin_get("/healthz").await.0, 200);
    streams.push(late);
    let id = redis.durable(&topic("t"), "during", "1").await.unwrap();
    let (first, mut ended) = tokio::sync::mpsc::unbounded_channel();
    for mut sse in streams {
        let (id, first) = (id.clone(), first.clone());
        tokio::spawn(async move {
            assert_eq!(sse.app_event().await.id, Some(id));
            let last = sse.rest().await;
            let _ = first.send((Instant::now(), last, sse));
        });
    }
    drop(first);
    let mut ends = Vec::new();
    let mut retries = std::collections::BTreeSet::new();
    while let Some((at, mut rest, mut sse)) = ended.recv().await {
        if ends.is_empty() {
            // During the window new clients get `sse.busy`, which browsers retry.
            let mut busy = Sse::connect(&gateway.events_url(&ticket("new"), ""), &[]).await;
            let frames = busy.event().await;
            assert_eq!((busy.status, frames.event.as_str()), (200, "sse.busy"));
            assert_eq!(
                (frames.json()["reason"].as_str(), frames.id.as_ref()),
                (Some("draining"), None)
            );
            assert!(frames.retry.is_some_and(|ms| ms >= 1000), "{frames}");
            assert_eq!(busy.next_event().await, None);
        }
        let last = rest.pop().unwrap_or_else(|| panic!("no last frame; {}", sse.dump()));
        assert_eq!(last.event, "sse.closing", "{}", sse.dump());
        assert_eq!(last.json()["reason"], "draining");
        assert_eq!(last.id, None);
        let retry = last.retry.expect("a retry");
        assert!((1000..=3000).contains(&retry), "{retry}");
        retries.insert(retry);
        assert_eq!(sse.end, Some(End::Clean));
        assert_eq!(sse.next_event().await, None);
        ends.push(at);
    }
    assert_eq!(ends.len(), 25);
    assert!(retries.len() > 5, "no jitter: {retries:?}");
    // Evenly spread over the window.
    ends.sort();
    let span = *ends.last().unwrap() - ends[0];
    let pause = ends.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
    assert!(span > window * 6 / 10, "all within {span:?}");
    assert!(pause < window / 2, "a pause of {pause:?}");
    let status = gateway.wait_exit().await;
    assert_eq!(status.code(), Some(0), "{status}");
}

#[tokio::test]
async fn idle_connection_does_not_delay_the_drain() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(&redis).await;
    // One connection kept alive by reqwest after a poll, and one that never sends anything.
    let url = gateway.url(&format!("/events/poll?ticket={}", ticket("1").jwt()));
    assert_eq!(gateway.http().get(&url).send().await.unwrap().status(), 200);
    let _silent = tokio::net::TcpStream::connect(gateway.public).await.unwrap();
    let started = Instant::now();
    gateway.term();
    assert_eq!(gateway.wait_exit().await.code(), Some(0));
    // Idle connections are closed after 60 s at the latest.
    assert!(started.elapsed() < Duration::from_secs(40), "{:?}", started.elapsed());
}

#[tokio::test]
async fn kept_alive_connection_is_closed_while_draining() {
    let redis = Redis::start().await;
    let gateway = Gateway::builder(&redis).env("DRAIN__WINDOW", "1h").start().await;
    // Open streams keep the instance alive during the window.
    let mut streams = Vec::new();
    for n in 0..20 {
        streams.push(gateway.connect(&n.to_string()).await);
    }
    let mut kept = tokio::net::TcpStream::connect(gateway.public).await.unwrap();
    let mut asked = 0;
    let mut ask = async || {
        kept.write_all(b"GET /publish HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut seen = String::new();
        while !seen.ends_with('}') {
            let mut bytes = [0; 1024];
            let count = kept.read(&mut bytes).await.unwrap();
            assert_ne!(count, 0, "the end after {asked} responses: {seen}");
            seen.push_str(std::str::from_utf8(&bytes[..count]).unwrap());
        }
        asked += 1;
        seen.contains("connection: close")
    };
    assert!(!ask().await);
    gateway.term();
    let asking = async { while !ask().await {} };
    tokio::time::timeout(GUARD, asking).await.expect("the connection to be closed");
}

#[tokio::test]
async fn stalled_client_does_not_delay_the_drain() {
    let redis = Redis::start().await;
    let gateway = Gateway::builder(&redis)
        .env("LIMITS__STALL", "1h")
        .env("HISTORY__MAX_LEN", "10")
        .start()
        .await;
    let request = Request { receive_buffer: Some(4096), ..Request::default() };
    let url = gateway.events_url(&ticket("1"), "");
    let stalled = Sse::try_connect(&url, &request).await.unwrap();
    let big = "x".repeat(60_000);
    while gateway.metric("sse_queue_overflows_total", &[]).await == 0.0 {
        redis.durable(&user("1"), "big", &big).await.unwrap();
    }
    gateway.term();
    assert_eq!(gateway.wait_exit().await.code(), Some(0));
    drop(stalled);
}

#[tokio::test]
async fn second_signal_ends_the_process_at_once() {
    let redis = Redis::start().await;
    let gateway =
        Gateway::builder(&redis).env("DRAIN__DELAY", "1h").env("DRAIN__WINDOW", "1h").start().await;
    let mut sse = gateway.connect("1").await;
    gateway.term();
    gateway.not_ready().await;
    assert_eq!(gateway.metric("sse_connections", &[]).await, 1.0);
    gateway.term();
    gateway.wait_exit().await;
    sse.rest().await;
    assert_eq!(sse.end, Some(End::Cut));
}

#[tokio::test]
async fn sources_and_recorder_share_the_time_to_hand_over() {
    let redis = Redis::start().await;
    let gateway = Gateway::builder(&redis)
        .env("SOURCES__REDIS_STREAMS", r#"[{"stream":"orders"}]"#)
        // Longer than the time that the drain gives each of them.
        .env("REDIS__COMMAND_TIMEOUT", "30s")
        .start()
        .await;
    gateway.wait_for_recorder().await;
    gateway.wait_for_log("this instance reads the source now").await;
    redis.freeze();
    gateway.term();
    assert_eq!(gateway.wait_exit().await.code(), Some(0));
    // The last lines may be read after the process has ended.
    gateway.wait_for_log("the recorder could not hand over").await;
    gateway.wait_for_log("the sources could not be handed over").await;
    let text = gateway.log_text();
    let at = |message: &str| {
        let line = text.lines().find(|line| line.contains(message));
        let line = line.unwrap_or_else(|| panic!("no {message:?} in {text}"));
        let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
        humantime::parse_rfc3339(line["timestamp"].as_str().expect("a time")).expect("RFC 3339")
    };
    let recorder = at("the recorder could not hand over");
    let sources = at("the sources could not be handed over");
    // One after the other, 3 s would be between them, and the grace period would be exceeded.
    let apart = sources.duration_since(recorder).unwrap_or_else(|error| error.duration());
    assert!(apart < Duration::from_millis(2900), "{apart:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drain_under_load_loses_nothing() {
    let redis = Redis::start().await;
    let builder = Gateway::durable_only(&redis).env("HISTORY__MAX_LEN", "100000");
    let (old, new) = tokio::join!(builder.start(), builder.start());
    let channels = [user("1"), topic("t")];
    let load = Load::start(&redis, &channels, 500).await;
    let mut clients = Vec::new();
    for _ in 0..6 {
        let same = ticket("1");
        let mut sse = old.connect_with(&same, "").await;
        let again = new.events_url(&same, "");
        clients.push(tokio::spawn(async move {
            let start = Id::of(sse.last_id());
            let mut received = sse.rest().await;
            assert_eq!(received.last().unwrap().event, "sse.closing", "{}", sse.dump());
            let header = [("Last-Event-ID", sse.last_id())];
            let mut sse = Sse::connect(&again, &header).await;
            sse.connected().await;
            received.extend(sse.until(|e| e.event == "end").await);
            (start, received)
        }));
    }
    load.more(200).await;
    old.term();
    assert_eq!(old.wait_exit().await.code(), Some(0));
    load.more(200).await;
    let published = load.stop().await;
    let end = redis.durable(&topic("end"), "end", "").await.unwrap();
    for client in clients {
        let (start, mut received) = client.await.unwrap();
        received.pop();
        assert!(received.iter().all(|e| e.event != "sse.gap"));
        assert_received(&published, &received, |_| true, start, Id::of(&end));
    }
}

#[tokio::test]
async fn http2_connection_ends_with_its_last_stream() {
    let redis = Redis::start().await;
    let gateway = Gateway::builder(&redis).env("SERVER__MAX_CONNECTION_AGE", "8s").start().await;
    let connections = || process::connections(gateway.public.port());
    // This client keeps connections indefinitely and answers pings.
    let client =
        reqwest::Client::builder().http2_prior_knowledge().pool_idle_timeout(None).build().unwrap();
    let mut streams = Vec::new();
    for user in ["1", "2", "3"] {
        streams.push(client.get(gateway.events_url(&ticket(user), "")).send().await.unwrap());
    }
    assert_eq!(connections(), 1);
    for stream in streams {
        let text = tokio::time::timeout(GUARD, stream.text()).await.unwrap().expect("to its end");
        assert!(text.contains("event: sse.closing") && text.contains("max-age"), "{text}");
    }
    eventually("the connection to end", || async { (connections() == 0).then_some(()) }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stream_at_maximum_age_ends_and_resumes_losslessly() {
    let redis = Redis::start().await;
    let builder = Gateway::durable_only(&redis)
        .env("HISTORY__MAX_LEN", "100000")
        .env("SERVER__RETRY", "300ms");
    let gateway = builder.env("SERVER__MAX_CONNECTION_AGE", "1s").start().await;
    let load = Load::start(&redis, &[user("1"), topic("t")], 500).await;
    let same = ticket("1");
    let mut sse = gateway.connect_with(&same, "").await;
    let start = Id::of(sse.last_id());
    let mut received: Vec<Event> = Vec::new();
    for _ in 0..4 {
        let mut frames = sse.rest().await;
        let last = frames.pop().unwrap();
        assert_eq!(
            (last.event.as_str(), last.id.as_ref()),
            ("sse.closing", None),
            "{}",
            sse.dump()
        );
        assert_eq!(last.json()["reason"], "max-age");
        let retry = last.retry.expect("a retry");
        assert!((300..=600).contains(&retry), "{retry}");
        assert_eq!(sse.end, Some(End::Clean));
        received.extend(frames);
        let header = [("Last-Event-ID", sse.last_id())];
        sse = Sse::connect(&gateway.events_url(&same, ""), &header).await;
        assert_eq!(sse.connected().await.json()["resumed"], true);
    }
    let cursor = sse.last_id().to_string();
    drop(sse);
    let published = load.stop().await;
    let end = redis.durable(&topic("end"), "end", "").await.unwrap();
    let mut sse = gateway.resume("1", &cursor).await;
    received.extend(sse.until(|e| e.event == "end").await);
    received.pop();
    assert!(received.iter().all(|e| e.event != "sse.gap"));
    assert_received(&published, &received, |_| true, start, Id::of(&end));
    gateway.metric_reaches("sse_connections_closed_total", &[("reason", "max-age")], 4.0).await;
}

/// A raw socket that has received `sse.connected`.
async fn raw_stream(gateway: &Gateway, name: &str) -> tokio::net::TcpStream {
    let mut socket = tokio::net::TcpStream::connect(gateway.public).await.unwrap();
    let path = format!("/events?ticket={}&lastEventId={}", ticket(name).jwt(), encode(""));
    let head = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut text = Vec::new();
    while !text.windows(13).any(|w| w == b"sse.connected") {
        assert!(socket.read_buf(&mut text).await.unwrap() > 0);
    }
    socket
}

#[tokio::test]
async fn vanished_http1_clients_are_detected_without_a_heartbeat() {
    let redis = Redis::start().await;
    let builder =
        Gateway::builder(&redis).env("SERVER__HEARTBEAT", "1h").env("LIMITS__STALL", "1h");
    let gateway = builder.start().await;
    let none = || {
        eventually("no connection", || async {
            (gateway.metric("sse_connections", &[]).await == 0.0).then_some(())
        })
    };
    // Closed normally.
    let sockets = [raw_stream(&gateway, "1").await, raw_stream(&gateway, "2").await];
    assert_eq!(gateway.metric("sse_connections", &[]).await, 2.0);
    drop(sockets);
    none().await;
    // Reset.
    let socket = raw_stream(&gateway, "1").await;
    socket.set_zero_linger().unwrap();
    drop(socket);
    none().await;
    // Half-closed: a client that will not send anything again counts as gone.
    let mut socket = raw_stream(&gateway, "1").await;
    socket.shutdown().await.unwrap();
    none().await;
    drop(socket);
    gateway.metric_reaches("sse_connections_closed_total", &[], 4.0).await;
    assert_eq!(
        gateway.metric("sse_connections_closed_total", &[("reason", "client-gone")]).await,
        4.0
    );
}

#[tokio::test]
async fn vanished_http2_clients_are_detected_at_next_frame() {
    let redis = Redis::start().await;
    let gateway = Gateway::builder(&redis).env("SERVER__HEARTBEAT", "500ms").start().await;
    let client = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
    let open =
        async |name: &str| client.get(gateway.events_url(&ticket(name), "")).send().await.unwrap();
    let (mut kept, left) = (open("1").await, open("2").await);
    assert_eq!(gateway.metric("sse_connections", &[]).await, 2.0);
    drop(left);
    eventually("one connection", || async {
        (gateway.metric("sse_connections", &[]).await == 1.0).then_some(())
    })
    .await;
    assert!(kept.chunk().await.unwrap().is_some(), "the other stream lives");
    // Then the whole connection.
    drop((kept, client));
    eventually("no connection", || async {
        (gateway.metric("sse_connections", &[]).await == 0.0).then_some(())
    })
    .await;
}

//! HTTP/2 frame by frame: limits, flow control, resets, GOAWAY, and malformed requests.

use reqwest::{Client, Version};

use crate::harness::http2::{
    CANCEL, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, Http2, INITIAL_WINDOW_SIZE,
    MAX_CONCURRENT_STREAMS, NO_ERROR, PING, PROTOCOL_ERROR, REFUSED_STREAM, RST_STREAM, SETTINGS,
    STATUS_200, STATUS_404, block, frame, get, request,
};
use crate::harness::keys::api_keys;
use crate::harness::{GUARD, Gateway, Redis, eventually, process, ticket, topic};

/// Path and query of a stream.
fn stream(user: &str) -> String {
    format!("/events?ticket={}", ticket(user).jwt())
}

async fn connections(gateway: &Gateway) -> f64 {
    gateway.metric("sse_connections", &[]).await
}

#[tokio::test]
async fn concurrent_streams_are_announced_and_enforced() {
    let redis = Redis::start().await;
    let gateway =
        Gateway::builder(&redis).env("LIMITS__HTTP2_MAX_CONCURRENT_STREAMS", "3").start().await;
    let mut client = Http2::connect(&gateway, &[(INITIAL_WINDOW_SIZE, 0)]).await;
    let settings = client.frame(SETTINGS, 0).await;
    let announced = [&MAX_CONCURRENT_STREAMS.to_be_bytes()[..], &3u32.to_be_bytes()].concat();
    assert!(settings.payload.chunks(6).any(|entry| entry == announced), "{settings:?}");
    for id in [1, 3, 5, 7] {
        client.send(&get(id, "/nothing")).await;
    }
    assert_eq!(client.frame(RST_STREAM, 7).await.code(), REFUSED_STREAM);
    // A response that the client reads makes room for another one.
    client.open_window(3, 10_000).await;
    assert!(client.frame(DATA, 3).await.ends());
    client.send(&get(9, "/nothing")).await;
    assert_eq!(client.frame(HEADERS, 9).await.payload[0], STATUS_404);
}

#[tokio::test]
async fn responses_blocked_by_flow_control_are_reset() {
    let redis = Redis::start().await;
    let builder =
        Gateway::builder(&redis).env("LIMITS__STALL", "5s").env("SERVER__HEARTBEAT", "1h");
    let gateway = builder.start().await;
    let mut client = Http2::connect(&gateway, &[(INITIAL_WINDOW_SIZE, 0)]).await;
    let poll = stream("1").replace("/events", "/events/poll");
    // This stream's window is open, so only the others are reset.
    client.send(&get(1, &stream("1"))).await;
    client.open_window(1, 1 << 20).await;
    client.text(1, "sse.connected").await;
    for (id, path, status) in
        [(3, "/nothing", STATUS_404), (5, &poll, STATUS_200), (7, &stream("1"), STATUS_200)]
    {
        client.send(&get(id, path)).await;
        assert_eq!(client.frame(HEADERS, id).await.payload[0], status, "{path}");
    }
    for _ in 0..3 {
        let reset = loop {
            let frame = client.next().await.expect("the connection is open");
            if frame.kind != HEADERS {
                break frame;
            }
        };
        assert_eq!((reset.kind, reset.code()), (RST_STREAM, CANCEL), "{reset:?}");
        assert!([3, 5, 7].contains(&reset.stream));
    }
    let stalled = [("reason", "stalled")];
    gateway.metric_reaches("sse_connections_closed_total", &stalled, 1.0).await;
    assert_eq!(connections(&gateway).await, 1.0);
    let id = redis.durable(&topic("t"), "a", "1").await.unwrap();
    client.text(1, &id.to_string()).await;
}

#[tokio::test]
async fn slowly_opened_window_is_progress() {
    let redis = Redis::start().await;
    let gateway = Gateway::builder(&redis).env("LIMITS__STALL", "5s").start().await;
    let mut client = Http2::connect(&gateway, &[(INITIAL_WINDOW_SIZE, 0)]).await;
    let started = std::time::Instant::now();
    client.send(&get(1, "/nothing")).await;
    client.frame(HEADERS, 1).await;
    let mut body = Vec::new();
    loop {
        client.open_window(1, 10).await;
        let data = client.frame(DATA, 1).await;
        body.extend(&data.payload);
        if data.ends() {
            break;
        }
        assert!(data.payload.len() <= 10);
        tokio::time::sleep(std::time::Duration::from_millis(800)).await;
    }
    assert!(started.elapsed().as_secs() >= 5, "no longer than limits.stall");
    assert!(String::from_utf8(body).unwrap().ends_with('}'));
}

#[tokio::test]
async fn reset_stream_ends_at_once() {
    let redis = Redis::start().await;
    let gateway = Gateway::builder(&redis).env("SERVER__HEARTBEAT", "1h").start().await;
    let mut client = Http2::connect(&gateway, &[]).await;
    client.send(&get(1, &stream("1"))).await;
    client.text(1, "sse.connected").await;
    client.send(&get(3, &stream("2"))).await;
    client.text(3, "sse.connected").await;
    // A poll waits in its handler, and its response has not started.
    let last = redis.durable(&topic("t"), "a", "1").await.unwrap();
    let poll = stream("3").replace("/events", "/events/poll") + "&wait=30&lastEventId=" + &last;
    client.send(&get(5, &poll)).await;
    eventually("two streams and a poll", || async {
        (connections(&gateway).await == 3.0).then_some(())
    })
    .await;
    for (id, left) in [(1, 2.0), (5, 1.0), (3, 0.0)] {
        client.send(&frame(RST_STREAM, 0, id, &CANCEL.to_be_bytes())).await;
        eventually("the stream to end", || async {
            (connections(&gateway).await == left).then_some(())
        })
        .await;
    }
    let gone = [("reason", "client-gone")];
    gateway.metric_reaches("sse_connections_closed_total", &gone, 3.0).await;
    assert_eq!(gateway.metric("sse_connections_closed_total", &gone).await, 3.0);
    client.send(&get(7, "/nothing")).await;
    client.frame(HEADERS, 7).await;
}

#[tokio::test]
async fn closed_connection_ends_its_streams_at_once() {
    let redis = Redis::start().await;
    let gateway = Gateway::builder(&redis).env("SERVER__HEARTBEAT", "1h").start().await;
    let mut client = Http2::connect(&gateway, &[]).await;
    for (id, user) in [(1, "1"), (3, "2")] {
        client.send(&get(id, &stream(user))).await;
        client.text(id, "sse.connected").await;
    }
    drop(client);
    eventually("no stream", || async { (connections(&gateway).await == 0.0).then_some(()) }).await;
}

#[tokio::test]
async fn draining_sends_goaway_and_finishes_streams() {
    let redis = Redis::start().await;
    let gateway = Gateway::builder(&redis).env("DRAIN__WINDOW", "3s").start().await;
    let (mut idle, mut busy) =
        (Http2::connect(&gateway, &[]).await, Http2::connect(&gateway, &[]).await);
    idle.send(&get(1, "/nothing")).await;
    idle.frame(DATA, 1).await;
    busy.send(&get(1, &stream("1"))).await;
    busy.text(1, "sse.connected").await;
    gateway.term();
    assert_eq!(idle.goaway().await, Some(NO_ERROR));
    // The stream continues after GOAWAY, and a request in flight gets a response.
    assert_eq!(busy.goaway_frame().await.code(), NO_ERROR);
    busy.send(&get(3, "/nothing")).await;
    let mut text = Vec::new();
    let (mut answered, mut ended) = (false, false);
    // In any order: the stream may be closed first.
    while !ended || !answered {
        let frame = busy.next().await.expect("the connection is open");
        answered |= frame.stream == 3 && frame.kind == HEADERS && frame.payload[0] == STATUS_404;
        if frame.stream == 1 {
            ended |= frame.ends();
            text.extend(frame.payload);
        }
    }
    let text = String::from_utf8(text).unwrap();
    assert!(text.contains("sse.closing") && text.contains("draining"), "{text}");
    assert!(gateway.wait_exit().await.success());
}

#[tokio::test]
async fn stream_at_maximum_age_is_followed_by_goaway() {
    let redis = Redis::start().await;
    let gateway = Gateway::builder(&redis).env("SERVER__MAX_CONNECTION_AGE", "1s").start().await;
    let mut client = Http2::connect(&gateway, &[]).await;
    client.send(&get(1, &stream("1"))).await;
    client.text(1, "max-age").await;
    assert_eq!(client.goaway_frame().await.code(), NO_ERROR);
    let port = gateway.public.port();
    let gone = || async { (process::connections(port) == 0).then_some(()) };
    while client.next().await.is_some() {}
    eventually("the connection to end", gone).await;
}

#[tokio::test]
async fn malformed_requests_are_protocol_errors() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(&redis).await;
    let good = request("GET", "/nothing");
    let with = |name, value| good.iter().copied().chain([(name, value)]).collect::<Vec<_>>();
    let without = |name| good.iter().copied().filter(|(n, _)| *n != name).collect::<Vec<_>>();
    // h2 treats an invalid name as a connection error, which RFC 9113 allows.
    for fields in [with("X-Upper", "a"), with(":unknown", "a")] {
        let mut client = Http2::connect(&gateway, &[]).await;
        client.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(&fields))).await;
        assert_eq!(client.goaway().await, Some(PROTOCOL_ERROR), "{fields:?}");
    }
    let cases = [
        with("connection", "keep-alive"),
        with("transfer-encoding", "chunked"),
        with("te", "gzip"),
        with("content-length", "5"),
        with(":path", "/other"),
        with("host", "other.test"),
        without(":method"),
        without(":scheme"),
        without(":path"),
        without(":authority"),
    ];
    let mut client = Http2::connect(&gateway, &[]).await;
    let mut id = 1;
    for fields in cases {
        client.send(&frame(HEADERS, END_HEADERS | END_STREAM, id, &block(&fields))).await;
        let answer = client.next_of(id).await;
        assert_eq!((answer.kind, answer.code()), (RST_STREAM, PROTOCOL_ERROR), "{fields:?}");
        id += 2;
    }
    // A body that is longer than its Content-Length.
    let fields = [request("POST", "/nothing"), vec![("content-length", "1")]].concat();
    let mut bytes = frame(HEADERS, END_HEADERS, id, &block(&fields));
    bytes.extend(frame(DATA, END_STREAM, id, b"12"));
    client.send(&bytes).await;
    while client.next_of(id).await.kind != RST_STREAM {}
    // The connection still works.
    client.send(&get(id + 2, "/nothing")).await;
    assert_eq!(client.next_of(id + 2).await.payload[0], STATUS_404);
}

#[tokio::test]
async fn responses_follow_http2_rules() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(&redis).await;
    let client = Client::builder().http2_prior_knowledge().build().unwrap();
    let answer = client.get(gateway.url("/nothing")).send().await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.version()), (404, Version::HTTP_2));
    for name in ["connection", "transfer-encoding", "keep-alive"] {
        assert!(answer.headers().get(name).is_none(), "{name}");
    }
    assert!(answer.headers().contains_key("date"));
    let length = answer.headers()["content-length"].to_str().unwrap().to_owned();
    assert_eq!(answer.bytes().await.unwrap().len().to_string(), length);
    let head = client.head(gateway.url("/nothing")).send().await.unwrap();
    assert_eq!(
        (head.status().as_u16(), head.headers()["content-length"].to_str().unwrap()),
        (404, &*length)
    );
    let stream = client.get(gateway.events_url(&ticket("1"), "")).send().await.unwrap();
    assert!(
        stream.headers().get("content-length").is_none()
            && stream.headers().get("connection").is_none()
    );
}

#[tokio::test]
async fn bodies_are_complete_or_rejected() {
    let redis = Redis::start().await;
    let keys = api_keys(&[("key-of-a-backend", "publish")]);
    let gateway = Gateway::builder(&redis).env("API_KEYS", &keys).start().await;
    let client = Client::builder().http2_prior_knowledge().build().unwrap();
    let post = |body: String, key: &str| {
        let post = client.post(gateway.url("/publish")).bearer_auth(key).body(body);
        async move {
            let response = tokio::time::timeout(GUARD, post.send()).await.unwrap();
            response.unwrap().status().as_u16()
        }
    };
    // Larger than all windows.
    let event = format!(r#"{{"channel":"broadcast:t","payload":"{}"}},"#, "x".repeat(60_000));
    let large = format!("[{}]", event.repeat(16).trim_end_matches(','));
    assert!(large.len() > 900_000 && large.len() < 1 << 20);
    assert_eq!(post(large.clone(), "key-of-a-backend").await, 200);
    assert_eq!(post(large.repeat(2), "key-of-a-backend").await, 413);
    // Unread bodies do not block other requests.
    for _ in 0..8 {
        assert_eq!(post(large.clone(), "no-key").await, 401);
    }
    assert_eq!(post(event.trim_end_matches(',').to_owned(), "key-of-a-backend").await, 200);
}

#[tokio::test]
async fn expect_continue_gets_an_interim_response() {
    let redis = Redis::start().await;
    let keys = api_keys(&[("key-of-a-backend", "publish")]);
    let gateway = Gateway::builder(&redis).env("API_KEYS", &keys).start().await;
    let mut client = Http2::connect(&gateway, &[]).await;
    let mut fields = request("POST", "/publish");
    fields.extend([("expect", "100-continue"), ("authorization", "Bearer key-of-a-backend")]);
    client.send(&frame(HEADERS, END_HEADERS, 1, &block(&fields))).await;
    let interim = client.next_of(1).await;
    assert!(
        interim.kind == HEADERS && !interim.ends() && interim.payload[0] != STATUS_200,
        "{interim:?}"
    );
    let event = br#"{"channel":"broadcast:t","payload":1}"#;
    client.send(&frame(DATA, END_STREAM, 1, event)).await;
    assert_eq!(client.next_of(1).await.payload[0], STATUS_200);
}

#[tokio::test]
async fn connection_without_a_request_is_closed() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(&redis).await;
    let mut client = Http2::connect(&gateway, &[]).await;
    let started = std::time::Instant::now();
    // PING does not keep the connection open.
    let mut code = None;
    while code.is_none() && started.elapsed() < 2 * GUARD {
        if !client.try_send(&frame(PING, 0, 0, b"somewhat")).await {
            break;
        }
        while let Ok(next) =
            tokio::time::timeout(std::time::Duration::from_secs(1), client.next()).await
        {
            let Some(next) = next else { break };
            if next.kind == GOAWAY {
                code = Some(next.code());
                break;
            }
        }
    }
    assert_eq!(code, Some(NO_ERROR));
}

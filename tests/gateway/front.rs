//! The public listener: streams over HTTP/1, and sockets without a request, which are closed soon.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{GUARD, Gateway, Redis, eventually_within, ticket, topic};

/// Sockets without a request are closed after 10 s; the guard leaves room for a busy machine.
const CLOSED_WITHIN: Duration = Duration::from_secs(40);

async fn connect(gateway: &Gateway) -> TcpStream {
    TcpStream::connect(gateway.url("/").trim_start_matches("http://").trim_end_matches('/'))
        .await
        .expect("the listener accepts")
}

/// Path and query of a stream.
fn stream(user: &str) -> String {
    format!("/events?ticket={}", ticket(user).jwt())
}

/// Reads until `text` has arrived.
async fn read_until(socket: &mut TcpStream, text: &str) -> String {
    let mut seen = Vec::new();
    let reading = async {
        while !String::from_utf8_lossy(&seen).contains(text) {
            assert_ne!(
                socket.read_buf(&mut seen).await.expect("the connection is open"),
                0,
                "the end: {}",
                String::from_utf8_lossy(&seen)
            );
        }
    };
    tokio::time::timeout(GUARD, reading).await.unwrap_or_else(|_| panic!("no {text}"));
    String::from_utf8_lossy(&seen).into_owned()
}

/// The status line and the headers of the response to a request.
async fn head(gateway: &Gateway, request: &str) -> (String, BTreeMap<String, String>) {
    let mut socket = connect(gateway).await;
    socket.write_all(request.as_bytes()).await.unwrap();
    let text = read_until(&mut socket, "\r\n\r\n").await;
    let mut lines = text.split("\r\n\r\n").next().unwrap().lines();
    let status = lines.next().unwrap().to_owned();
    // The members of a list come in any order.
    let header = |line: &str| {
        let (name, value) = line.split_once(": ")?;
        let mut members: Vec<&str> = value.split(", ").collect();
        members.sort_unstable();
        Some((name.to_lowercase(), members.join(", ")))
    };
    let is_compared = |name: &str| !["date", "x-request-id"].contains(&name);
    (status, lines.filter_map(header).filter(|(name, _)| is_compared(name)).collect())
}

#[tokio::test]
async fn listener_of_all_addresses_serves_both_versions_of_ip() {
    let redis = Redis::start().await;
    let gateway = Gateway::builder(&redis).env("SERVER__LISTEN", "[::]:0").start().await;
    let port = gateway.public.port();
    for host in ["127.0.0.1", "::1"] {
        let mut socket = TcpStream::connect((host, port)).await.expect("the listener accepts");
        let request = format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", stream("u"));
        socket.write_all(request.as_bytes()).await.unwrap();
        read_until(&mut socket, "event: sse.connected").await;
        let peer = format!("\"peer\":\"{}\"", socket.local_addr().unwrap());
        let logged = || async { gateway.log_contains(&peer).then_some(()) };
        eventually_within(GUARD, "the access log", logged).await;
    }
}

#[tokio::test]
async fn request_body_does_not_affect_a_stream() {
    let redis = Redis::start().await;
    for origins in ["", "*", "https://app.example,https://other.example"] {
        let gateway = Gateway::builder(&redis).env("CORS__ALLOWED_ORIGINS", origins).start().await;
        for origin in ["", "Origin: https://app.example\r\n", "Origin: https://evil.example\r\n"] {
            let paths = [
                stream("1"),
                "/events".to_owned(),
                stream("1") + "&topics=*",
                "/events?ticket=%ff".to_owned(),
            ];
            for path in paths {
                let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n{origin}");
                let plain = head(&gateway, &format!("{request}\r\n")).await;
                for body in ["Content-Length: 0\r\n\r\n", "Content-Length: 1\r\n\r\nx"] {
                    let other = head(&gateway, &format!("{request}{body}")).await;
                    assert_eq!(plain, other, "{origins} {origin} {path}");
                }
            }
        }
    }
}

#[tokio::test]
async fn head_sent_byte_by_byte_opens_a_stream() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(&redis).await;
    let mut socket = connect(&gateway).await;
    socket.set_nodelay(true).unwrap();
    for byte in format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", stream("1")).bytes() {
        socket.write_all(&[byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    read_until(&mut socket, "sse.connected").await;
    let id = redis.durable(&topic("t"), "a", "1").await.unwrap();
    read_until(&mut socket, &id.to_string()).await;
}

#[tokio::test]
async fn reused_connection_can_open_a_stream() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(&redis).await;
    let mut socket = connect(&gateway).await;
    let poll = format!("GET /events/poll?ticket={} HTTP/1.1\r\nHost: x\r\n\r\n", ticket("1").jwt());
    socket.write_all(poll.as_bytes()).await.unwrap();
    read_until(&mut socket, "lastEventId").await;
    socket
        .write_all(format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", stream("2")).as_bytes())
        .await
        .unwrap();
    read_until(&mut socket, "sse.connected").await;
    let id = redis.durable(&topic("t"), "a", "1").await.unwrap();
    read_until(&mut socket, &id.to_string()).await;
}

#[tokio::test]
async fn client_that_sends_much_on_stream_is_disconnected() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(&redis).await;
    let request = |user| format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", stream(user));
    let mut quiet = connect(&gateway).await;
    quiet.write_all(format!("{}and a word more", request("1")).as_bytes()).await.unwrap();
    read_until(&mut quiet, "sse.connected").await;

    let mut loud = connect(&gateway).await;
    loud.write_all(request("2").as_bytes()).await.unwrap();
    read_until(&mut loud, "sse.connected").await;
    let talking = async {
        let words = [b'x'; 4096];
        // Ends with the socket.
        while loud.write_all(&words).await.is_ok() {}
    };
    tokio::time::timeout(GUARD, talking).await.expect("the connection is closed");
    gateway.metric_reaches("sse_connections_closed_total", &[("reason", "client-gone")], 1.0).await;

    let id = redis.durable(&topic("t"), "a", "1").await.unwrap();
    read_until(&mut quiet, &id.to_string()).await;
}

#[tokio::test]
async fn sockets_without_a_whole_request_are_closed() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(&redis).await;
    let starts = [
        "",
        "G",
        "GET /events?ticket=",
        "GET /events HTTP/1.1\r\nHost: x\r\n",
        "GET /readyz HTTP/1.1\r\nHost: x\r\n",
        "PRI",
    ];
    let mut held = Vec::new();
    for start in starts {
        let mut socket = connect(&gateway).await;
        socket.write_all(start.as_bytes()).await.unwrap();
        held.push(tokio::spawn(async move {
            let mut answer = Vec::new();
            let end = tokio::time::timeout(CLOSED_WITHIN, socket.read_to_end(&mut answer)).await;
            assert!(end.is_ok(), "{start:?} is still open");
            assert!(
                answer.is_empty() || answer.starts_with(b"HTTP/1.1 408"),
                "{}",
                String::from_utf8_lossy(&answer)
            );
        }));
    }
    for held in held {
        held.await.unwrap();
    }
}

#[tokio::test]
async fn idle_stream_uses_little_memory() {
    /// Measured: 3.7 KiB in a release build, and 15 KiB before the gateway had its own writer. See
    /// docs/benchmarks.md.
    const AT_MOST_BYTES: u64 = 8 << 10;
    const STREAMS: usize = 400;
    let redis = Redis::start().await;
    let gateway = Gateway::start(&redis).await;
    let mut streams = Vec::new();
    let open = async |streams: &mut Vec<_>, count: usize| {
        while streams.len() < count {
            streams.push(gateway.connect(&format!("u{}", streams.len())).await);
        }
    };
    // The first streams allocate shared memory, which must not count.
    open(&mut streams, 100).await;
    let before = gateway.anonymous();
    open(&mut streams, 100 + STREAMS).await;
    // What a stream needed to begin is freed soon.
    eventually_within(GUARD, "little memory for each stream", async || {
        let each = gateway.anonymous().saturating_sub(before) / STREAMS as u64;
        (each < AT_MOST_BYTES).then_some(())
    })
    .await;
}

#[tokio::test]
async fn client_gone_before_its_response_takes_nothing_over() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(&redis).await;
    let ticket = ticket("1");
    let mut held = gateway.connect_with(&ticket, "").await;
    // The request and a half-close: when the gateway reads, the client has disconnected.
    let request = format!("GET /events?ticket={} HTTP/1.1\r\nHost: x\r\n\r\n", ticket.jwt());
    gateway.freeze();
    for _ in 0..20 {
        let mut gone = connect(&gateway).await;
        gone.write_all(request.as_bytes()).await.unwrap();
    }
    gateway.thaw();
    // The event loop serves later connections later.
    for n in 0..20 {
        gateway.connect(&format!("later{n}")).await;
    }
    let id = redis.durable(&topic("t"), "a", "1").await.unwrap();
    assert_eq!(held.app_event().await.id, Some(id));
    assert_eq!(
        gateway.metric("sse_connections_closed_total", &[("reason", "taken-over")]).await,
        0.0
    );
}

#[tokio::test]
async fn memory_is_returned_after_a_storm() {
    const STREAMS: usize = 300;
    let redis = Redis::start().await;
    let gateway = Gateway::start(&redis).await;
    let first = gateway.connect("reader").await.last_id().to_owned();
    for n in 0..100 {
        redis.durable(&topic("t"), "a", &format!("\"{n}{}\"", "x".repeat(4000))).await.unwrap();
    }
    let before = gateway.anonymous();
    let mut streams = Vec::new();
    for n in 0..STREAMS {
        // No client reads, so that the missed events remain in the queues.
        streams.push(gateway.resume(&format!("u{n}"), &first).await);
    }
    let full = gateway.anonymous();
    drop(streams);
    let eased = before + (full - before) / 3;
    eventually_within(Duration::from_secs(60), "memory comes back", async || {
        (gateway.anonymous() < eased).then_some(())
    })
    .await;
}

#[tokio::test]
async fn memory_is_returned_after_sockets_without_streams() {
    const SOCKETS: usize = 600;
    let redis = Redis::start().await;
    let gateway = Gateway::durable_only(&redis).start().await;
    // Without a stream, which would count by itself.
    head(&gateway, "GET /x HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let before = gateway.anonymous();
    // Almost a whole head each, which is buffered until the rest arrives.
    let start = format!("GET /x HTTP/1.1\r\nHost: x\r\nx: {}", "x".repeat(15 << 10));
    let (mut held, mut kept) = (Vec::new(), Vec::new());
    for n in 0..SOCKETS {
        let mut socket = connect(&gateway).await;
        socket.write_all(start.as_bytes()).await.unwrap();
        if n % 10 == 0 { kept.push(socket) } else { held.push(socket) }
    }
    // The clients have written, but the gateway may not have read yet.
    let grown = before + (SOCKETS as u64) * (8 << 10);
    eventually_within(GUARD, "the heads to be held", async || {
        (gateway.anonymous() > grown).then_some(())
    })
    .await;
    let full = gateway.anonymous();
    drop((held, kept));
    let eased = before + (full - before) / 3;
    eventually_within(Duration::from_secs(90), "memory comes back", async || {
        (gateway.anonymous() < eased).then_some(())
    })
    .await;
}

#[tokio::test]
async fn disconnect_after_half_a_head_blocks_no_worker() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(&redis).await;
    for start in ["GET /events?ticket=", "PRI * HT", "G"] {
        for _ in 0..8 {
            connect(&gateway).await.write_all(start.as_bytes()).await.unwrap();
        }
    }
    // All workers serve new clients.
    for n in 0..8 {
        gateway.connect(&format!("u{n}")).await;
    }
}

#[tokio::test]
async fn http_1_0_stream_ends_with_its_connection() {
    let redis = Redis::start().await;
    let gateway = Gateway::durable_only(&redis).start().await;
    let mut socket = connect(&gateway).await;
    socket.write_all(format!("GET {} HTTP/1.0\r\n\r\n", stream("1")).as_bytes()).await.unwrap();
    let mut answer = read_until(&mut socket, "sse.connected").await;
    let id = redis.durable(&topic("t"), "a", "1").await.unwrap();
    answer += &read_until(&mut socket, &id).await;
    gateway.term();
    let mut end = String::new();
    tokio::time::timeout(GUARD, socket.read_to_string(&mut end)).await.expect("the end").unwrap();
    answer += &end;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.") && head.contains(" 200 "), "{head}");
    let names: Vec<String> =
        head.lines().filter_map(|l| Some(l.split_once(':')?.0.to_lowercase())).collect();
    assert!(!names.iter().any(|n| n == "transfer-encoding" || n == "content-length"), "{head}");
    assert!(
        body.starts_with("retry: ") && body.contains("sse.closing") && !body.contains('\r'),
        "{body}"
    );
}

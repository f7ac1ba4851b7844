//! File descriptors: however many sockets are open, probes succeed, Redis is reachable, and new
//! clients are served as soon as there is room.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::harness::gateway::Builder;
use crate::harness::http2::{INITIAL_WINDOW_SIZE, SETTINGS, frame, get};
use crate::harness::{
    GUARD, Gateway, Redis, Sse, eventually, eventually_within, process, ticket, topic,
};

/// The limit of the attack that made a liveness probe fail.
const OPEN_FILES: u64 = 200;

/// Few workers, so that the reserved part is the same on every machine.
fn scarce(redis: &Redis) -> Builder {
    let builder = Gateway::durable_only(redis).open_files(OPEN_FILES);
    builder.env("SERVER__WORKERS", "2").env("SERVER__HEARTBEAT", "1h")
}

/// Opens `count` sockets that send `start` and nothing more, and read nothing. Their receive
/// buffers are small.
async fn hold(address: std::net::SocketAddr, count: usize, start: &[u8]) -> Vec<TcpStream> {
    let mut held = Vec::new();
    for _ in 0..count {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let mut socket = socket.connect(address).await.expect("the kernel accepts the connection");
        // The gateway may have closed the socket already, to make room for others.
        let _ = socket.write_all(start).await;
        held.push(socket);
    }
    held
}

/// Sends ten probes, each over its own connection.
async fn answers_ten_probes(gateway: &Gateway) {
    for n in 0..10 {
        let probe = async {
            let mut socket = TcpStream::connect(gateway.admin).await.expect("the listener accepts");
            let request = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
            socket.write_all(request).await.expect("the connection is open");
            let mut answer = String::new();
            socket.read_to_string(&mut answer).await.expect("a response");
            answer
        };
        let answer = tokio::time::timeout(GUARD, probe).await;
        let answer = answer.unwrap_or_else(|_| panic!("probe {n} was not answered"));
        assert!(answer.starts_with("HTTP/1.1 200"), "probe {n}: {answer}");
    }
}

/// One more probe over a connection that stays open.
async fn probe_again(socket: &mut TcpStream) {
    socket
        .write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .expect("the connection is open");
    let mut response = Vec::new();
    let reading = async {
        while !response.ends_with(b"}") {
            assert_ne!(socket.read_buf(&mut response).await.expect("it stays open"), 0);
        }
    };
    tokio::time::timeout(GUARD, reading).await.expect("a response");
    assert!(response.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&response));
}

async fn sockets(gateway: &Gateway, listener: &str) -> (f64, f64) {
    let metrics = gateway.metrics().await;
    let get = |name| metrics.get(name, &[("listener", listener)]);
    (get("sse_sockets"), get("sse_sockets_limit"))
}

/// An HTTP/2 connection whose only response waits for a window.
fn blocked_http2_request() -> Vec<u8> {
    let mut window = INITIAL_WINDOW_SIZE.to_be_bytes().to_vec();
    window.extend(0_u32.to_be_bytes());
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    [preface, frame(SETTINGS, 0, 0, &window), get(1, "/nothing")].concat()
}

#[tokio::test]
async fn silent_sockets_leave_room_for_probes_and_streams() {
    let redis = Redis::start().await;
    let gateway = scarce(&redis).start().await;
    let get_http1 = b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n";
    let starts: [&[u8]; 6] = [
        b"",
        b"GET /events?ticket=",
        b"PRI * HTTP/2",
        get_http1,
        // Responses that the client does not accept.
        &get_http1.repeat(2000),
        &blocked_http2_request(),
    ];
    let mut held = Vec::new();
    for start in starts {
        held.extend(hold(gateway.public, 150, start).await);
        answers_ten_probes(&gateway).await;
        let mut stream = gateway.connect("1").await;
        let id = redis.durable(&topic("t"), "a", "1").await.unwrap();
        assert_eq!(stream.app_event().await.id, Some(id));
    }
    // A quarter remains free; an evicted socket may not have closed yet. Without evictions, sockets
    // would be closed later.
    eventually_within(Duration::from_secs(3), "a quarter that is free", async || {
        let (open, limit) = sockets(&gateway, "public").await;
        (open <= limit * 0.75 + 8.0).then_some(())
    })
    .await;
    let idle = [("reason", "idle")];
    assert!(gateway.metric("sse_sockets_dropped_total", &idle).await >= 400.0);
}

#[tokio::test]
async fn repeated_blocked_http2_requests_leave_room_for_streams() {
    let redis = Redis::start().await;
    let gateway = scarce(&redis).start().await;
    let mut held = hold(gateway.public, 150, &blocked_http2_request()).await;
    for round in 1..=3 {
        // Each connection has a request in progress again.
        for socket in &mut held {
            let _ = socket.write_all(&get(1 + 2 * round, "/nothing")).await;
        }
        let mut streams: Vec<Sse> = Vec::new();
        for n in 0..10 {
            streams.push(gateway.connect(&format!("{round}-{n}")).await);
        }
        held.extend(hold(gateway.public, 150, &blocked_http2_request()).await);
        // The attack evicts no stream.
        let id = redis.durable(&topic("t"), "a", "1").await.unwrap();
        for stream in &mut streams {
            assert_eq!(stream.app_event().await.id.as_ref(), Some(&id));
        }
    }
}

#[tokio::test]
async fn full_instance_keeps_probes_and_redis_working() {
    let redis = Redis::start().await;
    let gateway = scarce(&redis).start().await;
    assert!(gateway.log_contains("raise `ulimit -n`"), "{}", gateway.log_text());
    let (_, limit) = sockets(&gateway, "public").await;
    let mut streams: Vec<Sse> = Vec::new();
    while streams.len() < limit as usize {
        streams.push(gateway.connect(&format!("u{}", streams.len())).await);
    }
    // The attacker's additional connections are closed at once.
    let mut held = hold(gateway.public, 300, b"GET /events").await;
    for socket in &mut held {
        let end = tokio::time::timeout(GUARD, socket.read(&mut [0; 1])).await;
        assert!(matches!(end.expect("the connection is closed"), Ok(0) | Err(_)));
    }
    answers_ten_probes(&gateway).await;
    let refused = [("reason", "no-descriptor")];
    assert_eq!(gateway.metric("sse_sockets_dropped_total", &refused).await, 300.0);
    assert_eq!(gateway.metric("sse_accept_errors_total", &[]).await, 0.0);
    assert_eq!(sockets(&gateway, "public").await, (limit, limit));
    let id = redis.durable(&topic("t"), "a", "1").await.unwrap();
    for stream in &mut streams {
        assert_eq!(stream.app_event().await.id.as_ref(), Some(&id));
    }
    streams.truncate(10);
    eventually("their sockets to be closed", async || {
        (sockets(&gateway, "public").await.0 <= 10.0).then_some(())
    })
    .await;
    for n in 0..20 {
        streams.push(gateway.connect(&format!("new{n}")).await);
    }
}

#[tokio::test]
async fn held_admin_sockets_stop_neither_probes_nor_streams() {
    let redis = Redis::start().await;
    let gateway = scarce(&redis).start().await;
    let mut held = hold(gateway.admin, 60, b"").await;
    held.extend(hold(gateway.admin, 60, b"GET /metrics HTTP/1.1\r\n").await);
    held.extend(hold(gateway.admin, 60, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await);
    answers_ten_probes(&gateway).await;
    let (open, limit) = sockets(&gateway, "admin").await;
    assert!(open <= limit && limit == 16.0, "{open} of {limit}");
    gateway.connect("1").await;
}

/// Opens `count` sockets whose clients read no response, over HTTP/2 and HTTP/1.1.
async fn hold_unread(address: std::net::SocketAddr, count: usize, path: &str) -> Vec<TcpStream> {
    let window_0 = frame(SETTINGS, 0, 0, &[0, INITIAL_WINDOW_SIZE as u8, 0, 0, 0, 0]);
    let http2 = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &window_0[..], &get(1, path)].concat();
    let mut held = hold(address, count, &http2).await;
    let http1 = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
    for _ in 0..count {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(2048).unwrap();
        let mut socket = socket.connect(address).await.expect("the kernel accepts the connection");
        // Until the gateway accepts no more, because it cannot write.
        let requests = http1.repeat(1000);
        let writing = async { while socket.write_all(requests.as_bytes()).await.is_ok() {} };
        let _ = tokio::time::timeout(Duration::from_millis(20), writing).await;
        held.push(socket);
    }
    held
}

#[tokio::test]
async fn unread_responses_leave_room_for_probes_and_streams() {
    let redis = Redis::start().await;
    let gateway = scarce(&redis).env("LIMITS__STALL", "10m").start().await;
    // Without a ticket: 401 over a connection that is reused.
    let _held = hold_unread(gateway.public, 110, "/events").await;
    let url = gateway.events_url(&ticket("1"), "");
    // While the gateway still processes the attack, it may refuse a connection.
    let connect = async || Sse::try_connect(&url, &Default::default()).await.ok();
    let mut stream = eventually("a new client to be let in", connect).await;
    stream.connected().await;
    let id = redis.durable(&topic("t"), "a", "1").await.unwrap();
    assert_eq!(stream.app_event().await.id, Some(id));
    let _held_admin = hold_unread(gateway.admin, 20, "/metrics").await;
    let probe = async || gateway.http().get(gateway.admin_url("/healthz")).send().await.ok();
    eventually("the first probe to be answered", probe).await;
    answers_ten_probes(&gateway).await;
}

#[tokio::test]
async fn accepting_resumes_after_descriptors_ran_out() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(&redis).await;
    let mut probes = TcpStream::connect(gateway.admin).await.expect("the listener accepts");
    probe_again(&mut probes).await;
    // No descriptor at all, in spite of those that the gateway reserves, as if the system had run
    // out.
    let before = process::change_open_files(gateway.pid(), 3);
    let mut waiting = hold(gateway.public, 20, b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n").await;
    gateway.wait_for_log("cannot accept a connection").await;
    for _ in 0..10 {
        probe_again(&mut probes).await;
    }
    process::change_open_files(gateway.pid(), before);
    for socket in &mut waiting {
        let mut answer = [0; 12];
        let read = tokio::time::timeout(GUARD, socket.read_exact(&mut answer)).await;
        read.expect("the connection is accepted later").expect("a response");
        assert_eq!(&answer, b"HTTP/1.1 404");
    }
    let errors = [("reason", "descriptors")];
    assert!(gateway.metric("sse_accept_errors_total", &errors).await >= 1.0);
    gateway.connect("1").await;
}

#[tokio::test]
async fn too_few_descriptors_are_a_startup_error() {
    let redis = Redis::start().await;
    let builder = scarce(&redis).env("REDIS__POOL_SIZE", "100");
    let output = tokio::process::Command::from(builder.command(&["serve"])).output();
    let output = tokio::time::timeout(GUARD, output).await.expect("the process ends").unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(78), "{text}");
    assert!(text.contains("raise `ulimit -n`") && text.contains("redis.pool_size"), "{text}");
}

#[tokio::test]
async fn closed_listener_refuses_and_idle_sockets_end() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(&redis).await;
    let stream = gateway.connect("1").await;
    let mut idle = hold(gateway.public, 1, b"").await.remove(0);
    let window = gateway.events_url(&ticket("2"), "");
    gateway.term();
    drop(stream);
    let ended = tokio::time::timeout(Duration::from_secs(20), idle.read(&mut [0; 1])).await;
    assert!(matches!(ended.expect("the connection is closed"), Ok(0) | Err(_)));
    assert_eq!(gateway.wait_exit().await.code(), Some(0));
    assert!(Sse::try_connect(&window, &Default::default()).await.is_err());
}

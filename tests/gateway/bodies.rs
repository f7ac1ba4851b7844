//! Bodies of requests: `Expect: 100-continue`, unfinished bodies, and clients that do not read.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::harness::keys::api_keys;
use crate::harness::{GUARD, Gateway, Redis, eventually, ticket, user};

/// The server's own limit is 3 s; the guard leaves room for a busy machine.
const CLOSED_WITHIN: Duration = Duration::from_secs(20);
const CONTINUE: &str = "HTTP/1.1 100 Continue\r\n\r\n";

async fn connect(gateway: &Gateway) -> TcpStream {
    TcpStream::connect(gateway.public).await.expect("the listener accepts")
}

async fn start(redis: &Redis) -> Gateway {
    let keys = api_keys(&[("key", "publish")]);
    Gateway::durable_only(redis).env("API_KEYS", &keys).start().await
}

/// Reads until `text` has arrived, and returns everything received.
async fn read_until(socket: &mut TcpStream, text: &str) -> String {
    let mut seen = Vec::new();
    let reading = async {
        while !String::from_utf8_lossy(&seen).contains(text) {
            let read = socket.read_buf(&mut seen).await.expect("the connection is open");
            assert_ne!(read, 0, "the end: {}", String::from_utf8_lossy(&seen));
        }
    };
    tokio::time::timeout(GUARD, reading).await.unwrap_or_else(|_| panic!("no {text}"));
    String::from_utf8_lossy(&seen).into_owned()
}

/// Reads to the end of the connection.
async fn read_to_end(socket: &mut TcpStream) -> String {
    let mut seen = Vec::new();
    let end = tokio::time::timeout(CLOSED_WITHIN, socket.read_to_end(&mut seen)).await;
    assert!(end.is_ok(), "still open: {}", String::from_utf8_lossy(&seen));
    String::from_utf8_lossy(&seen).into_owned()
}

fn event() -> String {
    format!("{{\"channel\":\"{}\",\"type\":\"t\",\"payload\":1}}", user("1"))
}

/// The head of a publish whose client waits for `100 Continue`.
fn expecting(key: &str) -> String {
    format!(
        "POST /publish HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n\
         Expect: 100-continue\r\nContent-Length: {}\r\n\r\n",
        event().len()
    )
}

#[tokio::test]
async fn stream_request_waits_for_an_expectant_publish() {
    let redis = Redis::start().await;
    let gateway = start(&redis).await;
    for n in 1..=5 {
        let stream =
            format!("GET /events?ticket={} HTTP/1.1\r\nHost: x\r\n\r\n", ticket("1").jwt());
        let mut socket = connect(&gateway).await;
        socket
            .write_all(format!("{}{}{stream}", expecting("key"), event()).as_bytes())
            .await
            .unwrap();
        let seen = read_until(&mut socket, "sse.connected").await;
        let (published, stream) =
            seen.split_once("\r\n\r\n{\"id\":").expect("the publish ran first");
        assert!(published.starts_with("HTTP/1.1 200"), "{seen}");
        assert!(stream.contains("HTTP/1.1 200") && stream.contains("text/event-stream"), "{seen}");
        assert_eq!(redis.log_ids(&user("1")).await.len(), n);
    }
}

#[tokio::test]
async fn continue_is_sent_when_the_handler_reads() {
    let redis = Redis::start().await;
    let gateway = start(&redis).await;
    let mut socket = connect(&gateway).await;
    for _ in 0..2 {
        socket.write_all(expecting("key").as_bytes()).await.unwrap();
        assert_eq!(read_until(&mut socket, "\r\n\r\n").await, CONTINUE);
        socket.write_all(event().as_bytes()).await.unwrap();
        let seen = read_until(&mut socket, "}").await;
        assert!(seen.starts_with("HTTP/1.1 200") && !seen.contains("close"), "{seen}");
    }
    // A request that is rejected without its body gets no interim response.
    socket.write_all(expecting("nobody's").as_bytes()).await.unwrap();
    let seen = read_to_end(&mut socket).await;
    assert!(seen.starts_with("HTTP/1.1 401") && seen.contains("connection: close"), "{seen}");
    let mut socket = connect(&gateway).await;
    let get = expecting("key").replace("POST", "GET");
    socket.write_all(get.as_bytes()).await.unwrap();
    let seen = read_to_end(&mut socket).await;
    assert!(seen.starts_with("HTTP/1.1 405") && seen.contains("connection: close"), "{seen}");
    // HTTP/1.0 has no interim responses (RFC 9110 section 15.2).
    let mut socket = connect(&gateway).await;
    socket.write_all(expecting("key").replace("HTTP/1.1", "HTTP/1.0").as_bytes()).await.unwrap();
    socket.write_all(event().as_bytes()).await.unwrap();
    assert!(read_to_end(&mut socket).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn sockets_with_unfinished_bodies_are_closed() {
    const SOCKETS: usize = 300;
    let redis = Redis::start().await;
    let gateway = start(&redis).await;
    let starts = [
        "GET /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
        // A response that leaves the connection open.
        "GET /publish HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
        "GET /publish HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nx",
    ];
    let mut held = Vec::new();
    for n in 0..SOCKETS {
        let mut socket = connect(&gateway).await;
        socket.write_all(starts[n % starts.len()].as_bytes()).await.unwrap();
        held.push(socket);
    }
    // One deadline for all of them, because they do not wait for each other.
    let closing = async {
        for socket in &mut held {
            let seen = read_to_end(socket).await;
            assert!(seen.starts_with("HTTP/1.1 40"), "{seen}");
        }
    };
    tokio::time::timeout(CLOSED_WITHIN, closing).await.expect("all are closed");
}

#[tokio::test]
async fn trickling_body_is_cut_off_after_the_response() {
    let redis = Redis::start().await;
    let gateway = start(&redis).await;
    let mut socket = connect(&gateway).await;
    let start = "GET /publish HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    socket.write_all(start.as_bytes()).await.unwrap();
    let (mut read, mut write) = socket.split();
    let trickling = async {
        // Ends with the socket.
        while write.write_all(b"1\r\nx\r\n").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let reading = async {
        let mut seen = Vec::new();
        let _ = read.read_to_end(&mut seen).await;
        assert!(seen.starts_with(b"HTTP/1.1 405"), "{}", String::from_utf8_lossy(&seen));
    };
    let both = async { tokio::join!(trickling, reading) };
    tokio::time::timeout(CLOSED_WITHIN, both).await.expect("the connection is closed");
}

#[tokio::test]
async fn body_ending_shortly_after_response_keeps_the_connection() {
    let redis = Redis::start().await;
    let gateway = start(&redis).await;
    let mut socket = connect(&gateway).await;
    for _ in 0..3 {
        let start = "GET /publish HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab";
        socket.write_all(start.as_bytes()).await.unwrap();
        read_until(&mut socket, "method-not-allowed").await;
        let rest = format!("cde\r\n3e80\r\n{}\r\n0\r\n\r\n", "x".repeat(16_000));
        socket.write_all(rest.as_bytes()).await.unwrap();
    }
    // But only for a limited number of bytes.
    let start = "GET /publish HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n";
    socket.write_all(start.as_bytes()).await.unwrap();
    read_until(&mut socket, "method-not-allowed").await;
    let bytes = vec![b'x'; 64 << 10];
    let pouring = async { while socket.write_all(&bytes).await.is_ok() {} };
    tokio::time::timeout(CLOSED_WITHIN, pouring).await.expect("the connection is closed");
}

#[tokio::test]
async fn incomplete_body_publishes_nothing() {
    let redis = Redis::start().await;
    let gateway = start(&redis).await;
    for head in ["Content-Length: 900\r\n", "Transfer-Encoding: chunked\r\n"] {
        let mut socket = connect(&gateway).await;
        let body =
            if head.starts_with('T') { format!("{:x}\r\n{}", 900, event()) } else { event() };
        let request = format!(
            "POST /publish HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer key\r\n{head}\r\n{body}"
        );
        socket.write_all(request.as_bytes()).await.unwrap();
        socket.shutdown().await.unwrap();
        let seen = read_to_end(&mut socket).await;
        assert!(seen.starts_with("HTTP/1.1 400") && seen.contains("bad-request"), "{seen}");
    }
    assert!(redis.log_ids(&user("1")).await.is_empty());
}

#[tokio::test]
async fn client_that_reads_no_response_is_disconnected() {
    let redis = Redis::start().await;
    let keys = api_keys(&[("key", "publish")]);
    let builder = Gateway::durable_only(&redis).env("API_KEYS", &keys);
    let gateway = builder.env("LIMITS__STALL", "1s").start().await;
    let first = redis.durable(&user("1"), "a", "0").await.unwrap();
    for _ in 0..40 {
        redis.durable(&user("1"), "a", "x".repeat(60_000)).await.unwrap();
    }
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut socket = socket.connect(gateway.public).await.unwrap();
    let path = format!("/events/poll?ticket={}&lastEventId={first}", ticket("1").jwt());
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
    socket.write_all(request.repeat(20).as_bytes()).await.unwrap();
    let port = socket.local_addr().unwrap().port();
    eventually("the gateway's end of it is closed", || {
        std::future::ready((!is_established(gateway.public.port(), port)).then_some(()))
    })
    .await;
}

/// Whether the server's end of a connection is established (proc_pid_net_tcp(5)).
fn is_established(server: u16, client: u16) -> bool {
    let text = std::fs::read_to_string("/proc/net/tcp").expect("a Linux");
    let (local, remote) = (format!("0100007F:{server:04X}"), format!("0100007F:{client:04X}"));
    let fields = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let mut found = fields.filter(|f| f[1] == local && f[2] == remote);
    found.any(|f| f[3] == "01")
}

//! Attacks of clients without a ticket, during which the gateway must serve the others. SECURITY.md
//! refers to these tests.

use std::time::Duration;

use reqwest::{Certificate, Client};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, MutexGuard};

use crate::harness::gateway::Builder;
use crate::harness::keys::Dir;
use crate::harness::parser::Parser;
use crate::harness::{GUARD, Gateway, Redis, eventually_within, ticket, topic};
use crate::http::next;

/// Open files of this process and of the gateway, without those of the attack.
const SPARE_FILES: u64 = 1000;
/// A third of the sockets that an attack opens.
const FLOOD: u64 = 5000;

async fn connect(gateway: &Gateway) -> std::io::Result<TcpStream> {
    TcpStream::connect(gateway.url("").trim_start_matches("http://")).await
}

/// Checks that a new client is admitted and receives an event.
async fn serves(redis: &Redis, gateway: &Gateway, user: &str) {
    let serving = async {
        let mut stream = gateway.connect(user).await;
        let id = redis.durable(&topic("t"), "a", "1").await.unwrap();
        assert_eq!(stream.app_event().await.id, Some(id));
    };
    tokio::time::timeout(GUARD, serving).await.expect("other clients are served");
}

/// Raises the limit of open files to the maximum, and allows one attack at a time.
async fn need_files(count: u64) -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::const_new(());
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls only touch the struct.
    unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit);
        limit.rlim_cur = limit.rlim_max;
        libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
    }
    let needed = count + SPARE_FILES;
    assert!(limit.rlim_max >= needed, "this test needs {needed} files: ulimit -Hn {needed}");
    ONE.lock().await
}

/// Opens `count` sockets that send `start` and nothing more.
async fn hold(gateway: &Gateway, count: u64, start: &[u8]) -> Vec<TcpStream> {
    let mut held = Vec::new();
    for _ in 0..count {
        let mut socket = connect(gateway).await.expect("the listener takes it");
        socket.write_all(start).await.expect("the connection is open");
        held.push(socket);
    }
    held
}

/// Number of sockets above which the one that has been idle longest is closed for a new one.
const MAX_CONNECTIONS: u32 = 2500;

/// A gateway that reaches its limit during an attack, long before the time for a head has passed.
fn small(redis: &Redis) -> Builder {
    let builder = Gateway::builder(redis).env("SERVER__WORKERS", "2");
    builder.env("LIMITS__MAX_CONNECTIONS", &MAX_CONNECTIONS.to_string())
}

/// Checks that the socket that has been idle longest is closed, and that at most `MAX_CONNECTIONS`
/// are open.
async fn oldest_has_gone(gateway: &Gateway, all: &mut [TcpStream]) {
    let end =
        tokio::time::timeout(GUARD, all[0].read(&mut [0; 1])).await.expect("the oldest is closed");
    assert!(matches!(end, Ok(0) | Err(_)));
    // Sockets were evicted before the time for a head had passed; the last may not have closed yet.
    eventually_within(Duration::from_secs(3), "closed sockets", async || {
        let open = gateway.metric("process_open_fds", &[]).await;
        (open < f64::from(MAX_CONNECTIONS) + 200.0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn slow_heads_and_idle_sockets_affect_no_clients() {
    let _files = need_files(3 * FLOOD).await;
    let redis = Redis::start().await;
    let gateway = small(&redis).start().await;
    let mut all = hold(&gateway, FLOOD, b"").await;
    serves(&redis, &gateway, "1").await;
    let starts: [(&[u8], u64); 6] = [
        (b"GET /events?ticket=eyJ", 500),
        (b"GET /readyz HTTP/1.1\r\nHost: x\r\n", 500),
        (b"POST /publish HTTP/1.1\r\nHost: x\r\n", 500),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n", 500),
        // A request without further ones.
        (b"GET /publish HTTP/1.1\r\nHost: x\r\n\r\n", 4000),
        // HTTP/2 without a request.
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0", 4000),
    ];
    for (start, count) in starts {
        all.extend(hold(&gateway, count, start).await);
        serves(&redis, &gateway, "2").await;
    }
    oldest_has_gone(&gateway, &mut all).await;
    // All are closed when the time for a head has passed.
    let last = all.last_mut().unwrap();
    let end =
        tokio::time::timeout(Duration::from_secs(40), last.read_to_end(&mut Vec::new())).await;
    assert!(end.is_ok(), "it is still open");
    serves(&redis, &gateway, "3").await;
}

#[tokio::test]
async fn slow_heads_over_tls_affect_no_clients() {
    let _files = need_files(3 * FLOOD).await;
    let redis = Redis::start().await;
    let dir = Dir::new();
    dir.certificate();
    let gateway = small(&redis)
        .env("SERVER__TLS__CERTIFICATE", &dir.text("server.pem"))
        .env("SERVER__TLS__KEY", &dir.text("server.key"))
        .start()
        .await;
    let mut all = hold(&gateway, FLOOD, b"").await;
    // The start of a handshake.
    all.extend(hold(&gateway, 2 * FLOOD, b"\x16\x03\x01\x02\0\x01").await);
    oldest_has_gone(&gateway, &mut all).await;
    let authority = Certificate::from_pem(dir.read("ca.pem").as_bytes()).unwrap();
    let client = Client::builder().tls_certs_only([authority]).build().unwrap();
    let url = gateway.events_url(&ticket("1"), "").replace("http://", "https://");
    let mut answer = tokio::time::timeout(GUARD, client.get(url).send())
        .await
        .expect("other clients are served")
        .unwrap();
    assert_eq!(next(&mut answer, &mut Parser::default()).await.event, "sse.connected");
}

#[tokio::test]
async fn floods_of_malformed_requests_affect_no_clients() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(&redis).await;
    let before = gateway.anonymous();
    let headers = format!("GET /events HTTP/1.1\r\nHost: x\r\n{}\r\n", "x: y\r\n".repeat(200_000));
    let header = format!("GET /events HTTP/1.1\r\nHost: {}\r\n\r\n", "x".repeat(1 << 20));
    let query = format!("GET /events?ticket={} HTTP/1.1\r\nHost: x\r\n\r\n", "x".repeat(1 << 20));
    let post = format!(
        "POST /publish HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n{}",
        "x".repeat(1 << 20)
    );
    let chunks = format!(
        "POST /publish HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{}",
        "ffffffff\r\nx".repeat(1000)
    );
    let preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned() + &"\u{1}".repeat(1 << 16);
    let mut random = fastrand::Rng::with_seed(7);
    let noise: Vec<Vec<u8>> =
        (0..200).map(|_| (0..random.usize(1..5000)).map(|_| random.u8(..)).collect()).collect();
    let known = [headers, header, query, post, chunks, preface].map(String::into_bytes);
    for attack in known.iter().chain(&noise) {
        let mut socket = connect(&gateway).await.unwrap();
        // The gateway may close the connection before everything is sent.
        let _ = socket.write_all(attack).await;
        let mut answer = vec![0; 12];
        let got = tokio::time::timeout(GUARD, socket.read(&mut answer)).await;
        let text = String::from_utf8_lossy(&answer);
        let fine = match got {
            Ok(Ok(0) | Err(_)) => true,
            // Nothing, an error, or HTTP/2 settings: never a stream.
            Ok(Ok(_)) => text.starts_with("HTTP/1.1 4") || !text.starts_with("HTTP"),
            // Random bytes may be the start of a request, which has its own time limit.
            Err(_) => noise.contains(attack),
        };
        assert!(fine, "{text} to {}", String::from_utf8_lossy(&attack[..attack.len().min(60)]));
    }
    serves(&redis, &gateway, "1").await;
    assert!(gateway.anonymous() < before + (64 << 20), "memory stays bounded");
}

//! HTTP/1.1, one request at a time, without and with TLS: pipelined requests get responses in order
//! without using memory, and a stream can use a connection that was used before.

use std::sync::Arc;

use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::harness::gateway::Builder;
use crate::harness::keys::{Dir, api_keys};
use crate::harness::{GUARD, Gateway, Redis, eventually, process, ticket, topic, user};

trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Socket for T {}

/// A request whose response (405) leaves the connection open.
const SMALL: &str = "GET /publish HTTP/1.1\r\nHost: x\r\n\r\n";

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")
}

/// A request for a stream.
fn stream(user: &str) -> String {
    get(&format!("/events?ticket={}", ticket(user).jwt()))
}

/// A gateway, and how to connect to it.
struct Served {
    gateway: Gateway,
    tls: Option<TlsConnector>,
}

impl Served {
    /// One without TLS and one with it.
    async fn both(redis: &Redis) -> [Served; 2] {
        let builder = Gateway::builder(redis).env("API_KEYS", &api_keys(&[("key", "publish")]));
        let clear = Served { gateway: builder.start().await, tls: None };
        [clear, Served::tls(&builder, &Dir::new()).await]
    }

    /// One with TLS.
    async fn tls(builder: &Builder, dir: &Dir) -> Served {
        dir.certificate();
        let secure = builder
            .clone()
            .env("SERVER__TLS__CERTIFICATE", &dir.text("server.pem"))
            .env("SERVER__TLS__KEY", &dir.text("server.key"));
        let mut roots = RootCertStore::empty();
        let authority = CertificateDer::from_pem_slice(dir.read("ca.pem").as_bytes());
        roots.add(authority.unwrap()).unwrap();
        let client = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let tls = Some(TlsConnector::from(Arc::new(client)));
        Served { gateway: secure.start().await, tls }
    }

    async fn connect(&self) -> Box<dyn Socket> {
        let address =
            self.gateway.url("/").trim_start_matches("http://").trim_end_matches('/').to_owned();
        let tcp = TcpStream::connect(address).await.expect("the listener accepts");
        tcp.set_nodelay(true).unwrap();
        match &self.tls {
            None => Box::new(tcp),
            Some(tls) => Box::new(
                tls.connect(ServerName::try_from("127.0.0.1").unwrap(), tcp).await.unwrap(),
            ),
        }
    }
}

/// Reads until `text` has arrived `count` times.
async fn read_until(socket: &mut Box<dyn Socket>, text: &str, count: usize) -> String {
    let mut seen = Vec::new();
    let reading = async {
        let mut found = 0;
        let mut from = 0;
        while found < count {
            let read = socket.read_buf(&mut seen).await.expect("the connection is open");
            assert_ne!(read, 0, "the end after {}", String::from_utf8_lossy(&seen));
            while let Some(at) =
                seen[from..].windows(text.len()).position(|window| window == text.as_bytes())
            {
                found += 1;
                from += at + text.len();
            }
        }
    };
    if tokio::time::timeout(GUARD, reading).await.is_err() {
        panic!("not {count} x {text}: {}", String::from_utf8_lossy(&seen));
    }
    String::from_utf8_lossy(&seen).into_owned()
}

#[tokio::test]
async fn pipelined_requests_get_responses_in_order() {
    const REQUESTS: usize = 60;
    let redis = Redis::start().await;
    for served in Served::both(&redis).await {
        let mut reader = redis.conn().await;
        let mut text = String::new();
        for n in 0..REQUESTS {
            let body = format!(
                "{{\"channel\":\"{}\",\"type\":\"t\",\"payload\":\"\\r\\n{n}\"}}",
                user("1")
            );
            let head = "POST /publish HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer key\r\n";
            text += &match n % 3 {
                0 => format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()),
                1 => {
                    let (a, b) = body.split_at(n % body.len());
                    let chunk = |part: &str| match part.len() {
                        0 => String::new(),
                        len => format!("{len:x}\r\n{part}\r\n"),
                    };
                    format!(
                        "{head}Transfer-Encoding: chunked\r\n\r\n{}{}0\r\n\r\n",
                        chunk(a),
                        chunk(b)
                    )
                }
                _ => SMALL.to_owned(),
            };
        }
        let mut socket = served.connect().await;
        for piece in text.as_bytes().chunks(1000) {
            socket.write_all(piece).await.unwrap();
        }
        let answers = read_until(&mut socket, "HTTP/1.1 405", REQUESTS / 3).await;
        let statuses: Vec<&str> = answers
            .match_indices("HTTP/1.1 ")
            .map(|(at, start)| &answers[at + start.len()..][..3])
            .collect();
        assert_eq!(statuses, ["200", "200", "405"].repeat(REQUESTS / 3));
        let log: Vec<redis::Value> = redis::cmd("XRANGE")
            .arg("sse:log:{user:1:events}")
            .arg("-")
            .arg("+")
            .query_async(&mut reader)
            .await
            .unwrap();
        assert_eq!(log.len(), REQUESTS / 3 * 2);
        redis::cmd("DEL")
            .arg("sse:log:{user:1:events}")
            .query_async::<()>(&mut reader)
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn pipelined_request_flood_uses_little_memory() {
    /// With actix alone, each of them used 30 MB.
    const AT_MOST_BYTES: u64 = 16 << 20;
    const SOCKETS: usize = 4;
    const REQUESTS: usize = (128 << 10) / SMALL.len();
    let redis = Redis::start().await;
    for served in Served::both(&redis).await {
        let warm = async || {
            let mut socket = served.connect().await;
            socket.write_all(SMALL.repeat(16).as_bytes()).await.unwrap();
            read_until(&mut socket, "HTTP/1.1 405", 16).await;
        };
        warm().await;
        let before = process::peak(served.gateway.pid());
        let mut all = Vec::new();
        for _ in 0..SOCKETS {
            let mut socket = served.connect().await;
            all.push(tokio::spawn(async move {
                let (flood, answers) = (SMALL.repeat(REQUESTS), &mut socket);
                // All bytes at once: those that the gateway does not read remain in the kernel.
                let (mut read, mut write) = tokio::io::split(answers);
                let reading = async {
                    let (mut count, mut bytes, mut tail) = (0, vec![0; 64 << 10], Vec::new());
                    while count < REQUESTS {
                        let n = read.read(&mut bytes).await.unwrap();
                        assert_ne!(n, 0, "closed after {count} answers");
                        tail.extend_from_slice(&bytes[..n]);
                        count +=
                            tail.windows(12).filter(|window| *window == b"HTTP/1.1 405").count();
                        tail.drain(..tail.len().saturating_sub(11));
                    }
                };
                let (written, ()) = tokio::join!(write.write_all(flood.as_bytes()), reading);
                written.unwrap();
            }));
        }
        for one in all {
            tokio::time::timeout(GUARD * 3, one).await.expect("all responses").unwrap();
        }
        let grown = process::peak(served.gateway.pid()).saturating_sub(before);
        assert!(grown < AT_MOST_BYTES, "{grown} bytes");
    }
}

#[tokio::test]
async fn oversized_heads_get_a_readable_431() {
    let redis = Redis::start().await;
    for served in Served::both(&redis).await {
        for path in ["/events", "/events/poll", "/publish"] {
            let long = |bytes: usize| get(&format!("{path}?ticket={}", "x".repeat(bytes)));
            for used in [false, true] {
                let mut socket = served.connect().await;
                if used {
                    socket.write_all(SMALL.as_bytes()).await.unwrap();
                    read_until(&mut socket, "method-not-allowed", 1).await;
                }
                // The response can be read, however much the client still sends.
                socket.write_all(long(1 << 20).as_bytes()).await.unwrap();
                let answer = read_until(&mut socket, "head-too-long", 1).await;
                assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
                let mut socket = served.connect().await;
                socket.write_all(long(15_000).as_bytes()).await.unwrap();
                let answer = read_until(&mut socket, "}", 1).await;
                assert!(answer.starts_with("HTTP/1.1 40"), "{answer}");
            }
        }
    }
}

#[tokio::test]
async fn stream_request_does_not_cut_the_previous_response() {
    let redis = Redis::start().await;
    let both = Served::both(&redis).await;
    let first = redis.durable(&user("1"), "a", "0").await.unwrap();
    for _ in 0..40 {
        redis.durable(&user("1"), "a", "x".repeat(60_000)).await.unwrap();
    }
    for served in both {
        let mut socket = served.connect().await;
        let poll = get(&format!("/events/poll?ticket={}&lastEventId={first}", ticket("1").jwt()));
        socket.write_all(format!("{poll}{}", stream("1")).as_bytes()).await.unwrap();
        let answers = read_until(&mut socket, "sse.connected", 1).await;
        let (head, rest) = answers.split_once("\r\n\r\n").unwrap();
        let length: usize =
            head.split_once("content-length: ").unwrap().1.lines().next().unwrap().parse().unwrap();
        assert!(length > 1 << 20, "it does not take several writes: {length}");
        assert!(
            rest[..length].ends_with('}') && rest[length..].starts_with("HTTP/1.1 200"),
            "{}",
            &rest[length..]
        );
        // The same for a stream.
        let left = stream("2").replace("\r\n\r\n", "\r\nContent-Length: 0\r\n\r\n");
        let mut socket = served.connect().await;
        socket.write_all(SMALL.as_bytes()).await.unwrap();
        read_until(&mut socket, "method-not-allowed", 1).await;
        socket.write_all(format!("{left}{}", stream("3")).as_bytes()).await.unwrap();
        read_until(&mut socket, "sse.connected", 1).await;
        let id = redis.durable(&user("2"), "a", "1").await.unwrap();
        let more = read_until(&mut socket, &id, 1).await;
        assert!(!more.contains("HTTP/1.1"), "{more}");
    }
}

#[tokio::test]
async fn stream_on_reused_connection_uses_no_more_memory() {
    /// As in `front::idle_stream_uses_little_memory`; TLS needs a state and keys;
    /// `tests/memory` counts exactly.
    const AT_MOST_BYTES: [u64; 2] = [8 << 10, 16 << 10];
    const STREAMS: usize = 200;
    let redis = Redis::start().await;
    for (served, at_most) in Served::both(&redis).await.into_iter().zip(AT_MOST_BYTES) {
        let mut all = Vec::new();
        let open = async |all: &mut Vec<_>, used: bool| {
            for _ in 0..STREAMS {
                let mut socket = served.connect().await;
                if used {
                    socket.write_all(SMALL.as_bytes()).await.unwrap();
                    read_until(&mut socket, "method-not-allowed", 1).await;
                }
                socket.write_all(stream(&format!("u{}", all.len())).as_bytes()).await.unwrap();
                read_until(&mut socket, "sse.connected", 1).await;
                all.push(socket);
            }
        };
        // The first streams allocate shared memory, which must not count.
        open(&mut all, true).await;
        for used in [true, false] {
            let before = served.gateway.anonymous();
            open(&mut all, used).await;
            // What a stream needed to begin is freed soon.
            let what = format!("less than {at_most} bytes for each stream, used before: {used}");
            eventually(&what, async || {
                let grown = served.gateway.anonymous().saturating_sub(before);
                (grown / (STREAMS as u64) < at_most).then_some(())
            })
            .await;
        }
        let id = redis.durable(&topic("t"), "a", "1").await.unwrap();
        for socket in &mut all {
            read_until(socket, &id, 1).await;
        }
        drop(all);
        let gone = 3.0 * STREAMS as f64;
        served
            .gateway
            .metric_reaches("sse_connections_closed_total", &[("reason", "client-gone")], gone)
            .await;
    }
}

#[tokio::test]
async fn stalled_client_over_tls_is_disconnected() {
    let redis = Redis::start().await;
    let dir = Dir::new();
    let stall = Gateway::builder(&redis).env("LIMITS__STALL", "5s").env("SERVER__HEARTBEAT", "1h");
    let served = Served::tls(&stall, &dir).await;
    let mut socket = served.connect().await;
    socket.write_all(stream("1").as_bytes()).await.unwrap();
    read_until(&mut socket, "sse.connected", 1).await;
    // More than the sockets buffer, and then the client stops reading.
    let big = format!("\"{}\"", "x".repeat(60_000));
    let stalled = [("reason", "stalled")];
    loop {
        redis.durable(&user("1"), "a", &big).await.unwrap();
        let metrics = served.gateway.metrics().await;
        // On a busy machine it may be disconnected earlier.
        let is_closed = metrics.get("sse_connections_closed_total", &stalled) > 0.0;
        if is_closed || metrics.get("sse_queue_overflows_total", &[]) > 0.0 {
            break;
        }
    }
    served.gateway.metric_reaches("sse_connections_closed_total", &stalled, 1.0).await;
    assert_eq!(served.gateway.metric("sse_connections_closed_total", &[]).await, 1.0);
}

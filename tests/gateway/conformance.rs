//! Conformance with RFC 9112 and RFC 9110 (HTTP/1.1): raw requests and the responses they require.
//! No test suite for this is available as a package. docs/reference/http.md explains deviations.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::keys::api_keys;
use crate::harness::{GUARD, Gateway, Redis, eventually, user};

/// A response as received.
#[derive(Debug)]
struct Response {
    status: u16,
    head: String,
    body: String,
}

impl Response {
    fn header(&self, name: &str) -> Option<&str> {
        let mut fields = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        fields.find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    fn closes(&self) -> bool {
        self.header("connection") == Some("close")
    }
}

struct Client {
    socket: TcpStream,
    seen: Vec<u8>,
}

impl Client {
    async fn send(gateway: &Gateway, request: &str) -> Client {
        let mut socket = TcpStream::connect(gateway.public).await.expect("the listener accepts");
        socket.write_all(request.as_bytes()).await.unwrap();
        Client { socket, seen: Vec::new() }
    }

    /// The next response, or `None` at the end of the connection.
    async fn next(&mut self, to_head: bool) -> Option<Response> {
        let reading = async {
            loop {
                if let Some(response) = self.take(to_head) {
                    return Some(response);
                }
                if self.socket.read_buf(&mut self.seen).await.unwrap_or(0) == 0 {
                    assert!(self.seen.is_empty(), "{}", String::from_utf8_lossy(&self.seen));
                    return None;
                }
            }
        };
        tokio::time::timeout(GUARD, reading).await.expect("a response, or the end")
    }

    fn take(&mut self, to_head: bool) -> Option<Response> {
        let end = self.seen.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
        let head = String::from_utf8(self.seen[..end].to_vec()).expect("a head is text");
        let status = head.strip_prefix("HTTP/1.1 ").expect("a status line")[..3].parse().unwrap();
        let mut response = Response { status, head, body: String::new() };
        let length = response.header("content-length").unwrap_or("0").parse::<usize>().unwrap();
        let length = if to_head { 0 } else { length };
        let body = self.seen.get(end..end + length)?;
        response.body = String::from_utf8(body.to_vec()).unwrap();
        self.seen.drain(..end + length);
        Some(response)
    }
}

/// Checks that a request gets a well-formed error response, and that the connection is then closed.
async fn assert_rejected(gateway: &Gateway, section: &str, request: &str, status: u16) {
    let follows = "GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n";
    let mut client = Client::send(gateway, &format!("{request}{follows}")).await;
    let response = client.next(false).await.unwrap_or_else(|| panic!("no response to {request:?}"));
    let what = format!("{section} {request:?}: {response:?}");
    assert_eq!(response.status, status, "{what}");
    assert!(response.closes() && response.header("date").is_some(), "{what}");
    assert_eq!(response.header("content-type"), Some("application/json"), "{what}");
    let error: serde_json::Value = serde_json::from_str(&response.body).expect("JSON");
    assert!(error["error"].is_string() && error["message"].is_string(), "{what}");
    // Bytes after a malformed request must not be interpreted as a request.
    assert!(client.next(false).await.is_none(), "{what}");
}

const HOST: &str = "Host: x\r\n";

fn long(unit: &str, bytes: usize) -> String {
    unit.repeat(bytes / unit.len() + 1)
}

#[tokio::test]
async fn malformed_requests_are_rejected_and_close_the_connection() {
    let redis = Redis::start().await;
    let gateway = Gateway::durable_only(&redis).start().await;
    let heads: &[(&str, &str, u16)] = &[
        // Section of RFC 9112, or of RFC 9110 if prefixed with its number.
        ("2.2 bare LF", "GET / HTTP/1.1\nHost: x\n\n", 400),
        ("2.2 bare LF", "GET / HTTP/1.1\r\nHost: x\r\n\n", 400),
        ("2.2 bare LF", "GET / HTTP/1.1\r\nHost: x\nA: b\r\n\r\n", 400),
        ("2.2 bare CR", "GET / HTTP/1.1\r\nHost: x\r\nA: b\rc\r\n\r\n", 400),
        ("2.2 bare CR", "GET / HTTP/1.1\r\r\nHost: x\r\n\r\n", 400),
        ("2.2 space before fields", "GET / HTTP/1.1\r\n Host: x\r\n\r\n", 400),
        ("2.3 version", "GET / HTTP/2.0\r\nHost: x\r\n\r\n", 505),
        ("2.3 version", "GET / HTTP/3\r\nHost: x\r\n\r\n", 505),
        ("2.3 version", "GET / HTTP/0.9\r\nHost: x\r\n\r\n", 505),
        ("2.3 version", "GET / http/1.1\r\nHost: x\r\n\r\n", 400),
        ("2.3 version", "GET / HTTP/1.1 \r\nHost: x\r\n\r\n", 400),
        ("2.3 version", "GET / HTTP/1\r\nHost: x\r\n\r\n", 505),
        ("2.3 version", "GET / HTTPS/1.1\r\nHost: x\r\n\r\n", 400),
        ("3 request line", "GET /\r\nHost: x\r\n\r\n", 400),
        ("3 request line", "GET  / HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        ("3 request line", "GET\t/ HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        ("3 request line", " GET / HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        ("3 request line", "GET / a HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        ("3.1 method", "G(T / HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        ("3.1 method", "G\0T / HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        ("3.2 target", "GET x HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        ("3.2 target", "GET /a#b HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        ("3.2 target", "GET /\u{e9} HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        ("3.2 target", "GET /\x01 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        ("3.2.2 absolute form", "GET ftp://x/ HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        ("3.2.2 absolute form", "GET http:/// HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        ("3.2.2 absolute form", "GET http://u@x/ HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        ("3.2.2 absolute form", "GET http://x/ HTTP/1.1\r\n\r\n", 400),
        ("3.2.3 authority form", "GET x:80 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        ("3.2.3 CONNECT", "CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n", 405),
        ("3.2.4 asterisk form", "GET * HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        ("5.1 space before colon", "GET / HTTP/1.1\r\nHost : x\r\n\r\n", 400),
        ("5.1 field name", "GET / HTTP/1.1\r\nHost: x\r\n: a\r\n\r\n", 400),
        ("5.1 field name", "GET / HTTP/1.1\r\nHost: x\r\nA B: a\r\n\r\n", 400),
        ("5.1 field name", "GET / HTTP/1.1\r\nHost: x\r\n\u{e9}: a\r\n\r\n", 400),
        ("5 no colon", "GET / HTTP/1.1\r\nHost: x\r\nA\r\n\r\n", 400),
        ("5.2 obs-fold", "GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n", 400),
        ("9110 5.5 field value", "GET / HTTP/1.1\r\nHost: x\r\nA: \0\r\n\r\n", 400),
        ("9110 5.5 field value", "GET / HTTP/1.1\r\nHost: x\r\nA: \x7f\r\n\r\n", 400),
        ("9110 10.1.1 expectation", "GET / HTTP/1.1\r\nHost: x\r\nExpect: a\r\n\r\n", 417),
    ];
    for (section, request, status) in heads {
        assert_rejected(&gateway, section, request, *status).await;
    }
    // RFC 9112 section 3.2 applies on every path.
    for path in ["/events", "/events/poll", "/publish", "/tickets", "/nothing"] {
        for host in
            ["", "Host: x\r\nHost: x\r\n", "Host: x\r\nHOST: y\r\n", "Host: \r\n", "Host: a b\r\n"]
        {
            let request = format!("GET {path} HTTP/1.1\r\n{host}\r\n");
            assert_rejected(&gateway, "3.2 host", &request, 400).await;
        }
    }
    for host in
        ["a/b", "u@a", "a:b", "a:99999", "a,b c", "[::1", "http://a", "a#", "\u{e9}", "a\\b"]
    {
        let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
        assert_rejected(&gateway, "3.2 host", &request, 400).await;
    }
    for (fields, status) in [
        ("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", 400),
        ("Content-Length: 1\r\nContent-Length: 2\r\n", 400),
        ("Content-Length: 1, 2\r\n", 400),
        ("Content-Length: +1\r\n", 400),
        ("Content-Length: -1\r\n", 400),
        ("Content-Length: a\r\n", 400),
        ("Content-Length: \r\n", 400),
        ("Content-Length: 18446744073709551616\r\n", 400),
        ("Transfer-Encoding: gzip\r\n", 501),
        ("Transfer-Encoding: xchunked\r\n", 501),
        ("Transfer-Encoding: gzip, chunked\r\n", 501),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", 400),
    ] {
        let request = format!("POST /publish HTTP/1.1\r\n{HOST}{fields}\r\n");
        assert_rejected(&gateway, "6.1 to 6.3", &request, status).await;
    }
    let old = "POST /publish HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    assert_rejected(&gateway, "6.1 chunks over HTTP/1.0", old, 501).await;
    assert_rejected(&gateway, "6.3 HTTP/1.0", "POST /publish HTTP/1.0\r\n\r\n", 400).await;
    let (path, name) = (long("x", 16 << 10), long("x", 16 << 10));
    for request in [
        format!("GET /{path} HTTP/1.1\r\n{HOST}\r\n"),
        format!("GET / HTTP/1.1\r\n{HOST}{name}: a\r\n\r\n"),
        format!("GET / HTTP/1.1\r\n{HOST}A: {name}\r\n\r\n"),
        format!("GET / HTTP/1.1\r\n{HOST}{}\r\n", "A: b\r\n".repeat(96)),
    ] {
        assert_rejected(&gateway, "9110 5.4 too long", &request, 431).await;
    }
    let many = gateway.metric("sse_requests_malformed_total", &[]).await;
    assert!(many >= 80.0, "{many} were counted");
    let hosts = gateway.metric("sse_requests_malformed_total", &[("reason", "host")]).await;
    assert_eq!(hosts, 36.0);
}

#[tokio::test]
async fn malformed_chunked_bodies_are_rejected() {
    let redis = Redis::start().await;
    let gateway = Gateway::durable_only(&redis)
        .env("API_KEYS", &api_keys(&[("key", "publish")]))
        .start()
        .await;
    let bodies = [
        "0\r\n\n",
        "0\n\r\n",
        "0\r\nt: r\n\r\n",
        "0\r\n t: r\r\n\r\n",
        "1\nx\r\n0\r\n\r\n",
        "1\r\nx\n0\r\n\r\n",
        "1\r\nxy\r\n0\r\n\r\n",
        "g\r\nx\r\n0\r\n\r\n",
        "-1\r\nx\r\n0\r\n\r\n",
        "+1\r\nx\r\n0\r\n\r\n",
        "0x1\r\nx\r\n0\r\n\r\n",
        "1 \r\nx\r\n0\r\n\r\n",
        "1;a\nb\r\nx\r\n0\r\n\r\n",
        "fffffffffffffffff\r\nx\r\n0\r\n\r\n",
        "\r\n\r\n",
    ];
    let head = format!(
        "POST /publish HTTP/1.1\r\n{HOST}Authorization: Bearer key\r\n\
         Transfer-Encoding: chunked\r\n\r\n"
    );
    for body in bodies {
        assert_rejected(&gateway, "7.1 chunks", &format!("{head}{body}"), 400).await;
    }
    let long_extension = format!("{head}1;{}\r\nx\r\n0\r\n\r\n", long("e", 300));
    assert_rejected(&gateway, "7.1.1 extensions are bounded", &long_extension, 400).await;
    let long_trailer = format!("{head}0\r\n{}\r\n", long("t: r\r\n", 5000));
    assert_rejected(&gateway, "7.1.2 trailers are bounded", &long_trailer, 400).await;
    let labels = [("reason", "chunk")];
    let counted = gateway.metric("sse_requests_malformed_total", &labels).await;
    assert_eq!(counted, bodies.len() as f64 + 2.0);
}

#[tokio::test]
async fn well_formed_requests_get_responses_in_order() {
    let redis = Redis::start().await;
    let gateway = Gateway::durable_only(&redis)
        .env("API_KEYS", &api_keys(&[("key", "publish")]))
        .start()
        .await;
    let event = format!("{{\"channel\":\"{}\",\"payload\":1}}", user("1"));
    let (a, b) = event.split_at(9);
    let post = |head: &str, body: &str| {
        format!("POST /publish HTTP/1.1\r\n{HOST}Authorization: Bearer key\r\n{head}\r\n{body}")
    };
    let chunked = |chunks: &str| post("Transfer-Encoding: chunked\r\n", chunks);
    let (x, y) = (a.len(), b.len());
    let cases: Vec<(&str, String, u16)> = vec![
        ("2.2 an empty line first", "\r\nGET /publish HTTP/1.1\r\nHost: x\r\n\r\n".into(), 405),
        ("3.2 host", "GET /publish HTTP/1.1\r\nhOsT:[::1]:80 \t\r\n\r\n".into(), 405),
        ("3.2.2 absolute form", "GET http://x/publish HTTP/1.1\r\nHost: x\r\n\r\n".into(), 405),
        ("3.2.2 its host counts", "GET HTTP://y:1/publish HTTP/1.1\r\nHost: x\r\n\r\n".into(), 405),
        ("3.2.4 asterisk form", "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n".into(), 204),
        ("5 no space", "GET /publish HTTP/1.1\r\nHost:x\r\nA:\r\nB: \u{e9}\r\n\r\n".into(), 405),
        ("6.2 length", post(&format!("Content-Length: {}\r\n", event.len()), &event), 200),
        ("6.2 zeros", post(&format!("Content-Length: 00{}\r\n", event.len()), &event), 200),
        ("7.1 chunks", chunked(&format!("{x:x}\r\n{a}\r\n{y:X}\r\n{b}\r\n0\r\n\r\n")), 200),
        (
            "7.1 case",
            post("transfer-encoding: Chunked\r\n", &format!("{:x}\r\n{event}\r\n0\r\n\r\n", x + y)),
            200,
        ),
        (
            "7.1.1 extensions",
            chunked(&format!("{x:x};a;b=\"c d\"\r\n{a}\r\n{y:x} ;e\r\n{b}\r\n0;f\r\n\r\n")),
            200,
        ),
        (
            "7.1.2 trailers",
            chunked(&format!("{:x}\r\n{event}\r\n00\r\nA: b\r\nC:\r\n\r\n", x + y)),
            200,
        ),
        ("9110 9.1 method", "get /publish HTTP/1.1\r\nHost: x\r\n\r\n".into(), 405),
        ("9110 9.1 method", "PROPFIND /publish HTTP/1.1\r\nHost: x\r\n\r\n".into(), 405),
        ("9110 9.3.2 HEAD", "HEAD /publish HTTP/1.1\r\nHost: x\r\n\r\n".into(), 405),
        ("9110 9.3.8 TRACE", "TRACE /publish HTTP/1.1\r\nHost: x\r\n\r\n".into(), 405),
        (
            "9110 7.8 upgrade",
            "GET /publish HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\n\
            Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n"
                .into(),
            405,
        ),
        (
            "9110 7.8 upgrade",
            "GET /publish HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n\
            Upgrade: websocket\r\n\r\n"
                .into(),
            405,
        ),
        (
            "9110 6.4 a body on GET",
            "GET /publish HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nxy".into(),
            405,
        ),
        (
            "9.6 close",
            "GET /publish HTTP/1.1\r\nHost: x\r\nConnection: a, Close\r\n\r\n".into(),
            405,
        ),
    ];
    // Each request alone, and all of them pipelined on one connection.
    let all = cases.iter().map(|(_, request, _)| request.as_str()).collect::<String>();
    let mut pipelined = Client::send(&gateway, &all).await;
    for (section, request, status) in &cases {
        let mut alone = Client::send(&gateway, request).await;
        let to_head = request.starts_with("HEAD");
        for client in [&mut alone, &mut pipelined] {
            let response = client.next(to_head).await.unwrap_or_else(|| panic!("{section}"));
            let what = format!("{section} {request:?}: {response:?}");
            assert_eq!(response.status, *status, "{what}");
            assert_eq!(response.closes(), section.starts_with("9.6"), "{what}");
            assert!(response.header("date").is_some(), "{what}");
            assert!(!response.head.contains("transfer-encoding"), "{what}");
            // RFC 9110 section 8.6 forbids `content-length` with 204; HEAD has that of GET.
            assert_eq!(response.header("content-length").is_none(), *status == 204, "{what}");
            assert_eq!(response.header("allow").is_some(), matches!(status, 204 | 405), "{what}");
        }
    }
    assert!(pipelined.next(false).await.is_none(), "closed, as its client wished");
    // HTTP/1.0 connections end with the response.
    for host in ["", HOST, "Connection: keep-alive\r\n"] {
        let mut old = Client::send(&gateway, &format!("GET /publish HTTP/1.0\r\n{host}\r\n")).await;
        let response = old.next(false).await.expect("a response");
        assert!(response.status == 405 && response.closes(), "{response:?}");
        assert!(old.next(false).await.is_none());
    }
    // Kept-alive connections can be reused.
    let mut kept = Client::send(&gateway, &cases[0].1).await;
    for _ in 0..3 {
        assert_eq!(kept.next(false).await.expect("a response").status, 405);
        kept.socket.write_all(cases[0].1.as_bytes()).await.unwrap();
    }
}

#[tokio::test]
async fn malformed_request_flood_does_not_fill_the_log() {
    const FLOOD: usize = 500;
    let redis = Redis::start().await;
    let gateway = Gateway::durable_only(&redis).start().await;
    for n in 0..FLOOD {
        let bad = ["GET / HTTP/1.1\r\n\r\n", "\0\r\n\r\n", "GET / HTTP/1.1\nA\n\n"][n % 3];
        let mut client = Client::send(&gateway, bad).await;
        assert_eq!(client.next(false).await.expect("a response").status, 400);
    }
    let counted = gateway.metric("sse_requests_malformed_total", &[]).await;
    assert_eq!(counted, FLOOD as f64);
    let lines = || gateway.log_text().lines().filter(|l| l.contains("malformed")).count();
    eventually("one line", || std::future::ready((lines() > 0).then_some(()))).await;
    // One line at first and one every 10 s; a busy machine may take a while.
    assert!(lines() <= 20, "{} lines", lines());
    for level in ["ERROR", "WARN"] {
        assert!(!gateway.log_contains(&format!("\"level\":\"{level}\"")), "{}", gateway.log_text());
    }
}

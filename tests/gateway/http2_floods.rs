//! Attacks over HTTP/2 by clients without a ticket: memory is bounded, other clients are served,
//! and floods are cut.

use reqwest::Client;

use crate::harness::gateway::Builder;
use crate::harness::http2::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, Frame, GOAWAY, HEADERS,
    Http2, INITIAL_WINDOW_SIZE, PING, PRIORITY, RST_STREAM, SETTINGS, WINDOW_UPDATE, block, frame,
    get, request,
};
use crate::harness::keys::Dir;
use crate::harness::{GUARD, Gateway, Redis, eventually_within, process, ticket, topic};

const MIB: u64 = 1 << 20;
const BLOCKED: [(u16, u32); 1] = [(INITIAL_WINDOW_SIZE, 0)];

fn tls(redis: &Redis, dir: &Dir) -> Builder {
    dir.certificate();
    Gateway::builder(redis)
        .env("SERVER__TLS__CERTIFICATE", &dir.text("server.pem"))
        .env("SERVER__TLS__KEY", &dir.text("server.key"))
}

/// How a header block with status 431 begins: literal with incremental indexing, name of index 8,
/// and the digits Huffman-coded (RFC 7541 appendix B: `011010 011001 00001`).
const STATUS_431: &[u8] = &[0x48, 0x83, 0x69, 0x90, 0xff];

/// A client that sends requests, opens no window, and reconnects after it was disconnected.
struct Attack<'a> {
    gateway: &'a Gateway,
    dir: Option<&'a Dir>,
    client: Http2,
    next: u32,
}

impl Attack<'_> {
    async fn start<'a>(gateway: &'a Gateway, dir: Option<&'a Dir>) -> Attack<'a> {
        Attack { gateway, dir, client: Self::connect(gateway, dir).await, next: 1 }
    }

    async fn connect(gateway: &Gateway, dir: Option<&Dir>) -> Http2 {
        match dir {
            Some(dir) => Http2::connect_tls(gateway, dir, &BLOCKED).await,
            None => Http2::connect(gateway, &BLOCKED).await,
        }
    }

    async fn requests(&mut self, count: u32) {
        for _ in 0..count / 100 {
            let many: Vec<u8> = (0..100).flat_map(|n| get(self.next + 2 * n, "/nothing")).collect();
            self.next += 200;
            if !self.client.try_send(&many).await {
                (self.client, self.next) = (Self::connect(self.gateway, self.dir).await, 1);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_without_a_window_take_no_memory() {
    let redis = Redis::start().await;
    let gateway = Gateway::builder(&redis).env("SERVER__HEARTBEAT", "1h").start().await;
    let mut other = gateway.connect("1").await;
    let before = gateway.anonymous();
    let mut attack = Attack::start(&gateway, None).await;
    let peak_before = process::peak(gateway.pid());
    for _ in 0..20 {
        attack.requests(10_000).await;
        let grown = gateway.anonymous().saturating_sub(before);
        assert!(grown < 24 * MIB, "{} KiB more", grown >> 10);
        let peak = process::peak(gateway.pid()).saturating_sub(peak_before);
        assert!(peak < 32 * MIB, "a peak of {} KiB more", peak >> 10);
        let id = redis.durable(&topic("t"), "a", "1").await.unwrap();
        assert_eq!(other.app_event().await.id, Some(id), "other clients are served");
    }
    gateway.connect("2").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_requests_without_a_window_take_no_memory() {
    let redis = Redis::start().await;
    let dir = Dir::new();
    let gateway = tls(&redis, &dir).start().await;
    let authority = reqwest::Certificate::from_pem(dir.read("ca.pem").as_bytes()).unwrap();
    let client = Client::builder().tls_certs_only([authority]).build().unwrap();
    let url = |path: &str| gateway.url(path).replace("http://", "https://");
    assert_eq!(client.get(url("/nothing")).send().await.unwrap().status(), 404);
    let before = gateway.anonymous();
    let mut attack = Attack::start(&gateway, Some(&dir)).await;
    let peak_before = process::peak(gateway.pid());
    for _ in 0..20 {
        attack.requests(10_000).await;
        let grown = gateway.anonymous().saturating_sub(before);
        assert!(grown < 24 * MIB, "{} KiB more", grown >> 10);
        let peak = process::peak(gateway.pid()).saturating_sub(peak_before);
        assert!(peak < 32 * MIB, "a peak of {} KiB more", peak >> 10);
        let stream = client.get(url(&format!("/events?ticket={}", ticket("1").jwt()))).send();
        assert_eq!(stream.await.unwrap().status(), 200, "other clients are served");
    }
}

/// Fills many connections with responses that wait for a window, and closes them.
async fn occupy(gateway: &Gateway) -> u64 {
    let mut all = Vec::new();
    for _ in 0..60 {
        let mut client = Http2::connect(gateway, &BLOCKED).await;
        client.send(&(0..200).flat_map(|n| get(1 + 2 * n, "/nothing")).collect::<Vec<_>>()).await;
        all.push(client);
    }
    for client in &mut all {
        for _ in 0..200 {
            while client.next().await.expect("the connection is open").kind != HEADERS {}
        }
    }
    gateway.anonymous()
}

#[tokio::test]
async fn memory_of_requests_is_returned() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(&redis).await;
    let before = gateway.anonymous();
    let occupied = occupy(&gateway).await;
    assert!(
        occupied > before + 16 * MIB,
        "{} KiB more are too few to tell",
        (occupied - before) >> 10
    );
    eventually_within(3 * GUARD, "the memory to be given back", || async {
        (gateway.anonymous() < before + (occupied - before) / 4).then_some(())
    })
    .await;
}

/// Creates the next bytes of a flood.
type Frames = Box<dyn FnMut(u32) -> Vec<u8>>;

/// Sends `bytes` repeatedly; returns the GOAWAY and how often they were sent.
async fn until_cut(gateway: &Gateway, mut bytes: impl FnMut(u32) -> Vec<u8>) -> (u32, u32) {
    let mut client = Http2::connect(gateway, &[]).await;
    for n in 0..200_000 {
        let sent = client.try_send(&bytes(n)).await;
        let read = futures_util::FutureExt::now_or_never(client.next()).flatten();
        if let Some(Frame { kind: GOAWAY, .. }) = read {
            return (read.unwrap().code(), n);
        }
        if !sent {
            return (client.goaway().await.expect("a GOAWAY before the end"), n);
        }
    }
    panic!("the connection was never cut");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_of_frames_are_cut() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(&redis).await;
    let open =
        |n: u32| frame(HEADERS, END_HEADERS, 1 + 2 * n, &block(&request("POST", "/nothing")));
    let cases: Vec<(&str, Frames)> = vec![
        ("PING", Box::new(|_| frame(PING, 0, 0, b"somewhat").repeat(10))),
        ("SETTINGS", Box::new(|_| frame(SETTINGS, 0, 0, b"").repeat(10))),
        ("WINDOW_UPDATE", Box::new(|_| frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]).repeat(10))),
        ("PRIORITY", Box::new(|_| frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 1]).repeat(10))),
        ("unknown", Box::new(|_| frame(0x2a, 0, 0, b"").repeat(10))),
        (
            "rapid reset",
            Box::new(|n| {
                let id = 1 + 2 * n;
                [get(id, "/nothing"), frame(RST_STREAM, 0, id, &[0, 0, 0, 8])].concat()
            }),
        ),
        (
            "empty DATA",
            Box::new(move |n| match n {
                0 => open(0),
                _ => frame(DATA, 0, 1, b"").repeat(10),
            }),
        ),
    ];
    for (name, bytes) in cases {
        let (code, sent) = until_cut(&gateway, bytes).await;
        println!("{name}: cut after {sent}");
        assert_eq!(code, ENHANCE_YOUR_CALM, "{name}");
        assert_eq!(gateway.http().get(gateway.url("/nothing")).send().await.unwrap().status(), 404);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_of_data_on_reset_streams_are_cut() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(&redis).await;
    let mut client = Http2::connect(&gateway, &[]).await;
    client.send(&frame(HEADERS, END_HEADERS, 1, &block(&request("POST", "/nothing")))).await;
    // The response does not need the body, so later frames are ignored.
    while !matches!(client.next().await, Some(Frame { kind: RST_STREAM, stream: 1, .. })) {}
    let last = frame(DATA, END_STREAM, 1, b"").repeat(100);
    let mut sent = 0;
    while sent < 100_000 && client.try_send(&last).await {
        sent += 1;
    }
    assert!(sent < 100_000, "the connection was never cut");
    assert_eq!(client.goaway().await, Some(ENHANCE_YOUR_CALM));
}

#[tokio::test]
async fn window_opened_byte_by_byte_is_cut() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(&redis).await;
    let mut client = Http2::connect(&gateway, &BLOCKED).await;
    let code = 'cut: {
        for id in (1..).step_by(2) {
            client.send(&get(id, "/nothing")).await;
            loop {
                if !client.try_send(&frame(WINDOW_UPDATE, 0, id, &[0, 0, 0, 1])).await {
                    break 'cut client.goaway().await;
                }
                let frame = client.next().await.expect("a frame");
                match frame.kind {
                    GOAWAY => break 'cut Some(frame.code()),
                    DATA if frame.ends() => break,
                    _ => {}
                }
            }
        }
        None
    };
    assert_eq!(code, Some(ENHANCE_YOUR_CALM));
}

#[tokio::test]
async fn header_block_size_is_limited() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(&redis).await;
    let client = Client::builder().http2_prior_knowledge().build().unwrap();
    let get_with =
        |bytes| client.get(gateway.url("/nothing")).header("x-long", "x".repeat(bytes)).send();
    assert_eq!(get_with(15 << 10).await.unwrap().status(), 404);
    // reqwest's h2 respects our limit, so the frames are built by hand.
    let mut raw = Http2::connect(&gateway, &[]).await;
    let long = "x".repeat(16 << 10);
    let fields = [request("GET", "/nothing"), vec![("x-long", &*long)]].concat();
    let block = block(&fields);
    let (first, rest) = block.split_at(16 << 10);
    raw.send(&frame(HEADERS, 1, 1, first)).await;
    raw.send(&frame(CONTINUATION, END_HEADERS, 1, rest)).await;
    let answer = raw.next_of(1).await;
    // 431 has no entry in the static table; its digits are Huffman-coded.
    assert!(
        answer.kind == HEADERS && answer.ends() && answer.payload.starts_with(STATUS_431),
        "{answer:?}"
    );
}

#[tokio::test]
async fn continuation_flood_is_cut() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(&redis).await;
    let before = gateway.anonymous();
    let mut client = Http2::connect(&gateway, &[]).await;
    client.send(&frame(HEADERS, 0, 1, &block(&request("GET", "/nothing")))).await;
    let part = frame(CONTINUATION, 0, 1, &block(&[("x-long", &"x".repeat(16_000))]));
    let mut sent = 0;
    while sent < 24 * MIB && client.try_send(&part).await {
        sent += part.len() as u64;
    }
    assert!(sent < 12 * MIB, "{sent} bytes were taken");
    assert_eq!(client.goaway().await, Some(ENHANCE_YOUR_CALM));
    assert!(gateway.anonymous() < before + 8 * MIB);
}

#[tokio::test]
async fn invalid_frames_write_no_log_lines() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(&redis).await;
    let mut client = Http2::connect(&gateway, &[]).await;
    client.send(&frame(PING, ACK, 0, b"somewhat").repeat(100)).await;
    // The gateway has read them when it responds.
    client.send(&frame(PING, 0, 0, b"somewhat")).await;
    while !matches!(client.next().await, Some(Frame { kind: PING, .. })) {}
    assert_eq!(gateway.log_text().matches("PING ack").count(), 0, "{}", gateway.log_text());
}

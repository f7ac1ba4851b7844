//! Heap memory that an idle stream holds, in bytes that are allocated and not freed: unlike the
//! memory of the process (`loadtest idle`), this does not depend on pages, other tests or load.
//!
//! The gateways run in this program, started again, which reports glibc's own count.

#[allow(dead_code, unused_imports)]
#[path = "../gateway/harness/mod.rs"]
mod harness;

mod heap;
mod sockets;

use harness::{Redis, eventually};
use heap::Measured;
use sockets::{Sockets, Tls, VERSIONS};

/// Streams that allocate what is shared by all.
const FIRST: usize = 100;
/// Streams that are measured.
const STREAMS: usize = 400;
/// Streams of a connection over HTTP/2.
const PER_CONNECTION: usize = 100;

/// Opens streams, and waits until each holds at most `at_most` bytes: what it needed to begin is
/// freed soon.
async fn assert_held(gateway: &Measured, sockets: &Sockets<'_>, at_most: usize) {
    let mut open = Vec::new();
    sockets.open(&mut open, FIRST).await;
    let before = gateway.settled_bytes().await;
    sockets.open(&mut open, STREAMS).await;
    let mut seen = None;
    eventually(&format!("at most {at_most} bytes for each stream"), || {
        let each = gateway.held_bytes().saturating_sub(before) / STREAMS;
        if seen.replace(each) != Some(each) {
            println!("{each} bytes for each stream; at most {at_most}");
        }
        std::future::ready((each <= at_most).then_some(()))
    })
    .await;
}

#[tokio::test]
async fn idle_stream_holds_at_most_2_kib() {
    let redis = Redis::start().await;
    let gateway = Measured::start(&redis, None).await;
    assert_held(&gateway, &Sockets::http1(&gateway, None), 2 << 10).await;
}

#[tokio::test]
async fn idle_stream_over_tls_holds_at_most_6_kib() {
    let redis = Redis::start().await;
    for version in VERSIONS {
        let tls = Tls::new(version);
        let gateway = Measured::start(&redis, Some(&tls)).await;
        assert_held(&gateway, &Sockets::http1(&gateway, Some(&tls)), 6 << 10).await;
    }
}

#[tokio::test]
async fn idle_stream_over_http2_holds_at_most_4_kib() {
    let redis = Redis::start().await;
    let tls = Tls::new(VERSIONS[0]);
    for tls in [None, Some(&tls)] {
        let gateway = Measured::start(&redis, tls).await;
        assert_held(&gateway, &Sockets::http2(&gateway, tls), 4 << 10).await;
    }
}

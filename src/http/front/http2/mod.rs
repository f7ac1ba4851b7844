//! HTTP/2 with the `h2` crate.
//!
//! actix's HTTP/2 dispatcher is not used: it sets no limit on concurrent streams and has no setting
//! for one, waits forever for a client that opens no window, and can neither detect a stream reset
//! nor send GOAWAY. One connection without a ticket could use all memory (docs/reference/http2.md).
//! The requests are still passed to the same actix app.
//!
//! Limits of each connection:
//!
//! | what | limit |
//! |---|---|
//! | concurrent streams | `limits.http2_max_concurrent_streams`; more are refused (REFUSED_STREAM) |
//! | a header block | 16 KiB decoded: 431; more than 6 frames: ENHANCE_YOUR_CALM |
//! | bytes that wait for the client | 16 KiB per stream ([`stream`]) |
//! | bytes of request bodies that wait for a handler | the windows below |
//! | a response without progress | `limits.stall`, then the stream is reset |
//! | a socket that accepts no data | `limits.stall`, then it is closed |
//! | frames that do no work | a token bucket ([`budget`]), then ENHANCE_YOUR_CALM |
//! | time without a request | 10 s before the first, then 60 s |
//! | time without an event stream | none, unless sockets are scarce: see [`Peer::poll_evicted`] |

mod budget;
mod driver;
mod frames;
mod metered;
mod request;
mod response;
mod shared;
mod stream;

use std::{future::poll_fn, net::SocketAddr, pin::Pin, rc::Rc, time::Duration};

use actix_http::{Request, Response, body::BoxBody};
use actix_service::Service;
use actix_web::{body::MessageBody, rt::time::timeout};
use bytes::Bytes;
use h2::server::{Builder, Connection};
use tokio::io::{AsyncRead, ReadBuf};

pub use self::shared::Connections;
use self::{
    driver::{Driver, Parts},
    metered::Metered,
    shared::Shared,
};
use super::{HEAD, http1::MAX_HEAD_BYTES, prefixed::Prefixed};
use crate::{
    http::sockets::{peer::Peer, tcp::ClientTcp},
    settings::Limits,
};

/// Maximum number of bytes of a request's body that a client may send before the handler reads
/// them.
const STREAM_WINDOW_BYTES: u32 = 64 << 10;
/// The same for all requests of a connection.
const CONNECTION_WINDOW_BYTES: u32 = 256 << 10;
/// How long streams that we have reset are remembered, so that frames in flight are ignored. Later
/// frames are connection errors.
const RESET_MEMORY: Duration = Duration::from_secs(10);
const RESETS_REMEMBERED: usize = 64;
/// Maximum number of refused and malformed requests of a connection.
const MAX_STREAM_ERRORS: usize = 1024;
/// Maximum time, and maximum number of inbound bytes, to wait for a client to read the last frames.
const LINGER: Duration = Duration::from_secs(1);
const MAX_LINGER_BYTES: usize = 1 << 20;

/// The settings of HTTP/2 connections.
#[derive(Clone, Copy, Debug)]
pub struct Http2Limits {
    /// Maximum number of concurrent streams of a connection.
    pub max_concurrent_streams: u32,
    /// Maximum time without progress of a response or of the socket.
    pub stall: Duration,
}

impl Http2Limits {
    /// The limits from the settings.
    pub fn of(limits: &Limits) -> Self {
        Self { max_concurrent_streams: limits.http2_max_concurrent_streams, stall: limits.stall }
    }
}

/// The shared state of the HTTP/2 connections of one worker.
pub struct Worker<S> {
    /// The app.
    pub service: Rc<S>,
    /// The limits of each connection.
    pub limits: Http2Limits,
    /// All connections.
    pub connections: Connections,
}

/// Serves a connection until it ends.
pub async fn serve<S, B>(io: Prefixed, peer: Peer, worker: Worker<S>)
where
    S: Service<Request> + 'static,
    S::Response: Into<Response<B>>,
    S::Error: Into<Response<BoxBody>>,
    B: MessageBody + 'static,
{
    let address = io.socket.address();
    let shared = Shared::new(worker.limits.max_concurrent_streams);
    let io = Metered::new(io, shared.clone());
    if let Some(connection) = handshake(io, &peer, worker.limits, &shared).await {
        drive::<S, B>(connection, address, peer.clone(), worker, shared.clone()).await;
    }
    let Some(socket) = shared.returned.take().filter(|_| !shared.is_evicted()) else { return };
    peer.touch(false);
    tokio::select! {
        _ = timeout(LINGER, linger(socket)) => {}
        () = peer.evicted() => {}
    }
}

async fn drive<S, B>(
    connection: Connection<Metered, Bytes>,
    address: SocketAddr,
    peer: Peer,
    worker: Worker<S>,
    shared: Rc<Shared>,
) where
    S: Service<Request> + 'static,
    S::Response: Into<Response<B>>,
    S::Error: Into<Response<BoxBody>>,
    B: MessageBody + 'static,
{
    let entry = worker.connections.add(&shared);
    let Worker { service, limits, .. } = worker;
    let parts = Parts { service, address, peer, limits, entry };
    let mut driver = Driver::<S, B>::new(connection, shared, parts);
    poll_fn(|cx| driver.poll(cx)).await;
}

/// Exchanges the prefaces; `None` if the client did not do so in time, or was evicted.
async fn handshake(
    io: Metered,
    peer: &Peer,
    limits: Http2Limits,
    shared: &Shared,
) -> Option<Connection<Metered, Bytes>> {
    let handshake = builder(limits).handshake(io);
    tokio::select! {
        connection = timeout(HEAD, handshake) => connection.ok()?.ok(),
        () = peer.evicted() => {
            shared.set_evicted();
            None
        }
    }
}

fn builder(limits: Http2Limits) -> Builder {
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(limits.max_concurrent_streams)
        .max_header_list_size(MAX_HEAD_BYTES as u32)
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buffer_size(stream::SEND_BYTES)
        // The token bucket limits their rate, and the limit of streams their number.
        .max_pending_accept_reset_streams(limits.max_concurrent_streams as usize)
        .max_concurrent_reset_streams(RESETS_REMEMBERED)
        .reset_stream_duration(RESET_MEMORY)
        .max_local_error_reset_streams(Some(MAX_STREAM_ERRORS));
    builder
}

/// Reads and discards what the client still sends. Otherwise the kernel would send a reset, and the
/// client might not read the GOAWAY.
async fn linger(mut socket: ClientTcp) {
    let (mut bytes, mut received_bytes) = ([0; 512], 0);
    while received_bytes < MAX_LINGER_BYTES {
        let mut buffer = ReadBuf::new(&mut bytes);
        let read = poll_fn(|cx| Pin::new(&mut socket).poll_read(cx, &mut buffer)).await;
        if read.is_err() || buffer.filled().is_empty() {
            return;
        }
        received_bytes += buffer.filled().len();
    }
}

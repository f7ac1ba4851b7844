//! HTTP/2, by the `h2` crate directly.
//!
//! Why not actix: its HTTP/2 dispatcher sets no limit on concurrent streams and offers no setting
//! for one, it waits for ever for a client that opens no window, and it can neither notice that a
//! stream was reset nor send GOAWAY. One connection without a ticket could take all memory
//! (docs/reference/http2.md). The requests still go through the same actix app.
//!
//! What is bounded, for each connection:
//!
//! | what | by |
//! |---|---|
//! | concurrent streams | `limits.http2_max_concurrent_streams`; more are refused (REFUSED_STREAM) |
//! | a header block | 16 KiB decoded: 431; more than 6 frames: ENHANCE_YOUR_CALM |
//! | bytes that wait for the client | 16 KiB per stream ([`stream`]) |
//! | bytes of request bodies that wait for a handler | the windows below |
//! | a response without progress | `limits.stall`, then the stream is reset |
//! | a socket that takes nothing | `limits.stall`, then it is closed |
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
use super::{
    HEAD,
    http1::MAX_HEAD_BYTES,
    prefixed::Prefixed,
    socket::{Socket, tcp_of},
};
use crate::{http::peer::Peer, settings::Limits};

/// What a client may send of one request's body before the handler reads it.
const STREAM_WINDOW_BYTES: u32 = 64 << 10;
/// The same for all requests of a connection.
const CONNECTION_WINDOW_BYTES: u32 = 256 << 10;
/// Streams that were reset by us are remembered for this long: what their clients have sent before
/// they knew is ignored. Later it is an error of the connection.
const RESET_MEMORY: Duration = Duration::from_secs(10);
const RESETS_REMEMBERED: usize = 64;
/// Refused and malformed requests in the life of a connection.
const MAX_STREAM_ERRORS: usize = 1024;
/// A client whose connection was closed may take this long, and say this much, to read the last
/// words.
const LINGER: Duration = Duration::from_secs(1);
const MAX_LINGER_BYTES: usize = 1 << 20;

/// The settings of HTTP/2 connections.
#[derive(Clone, Copy, Debug)]
pub struct Http2Limits {
    /// Streams that a client may have open at once on one connection.
    pub max_concurrent_streams: u32,
    /// Longest time without progress of a response, or of the socket.
    pub stall: Duration,
}

impl Http2Limits {
    /// As the settings have them.
    pub fn of(limits: &Limits) -> Self {
        Self { max_concurrent_streams: limits.http2_max_concurrent_streams, stall: limits.stall }
    }
}

/// What the HTTP/2 connections of one worker share.
pub struct Worker<S> {
    /// The app.
    pub service: Rc<S>,
    /// The bounds.
    pub limits: Http2Limits,
    /// All connections.
    pub connections: Connections,
}

/// Serves a connection until it is over.
pub async fn serve<S, B>(io: Prefixed, peer: Peer, worker: Worker<S>)
where
    S: Service<Request> + 'static,
    S::Response: Into<Response<B>>,
    S::Error: Into<Response<BoxBody>>,
    B: MessageBody + 'static,
{
    let address = tcp_of(&io.socket).address();
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

/// Exchanges the prefaces; `None`: the client did not, or not in time, or was evicted.
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
        // Their rate is the token bucket's business, their number that of the streams.
        .max_pending_accept_reset_streams(limits.max_concurrent_streams as usize)
        .max_concurrent_reset_streams(RESETS_REMEMBERED)
        .reset_stream_duration(RESET_MEMORY)
        .max_local_error_reset_streams(Some(MAX_STREAM_ERRORS));
    builder
}

/// Reads what the client still says: the kernel would answer that with a reset, and the client
/// might never read the GOAWAY.
async fn linger(mut socket: Socket) {
    let (mut bytes, mut heard) = ([0; 512], 0);
    while heard < MAX_LINGER_BYTES {
        let mut buffer = ReadBuf::new(&mut bytes);
        let read = poll_fn(|cx| Pin::new(&mut socket).poll_read(cx, &mut buffer)).await;
        if read.is_err() || buffer.filled().is_empty() {
            return;
        }
        heard += buffer.filled().len();
    }
}

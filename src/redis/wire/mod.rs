//! A RESP3 connection to Redis for the link (ADR 0007). It differs from that of redis-rs:
//!
//! - Replies stay paired with commands when a cluster ends subscriptions (`pending.rs`).
//! - A frame has a maximum length, and so have all queues.
//! - A message is handled in the buffer into which it was read, without a copy.
//! - The end of the connection has a reason.
//!
//! | file | purpose |
//! |---|---|
//! | `socket.rs`, `handshake.rs` | TCP, TLS, Unix socket; `HELLO` |
//! | `frame.rs` | where a frame ends |
//! | `push.rs` | messages and confirmations |
//! | `pending.rs` | which reply belongs to which command |
//! | `task.rs` | reads and writes |
//! | `batching.rs` | when to pause between reads |
//! | `commands.rs` | sends commands and waits for their replies |

mod batching;
mod commands;
mod error;
mod frame;
mod handshake;
mod pending;
mod push;
mod socket;
mod task;

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use parking_lot::Mutex;
use redis::ConnectionInfo;
use rustls::ClientConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{mpsc, oneshot},
};

use self::pending::Pending;
pub use self::{
    commands::Sent,
    error::{EndReason, OpenError},
    frame::FrameError,
    push::Push,
};

/// Maximum length of a message or reply, in bytes. By default Redis disconnects a subscriber whose
/// output exceeds 32 MB (`client-output-buffer-limit pubsub`), so a longer message does not arrive
/// there either. It exceeds the largest `history.max_event_bytes` (16 MiB).
pub const MAX_FRAME_BYTES: usize = 32 << 20;
/// Maximum number of batches of commands that are not written yet.
const UNWRITTEN: usize = 1024;

/// The handle to a connection, which ends when the handle is dropped.
pub struct Connection {
    pending: Arc<Mutex<Pending>>,
    /// To the task, which writes them in this order.
    writer: mpsc::Sender<Vec<u8>>,
    /// How long to wait for a reply.
    timeout: Duration,
    db: i64,
    /// Numbers the texts of `PING`.
    pings: AtomicU64,
}

/// The end of a connection.
#[derive(Debug)]
pub struct End(oneshot::Receiver<EndReason>);

impl Connection {
    /// Connects to a server, and calls `push` with everything that comes without a request,
    /// in the order of the replies. `push` runs in the task that
    /// reads, so it must not take long. `timeout` limits this call, and later the time to wait for
    /// a reply. `tls` is used if the address requires it.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open(
        server: &ConnectionInfo,
        tls: Option<Arc<ClientConfig>>,
        timeout: Duration,
        push: impl FnMut(Push<'_>) + Send + 'static,
    ) -> Result<(Self, End), OpenError> {
        let open = async {
            let socket = socket::connect(server.addr(), server.tcp_settings(), tls).await?;
            let (mut connection, mut end) = Self::start(socket, timeout, MAX_FRAME_BYTES, push);
            match handshake::greet(&mut connection, server.redis_settings()).await {
                Ok(()) => Ok((connection, end)),
                // The time of its commands ends with that of this call.
                Err(error) if error.is_timeout() => Err(OpenError::Timeout),
                Err(error) => Err(end.try_get().map_or(OpenError::Refused(error), Into::into)),
            }
        };
        tokio::time::timeout(timeout, open).await.map_err(|_| OpenError::Timeout)?
    }

    /// Starts the task of a connection on an open socket.
    fn start(
        socket: (impl AsyncRead + Send + Unpin + 'static, impl AsyncWrite + Send + Unpin + 'static),
        timeout: Duration,
        frame_limit: usize,
        push: impl FnMut(Push<'_>) + Send + 'static,
    ) -> (Self, End) {
        let (writer, commands) = mpsc::channel(UNWRITTEN);
        let (end_sender, end) = oneshot::channel();
        let pending = Arc::new(Mutex::new(Pending::default()));
        let outputs = task::Outputs { pending: pending.clone(), push, end: end_sender };
        tokio::spawn(task::run(socket, commands, frame_limit, outputs));
        let pings = AtomicU64::new(0);
        (Self { pending, writer, timeout, db: 0, pings }, End(end))
    }
}

impl End {
    /// Waits for it. If the future is dropped, nothing is lost.
    pub async fn wait(&mut self) -> EndReason {
        // The task has ended, or panicked.
        (&mut self.0).await.unwrap_or(EndReason::Dropped)
    }

    /// Why the connection has ended, once.
    pub fn try_get(&mut self) -> Option<EndReason> {
        self.0.try_recv().ok()
    }
}

#[cfg(test)]
mod tests;

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
/// Maximum number of ended subscriptions that are not handled yet.
const MAX_ENDED: usize = 1 << 20;

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

/// What happens on a connection without a request.
#[derive(Debug)]
pub struct Notices {
    ended_subscriptions: mpsc::Receiver<String>,
    end: oneshot::Receiver<EndReason>,
}

/// One of the [`Notices`].
#[derive(Debug)]
pub enum Notice {
    /// The server has ended the subscriptions of these shard channels: their slots have moved to
    /// another server.
    SubscriptionsEnded(Vec<String>),
    /// The connection has ended. This is the last notice.
    End(EndReason),
}

impl Connection {
    /// Connects to a server, and calls `push` with every message. `push` runs in the task that
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
    ) -> Result<(Self, Notices), OpenError> {
        let open = async {
            let socket = socket::connect(server.addr(), server.tcp_settings(), tls).await?;
            let (mut connection, mut notices) = Self::start(socket, timeout, MAX_FRAME_BYTES, push);
            match handshake::greet(&mut connection, server.redis_settings()).await {
                Ok(()) => Ok((connection, notices)),
                // The time of its commands ends with that of this call.
                Err(error) if error.is_timeout() => Err(OpenError::Timeout),
                Err(error) => Err(notices.try_end().map_or(OpenError::Refused(error), Into::into)),
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
    ) -> (Self, Notices) {
        let (writer, commands) = mpsc::channel(UNWRITTEN);
        let (ended_sender, ended_subscriptions) = mpsc::channel(MAX_ENDED);
        let (end_sender, end) = oneshot::channel();
        let pending = Arc::new(Mutex::new(Pending::default()));
        let outputs = task::Outputs {
            pending: pending.clone(),
            push,
            ended_subscriptions: ended_sender,
            end: end_sender,
        };
        tokio::spawn(task::run(socket, commands, frame_limit, outputs));
        let pings = AtomicU64::new(0);
        (Self { pending, writer, timeout, db: 0, pings }, Notices { ended_subscriptions, end })
    }
}

impl Notices {
    /// Waits for the next notice. If the future is dropped, no notice is lost.
    pub async fn next(&mut self) -> Notice {
        let mut channels = Vec::new();
        let received = self.ended_subscriptions.recv_many(&mut channels, MAX_ENDED).await;
        if received > 0 {
            return Notice::SubscriptionsEnded(channels);
        }
        // The task has ended, or panicked.
        Notice::End((&mut self.end).await.unwrap_or(EndReason::Dropped))
    }

    /// Why the connection has ended, once.
    pub fn try_end(&mut self) -> Option<EndReason> {
        self.end.try_recv().ok()
    }
}

#[cfg(test)]
mod tests;

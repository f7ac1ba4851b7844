//! The handle to a client's socket that the code besides its owner has.

use std::{
    future::poll_fn,
    rc::Weak,
    task::{Context, Poll},
};

use super::tcp::Inner;
use crate::state::client_liveness::Progress;

/// A weak handle to a client's socket. It does not keep the descriptor open: after the owner has
/// dropped the socket, calls have no effect, even if the descriptor's number is in use again.
#[derive(Clone)]
pub struct Peer(Weak<Inner>);

impl Peer {
    pub(super) fn new(socket: Weak<Inner>) -> Self {
        Self(socket)
    }

    /// Whether the socket has event streams or admitted polls.
    pub fn has_streams(&self) -> bool {
        self.ask(Inner::has_streams)
    }

    /// Counts a new stream or poll. The socket is no longer idle.
    pub fn stream_began(&self) {
        if let Some(socket) = self.0.upgrade() {
            socket.stream_began();
        }
    }

    /// Counts the end of a stream or poll. After the last one, the socket is idle again.
    pub fn stream_ended(&self) {
        if let Some(socket) = self.0.upgrade() {
            socket.stream_ended();
        }
    }

    /// Records activity of the client: other idle sockets are evicted before this one. With
    /// `has_request`, a request is in progress, and a closing listener waits for it.
    pub fn touch(&self, has_request: bool) {
        if let Some(socket) = self.0.upgrade() {
            socket.touch(has_request);
        }
    }

    /// Ready when the socket must be closed because another one needs its descriptor; never while
    /// it has streams. Only one task may poll it.
    pub fn poll_evicted(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.upgrade().map_or(Poll::Pending, |socket| socket.poll_evicted(cx))
    }

    /// Waits until the socket must be closed, see [`Peer::poll_evicted`].
    pub async fn evicted(&self) {
        poll_fn(|cx| self.poll_evicted(cx)).await;
    }

    /// What the client has acknowledged; `None` if it is unknown or the socket is closed.
    pub fn progress(&self) -> Option<Progress> {
        self.0.upgrade()?.progress()
    }

    /// See [`ClientLiveness::write_now`](crate::state::client_liveness::ClientLiveness::write_now).
    pub fn write_now(&self, chunks: &[u8]) -> bool {
        self.ask(|socket| socket.write_now(chunks))
    }

    /// Continues with a socket that waits without a task
    /// ([`ClientLiveness::resume_writer`](crate::state::client_liveness)).
    pub fn resume(&self) {
        if let Some(socket) = self.0.upgrade() {
            socket.resume();
        }
    }

    /// Whether the socket waits without a task.
    #[cfg(test)]
    pub fn is_watched(&self) -> bool {
        self.ask(Inner::is_watched)
    }

    /// Records that the stream of the socket is live.
    pub fn set_live(&self) {
        if let Some(socket) = self.0.upgrade() {
            socket.set_live();
        }
    }

    /// Ends the connection after its last stream. HTTP/1.1 announces this with `connection: close`,
    /// HTTP/2 with GOAWAY.
    pub fn retire(&self) {
        self.ask(|socket| socket.retired.replace(true));
    }

    /// Whether the connection was retired.
    pub fn is_retired(&self) -> bool {
        self.ask(|socket| socket.retired.get())
    }

    /// Discards unsent data and resets the connection. Returns whether this took effect.
    pub fn abort(&self) -> bool {
        self.ask(Inner::abort)
    }

    /// Evaluates a condition; `false` if the socket is closed.
    fn ask(&self, question: impl FnOnce(&Inner) -> bool) -> bool {
        self.0.upgrade().is_some_and(|socket| question(&socket))
    }
}

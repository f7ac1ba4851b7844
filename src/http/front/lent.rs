//! A connection as actix has it: lent. When it is idle and its next request is not for actix, actix sees its end, and the connection
//! comes home: browsers and proxies use a connection again, and their streams should cost no more than others.

use std::{
    cell::Cell,
    io::{self, IoSlice},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::paced::{Next, Paced};
use crate::http::{
    peer::Peer,
    sockets::idle::{IdleSocket, IdleSockets},
};

/// Where a connection is found that came home.
pub type Home = Rc<Cell<Option<Paced>>>;

enum Fate {
    Open,
    /// For actix it is over; it comes home.
    Returns,
    /// It is over.
    GivesWay,
}

/// See the module.
pub struct Lent {
    /// Gone only while it is dropped.
    io: Option<Paced>,
    peer: Peer,
    home: Home,
    fate: Fate,
    idle: IdleSockets,
    /// While no request is under way.
    entry: Option<IdleSocket>,
}

impl Lent {
    /// Lends it.
    pub fn new(io: Paced, peer: Peer, idle: IdleSockets, home: Home) -> Self {
        Self { io: Some(io), peer, home, fate: Fate::Open, idle, entry: None }
    }

    /// The client at its other end.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    fn io(&mut self) -> &mut Paced {
        self.io.as_mut().expect("it is here until it is dropped")
    }

    fn wrote(&mut self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if matches!(written, Poll::Ready(Ok(_))) {
            self.io().answered();
        }
        written
    }

    /// Whether it has to give way to others that wait: it has no request under way and carries no stream.
    fn gives_way(&mut self, cx: &mut Context<'_>) -> bool {
        if !self.io().is_idle() || self.peer.has_streams() {
            self.entry = None;
            return false;
        }
        let entry = self.entry.get_or_insert_with(|| self.idle.enter());
        entry.poll_evicted(cx).is_ready()
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if matches!(self.fate, Fate::Returns) {
            self.home.set(self.io.take());
        }
    }
}

impl AsyncRead for Lent {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !matches!(self.fate, Fate::Open) {
            return Poll::Ready(Ok(()));
        }
        match self.io().poll_pass(cx, buffer)? {
            Poll::Ready(Next::NotForActix) => self.fate = Fate::Returns,
            // Who says something is the last to give way.
            Poll::Ready(Next::Bytes) => self.entry = None,
            Poll::Pending if self.gives_way(cx) => self.fate = Fate::GivesWay,
            Poll::Pending => return Poll::Pending,
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Lent {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = self.io().socket_mut().poll_write(cx, bytes);
        self.wrote(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = self.io().socket_mut().poll_write_vectored(cx, slices);
        self.wrote(written)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = self.io().socket_mut().poll_flush(cx);
        // All is out that its streams had to say.
        if flushed.is_ready() && matches!(self.fate, Fate::Open) && self.peer.is_over() {
            self.fate = Fate::GivesWay;
            cx.waker().wake_by_ref();
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.fate {
            Fate::Returns => Poll::Ready(Ok(())),
            Fate::Open | Fate::GivesWay => self.io().socket_mut().poll_shutdown(cx),
        }
    }
}

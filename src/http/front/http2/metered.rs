//! The socket that h2 uses: counts inbound frames, and records since when the client has accepted
//! no data.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Instant,
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{frames::FrameScanner, shared::Shared};
use crate::http::front::prefixed::Prefixed;

/// A metered socket. Dropping it moves the socket to [`Shared::returned`].
pub struct Metered {
    io: Option<Prefixed>,
    frames: FrameScanner,
    shared: Rc<Shared>,
}

impl Metered {
    /// Meters a connection, from its first byte.
    pub fn new(io: Prefixed, shared: Rc<Shared>) -> Self {
        Self { io: Some(io), frames: FrameScanner::new(), shared }
    }

    fn io(&mut self) -> Pin<&mut Prefixed> {
        Pin::new(self.io.as_mut().expect("it is here until it is dropped"))
    }

    /// Records whether the socket accepted data.
    fn record<T>(&self, written: Poll<T>) -> Poll<T> {
        let since = &self.shared.blocked_since;
        match written {
            Poll::Pending if since.get().is_none() => since.set(Some(Instant::now())),
            Poll::Pending => {}
            Poll::Ready(_) => since.set(None),
        }
        written
    }
}

impl Drop for Metered {
    fn drop(&mut self) {
        self.shared.returned.set(self.io.take().map(|io| io.socket));
    }
}

impl AsyncRead for Metered {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        // The driver runs in the same task and closes the connection right after this.
        if this.shared.is_flooded() {
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        let read = this.io().poll_read(cx, buffer);
        let shared = &this.shared;
        this.frames.scan(&buffer.filled()[before..], |head| shared.count(head));
        read
    }
}

impl AsyncWrite for Metered {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = self.io().poll_write(cx, bytes);
        self.record(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = self.io().poll_write_vectored(cx, slices);
        self.record(written)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = self.io().poll_flush(cx);
        self.record(flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io().poll_shutdown(cx)
    }
}

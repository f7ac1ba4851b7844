//! HTTP/2 as actix serves it. Behind one function, so that it can be replaced.

use std::{
    io::{self, IoSlice},
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
};

use actix_http::{Protocol, error::DispatchError};
use actix_service::Service;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    prefixed::Prefixed,
    waiting::{Place, Waiting},
};
use crate::http::peer::Peer;

/// Serves a connection that began with the preface of HTTP/2.
///
/// # Errors
/// Those of actix.
pub async fn serve<H>(io: Prefixed, peer: Option<Peer>, waiting: Waiting, http: &H) -> Result<(), DispatchError>
where
    H: Service<(Idle, Protocol, Option<SocketAddr>), Response = (), Error = DispatchError>,
{
    let address = io.socket.tcp().peer_addr().ok();
    let io = Idle { io, peer, waiting, place: None, over: false };
    http.call((io, Protocol::Http2, address)).await
}

/// A connection that counts as idle while no streams run over it.
pub struct Idle {
    io: Prefixed,
    peer: Option<Peer>,
    waiting: Waiting,
    /// While no streams run over it.
    place: Option<Place>,
    /// actix sees its end.
    over: bool,
}

impl Idle {
    /// The client's socket; None: it has gone already.
    pub fn peer(&self) -> Option<&Peer> {
        self.peer.as_ref()
    }

    /// Whether it has to give way to other idle connections.
    fn gives_way(&mut self, cx: &mut Context<'_>) -> bool {
        if self.peer.as_ref().is_some_and(Peer::has_streams) {
            self.place = None;
            return false;
        }
        let place = self.place.get_or_insert_with(|| self.waiting.enter());
        place.poll_lost(cx).is_ready()
    }
}

impl AsyncRead for Idle {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.over {
            return Poll::Ready(Ok(()));
        }
        match Pin::new(&mut self.io).poll_read(cx, buffer) {
            // A connection that says something is the last to give way.
            Poll::Ready(read) => {
                self.place = None;
                Poll::Ready(read)
            }
            Poll::Pending if self.gives_way(cx) => {
                self.over = true;
                Poll::Ready(Ok(()))
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncWrite for Idle {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.io).poll_flush(cx);
        // All is out that its streams had to say.
        if flushed.is_ready() && !self.over && self.peer.as_ref().is_some_and(Peer::is_over) {
            self.over = true;
            cx.waker().wake_by_ref();
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

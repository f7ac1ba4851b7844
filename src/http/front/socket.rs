//! A client's connection: cleartext, or TLS by rustls.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::server::TlsStream;

use crate::http::sockets::tcp::ClientTcp;

/// See the module.
pub enum Socket {
    /// Cleartext.
    Clear(ClientTcp),
    /// Boxed: most are cleartext, and it is large.
    Tls(Box<TlsStream<ClientTcp>>),
}

macro_rules! inner {
    ($self:ident, $method:ident($($argument:expr),*)) => {
        match $self.get_mut() {
            Self::Clear(io) => Pin::new(io).$method($($argument),*),
            Self::Tls(io) => Pin::new(io).$method($($argument),*),
        }
    };
}

impl Socket {
    /// What carries it.
    pub fn tcp(&self) -> &ClientTcp {
        match self {
            Self::Clear(io) => io,
            Self::Tls(io) => io.get_ref().0,
        }
    }

    /// Whether the TLS handshake has agreed on HTTP/2.
    pub fn is_http2(&self) -> bool {
        match self {
            Self::Clear(_) => false,
            Self::Tls(io) => io.get_ref().1.alpn_protocol() == Some(b"h2"),
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        inner!(self, poll_read(cx, buffer))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        inner!(self, poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        inner!(self, poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        inner!(self, poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        inner!(self, poll_shutdown(cx))
    }
}

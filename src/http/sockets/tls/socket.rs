//! Reads and writes of a client's TCP connection with TLS. What the system does not accept is kept
//! with the connection, encrypted, and sent before anything else.

use std::{
    future::poll_fn,
    io::{self, IoSlice},
    sync::Arc,
    task::{Context, Poll, ready},
};

use rustls::ServerConfig;
use tokio::io::ReadBuf;

use super::{
    TlsSession,
    buffers::{MAX_PLAINTEXT_BYTES, with_inbound, with_joined, with_outbound},
};
use crate::http::sockets::tcp::ClientTcp;

impl ClientTcp {
    /// Performs the handshake. From then on, what is read and written is plaintext.
    ///
    /// # Errors
    /// The handshake has failed, or the client has disconnected.
    pub async fn accept_tls(self, config: Arc<ServerConfig>) -> io::Result<Self> {
        self.start_tls(Box::new(TlsSession::new(config).map_err(io::Error::other)?));
        let handshake = |tls: &mut TlsSession, cx: &mut Context<'_>| tls.poll_handshake(&self, cx);
        poll_fn(|cx| self.with_tls(|tls| handshake(tls, cx)).unwrap_or(Poll::Ready(Ok(()))))
            .await?;
        Ok(self)
    }

    /// Whether the TLS handshake has agreed on HTTP/2.
    pub fn has_agreed_on_http2(&self) -> bool {
        self.with_tls(|tls| tls.has_agreed_on_http2()) == Some(true)
    }

    /// Whether a read returns something that has arrived before, so that the system will not report
    /// that the socket is readable.
    pub fn has_unread(&self) -> bool {
        self.with_tls(|tls| tls.has_unread()) == Some(true)
    }
}

impl TlsSession {
    fn poll_handshake(&mut self, tcp: &ClientTcp, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(tcp.poll_unwritten(cx))?;
            if !self.is_handshaking() {
                return Poll::Ready(Ok(()));
            }
            ready!(self.poll_receive(tcp, cx))?;
        }
    }

    /// Reads plaintext; nothing if the client has sent close_notify.
    pub fn poll_read(
        &mut self,
        tcp: &ClientTcp,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while !self.read(buffer) {
            ready!(self.poll_receive(tcp, cx))?;
        }
        Poll::Ready(Ok(()))
    }

    /// Processes the result of one read.
    fn poll_receive(&mut self, tcp: &ClientTcp, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        with_inbound(|bytes| {
            let count = ready!(tcp.poll_read_bytes(cx, bytes))?;
            if count == 0 {
                // Without close_notify, somebody may have cut the connection.
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            with_outbound(|outbound| {
                let received = self.receive(&mut bytes[..count], outbound);
                let sent = tcp.send(cx, outbound);
                Poll::Ready(received.and(sent))
            })
        })
    }

    /// Writes plaintext, at most [`MAX_PLAINTEXT_BYTES`].
    pub fn poll_write(
        &mut self,
        tcp: &ClientTcp,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(tcp.poll_unwritten(cx))?;
        let bytes = &bytes[..bytes.len().min(MAX_PLAINTEXT_BYTES)];
        with_outbound(|outbound| {
            let encrypted = self.encrypt(bytes, outbound);
            let sent = tcp.send(cx, outbound);
            Poll::Ready(encrypted.and(sent).map(|()| bytes.len()))
        })
    }

    /// As [`TlsSession::poll_write`], in as few records as possible.
    pub fn poll_write_vectored(
        &mut self,
        tcp: &ClientTcp,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        with_joined(slices, |bytes| self.poll_write(tcp, cx, bytes))
    }

    /// Sends close_notify.
    pub fn poll_close(&mut self, tcp: &ClientTcp, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        with_outbound(|outbound| {
            // Once the connection has failed, there is nothing to close.
            let _ = self.close(outbound);
            tcp.send(cx, outbound)
        })?;
        tcp.poll_unwritten(cx)
    }

    /// Processes bytes of a client whose plaintext is discarded. Fails if it has ended the
    /// connection.
    pub fn discard_received(&mut self, tcp: &ClientTcp, bytes: &mut [u8]) -> io::Result<()> {
        with_outbound(|outbound| {
            let received = self.receive(bytes, outbound);
            tcp.send_now(outbound);
            received
        })?;
        self.discard();
        match self.has_unread() {
            true => Err(io::ErrorKind::UnexpectedEof.into()),
            false => Ok(()),
        }
    }
}

/// Encrypts chunks and calls `send` with the records. Returns whether the chunks were taken;
/// otherwise, the connection is over, and `send` gets what the client must know.
pub fn encrypt_now(
    tls: Box<TlsSession>,
    chunks: &[u8],
    send: impl FnOnce(Box<TlsSession>, &[u8]),
) -> bool {
    let mut tls = tls;
    with_outbound(|records| {
        let encrypted = tls.encrypt(chunks, records);
        send(tls, records);
        encrypted.is_ok()
    })
}

//! A client's connection as its owner reads and writes it: plaintext if it uses TLS.

use std::{
    cell::RefCell,
    io::{self, IoSlice, Read, Write},
    net::Shutdown,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::ClientTcp;

impl AsyncRead for ClientTcp {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(read) = self.with_tls(|tls| tls.poll_read(&self, cx, buffer)) {
            return read;
        }
        // Both closures need the buffer, and only one of them is called.
        let buffer = RefCell::new(buffer);
        self.io(
            |mut tcp| {
                let mut buffer = buffer.borrow_mut();
                let count = tcp.read(buffer.initialize_unfilled())?;
                buffer.advance(count);
                Ok(())
            },
            |tcp| tcp.poll_read(cx, &mut buffer.borrow_mut()),
        )
    }
}

impl AsyncWrite for ClientTcp {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let encrypted = self.with_tls(|tls| tls.poll_write(&self, cx, bytes));
        encrypted.unwrap_or_else(|| self.poll_write_bytes(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let Some(written) = self.with_tls(|tls| tls.poll_write_vectored(&self, cx, slices)) {
            return written;
        }
        self.io(|mut tcp| tcp.write_vectored(slices), |tcp| tcp.poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_unwritten(cx))?;
        self.io(|_| Ok(()), |tcp| tcp.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(closed) = self.with_tls(|tls| tls.poll_close(&self, cx)) {
            ready!(closed)?;
        }
        self.io(|tcp| tcp.shutdown(Shutdown::Write), |tcp| tcp.poll_shutdown(cx))
    }
}

//! Reads a socket without a buffer for each connection.

use std::{
    cell::RefCell,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::BytesMut;
use tokio::io::{AsyncRead, ReadBuf};

use crate::http::sockets::tcp::ClientTcp;

const READ_BYTES: usize = 16 << 10;

thread_local! {
    /// A read buffer for all connections of a worker. The bytes read are copied, so that
    /// connections use no more memory than their bytes need.
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
}

/// Appends the result of one read to `held`, at most 16 KiB, and returns its length; 0 at the end.
pub fn poll_read_more(
    socket: &mut ClientTcp,
    held: &mut BytesMut,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    BUFFER.with_borrow_mut(|buffer| {
        let mut buffer = ReadBuf::new(buffer);
        ready!(Pin::new(socket).poll_read(cx, &mut buffer))?;
        held.extend_from_slice(buffer.filled());
        Poll::Ready(Ok(buffer.filled().len()))
    })
}

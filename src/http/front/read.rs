//! Reads a socket without a buffer for each connection.

use std::{
    cell::RefCell,
    io,
    mem::MaybeUninit,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::BytesMut;
use tokio::io::{AsyncRead, ReadBuf};

use super::socket::Socket;

const READ_BYTES: usize = 16 << 10;

thread_local! {
    /// One for all connections of a worker: what was read is held in as many bytes as it has.
    static BUFFER: RefCell<Vec<MaybeUninit<u8>>> =
        RefCell::new(vec![MaybeUninit::uninit(); READ_BYTES]);
}

/// Appends to `held` what one read gives, at most 16 KiB; the count is 0 at the end.
pub fn poll_read_more(
    socket: &mut Socket,
    held: &mut BytesMut,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    BUFFER.with_borrow_mut(|buffer| {
        let mut buffer = ReadBuf::uninit(buffer);
        ready!(Pin::new(socket).poll_read(cx, &mut buffer))?;
        held.extend_from_slice(buffer.filled());
        Poll::Ready(Ok(buffer.filled().len()))
    })
}

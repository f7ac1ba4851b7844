//! A connection that hands over one request at a time. actix decodes all that it can get: 128 KiB of small requests became some 30 MB,
//! for anybody, without a ticket.

use std::{
    cell::RefCell,
    future::poll_fn,
    io,
    mem::MaybeUninit,
    pin::Pin,
    task::{Context, Poll, Waker, ready},
};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, ReadBuf};

use super::{
    framing::{self, Framing, MAX_HEAD_BYTES},
    prefixed::Prefixed,
    socket::Socket,
};

const READ_BYTES: usize = 16 << 10;

thread_local! {
    /// One for all connections of a worker: what was read is held in as many bytes as it has.
    static BUFFER: RefCell<Vec<MaybeUninit<u8>>> = RefCell::new(vec![MaybeUninit::uninit(); READ_BYTES]);
}

/// What comes next of a connection.
pub enum Next {
    /// These bytes.
    Bytes,
    /// A request that is not for actix, of which nothing was handed over; all before it was answered.
    NotForActix,
}

/// See the module.
pub struct Paced {
    socket: Socket,
    /// Read, and not yet handed over.
    held: BytesMut,
    /// So many of them may go.
    passing: usize,
    framing: Framing,
    /// The next request did not wait for the answer.
    pipelined: bool,
    /// Who waits for the next request.
    reader: Option<Waker>,
}

impl Paced {
    /// Of a new connection.
    pub fn new(socket: Socket) -> Self {
        Self { socket, held: BytesMut::new(), passing: 0, framing: Framing::new(), pipelined: false, reader: None }
    }

    /// What carries it.
    pub fn socket(&self) -> &Socket {
        &self.socket
    }

    /// The same, to write to.
    pub fn socket_mut(&mut self) -> Pin<&mut Socket> {
        Pin::new(&mut self.socket)
    }

    /// From here on it is framed so.
    pub fn framed(self, framing: Framing) -> Self {
        Self { framing, ..self }
    }

    /// The connection, without what was read of it.
    pub fn into_socket(self) -> Socket {
        self.socket
    }

    /// The connection, with what was read and not handed over.
    pub fn into_prefixed(self) -> Prefixed {
        Prefixed { held: self.held, socket: self.socket }
    }

    /// Whether no request is known to be under way.
    pub fn is_idle(&self) -> bool {
        self.framing.is_idle()
    }

    /// What was read, and not yet handed over.
    pub fn held(&self) -> &[u8] {
        &self.held
    }

    /// What goes to actix next: bytes into `buffer`, none at the end.
    pub fn poll_pass(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<Next>> {
        loop {
            if self.passing == 0 && !self.held.is_empty() {
                let may_be_stream = !self.pipelined && self.framing.is_between();
                match may_be_stream.then(|| framing::starts_stream(&self.held)) {
                    Some(Some(true)) => return Poll::Ready(Ok(Next::NotForActix)),
                    // More is needed to know.
                    Some(None) => {}
                    _ => self.passing = self.framing.pass(&self.held),
                }
            }
            if self.passing > 0 {
                let count = self.passing.min(buffer.remaining());
                buffer.put_slice(&self.held[..count]);
                self.held.advance(count);
                self.passing -= count;
                if self.held.is_empty() {
                    self.held = BytesMut::new();
                }
                return Poll::Ready(Ok(Next::Bytes));
            }
            if self.held.len() >= MAX_HEAD_BYTES && self.framing.is_idle() {
                return Poll::Ready(Ok(Next::NotForActix));
            }
            if self.framing.waits() {
                self.reader = Some(cx.waker().clone());
                // Reads on only to notice that the client has gone.
                if self.held.len() >= READ_BYTES {
                    return Poll::Pending;
                }
            }
            if ready!(self.poll_more(cx))? == 0 {
                return Poll::Ready(Ok(Next::Bytes));
            }
        }
    }

    /// Some of an answer was written.
    pub fn answered(&mut self) {
        self.framing.answered();
        self.pipelined = !self.held.is_empty();
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    /// Reads some more; the count is 0 at the end.
    pub async fn read_more(&mut self) -> io::Result<usize> {
        poll_fn(|cx| self.poll_more(cx)).await
    }

    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        BUFFER.with_borrow_mut(|buffer| {
            let mut buffer = ReadBuf::uninit(buffer);
            ready!(Pin::new(&mut self.socket).poll_read(cx, &mut buffer))?;
            self.held.extend_from_slice(buffer.filled());
            Poll::Ready(Ok(buffer.filled().len()))
        })
    }
}

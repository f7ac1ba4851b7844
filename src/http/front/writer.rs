//! Writes an answer to a connection that is not used again: its head, then its body as it comes, to the last chunk or until the
//! client goes. Keeps no buffer of its own; the body's bytes are shared.

use std::{
    cell::RefCell,
    future::poll_fn,
    io::{self, IoSlice, Write},
    pin::Pin,
    task::{Context, Poll, ready},
    time::{Duration, SystemTime},
};

use actix_http::{Response, Version};
use actix_web::body::{BodySize, MessageBody};
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::socket::Socket;

/// A client has nothing to say on a stream. One that says so much on it is shown the door.
const MAX_HEARD_BYTES: usize = 64 << 10;

/// So long, and while it says no more than this, a client may take to see the end of an answer.
const LINGER: Duration = Duration::from_secs(2);
const MAX_LINGER_BYTES: usize = 4 << 20;

/// Writes the whole answer to a request of that version.
pub async fn write<B: MessageBody + 'static>(io: Socket, answer: Response<B>, version: Version) {
    let mut writer = Writer::new(io, answer, version);
    // How a stream ended is known to its connection; a socket that broke has nobody left to tell.
    let done = poll_fn(|cx| writer.poll(cx)).await.is_ok();
    // With its body the stream ends: whoever lingers takes no place.
    let Writer { io, mut ears, body, .. } = writer;
    drop(body);
    if done {
        let _ = tokio::time::timeout(LINGER, linger(io, &mut ears)).await;
    }
}

/// Shuts our side and reads what the client still says: the kernel would answer that with a reset, and the client might never read
/// what was written.
async fn linger(mut io: Socket, ears: &mut Ears) -> io::Result<()> {
    io.shutdown().await?;
    ears.most_bytes = MAX_LINGER_BYTES;
    poll_fn(|cx| ears.poll(&mut io, cx)).await
}

/// So few bytes are faster copied together than handed to the kernel as three parts: 4.6 instead of 5.0 us for 340 bytes, measured on
/// loopback (2 cores, Linux 6.18).
const MAX_COPIED_BYTES: usize = 2 << 10;

thread_local! {
    static COPY: RefCell<Vec<u8>> = RefCell::new(Vec::with_capacity(MAX_COPIED_BYTES));
}

struct Writer<B> {
    io: Socket,
    body: Pin<Box<B>>,
    chunked: bool,
    /// What is being written: the head or a chunk's size, a piece of the body, the end of a chunk.
    before: Vec<u8>,
    piece: Bytes,
    after: &'static [u8],
    /// Bytes of these three that are out.
    written: usize,
    ended: bool,
    ears: Ears,
}

impl<B: MessageBody> Writer<B> {
    fn new(io: Socket, answer: Response<B>, version: Version) -> Self {
        // HTTP/1.0 knows no chunks (RFC 9112 section 6.1): there the end of the connection is that of the body.
        let stream = matches!(answer.body().size(), BodySize::Stream);
        let chunked = stream && version != Version::HTTP_10;
        let before = head(&answer, chunked);
        let ears = Ears { heard_bytes: 0, most_bytes: if stream { MAX_HEARD_BYTES } else { MAX_LINGER_BYTES } };
        let body = Box::pin(answer.into_body());
        Self { io, body, chunked, before, piece: Bytes::new(), after: b"", written: 0, ended: false, ears }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Poll::Ready(gone) = self.ears.poll(&mut self.io, cx) {
            return Poll::Ready(gone);
        }
        loop {
            // The head goes out with the first frame, if there is one.
            if self.piece.is_empty() && !self.ended {
                match self.body.as_mut().poll_next(cx) {
                    Poll::Ready(Some(Ok(piece))) => self.put(piece),
                    Poll::Ready(Some(Err(_))) => return Poll::Ready(Err(io::ErrorKind::Other.into())),
                    Poll::Ready(None) => self.end(),
                    Poll::Pending if self.before.is_empty() => return Poll::Pending,
                    Poll::Pending => {}
                }
            }
            ready!(self.poll_flush(cx))?;
            if self.ended {
                return Poll::Ready(Ok(()));
            }
        }
    }

    fn put(&mut self, piece: Bytes) {
        if piece.is_empty() {
            return;
        }
        if self.chunked {
            let _ = write!(self.before, "{:x}\r\n", piece.len());
            self.after = b"\r\n";
        }
        self.piece = piece;
    }

    fn end(&mut self) {
        self.ended = true;
        if self.chunked {
            self.after = b"0\r\n\r\n";
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let total = self.before.len() + self.piece.len() + self.after.len();
        while self.written < total {
            let parts = rest([&self.before, &self.piece, self.after], self.written);
            match ready!(write_parts(Pin::new(&mut self.io), cx, parts))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                out => self.written += out,
            }
        }
        // TLS may hold some of it.
        ready!(Pin::new(&mut self.io).poll_flush(cx))?;
        self.written = 0;
        self.piece = Bytes::new();
        self.after = b"";
        if self.before.capacity() > 16 {
            // The head is out; a chunk's size is short.
            self.before = Vec::with_capacity(16);
        }
        self.before.clear();
        Poll::Ready(Ok(()))
    }
}

/// What is left of the parts after so many bytes.
fn rest(parts: [&[u8]; 3], mut done: usize) -> [&[u8]; 3] {
    parts.map(|part| {
        let skipped = done.min(part.len());
        done -= skipped;
        &part[skipped..]
    })
}

fn write_parts(io: Pin<&mut Socket>, cx: &mut Context<'_>, parts: [&[u8]; 3]) -> Poll<io::Result<usize>> {
    if parts.iter().map(|part| part.len()).sum::<usize>() > MAX_COPIED_BYTES {
        return io.poll_write_vectored(cx, &parts.map(IoSlice::new));
    }
    COPY.with_borrow_mut(|copy| {
        copy.clear();
        parts.iter().for_each(|part| copy.extend_from_slice(part));
        io.poll_write(cx, copy)
    })
}

/// Hears what a client says, to notice its end.
struct Ears {
    heard_bytes: usize,
    most_bytes: usize,
}

impl Ears {
    /// Ready: the client has gone, or talks where it should listen.
    fn poll(&mut self, io: &mut Socket, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut bytes = [0; 512];
        loop {
            let mut buffer = ReadBuf::new(&mut bytes);
            ready!(Pin::new(&mut *io).poll_read(cx, &mut buffer))?;
            self.heard_bytes += buffer.filled().len();
            if buffer.filled().is_empty() || self.heard_bytes > self.most_bytes {
                return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
            }
        }
    }
}

/// The head of an answer, RFC 9112 section 4.
fn head<B: MessageBody>(answer: &Response<B>, chunked: bool) -> Vec<u8> {
    let status = answer.status();
    let mut head = Vec::with_capacity(512);
    let _ = write!(head, "HTTP/1.1 {} {}\r\n", status.as_u16(), status.canonical_reason().unwrap_or_default());
    for (name, value) in answer.headers() {
        let _ = write!(head, "{name}: ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    let _ = match answer.body().size() {
        BodySize::Stream if chunked => write!(head, "transfer-encoding: chunked\r\n"),
        BodySize::Stream => Ok(()),
        BodySize::Sized(bytes) => write!(head, "content-length: {bytes}\r\n"),
        BodySize::None => write!(head, "content-length: 0\r\n"),
    };
    let _ = write!(head, "connection: close\r\ndate: {}\r\n\r\n", httpdate::fmt_http_date(SystemTime::now()));
    head
}

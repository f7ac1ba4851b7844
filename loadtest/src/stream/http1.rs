//! Stream over HTTP/1.1, with or without TLS.

use std::cell::RefCell;
use std::fmt::Write;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::OwnedSemaphorePermit;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{ConnectionEnd, Env, StreamReader, StreamState};
use crate::refusal::{BODY_TIMEOUT, MAX_BODY_BYTES, Refusal};
use crate::wire::chunked::Chunked;
use crate::wire::head::{self, Framing};

/// Maximum size of a read in bytes.
const READ_BYTES: usize = 64 * 1024;

thread_local! {
    /// Read buffer shared by all streams of the thread.
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
}

pub(super) enum Io {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Open stream. Boxed: otherwise the idle task would reserve space for every place it moves
/// through.
struct Open<'a> {
    io: Io,
    reader: StreamReader<'a>,
    chunks: Option<Chunked>,
}

/// Runs one connection, from connecting to its end.
pub(super) async fn run_connection(
    env: &Env,
    state: &RefCell<StreamState>,
    permit: Option<OwnedSemaphorePermit>,
) -> ConnectionEnd {
    let mut open = match Box::pin(open(env, state, permit)).await {
        Ok(open) => open,
        Err(end) => return end,
    };
    loop {
        if open.reader.stalled() {
            Box::pin(open.reader.wait_while_stalled()).await;
        }
        if let Err(end) = std::future::poll_fn(|cx| open.poll_read(cx)).await {
            return end;
        }
    }
}

/// Connects from the stream's source address, with TLS if the URL uses https.
pub(super) async fn connect(env: &Env, index: u32) -> io::Result<Io> {
    let target = &env.target;
    let socket = if target.address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(source) = target.source(index) {
        socket.bind((source, 0).into())?;
    }
    let tcp = socket.connect(target.address).await?;
    tcp.set_nodelay(true)?;
    Ok(match &target.tls {
        None => Io::Plain(tcp),
        Some((config, name)) => {
            Io::Tls(Box::new(TlsConnector::from(config.clone()).connect(name.clone(), tcp).await?))
        }
    })
}

async fn open<'a>(
    env: &'a Env,
    state: &'a RefCell<StreamState>,
    permit: Option<OwnedSemaphorePermit>,
) -> Result<Box<Open<'a>>, ConnectionEnd> {
    let path = env.path(state).await?;
    let index = state.borrow().index;
    let failed = |error: io::Error| ConnectionEnd::Failed(error.kind().to_string());
    let mut io = connect(env, index).await.map_err(failed)?;
    let request = request(env, &path, state.borrow().last_event_id(env.target.kind));
    let mut bytes = Vec::with_capacity(1024);
    let head = async {
        match &mut io {
            Io::Plain(io) => exchange(io, request.as_bytes(), &mut bytes).await,
            Io::Tls(io) => exchange(io, request.as_bytes(), &mut bytes).await,
        }
    };
    let head = head.await.map_err(failed)?;
    if head.status != 200 || !head.event_stream {
        let mut body = Vec::new();
        let read = async {
            match &mut io {
                Io::Plain(io) => read_body(io, &head, &bytes[head.len..], &mut body).await,
                Io::Tls(io) => read_body(io, &head, &bytes[head.len..], &mut body).await,
            }
        };
        // After a timeout, the part received so far is used.
        let _ = tokio::time::timeout(BODY_TIMEOUT, read).await;
        return Err(ConnectionEnd::Refused(Refusal::new(head.status, &body)));
    }
    let reader = StreamReader::start(env, state, permit);
    let chunks = (head.framing == Framing::Chunked).then(Chunked::default);
    let mut open = Box::new(Open { io, reader, chunks });
    open.feed(&bytes[head.len..])?;
    Ok(open)
}

fn request(env: &Env, path: &str, cursor: &[u8]) -> String {
    let target = &env.target;
    let mut request = format!(
        "GET {path} HTTP/1.1\r\nHost: {}\r\nAccept: text/event-stream\r\n",
        target.authority
    );
    for (name, value) in &target.headers {
        let _ = write!(request, "{name}: {value}\r\n");
    }
    if !cursor.is_empty() {
        let _ = write!(request, "Last-Event-ID: {}\r\n", String::from_utf8_lossy(cursor));
    }
    request.push_str("\r\n");
    request
}

async fn exchange<S>(io: &mut S, request: &[u8], bytes: &mut Vec<u8>) -> io::Result<head::Head>
where
    S: AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    io.write_all(request).await?;
    io.flush().await?;
    loop {
        if io.read_buf(bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(head) = head::parse(bytes)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?
        {
            return Ok(head);
        }
    }
}

/// Reads the body of a response that is not a stream, up to `MAX_BODY_BYTES`.
async fn read_body<S: AsyncRead + Unpin>(
    io: &mut S,
    head: &head::Head,
    start: &[u8],
    body: &mut Vec<u8>,
) {
    let mut chunks = Chunked::default();
    let mut piece = start.to_vec();
    loop {
        let whole = match head.framing {
            Framing::Chunked => {
                chunks.feed(&piece, |part| body.extend_from_slice(part)).is_err() || chunks.ended()
            }
            Framing::Length(length) => {
                body.extend_from_slice(&piece);
                body.len() as u64 >= length
            }
            Framing::Close => {
                body.extend_from_slice(&piece);
                false
            }
        };
        piece.clear();
        if whole || body.len() > MAX_BODY_BYTES || !matches!(io.read_buf(&mut piece).await, Ok(1..))
        {
            return;
        }
    }
}

impl Open<'_> {
    /// Reads once and processes the bytes.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ConnectionEnd>> {
        BUFFER.with_borrow_mut(|buffer| {
            let mut buffer = ReadBuf::new(buffer);
            let read = match &mut self.io {
                Io::Plain(io) => Pin::new(io).poll_read(cx, &mut buffer),
                Io::Tls(io) => Pin::new(io).poll_read(cx, &mut buffer),
            };
            match read {
                Poll::Pending => Poll::Pending,
                Poll::Ready(Err(error)) => {
                    Poll::Ready(Err(ConnectionEnd::Failed(error.kind().to_string())))
                }
                Poll::Ready(Ok(())) if buffer.filled().is_empty() => {
                    Poll::Ready(Err(ConnectionEnd::Ended))
                }
                Poll::Ready(Ok(())) => Poll::Ready(self.feed(buffer.filled())),
            }
        })
    }

    fn feed(&mut self, bytes: &[u8]) -> Result<(), ConnectionEnd> {
        let Some(chunks) = &mut self.chunks else {
            self.reader.feed(bytes);
            return Ok(());
        };
        chunks
            .feed(bytes, |part| self.reader.feed(part))
            .map_err(|fault| ConnectionEnd::Failed(fault.to_owned()))?;
        if chunks.ended() { Err(ConnectionEnd::Ended) } else { Ok(()) }
    }
}

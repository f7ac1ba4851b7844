//! Writes an event stream to a connection that is not reused afterwards, until its last chunk or
//! until the client disconnects. An idle stream only needs the socket, the body and a few words of
//! memory.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use actix_http::{Response, Version};
use actix_web::body::MessageBody;
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};

use super::{output::Output, response::Framing};
use crate::http::front::socket::{Socket, tcp_of};

/// Maximum number of bytes that a client may send on a stream before it is disconnected.
const MAX_INBOUND_BYTES: usize = 64 << 10;

/// Maximum time, and maximum number of inbound bytes, to wait for a client to read the end of a
/// response.
const LINGER: Duration = Duration::from_secs(2);
const MAX_LINGER_BYTES: usize = 4 << 20;

/// Writes the whole response to a request of this version.
pub fn write<B: MessageBody + 'static>(
    mut io: Socket,
    response: Response<B>,
    version: Version,
) -> impl Future<Output = ()> {
    let framing = Framing::of(&response, version);
    let mut output = Output::new(response, framing, true);
    let mut inbound = InboundLimit { inbound_bytes: 0, max_bytes: MAX_INBOUND_BYTES };
    // An async block, because the arguments of an `async fn` would stay in memory while it runs.
    async move {
        let writing = poll_fn(|cx| match inbound.poll(&mut io, cx) {
            Poll::Ready(gone) => Poll::Ready(gone),
            // The client was not admitted, or the response has ended.
            Poll::Pending if tcp_of(&io).poll_evicted(cx).is_ready() => Poll::Ready(Err(evicted())),
            Poll::Pending => {
                ready!(tcp_of(&io).poll_unwritten(cx))?;
                let written = output.poll(&mut io, cx);
                // TLS has to encrypt what is written.
                let is_waiting = matches!(io, Socket::Left(_)) && output.is_waiting_for_chunks();
                tcp_of(&io).set_writer_waiting(is_waiting);
                written
            }
        });
        // The connection has recorded how the stream ended; after an error there is no one to
        // notify.
        let done = writing.await.is_ok();
        // Drops the stream before lingering, so that it no longer counts as a connection.
        drop(output);
        if done {
            tcp_of(&io).touch(false);
            linger(io).await;
        }
    }
}

fn evicted() -> io::Error {
    io::ErrorKind::ConnectionAborted.into()
}

/// Shuts down our side, and reads and discards what the client still sends. Otherwise the kernel
/// would send a reset, and the client might not read the end of the response.
pub async fn linger(mut io: Socket) {
    let mut inbound = InboundLimit { inbound_bytes: 0, max_bytes: MAX_LINGER_BYTES };
    let lingering = async {
        io.shutdown().await?;
        poll_fn(|cx| match tcp_of(&io).poll_evicted(cx) {
            Poll::Ready(()) => Poll::Ready(Err(evicted())),
            Poll::Pending => inbound.poll(&mut io, cx),
        })
        .await
    };
    let _ = tokio::time::timeout(LINGER, lingering).await;
}

/// Reads what a client sends, to notice its end.
struct InboundLimit {
    inbound_bytes: usize,
    max_bytes: usize,
}

impl InboundLimit {
    /// Ready when the client has disconnected or sent too much.
    fn poll(&mut self, io: &mut Socket, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut bytes = [0; 512];
        loop {
            let mut buffer = ReadBuf::new(&mut bytes);
            ready!(Pin::new(&mut *io).poll_read(cx, &mut buffer))?;
            self.inbound_bytes += buffer.filled().len();
            if buffer.filled().is_empty() || self.inbound_bytes > self.max_bytes {
                return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
            }
        }
    }
}

//! Writes an event stream to a connection that is not used again, to its last chunk or until the
//! client goes. What it holds for an idle stream is the socket, the body and a few words.

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

/// A client has nothing to say on a stream. One that says more than this is disconnected.
const MAX_HEARD_BYTES: usize = 64 << 10;

/// So long, and while it says no more than this, a client may take to see the end of a response.
const LINGER: Duration = Duration::from_secs(2);
const MAX_LINGER_BYTES: usize = 4 << 20;

/// Writes the whole response to a request of that version.
pub fn write<B: MessageBody + 'static>(
    mut io: Socket,
    response: Response<B>,
    version: Version,
) -> impl Future<Output = ()> {
    let framing = Framing::of(&response, version);
    let mut output = Output::new(response, framing, true);
    let mut inbound = InboundLimit { heard_bytes: 0, max_bytes: MAX_HEARD_BYTES };
    // A block, since the arguments of an `async fn` would take their room for as long as it runs.
    async move {
        let writing = poll_fn(|cx| match inbound.poll(&mut io, cx) {
            Poll::Ready(gone) => Poll::Ready(gone),
            // A response for a client that was not admitted, or has ended.
            Poll::Pending if tcp_of(&io).poll_evicted(cx).is_ready() => Poll::Ready(Err(evicted())),
            Poll::Pending => output.poll(&mut io, cx),
        });
        // How a stream ended is known to its connection; a broken socket has nobody left to notify.
        let done = writing.await.is_ok();
        // The stream ends with its body: a lingering socket takes no place.
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

/// Shuts our side and reads what the client still sends: the kernel would answer that with a reset,
/// and the client might never read what was written.
pub async fn linger(mut io: Socket) {
    let mut inbound = InboundLimit { heard_bytes: 0, max_bytes: MAX_LINGER_BYTES };
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
    heard_bytes: usize,
    max_bytes: usize,
}

impl InboundLimit {
    /// Ready: the client has gone, or sends too much.
    fn poll(&mut self, io: &mut Socket, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut bytes = [0; 512];
        loop {
            let mut buffer = ReadBuf::new(&mut bytes);
            ready!(Pin::new(&mut *io).poll_read(cx, &mut buffer))?;
            self.heard_bytes += buffer.filled().len();
            if buffer.filled().is_empty() || self.heard_bytes > self.max_bytes {
                return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
            }
        }
    }
}

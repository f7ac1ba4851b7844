//! Writes an event stream to a connection that is not reused afterwards, until its last chunk or
//! until the client disconnects. An idle stream only needs the socket, the body and a few words of
//! memory.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    rc::Weak,
    task::{Context, Poll, ready},
    time::Duration,
};

use actix_http::{Response, Version};
use actix_web::body::{BoxBody, MessageBody};
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};

use super::{output::Output, response::Framing};
use crate::http::sockets::{
    tcp::ClientTcp,
    watch::{MAX_INBOUND_BYTES, SocketWatch},
};

/// Maximum time, and maximum number of inbound bytes, to wait for a client to read the end of a
/// response.
const LINGER: Duration = Duration::from_secs(2);
const MAX_LINGER_BYTES: usize = 4 << 20;

/// Writes the whole response to a request of this version.
pub fn write<B: MessageBody + 'static>(
    io: ClientTcp,
    response: Response<B>,
    version: Version,
    watch: Weak<SocketWatch>,
) -> impl Future<Output = ()> {
    let framing = Framing::of(&response, version);
    run(io, Output::new(response, framing, true), 0, watch)
}

/// What a writer has reached.
enum Written {
    /// The end of the response.
    Everything,
    /// The end of what there is; the stream is live.
    Live(BoxBody),
}

fn run(
    mut io: ClientTcp,
    mut output: Output,
    inbound_bytes: usize,
    watch: Weak<SocketWatch>,
) -> impl Future<Output = ()> {
    let mut inbound = InboundLimit { inbound_bytes, max_bytes: MAX_INBOUND_BYTES };
    let can_wait = watch.strong_count() > 0;
    // An async block, because the arguments of an `async fn` would stay in memory while it runs.
    async move {
        let writing = poll_fn(|cx| {
            loop {
                // Before the read, which would register the socket with the runtime.
                if let Poll::Ready(written) = poll_output(&mut output, &mut io, can_wait, cx) {
                    return Poll::Ready(written);
                }
                let has_unread = io.has_unread();
                if let Poll::Ready(gone) = inbound.poll(&mut io, cx) {
                    return Poll::Ready(gone.map(|()| Written::Everything));
                }
                if !has_unread {
                    // The client was not admitted, or the response has ended.
                    return io.poll_evicted(cx).map(|()| Err(evicted()));
                }
            }
        });
        match writing.await {
            Ok(Written::Everything) => {
                // Drops the stream before lingering, so that it no longer counts as a connection.
                drop(output);
                io.touch(false);
                linger(io).await;
            }
            Ok(Written::Live(body)) => wait(io, body, inbound.inbound_bytes, watch),
            // The connection has recorded how the stream ended; there is no one to notify.
            Err(_) => {}
        }
    }
}

fn poll_output(
    output: &mut Output,
    io: &mut ClientTcp,
    can_wait: bool,
    cx: &mut Context<'_>,
) -> Poll<io::Result<Written>> {
    loop {
        ready!(io.poll_unwritten(cx))?;
        if output.poll(io, cx)?.is_ready() {
            return Poll::Ready(Ok(Written::Everything));
        }
        let is_waiting = output.is_waiting_for_chunks();
        io.set_writer_waiting(is_waiting);
        // What TLS has read ahead would not wake the watch.
        if !is_waiting || !can_wait || !io.is_live() || io.has_unread() {
            return Poll::Pending;
        }
        if let Some(body) = output.detach() {
            return Poll::Ready(Ok(Written::Live(body)));
        }
    }
}

/// Waits without a task until the body continues.
fn wait(io: ClientTcp, body: BoxBody, inbound_bytes: usize, watch: Weak<SocketWatch>) {
    let resume = |body, watch| {
        move |tcp, inbound_bytes| {
            let output = Output::resumed(body);
            actix_web::rt::spawn(run(tcp, output, inbound_bytes, watch));
        }
    };
    if let Some(of_worker) = watch.upgrade() {
        io.wait(&of_worker, inbound_bytes, Box::new(resume(body, watch)));
    }
}

fn evicted() -> io::Error {
    io::ErrorKind::ConnectionAborted.into()
}

/// Shuts down our side, and reads and discards what the client still sends. Otherwise the kernel
/// would send a reset, and the client might not read the end of the response.
pub async fn linger(mut io: ClientTcp) {
    let mut inbound = InboundLimit { inbound_bytes: 0, max_bytes: MAX_LINGER_BYTES };
    let lingering = async {
        io.shutdown().await?;
        poll_fn(|cx| match io.poll_evicted(cx) {
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
    fn poll(&mut self, io: &mut ClientTcp, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
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

//! One request and its response. The handler's future is freed before the body is sent. The body's
//! bytes are passed to h2 without a copy, and only as many as h2 can send, so no other buffer is
//! needed.

use std::{
    future::poll_fn,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use actix_http::{Request, Response, body::BoxBody};
use actix_service::Service;
use actix_web::{
    body::{BodySize, MessageBody},
    http::Method,
    rt::time::{Instant, Sleep, sleep},
};
use bytes::Bytes;
use h2::{Reason, SendStream, server::SendResponse};

use super::{
    budget::{FOR_DATA, FOR_RESPONSE},
    response,
    shared::Active,
};
use crate::http::{sockets::peer::Peer, stream_reset::StreamReset};

/// Maximum number of bytes passed to h2 at once; also the send buffer of a stream.
pub const SEND_BYTES: usize = 16 << 10;
/// A DATA frame that is shorter than this because of the client's window earns no tokens: otherwise
/// a client could earn tokens by opening its window byte by byte.
const SHORT_BYTES: usize = 32;

/// The connection and the limits of a stream.
pub struct StreamContext {
    /// The entry among the connection's active requests.
    pub active: Active,
    /// The socket.
    pub peer: Peer,
    /// Lets other code reset the stream.
    pub reset: Rc<StreamReset>,
    /// Maximum time without progress.
    pub stall: Duration,
}

/// Handles a request, unless its client resets the stream first.
pub async fn run<S, B>(
    service: Rc<S>,
    request: Request,
    mut respond: SendResponse<Bytes>,
    context: StreamContext,
) where
    S: Service<Request> + 'static,
    S::Response: Into<Response<B>>,
    S::Error: Into<Response<BoxBody>>,
    B: MessageBody + 'static,
{
    let is_head = *request.method() == Method::HEAD;
    // Boxed, so that its memory can be freed before the stream ends.
    let mut call = Box::pin(service.call(request));
    let response = poll_fn(|cx| match respond.poll_reset(cx) {
        Poll::Ready(_) => Poll::Ready(None),
        Poll::Pending => call.as_mut().poll(cx).map(Some),
    });
    let response = response.await;
    drop(call);
    match response {
        None => {}
        Some(Ok(response)) => send::<B>(respond, response.into(), is_head, context).await,
        Some(Err(error)) => send(respond, error.into(), is_head, context).await,
    }
}

/// Sends a response. Errors are ignored, because the client has disconnected.
async fn send<B: MessageBody + 'static>(
    mut respond: SendResponse<Bytes>,
    response: Response<B>,
    is_head: bool,
    context: StreamContext,
) {
    let size = response.body().size();
    let ends = is_head || matches!(size, BodySize::None | BodySize::Sized(0));
    let head = response::head(response.head(), size);
    let Ok(stream) = respond.send_response(head, ends) else { return };
    drop(respond);
    if ends {
        return context.active.earn(FOR_RESPONSE);
    }
    let left = if let BodySize::Sized(bytes) = size { bytes } else { u64::MAX };
    let mut sender = Sender {
        stream,
        left,
        body: Box::pin(response.into_body()),
        piece: Bytes::new(),
        stalled: None,
        context,
    };
    poll_fn(|cx| sender.poll(cx)).await;
}

/// Sends the body of a response. The order of the fields matters: the body must be dropped before
/// `context.active` notifies the connection of the end.
struct Sender<B> {
    stream: SendStream<Bytes>,
    /// Remaining bytes of the body; `u64::MAX` if its size is unknown.
    left: u64,
    body: Pin<Box<B>>,
    /// The unsent rest of the body's last piece.
    piece: Bytes,
    /// Runs while the client's window is closed.
    stalled: Option<Pin<Box<Sleep>>>,
    context: StreamContext,
}

impl<B: MessageBody> Sender<B> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.context.reset.poll_requested(cx) {
            self.stream.send_reset(Reason::CANCEL);
            return Poll::Ready(());
        }
        // The client has reset the stream, or the connection has ended.
        if self.stream.poll_reset(cx).is_ready() {
            return Poll::Ready(());
        }
        loop {
            if self.piece.is_empty() {
                match ready!(self.body.as_mut().poll_next(cx)) {
                    Some(Ok(piece)) => self.piece = piece,
                    Some(Err(_)) => {
                        self.stream.send_reset(Reason::INTERNAL_ERROR);
                        return Poll::Ready(());
                    }
                    None => {
                        self.context.active.earn(FOR_RESPONSE);
                        let _ = self.stream.send_data(Bytes::new(), true);
                        return Poll::Ready(());
                    }
                }
            } else if !ready!(self.poll_send(cx)) {
                return Poll::Ready(());
            }
        }
    }

    /// Sends as much of the piece as the client accepts; `false` if the body is complete or the
    /// stream has ended.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        let length = self.piece.len().min(SEND_BYTES);
        self.stream.reserve_capacity(length);
        while self.stream.capacity() == 0 {
            match self.stream.poll_capacity(cx) {
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(_) => return Poll::Ready(false),
                Poll::Pending => {
                    ready!(self.poll_stalled(cx));
                    return Poll::Ready(false);
                }
            }
        }
        self.stalled = None;
        self.context.peer.touch(true);
        let count = length.min(self.stream.capacity());
        let is_short = count < SHORT_BYTES && count < self.piece.len();
        self.context.active.earn(if is_short { 0 } else { FOR_DATA });
        self.left = self.left.saturating_sub(count as u64);
        let is_last = self.left == 0;
        if is_last {
            self.context.active.earn(FOR_RESPONSE);
        }
        let sent = self.stream.send_data(self.piece.split_to(count), is_last);
        Poll::Ready(sent.is_ok() && !is_last)
    }

    /// Ready when the client's window was closed for too long; then the stream is reset. While the
    /// socket is blocked, this time does not run, because the driver watches the socket.
    fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let stall = self.context.stall;
        let timer = self.stalled.get_or_insert_with(|| Box::pin(sleep(stall)));
        ready!(timer.as_mut().poll(cx));
        while self.context.active.is_socket_blocked() {
            timer.as_mut().reset(Instant::now() + stall);
            ready!(timer.as_mut().poll(cx));
        }
        self.context.reset.set_stalled();
        self.stream.send_reset(Reason::CANCEL);
        Poll::Ready(())
    }
}

//! One HTTP/1.1 connection: reads a request, passes it to the app, writes the response, and
//! repeats. There is one request at a time. Bytes of later requests are buffered up to about one
//! head, and otherwise stay in the kernel.

use std::{
    future::poll_fn,
    io,
    marker::PhantomData,
    net::SocketAddr,
    pin::Pin,
    rc::{Rc, Weak},
    task::{Context, Poll, ready},
    time::Duration,
};

use actix_http::{HttpMessage, Payload, Request, Response, Version};
use actix_service::Service;
use actix_web::{
    body::{BodySize, BoxBody, EitherBody, MessageBody},
    http::Method,
};
use bytes::BytesMut;
use futures_util::FutureExt;
use tokio::{
    io::AsyncWrite,
    time::{Instant, Sleep},
};

use super::{
    body::{Decoder, Step},
    head::{self, Head, MAX_HEAD_BYTES},
    output::Output,
    payload::BodyBuffer,
    rejection,
    response::Framing,
    stream,
};
use crate::http::{
    events::is_for_stream,
    front::{HEAD, context::FrontContext, prefixed::Prefixed, read::poll_read_more},
    malformed::Malformed,
    sockets::{peer::Peer, tcp::ClientTcp, watch::SocketWatch},
};

/// Maximum time and number of bytes for the rest of a request's body after its response.
const BODY_END: Duration = Duration::from_secs(3);
const MAX_BODY_END_BYTES: usize = 64 << 10;
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// Serves a connection until it ends or an event stream takes over the socket. The first head must
/// arrive before `deadline`.
pub fn serve<S, B>(
    io: Prefixed,
    peer: Peer,
    service: Rc<S>,
    context: Rc<FrontContext>,
    watch: Weak<SocketWatch>,
    mut deadline: Instant,
) -> impl Future<Output = ()>
where
    S: Service<Request>,
    S::Response: Into<Response<B>>,
    S::Error: Into<Response<BoxBody>>,
    B: MessageBody + 'static,
{
    let Prefixed { held, socket } = io;
    let address = Some(socket.address());
    let mut connection =
        Connection { socket, held, peer, address, service, context, watch, bodies: PhantomData };
    // An async block, because the arguments of an `async fn` would stay in memory while it runs.
    async move {
        loop {
            let end = match connection.next_head(deadline).await {
                Ok(head) => connection.exchange(head).await,
                Err(end) => Err(end),
            };
            match end {
                Ok(()) => deadline = Instant::now() + HEAD,
                Err(End::Gone) => return,
                // Boxed, because the future of every connection contains these.
                Err(End::Linger) => return Box::pin(connection.linger()).await,
                Err(End::Malformed(fault)) => return Box::pin(connection.reject(fault)).await,
                Err(End::Stream(response, version)) => {
                    let Connection { socket, watch, .. } = connection;
                    let mut stream = Box::pin(stream::write(socket, *response, version, watch));
                    // Most streams can write everything now, and then wait without a task. The
                    // others get a separate one, so that the memory of this one is freed.
                    let begin = poll_fn(|cx| Poll::Ready(stream.as_mut().poll(cx)));
                    if begin.await.is_pending() {
                        actix_web::rt::spawn(stream);
                    }
                    return;
                }
            }
        }
    }
}

struct Connection<S, B> {
    socket: ClientTcp,
    /// Bytes that were read and do not belong to a request yet.
    held: BytesMut,
    peer: Peer,
    address: Option<SocketAddr>,
    service: Rc<S>,
    context: Rc<FrontContext>,
    /// Where its stream waits.
    watch: Weak<SocketWatch>,
    bodies: PhantomData<fn() -> B>,
}

/// A response of the app or of one of its errors.
type AppResponse<B> = Response<EitherBody<B>>;

fn own_response<B>(response: impl Into<Response<BoxBody>>) -> AppResponse<B> {
    response.into().map_body(|_, body| EitherBody::right(body))
}

/// Why no further request is read.
enum End<B> {
    /// The client disconnected or took too long.
    Gone,
    /// The last response was written; the client may need time to read it.
    Linger,
    /// The request is malformed and has no response yet.
    Malformed(Malformed),
    /// The length of the response is unknown.
    Stream(Box<AppResponse<B>>, Version),
}

impl<B> From<io::Error> for End<B> {
    fn from(_: io::Error) -> Self {
        Self::Gone
    }
}

impl<S, B> Connection<S, B>
where
    S: Service<Request>,
    S::Response: Into<Response<B>>,
    S::Error: Into<Response<BoxBody>>,
    B: MessageBody + 'static,
{
    /// The next request.
    async fn next_head(&mut self, deadline: Instant) -> Result<Head, End<B>> {
        if let Some(head) = self.parse_held()? {
            return Ok(head);
        }
        let reading = async {
            loop {
                let seen = self.held.len();
                if self.read_more().await? == 0 {
                    return Err(End::Gone);
                }
                // A partial head needs to be parsed again only after another line end.
                let has_line = self.held[seen..].contains(&b'\n') || seen == 0;
                if !has_line && self.held.len() < MAX_HEAD_BYTES {
                    continue;
                }
                if let Some(head) = self.parse_held()? {
                    return Ok(head);
                }
            }
        };
        tokio::time::timeout_at(deadline, reading).await.unwrap_or(Err(End::Gone))
    }

    fn parse_held(&mut self) -> Result<Option<Head>, End<B>> {
        let head = match self.held.is_empty() {
            true => Ok(None),
            false => head::parse(&mut self.held),
        };
        if self.held.is_empty() {
            self.held = BytesMut::new();
        }
        head.map_err(End::Malformed)
    }

    /// Handles one request and writes the response.
    async fn exchange(&mut self, head: Head) -> Result<(), End<B>> {
        let Head { mut request, body, keep_alive, expects_continue } = head;
        self.peer.touch(true);
        let (version, is_head) = (request.version(), request.method() == Method::HEAD);
        // A client that disconnected while its request waited must not take over its newer stream.
        let is_stream = is_for_stream(&request);
        if is_stream && self.has_ended() {
            return Err(End::Gone);
        }
        let body = self.attach(&mut request, body);
        let mut interim = Interim::new(expects_continue && body.is_some());
        let response = self.response(request, is_stream, body.as_ref(), &mut interim).await?;
        let rest = self.reclaim(body);
        interim.finish(self).await?;
        if matches!(response.body().size(), BodySize::Stream) && !is_head {
            return Err(End::Stream(Box::new(response), version));
        }
        // A client that waits for 100 Continue may or may not send the body after the response.
        let rest = rest.filter(|rest| rest.is_ended() || !interim.is_due());
        let is_over = !keep_alive || rest.is_none() || self.context.lifecycle.is_closed();
        let closes = is_over || !response.head().keep_alive();
        let framing = Framing::of(&response, version);
        let output = match is_head {
            true => Output::head_only(&response, framing, closes),
            false => Output::new(response, framing, closes),
        };
        self.send(output).await?;
        self.peer.touch(false);
        match rest {
            Some(rest) if !closes => self.finish_body(rest).await,
            _ => Err(End::Linger),
        }
    }

    /// Completes a request for the app, and returns the buffer of its body, if it has one.
    fn attach(&mut self, request: &mut Request, body: Decoder) -> Option<BodyBuffer> {
        request.extensions_mut().insert(self.peer.clone());
        request.head_mut().peer_addr = self.address;
        if body.is_ended() {
            return None;
        }
        let body = BodyBuffer::new(std::mem::take(&mut self.held), body);
        *request.payload() = Payload::Stream { payload: Box::pin(body.clone()) };
        Some(body)
    }

    /// Takes back the part of a body that the handler has not read; `None` if it is malformed.
    fn reclaim(&mut self, body: Option<BodyBuffer>) -> Option<Decoder> {
        let Some(body) = body else { return Some(Decoder::length(0)) };
        let (held, rest, malformed) = body.reclaim();
        self.held = held;
        match malformed {
            None => Some(rest),
            Some(malformed) => {
                rejection::record(&self.context, malformed, self.address);
                None
            }
        }
    }

    /// Calls the app. Meanwhile, reads as much of the body as the handler requests, and detects a
    /// disconnect of the client: then the handler is dropped, unless it opens a stream.
    async fn response(
        &mut self,
        request: Request,
        is_stream: bool,
        body: Option<&BodyBuffer>,
        interim: &mut Interim,
    ) -> Result<AppResponse<B>, End<B>> {
        let mut call = Box::pin(self.service.call(request));
        let response = poll_fn(|cx| {
            loop {
                if let Poll::Ready(response) = call.as_mut().poll(cx) {
                    return Poll::Ready(Ok(response));
                }
                if body.is_some_and(|body| body.is_waiting() && body.held_bytes() == 0) {
                    interim.poll(&mut self.socket, cx)?;
                }
                let is_watched = !is_stream || body.is_some();
                if !is_watched {
                    return Poll::Pending;
                }
                match ready!(self.poll_read_for(body, cx)) {
                    // The handler responds to an incomplete body.
                    Ok(0) | Err(_) if body.is_some_and(BodyBuffer::is_waiting) => {
                        body.into_iter().for_each(BodyBuffer::close);
                    }
                    Ok(0) | Err(_) => return Poll::Ready(Err(End::Gone)),
                    Ok(_) => {
                        self.peer.touch(true);
                        body.map(BodyBuffer::wake);
                    }
                }
            }
        });
        match response.await? {
            Ok(response) => Ok(response.into().map_body(|_, body| EitherBody::left(body))),
            Err(error) => Ok(own_response(error)),
        }
    }

    /// Reads more, unless the buffer of bytes for later requests is full.
    fn poll_read_for(
        &mut self,
        body: Option<&BodyBuffer>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let held = body.map_or(self.held.len(), BodyBuffer::held_bytes);
        if held >= MAX_HEAD_BYTES {
            return Poll::Pending;
        }
        match body {
            Some(body) => body.read(|held| poll_read_more(&mut self.socket, held, cx)),
            None => poll_read_more(&mut self.socket, &mut self.held, cx),
        }
    }

    /// Writes a response. A client that reads none of it for `limits.stall` is disconnected.
    async fn send(&mut self, mut output: Output) -> io::Result<()> {
        let stall = self.context.limits.stall;
        let mut clock: Option<(u64, Pin<Box<Sleep>>)> = None;
        poll_fn(|cx| {
            if let Poll::Ready(sent) = output.poll(&mut self.socket, cx) {
                return Poll::Ready(sent);
            }
            let sent_bytes = output.sent_bytes();
            let start = || (sent_bytes, Box::pin(tokio::time::sleep(stall)));
            let (seen_bytes, stalled) = clock.get_or_insert_with(start);
            if *seen_bytes != sent_bytes {
                *seen_bytes = sent_bytes;
                self.peer.touch(true);
                stalled.as_mut().reset(Instant::now() + stall);
            }
            stalled.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
        })
        .await
    }

    /// Reads the rest of a request's body after its response.
    async fn finish_body(&mut self, mut rest: Decoder) -> Result<(), End<B>> {
        if rest.is_ended() {
            return Ok(());
        }
        let reading = async {
            let mut read_bytes = 0;
            loop {
                match rest.decode(&mut self.held) {
                    Ok(Step::Ended) => return Ok(()),
                    Ok(Step::Data(_)) => {}
                    Ok(Step::More) if read_bytes > MAX_BODY_END_BYTES => return Err(End::Linger),
                    Ok(Step::More) => match self.read_more().await? {
                        0 => return Err(End::Gone),
                        count => read_bytes += count,
                    },
                    Err(malformed) => {
                        rejection::record(&self.context, malformed, self.address);
                        return Err(End::Linger);
                    }
                }
            }
        };
        tokio::time::timeout(BODY_END, reading).await.unwrap_or(Err(End::Gone))
    }

    /// Responds to a malformed request, which ends the connection.
    async fn reject(mut self, malformed: Malformed) {
        rejection::record(&self.context, malformed, self.address);
        let response: Response<BoxBody> = rejection::response(malformed).into();
        let framing = Framing::of(&response, Version::HTTP_11);
        if self.send(Output::new(response, framing, true)).await.is_ok() {
            self.linger().await;
        }
    }

    async fn linger(self) {
        self.peer.touch(false);
        stream::linger(self.socket).await;
    }
}

impl<S, B> Connection<S, B> {
    /// Whether the client has disconnected.
    fn has_ended(&mut self) -> bool {
        self.socket
            .has_ended()
            .unwrap_or_else(|| matches!(self.read_more().now_or_never(), Some(Ok(0) | Err(_))))
    }

    /// Reads more bytes, and returns their number; 0 at the end.
    async fn read_more(&mut self) -> io::Result<usize> {
        poll_fn(|cx| poll_read_more(&mut self.socket, &mut self.held, cx)).await
    }
}

/// `100 Continue`, written when the handler first waits for the body. A request that is rejected
/// before that only gets its final response.
struct Interim {
    expected: bool,
    left: &'static [u8],
}

impl Interim {
    fn new(expected: bool) -> Self {
        Self { expected, left: CONTINUE }
    }

    /// Whether the client waits for it and no byte of it has been written.
    fn is_due(&self) -> bool {
        self.expected && self.left.len() == CONTINUE.len()
    }

    /// Writes as much as the socket accepts now.
    fn poll(&mut self, socket: &mut ClientTcp, cx: &mut Context<'_>) -> Result<(), io::Error> {
        while self.expected && !self.left.is_empty() {
            match Pin::new(&mut *socket).poll_write(cx, self.left)? {
                Poll::Ready(0) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(out) => self.left = &self.left[out..],
                Poll::Pending => return Ok(()),
            }
            // The next write reports the error again.
            let _ = Pin::new(&mut *socket).poll_flush(cx)?;
        }
        Ok(())
    }

    /// Writes the rest of a partly written response.
    async fn finish<S, B>(&mut self, connection: &mut Connection<S, B>) -> io::Result<()> {
        if self.is_due() || !self.expected {
            return Ok(());
        }
        let stall = connection.context.limits.stall;
        let writing = poll_fn(|cx| match self.poll(&mut connection.socket, cx) {
            Ok(()) if !self.left.is_empty() => Poll::Pending,
            done => Poll::Ready(done),
        });
        tokio::time::timeout(stall, writing).await.unwrap_or(Err(io::ErrorKind::TimedOut.into()))
    }
}

//! Runs one connection: accepts its requests, and ends it when it is idle, blocked, flooded,
//! evicted or drained.

use std::{
    marker::PhantomData,
    net::SocketAddr,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use actix_http::{HttpMessage, Request, Response, body::BoxBody};
use actix_service::Service;
use actix_web::{
    body::MessageBody,
    rt::time::{Sleep, sleep_until},
};
use bytes::Bytes;
use h2::{
    Reason, RecvStream,
    server::{Connection, SendResponse},
};

use super::{
    Http2Limits,
    metered::Metered,
    request,
    shared::{Active, Entry, Shared},
    stream::{self, StreamContext},
};
use crate::http::{front::HEAD, sockets::peer::Peer, stream_reset::StreamReset};

/// Maximum time without a request.
const IDLE: Duration = Duration::from_secs(60);
/// How long a connection without a request stays open after GOAWAY, for requests in flight.
const LAST_REQUESTS: Duration = Duration::from_secs(2);
/// Maximum time to close a connection.
const CLOSE: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// GOAWAY was sent; requests in progress or in flight are still served.
    GoingAway,
    /// The last GOAWAY was sent; no request is served.
    Closing,
}

/// The parts of the worker that a connection needs.
pub struct Parts<S> {
    /// The app.
    pub service: Rc<S>,
    /// The client's address.
    pub address: SocketAddr,
    /// The client's socket.
    pub peer: Peer,
    /// The limits of the connection.
    pub limits: Http2Limits,
    /// Its entry among the worker's connections.
    pub entry: Entry,
}

/// A socket that accepts no data.
#[derive(Clone, Copy)]
struct Blocked {
    since: Instant,
    /// Bytes that the client had acknowledged by then; `None` if unknown.
    acknowledged_bytes: Option<u64>,
}

/// The task of one connection.
pub struct Driver<S, B> {
    connection: Connection<Metered, Bytes>,
    shared: Rc<Shared>,
    parts: Parts<S>,
    phase: Phase,
    has_served: bool,
    /// Whether the end of the last request was handled.
    is_idle: bool,
    /// When the phase began, or the last request ended.
    idle_since: Instant,
    blocked: Option<Blocked>,
    timer: Option<Pin<Box<Sleep>>>,
    body: PhantomData<fn(B)>,
}

impl<S, B> Driver<S, B>
where
    S: Service<Request> + 'static,
    S::Response: Into<Response<B>>,
    S::Error: Into<Response<BoxBody>>,
    B: MessageBody + 'static,
{
    /// Runs a connection.
    pub fn new(
        connection: Connection<Metered, Bytes>,
        shared: Rc<Shared>,
        parts: Parts<S>,
    ) -> Self {
        let idle_since = shared.opened();
        let (phase, has_served) = (Phase::Open, false);
        Self {
            connection,
            shared,
            parts,
            phase,
            has_served,
            is_idle: true,
            idle_since,
            blocked: None,
            timer: None,
            body: PhantomData,
        }
    }

    /// Ready when the connection has ended.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.shared.set_waker(cx);
        loop {
            match self.connection.poll_accept(cx) {
                Poll::Ready(Some(Ok((request, respond)))) => self.begin(request, respond),
                Poll::Ready(_) => return Poll::Ready(()),
                // Send the frames that result from the decision.
                Poll::Pending if self.decide(cx) => {}
                Poll::Pending => match ready!(self.poll_timer(cx)) {
                    Timer::Acted => {}
                    Timer::Over => return Poll::Ready(()),
                },
            }
        }
    }

    fn begin(&mut self, request: http::Request<RecvStream>, mut respond: SendResponse<Bytes>) {
        self.has_served = true;
        let reset = Rc::new(StreamReset::default());
        let expects =
            request.headers().get(http::header::EXPECT).is_some_and(|e| e == "100-continue");
        if expects && !request.body().is_end_stream() {
            let mut interim = http::Response::new(());
            *interim.status_mut() = http::StatusCode::CONTINUE;
            let _ = respond.send_informational(interim);
        }
        let Some(request) = request::convert(request, self.parts.address) else {
            return respond.send_reset(Reason::PROTOCOL_ERROR);
        };
        request.extensions_mut().insert(self.parts.peer.clone());
        request.extensions_mut().insert(reset.clone());
        self.is_idle = false;
        self.parts.peer.touch(true);
        let active = Active::new(&self.shared);
        let (peer, stall) = (self.parts.peer.clone(), self.parts.limits.stall);
        let context = StreamContext { active, peer, reset, stall };
        let service = self.parts.service.clone();
        actix_web::rt::spawn(stream::run::<S, B>(service, request, respond, context));
    }

    /// Decides whether the connection must end; returns whether anything changed.
    fn decide(&mut self, cx: &mut Context<'_>) -> bool {
        if self.phase == Phase::Closing {
            return self.poll_evicted(cx) && self.evict();
        }
        if self.shared.is_flooded() {
            let address = self.parts.address;
            tracing::debug!(%address, "an HTTP/2 client sends too many frames");
            return self.close(Reason::ENHANCE_YOUR_CALM);
        }
        let ends = self.parts.peer.is_retired() || self.parts.entry.is_closing();
        if self.phase == Phase::Open && ends {
            return self.go_away();
        }
        if self.shared.is_idle() && !self.is_idle {
            self.is_idle = true;
            self.idle_since = Instant::now();
            self.parts.peer.touch(false);
        }
        // Also while responses wait for the client: only event streams keep a connection open.
        if self.poll_evicted(cx) {
            self.connection.abrupt_shutdown(Reason::NO_ERROR);
            return self.evict();
        }
        false
    }

    fn poll_evicted(&mut self, cx: &mut Context<'_>) -> bool {
        !self.shared.is_evicted() && self.parts.peer.poll_evicted(cx).is_ready()
    }

    /// Closes the connection in favour of others: as soon as GOAWAY is written, or at once.
    fn evict(&mut self) -> bool {
        self.shared.set_evicted();
        self.enter(Phase::Closing)
    }

    fn go_away(&mut self) -> bool {
        self.connection.graceful_shutdown();
        self.enter(Phase::GoingAway)
    }

    fn close(&mut self, reason: Reason) -> bool {
        self.connection.abrupt_shutdown(reason);
        self.enter(Phase::Closing)
    }

    fn enter(&mut self, phase: Phase) -> bool {
        self.phase = phase;
        self.idle_since = Instant::now();
        true
    }

    /// The next time at which the connection must act without the client.
    fn deadline(&self) -> Option<Instant> {
        let patience = match self.phase {
            Phase::Closing if self.shared.is_evicted() => return Some(self.idle_since),
            Phase::Closing => return Some(self.idle_since + CLOSE),
            Phase::GoingAway => LAST_REQUESTS,
            Phase::Open if self.has_served => IDLE,
            Phase::Open => HEAD,
        };
        let idle = self.shared.is_idle().then(|| self.idle_since + patience);
        [idle, self.blocked_deadline()].into_iter().flatten().min()
    }

    fn blocked_deadline(&self) -> Option<Instant> {
        self.blocked.map(|blocked| blocked.since + self.parts.limits.stall)
    }

    /// Records the client's progress when its socket becomes blocked.
    fn watch_socket(&mut self) {
        let since = self.shared.blocked_since.get();
        if since != self.blocked.map(|blocked| blocked.since) {
            let acknowledged_bytes = since.and_then(|_| self.acknowledged_bytes());
            self.blocked = since.map(|since| Blocked { since, acknowledged_bytes });
        }
    }

    /// Whether a client made no progress while its socket was blocked for the whole time. A client
    /// may read so slowly that the socket stays blocked; progress restarts the time.
    fn has_stalled(&mut self) -> bool {
        let now = Instant::now();
        let Some(blocked) = self.blocked else { return false };
        let acknowledged_bytes = self.acknowledged_bytes();
        let has_progress = acknowledged_bytes != blocked.acknowledged_bytes;
        if has_progress {
            self.shared.blocked_since.set(Some(now));
            self.blocked = Some(Blocked { since: now, acknowledged_bytes });
        }
        !has_progress
    }

    fn acknowledged_bytes(&self) -> Option<u64> {
        self.parts.peer.progress().map(|progress| progress.acknowledged_bytes)
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<Timer> {
        self.watch_socket();
        let Some(deadline) = self.deadline() else {
            self.timer = None;
            return Poll::Pending;
        };
        let at = deadline.into();
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if timer.deadline() != at {
            timer.as_mut().reset(at);
        }
        ready!(timer.as_mut().poll(cx));
        self.timer = None;
        let is_blocked = self.blocked_deadline().is_some_and(|blocked| blocked <= deadline);
        match self.phase {
            Phase::Closing => return Poll::Ready(Timer::Over),
            // A stalled client would not read a GOAWAY.
            _ if is_blocked => match self.has_stalled() {
                true => return Poll::Ready(Timer::Over),
                false => return Poll::Ready(Timer::Acted),
            },
            Phase::Open if self.has_served => self.go_away(),
            Phase::Open | Phase::GoingAway => self.close(Reason::NO_ERROR),
        };
        Poll::Ready(Timer::Acted)
    }
}

enum Timer {
    Acted,
    Over,
}

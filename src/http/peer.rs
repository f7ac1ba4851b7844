//! The client of a request: its address, and the state that the streams over one socket share.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    net::IpAddr,
    rc::{Rc, Weak},
    task::{Context, Poll, Waker},
};

use actix_web::{HttpMessage, HttpRequest};

use super::sockets::tcp::Inner;
use crate::{
    admission::ClientStream,
    core::address,
    settings::Server,
    state::client_liveness::{ClientLiveness, Progress},
};

/// A weak handle to the socket of a request. It does not keep the descriptor open: after the owner
/// has dropped the socket, calls have no effect, even if the descriptor's number is in use again.
#[derive(Clone)]
pub struct Peer {
    socket: Weak<Inner>,
    /// Resets only the request's stream; HTTP/2 only.
    reset: Option<Rc<StreamReset>>,
}

/// Lets other code reset one stream of an HTTP/2 connection.
#[derive(Default)]
pub struct StreamReset {
    requested: Cell<bool>,
    stalled: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl StreamReset {
    /// Whether a reset is requested; if not, the task is woken when it is.
    pub fn poll_requested(&self, cx: &Context<'_>) -> bool {
        let mut waker = self.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|w| w.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        self.requested.get()
    }

    /// Requests a reset because the client has stalled.
    pub fn set_stalled(&self) {
        self.stalled.set(true);
    }

    fn request(&self) {
        self.requested.set(true);
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }
}

/// The address of a request's client; `None` if it has already disconnected.
pub fn client_address(request: &HttpRequest, settings: &Server) -> Option<IpAddr> {
    let peer = request.peer_addr()?.ip();
    let header = settings.client_address_header;
    let lines = request.headers().get_all(header.name());
    let lines: Vec<&str> = lines.filter_map(|line| line.to_str().ok()).collect();
    Some(address::client(peer, &settings.trusted_proxies, header, lines.into_iter()))
}

impl Peer {
    pub(super) fn new(socket: Weak<Inner>) -> Self {
        Self { socket, reset: None }
    }

    /// A handle to the same socket for one of its HTTP/2 streams.
    pub fn for_stream(&self, reset: Rc<StreamReset>) -> Self {
        Self { reset: Some(reset), ..self.clone() }
    }

    /// The socket of a request.
    pub fn of_request(request: &HttpRequest) -> Option<Self> {
        request.conn_data::<Self>().or(request.extensions().get()).cloned()
    }

    /// Whether the socket has event streams or admitted polls.
    pub fn has_streams(&self) -> bool {
        self.ask(Inner::has_streams)
    }

    /// Records activity of the client: other idle sockets are evicted before this one. With
    /// `has_request`, a request is in progress, and a closing listener waits for it.
    pub fn touch(&self, has_request: bool) {
        if let Some(socket) = self.socket.upgrade() {
            socket.touch(has_request);
        }
    }

    /// Ready when the socket must be closed because another one needs its descriptor; never while
    /// it has streams. Only one task may poll it.
    pub fn poll_evicted(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.socket.upgrade().map_or(Poll::Pending, |socket| socket.poll_evicted(cx))
    }

    /// Waits until the socket must be closed, see [`Peer::poll_evicted`].
    pub async fn evicted(&self) {
        poll_fn(|cx| self.poll_evicted(cx)).await;
    }

    /// What the client has acknowledged; `None` if it is unknown or the socket is closed.
    pub fn progress(&self) -> Option<Progress> {
        self.socket.upgrade()?.progress()
    }

    /// Ends the connection after its last stream. HTTP/1.1 announces this with `connection: close`,
    /// HTTP/2 with GOAWAY.
    pub fn retire(&self) {
        self.ask(|socket| socket.retired.replace(true));
    }

    /// Whether the connection was retired.
    pub fn is_retired(&self) -> bool {
        self.ask(|socket| socket.retired.get())
    }

    /// Evaluates a condition; `false` if the socket is closed.
    fn ask(&self, question: impl FnOnce(&Inner) -> bool) -> bool {
        self.socket.upgrade().is_some_and(|socket| question(&socket))
    }
}

/// A stream of a socket; counted until it is dropped.
pub struct StreamOfPeer(Option<Peer>);

impl StreamOfPeer {
    /// Counts a stream of this socket.
    pub fn new(peer: Option<Peer>) -> Self {
        if let Some(socket) = peer.as_ref().and_then(|peer| peer.socket.upgrade()) {
            socket.stream_began();
        }
        Self(peer)
    }
}

impl ClientStream for StreamOfPeer {
    fn liveness(&self) -> Box<dyn ClientLiveness> {
        Box::new(StreamSocket(self.0.clone()))
    }

    fn has_stalled(&self) -> bool {
        let reset = self.0.as_ref().and_then(|peer| peer.reset.as_ref());
        reset.is_some_and(|reset| reset.stalled.get())
    }

    fn retire(&self) {
        if let Some(peer) = &self.0 {
            peer.retire();
        }
    }
}

impl Drop for StreamOfPeer {
    fn drop(&mut self) {
        if let Some(socket) = self.0.as_ref().and_then(|peer| peer.socket.upgrade()) {
            socket.stream_ended();
        }
    }
}

/// The socket; `None` if the client disconnected before its request was handled.
struct StreamSocket(Option<Peer>);

impl ClientLiveness for StreamSocket {
    fn progress(&self) -> Option<Progress> {
        self.0.as_ref()?.progress()
    }

    fn has_stall_timer(&self) -> bool {
        self.0.as_ref().is_some_and(|peer| peer.reset.is_some())
    }

    fn disconnect(&self) -> bool {
        let Some(peer) = &self.0 else { return false };
        match &peer.reset {
            Some(reset) => {
                reset.request();
                true
            }
            None => peer.ask(Inner::abort),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use futures_util::FutureExt;
    use tokio::{
        io::AsyncReadExt,
        net::{TcpListener, TcpStream},
    };

    use super::*;
    use crate::{
        http::sockets::{
            budget::{Load, SocketBudget},
            idle::IdleLimits,
            tcp::ClientTcp,
        },
        metrics::Metrics,
    };

    const IDLE: IdleLimits = IdleLimits { crowded: 8, max: 8 };

    #[tokio::test]
    async fn socket_is_evictable_only_without_streams() {
        let budget = SocketBudget::new("public", 8, IDLE, &Metrics::new());
        let slot = budget.try_slot(&Load::of_workers(1).remove(0)).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (tcp, address) = listener.accept().await.unwrap();
        let socket = ClientTcp::new(tcp, address, slot);
        let peer = socket.peer();
        let streams = [(); 2].map(|()| StreamOfPeer::new(Some(peer.clone())));
        assert!(peer.has_streams() && !budget.idle.evict_oldest());
        let mut evicted = Box::pin(peer.evicted());
        assert!(evicted.as_mut().now_or_never().is_none());
        let [first, last] = streams;
        drop(first);
        assert!(!budget.idle.evict_oldest());
        drop(last);
        // The task is woken, so that it waits for its eviction.
        let (waited, ()) = tokio::join!(evicted, async {
            tokio::task::yield_now().await;
            assert!(budget.idle.evict_oldest());
        });
        assert_eq!(waited, ());
        // A stream that is admitted at that moment has precedence.
        let _stream = StreamOfPeer::new(Some(peer.clone()));
        assert!(peer.evicted().now_or_never().is_none());
    }

    #[tokio::test]
    async fn closed_socket_is_left_alone_when_its_descriptor_is_reused() {
        let budget = SocketBudget::new("public", 8, IDLE, &Metrics::new());
        let load = Load::of_workers(1).remove(0);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let accept = async || {
            let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (tcp, address) = listener.accept().await.unwrap();
            let (number, slot) = (tcp.as_raw_fd(), budget.try_slot(&load).unwrap());
            (client, ClientTcp::new(tcp, address, slot), number)
        };
        let (_client, first, first_number) = accept().await;
        let stream = StreamOfPeer::new(Some(first.peer()));
        let socket = stream.liveness();
        assert!(socket.progress().is_some());
        drop(first);
        assert_eq!(budget.open(), 0, "a peer does not keep the slot");
        // The system assigns the lowest free number; another test of the process may get it.
        let mut others = Vec::new();
        while others.last().is_none_or(|(_, _, number)| *number != first_number) && others.len() < 8
        {
            others.push(accept().await);
        }
        assert!(!socket.disconnect() && socket.progress().is_none());
        for (mut client, other, _) in others {
            assert!(other.peer().ask(|_| true));
            let mut byte = [0];
            let silent = client.read(&mut byte).now_or_never().is_none();
            assert!(silent, "the socket is still open");
        }
    }
}

//! The client's socket: dead ones are noticed by TCP_USER_TIMEOUT, stalled ones are shut from outside, since a body whose
//! client has stalled is not polled any more.

use std::{
    cell::{Cell, RefCell},
    net::{IpAddr, SocketAddr},
    os::fd::{AsRawFd, BorrowedFd, RawFd},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Waker},
    time::Duration,
};

use actix_web::{HttpMessage, HttpRequest, rt::net::TcpStream};
use socket2::SockRef;

use crate::{core::address, settings::Server};

/// The kernel takes so much more than the client's window: a stalled client costs little, and is noticed soon.
const UNSENT_BYTES: u32 = 64 << 10;

/// The socket that a request came by.
#[derive(Clone)]
pub struct Peer {
    fd: RawFd,
    address: SocketAddr,
    use_of: Arc<Use>,
    /// Ends the request's stream alone: HTTP/2 only.
    reset: Option<Rc<StreamReset>>,
}

/// Ends one stream of an HTTP/2 connection from outside.
#[derive(Default)]
pub struct StreamReset {
    requested: Cell<bool>,
    stalled: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl StreamReset {
    /// Whether the stream is to be reset; if not, the task is woken when it is.
    pub fn poll_requested(&self, cx: &Context<'_>) -> bool {
        let mut waker = self.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|w| w.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        self.requested.get()
    }

    /// The client took nothing for too long.
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

#[derive(Default)]
struct Use {
    /// Streams that run over it: more than one with HTTP/2.
    streams: AtomicUsize,
    /// Its clients shall come back by another one.
    retired: AtomicBool,
}

/// The address of a request's client; None: it has gone already.
pub fn client_address(request: &HttpRequest, settings: &Server) -> Option<IpAddr> {
    let peer = request.peer_addr()?.ip();
    let header = settings.client_address_header;
    let lines: Vec<&str> = request.headers().get_all(header.name()).filter_map(|line| line.to_str().ok()).collect();
    Some(address::client(peer, &settings.trusted_proxies, header, lines.into_iter()))
}

/// Counts a stream as long as it lives.
pub struct StreamOfPeer(Option<Peer>);

impl StreamOfPeer {
    /// A stream over that socket.
    pub fn new(peer: Option<Peer>) -> Self {
        if let Some(peer) = &peer {
            peer.use_of.streams.fetch_add(1, Ordering::Relaxed);
        }
        Self(peer)
    }

    /// See [`Peer::retire`].
    pub fn retire(&self) {
        if let Some(peer) = &self.0 {
            peer.retire();
        }
    }

    /// A function that resets the stream (HTTP/2) or shuts its socket down; it tells whether it did.
    pub fn evictor(&self) -> Box<dyn Fn() -> bool> {
        let peer = self.0.clone();
        Box::new(move || peer.as_ref().is_some_and(Peer::evict))
    }

    /// Whether the stream was reset because its client took nothing for too long.
    pub fn has_stalled(&self) -> bool {
        self.0.as_ref().and_then(|peer| peer.reset.as_ref()).is_some_and(|reset| reset.stalled.get())
    }
}

impl Drop for StreamOfPeer {
    fn drop(&mut self) {
        if let Some(peer) = &self.0 {
            peer.use_of.streams.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Peer {
    /// The socket of a connection; bounds how long it may stay silent and how much the kernel takes for it. None: the client has
    /// gone.
    pub fn of(tcp: &TcpStream, user_timeout: Duration) -> Option<Self> {
        // A socket that refuses an option is still closed by the stall clock.
        let socket = SockRef::from(tcp);
        let _ = socket.set_tcp_user_timeout(Some(user_timeout));
        let _ = socket.set_tcp_notsent_lowat(UNSENT_BYTES);
        let _ = socket.set_tcp_nodelay(true);
        Some(Self { fd: tcp.as_raw_fd(), address: tcp.peer_addr().ok()?, use_of: Arc::default(), reset: None })
    }

    /// The same socket, for one of its HTTP/2 streams.
    pub fn for_stream(&self, reset: Rc<StreamReset>) -> Self {
        Self { reset: Some(reset), ..self.clone() }
    }

    /// The socket that a request came by.
    pub fn of_request(request: &HttpRequest) -> Option<Self> {
        request.conn_data::<Self>().or(request.extensions().get()).cloned()
    }

    /// Whether streams run over it.
    pub fn has_streams(&self) -> bool {
        self.use_of.streams.load(Ordering::Relaxed) > 0
    }

    /// From now on it is to end with its last stream: HTTP/1.1 says so with `connection: close`, HTTP/2 with GOAWAY.
    pub fn retire(&self) {
        self.use_of.retired.store(true, Ordering::Relaxed);
    }

    /// Whether it was retired and carries no stream any more.
    pub fn is_over(&self) -> bool {
        self.use_of.retired.load(Ordering::Relaxed) && !self.has_streams()
    }

    /// Whether it was retired.
    pub fn is_retired(&self) -> bool {
        self.use_of.retired.load(Ordering::Relaxed)
    }

    fn evict(&self) -> bool {
        match &self.reset {
            Some(reset) => {
                reset.request();
                true
            }
            None => self.shutdown(),
        }
    }

    fn shutdown(&self) -> bool {
        // SAFETY: the descriptor is only borrowed for these two calls, on the thread that owns the socket. Should it have
        // been closed and given to another connection, that one has another peer, and is left alone.
        let fd = unsafe { BorrowedFd::borrow_raw(self.fd) };
        let socket = SockRef::from(&fd);
        let same = socket.peer_addr().ok().and_then(|a| a.as_socket()) == Some(self.address);
        same && socket.shutdown(std::net::Shutdown::Both).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use actix_web::rt::net::TcpListener;

    use super::*;

    #[actix_rt::test]
    async fn evicting_an_http2_stream_leaves_its_socket_open() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (tcp, _) = listener.accept().await.unwrap();
        let peer = Peer::of(&tcp, Duration::from_secs(60)).unwrap();
        let resets = [Rc::<StreamReset>::default(), Rc::default()];
        let streams = resets.clone().map(|reset| StreamOfPeer::new(Some(peer.for_stream(reset))));
        let requested = || resets.clone().map(|reset| reset.requested.get());
        assert!(streams[0].evictor()());
        assert_eq!(requested(), [true, false]);
        drop(streams);
        // The last stream of a connection is no different.
        let last = StreamOfPeer::new(Some(peer.for_stream(resets[1].clone())));
        assert!(last.evictor()() && requested() == [true, true]);
        assert_eq!(client.try_read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
        // Over HTTP/1.1 the socket goes with its stream.
        assert!(StreamOfPeer::new(Some(peer)).evictor()());
        client.readable().await.unwrap();
        assert_eq!(client.try_read(&mut [0]).unwrap(), 0);
    }
}

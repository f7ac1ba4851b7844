//! The client's socket: dead ones are noticed by TCP_USER_TIMEOUT, stalled ones are shut from outside, since a body whose
//! client has stalled is not polled any more.

use std::{
    net::{IpAddr, SocketAddr},
    os::fd::{AsRawFd, BorrowedFd, RawFd},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
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

    /// A function that shuts the socket down, unless other streams run over it; it tells whether it did.
    pub fn evictor(&self) -> Box<dyn Fn() -> bool> {
        let peer = self.0.clone();
        Box::new(move || peer.as_ref().is_some_and(|p| p.use_of.streams.load(Ordering::Relaxed) <= 1 && p.shutdown()))
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
        Some(Self { fd: tcp.as_raw_fd(), address: tcp.peer_addr().ok()?, use_of: Arc::default() })
    }

    /// The socket that a request came by.
    pub fn of_request(request: &HttpRequest) -> Option<Self> {
        request.conn_data::<Self>().or(request.extensions().get()).cloned()
    }

    /// Whether streams run over it.
    pub fn has_streams(&self) -> bool {
        self.use_of.streams.load(Ordering::Relaxed) > 0
    }

    /// From now on it is to end with its last stream: HTTP/1.1 says so with `connection: close`, HTTP/2 has no such word.
    pub fn retire(&self) {
        self.use_of.retired.store(true, Ordering::Relaxed);
    }

    /// Whether it was retired and carries no stream any more.
    pub fn is_over(&self) -> bool {
        self.use_of.retired.load(Ordering::Relaxed) && !self.has_streams()
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

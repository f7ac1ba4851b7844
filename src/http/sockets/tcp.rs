//! The TCP connection of a client. Its owner reads and writes; other code has a [`Peer`], which
//! keeps neither the connection nor its descriptor open.

mod async_io;

use std::{
    cell::{Cell, RefCell},
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream as StdTcpStream},
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    pin::Pin,
    rc::{Rc, Weak},
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use actix_web::rt::net::TcpStream;
use bytes::{Buf, Bytes};
use mio::{Registry, unix::SourceFd};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    budget::Slot,
    idle::IdleSocket,
    peer::Peer,
    tcp_info,
    tls::{TlsSession, encrypt_now},
    watch::{Resume, SocketWatch},
};
use crate::state::client_liveness::Progress;

/// Maximum number of bytes that the kernel buffers beyond the client's receive window. It is small,
/// so that a client that stops reading uses little memory and is detected soon.
const UNSENT_BYTES: u32 = 64 << 10;
/// Maximum number of reads and writes of a socket that is not registered with the runtime. The
/// runtime makes tasks yield after some calls, so that a client that always has more to read does
/// not keep the worker from the others.
const UNREGISTERED_CALLS: u8 = 8;

/// A client's TCP connection. Dropping it closes the descriptor and then frees its slot.
pub struct ClientTcp(Rc<Inner>);

/// The state that the owner and its peers share; peers have weak references.
pub(super) struct Inner {
    // Declared before the slot: fields are dropped in this order, and the slot must be freed last.
    tcp: RefCell<Tcp>,
    slot: Slot,
    address: SocketAddr,
    /// Number of open streams; more than one only with HTTP/2.
    streams: Cell<u32>,
    /// The entry among the idle sockets, while there is no stream.
    idle: RefCell<Option<IdleSocket>>,
    has_request: Cell<bool>,
    /// The task that closes the socket if it is evicted.
    waker: Cell<Option<Waker>>,
    /// Whether the connection must be closed after its last stream.
    pub retired: Cell<bool>,
    /// Whether the writer of an event stream has written everything and waits for more, so that
    /// [`Inner::write_now`] may write.
    is_writer_waiting: Cell<bool>,
    /// Whether the stream is live ([`ClientLiveness::is_live`](crate::state::client_liveness)).
    is_live: Cell<bool>,
    /// What was taken, and encrypted with TLS, and must be written first.
    unwritten: RefCell<Option<Box<Bytes>>>,
    /// The state of TLS, if it is used.
    tls: Cell<Option<Box<TlsSession>>>,
}

/// The socket itself.
enum Tcp {
    /// Not registered with the runtime, because nothing has blocked yet, and the number of calls
    /// that are left. Most streams never need it: their request has arrived before they are
    /// accepted, and then they are watched.
    Unregistered(StdTcpStream, u8),
    /// Polled by a task.
    Polled(TcpStream),
    /// Watched without a task, under this key.
    Watched(StdTcpStream, Weak<SocketWatch>, usize),
    Closed,
}

impl Tcp {
    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Polled(tcp) => Some(tcp.as_fd()),
            Self::Unregistered(tcp, _) | Self::Watched(tcp, ..) => Some(tcp.as_fd()),
            Self::Closed => None,
        }
    }

    /// Tries to read or write a socket that is not registered. If that would block, or no call is
    /// left, registers it. `None`: poll it.
    fn try_now<R>(
        &mut self,
        io: impl FnOnce(&StdTcpStream) -> io::Result<R>,
    ) -> Option<io::Result<R>> {
        let Self::Unregistered(tcp, left) = self else { return None };
        if *left > 0 {
            *left -= 1;
            let done = io(tcp);
            if !matches!(&done, Err(error) if error.kind() == io::ErrorKind::WouldBlock) {
                return Some(done);
            }
        }
        let Self::Unregistered(tcp, _) = std::mem::replace(self, Self::Closed) else { return None };
        match TcpStream::from_std(tcp) {
            Ok(tcp) => {
                *self = Self::Polled(tcp);
                None
            }
            Err(error) => Some(Err(error)),
        }
    }
}

/// Sets the options that sockets inherit when they are accepted, which saves two system calls for
/// each of them.
pub fn set_inherited_options(listener: &TcpListener) {
    // Errors are ignored: without these options a socket only uses more memory.
    let socket = SockRef::from(listener);
    let _ = socket.set_tcp_notsent_lowat(UNSENT_BYTES);
    let _ = socket.set_tcp_nodelay(true);
}

impl ClientTcp {
    /// Takes over an accepted connection, which is non-blocking and has inherited its options from
    /// the listener.
    pub fn new(tcp: StdTcpStream, address: SocketAddr, slot: Slot) -> Self {
        let idle = slot.enter_idle(false);
        Self(Rc::new(Inner {
            tcp: RefCell::new(Tcp::Unregistered(tcp, UNREGISTERED_CALLS)),
            slot,
            address,
            streams: Cell::default(),
            idle: RefCell::new(Some(idle)),
            has_request: Cell::default(),
            waker: Cell::default(),
            retired: Cell::default(),
            is_writer_waiting: Cell::default(),
            is_live: Cell::default(),
            unwritten: RefCell::default(),
            tls: Cell::default(),
        }))
    }

    /// Address and port of the client.
    pub fn address(&self) -> SocketAddr {
        self.0.address
    }

    /// A weak handle to the socket.
    pub fn peer(&self) -> Peer {
        Peer::new(Rc::downgrade(&self.0))
    }

    /// See [`Peer::poll_evicted`].
    pub fn poll_evicted(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.poll_evicted(cx)
    }

    /// See [`Peer::touch`].
    pub fn touch(&self, has_request: bool) {
        self.0.touch(has_request);
    }

    /// Sets whether other code may write to the socket ([`Peer::write_now`]).
    pub fn set_writer_waiting(&self, is_waiting: bool) {
        self.0.is_writer_waiting.set(is_waiting);
    }

    /// Uses TLS from now on.
    pub(super) fn start_tls(&self, session: Box<TlsSession>) {
        self.0.tls.set(Some(session));
    }

    /// Calls `f` with the state of TLS; `None` without TLS. `f` must not call this.
    pub(super) fn with_tls<R>(&self, f: impl FnOnce(&mut TlsSession) -> R) -> Option<R> {
        let mut tls = self.0.tls.take()?;
        let result = f(&mut tls);
        self.0.tls.set(Some(tls));
        Some(result)
    }

    /// Writes bytes of the connection itself, after those that wait, and keeps what the system does
    /// not accept now.
    ///
    /// # Errors
    /// The connection has ended.
    pub(super) fn send(&self, cx: &mut Context<'_>, mut bytes: &[u8]) -> io::Result<()> {
        let is_first = self.poll_unwritten(cx)?.is_ready();
        while is_first && !bytes.is_empty() {
            match self.poll_write_bytes(cx, bytes)? {
                Poll::Ready(0) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(written) => bytes = &bytes[written..],
                Poll::Pending => break,
            }
        }
        self.0.keep(bytes);
        Ok(())
    }

    /// As [`ClientTcp::send`], for a watched socket: its task, when it has one again, finds errors.
    pub(super) fn send_now(&self, bytes: &[u8]) {
        let written = self.0.write_part(bytes).unwrap_or(0);
        self.0.keep(&bytes[written..]);
    }

    /// Writes the rest of what was taken before.
    pub fn poll_unwritten(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut kept = self.0.unwritten.borrow_mut();
        while let Some(unwritten) = kept.as_mut().filter(|bytes| !bytes.is_empty()) {
            match ready!(self.poll_write_bytes(cx, unwritten))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => unwritten.advance(written),
            }
        }
        *kept = None;
        Poll::Ready(Ok(()))
    }

    /// Reads or writes with `now` while the socket is not registered, and with `poll` afterwards.
    /// Neither calls back into this crate, so borrows cannot overlap.
    fn io<R>(
        &self,
        now: impl FnOnce(&StdTcpStream) -> io::Result<R>,
        poll: impl FnOnce(Pin<&mut TcpStream>) -> Poll<io::Result<R>>,
    ) -> Poll<io::Result<R>> {
        let mut tcp = self.0.tcp.borrow_mut();
        if let Some(done) = tcp.try_now(now) {
            return Poll::Ready(done);
        }
        match &mut *tcp {
            Tcp::Polled(tcp) => poll(Pin::new(tcp)),
            // The task that polls it has given it up.
            Tcp::Unregistered(..) | Tcp::Watched(..) | Tcp::Closed => {
                Poll::Ready(Err(io::ErrorKind::NotConnected.into()))
            }
        }
    }

    fn poll_write_bytes(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.io(|mut tcp| tcp.write(bytes), |tcp| tcp.poll_write(cx, bytes))
    }

    /// Reads the connection's own bytes, encrypted with TLS.
    pub(super) fn poll_read_bytes(
        &self,
        cx: &mut Context<'_>,
        bytes: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        // Both closures need the buffer, and only one of them is called.
        let bytes = RefCell::new(bytes);
        self.io(
            |mut tcp| tcp.read(&mut bytes.borrow_mut()),
            |tcp| {
                let mut bytes = bytes.borrow_mut();
                let mut buffer = ReadBuf::new(&mut bytes);
                ready!(tcp.poll_read(cx, &mut buffer))?;
                Poll::Ready(Ok(buffer.filled().len()))
            },
        )
    }

    /// Whether the client has disconnected, if no bytes are left to read; `None`: a read tells,
    /// because the socket is registered or uses TLS.
    pub fn has_ended(&self) -> Option<bool> {
        if self.with_tls(|_| ()).is_some() {
            return None;
        }
        match &*self.0.tcp.borrow() {
            Tcp::Unregistered(tcp, _) => Some(match tcp.peek(&mut [0]) {
                Ok(count) => count == 0,
                Err(error) => error.kind() != io::ErrorKind::WouldBlock,
            }),
            Tcp::Polled(_) | Tcp::Watched(..) | Tcp::Closed => None,
        }
    }

    /// Whether the stream is live, and so its writer needs a task only if something is queued.
    pub fn is_live(&self) -> bool {
        self.0.is_live.get()
    }

    /// Gives the socket of a live stream up until its writer is needed; then calls `resume`. If the
    /// client disconnects or sends too much, `resume` is dropped.
    pub fn wait(self, watch: &Rc<SocketWatch>, inbound_bytes: usize, resume: Resume) {
        let inner = self.0.clone();
        let tcp = match inner.tcp.replace(Tcp::Closed) {
            Tcp::Unregistered(tcp, _) => Ok(tcp),
            Tcp::Polled(tcp) => tcp.into_std(),
            Tcp::Watched(..) | Tcp::Closed => return,
        };
        let Ok(tcp) = tcp else { return };
        // It would keep the memory of the task.
        inner.waker.take();
        if let Ok(key) = watch.add(&tcp, self, inbound_bytes, resume) {
            inner.tcp.replace(Tcp::Watched(tcp, Rc::downgrade(watch), key));
        }
    }

    /// Makes a watched socket ready to be read and written by its task again.
    pub(super) fn leave_watch(&self, registry: &Registry) -> io::Result<()> {
        let Tcp::Watched(tcp, ..) = self.0.tcp.replace(Tcp::Closed) else { return Ok(()) };
        registry.deregister(&mut SourceFd(&tcp.as_raw_fd()))?;
        self.0.tcp.replace(Tcp::Unregistered(tcp, UNREGISTERED_CALLS));
        Ok(())
    }

    /// Reads from a watched socket what its client sends, to discard it, and returns the number of
    /// bytes.
    ///
    /// # Errors
    /// Nothing is left (`WouldBlock`), or the client has ended the connection.
    pub(super) fn discard_watched(&self, bytes: &mut [u8]) -> io::Result<usize> {
        let count = match &*self.0.tcp.borrow() {
            Tcp::Watched(tcp, ..) => (&mut &*tcp).read(bytes)?,
            Tcp::Unregistered(..) | Tcp::Polled(_) | Tcp::Closed => {
                return Err(io::ErrorKind::WouldBlock.into());
            }
        };
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.with_tls(|tls| tls.discard_received(self, &mut bytes[..count])).transpose()?;
        Ok(count)
    }
}

impl Inner {
    /// Whether the socket has event streams or admitted polls.
    pub fn has_streams(&self) -> bool {
        self.streams.get() > 0
    }

    /// Counts a new stream or poll. The socket is no longer idle.
    pub fn stream_began(&self) {
        self.streams.set(self.streams.get() + 1);
        // A pending eviction is cancelled.
        let left = self.idle.take();
        drop(left);
    }

    /// Counts the end of a stream or poll. After the last one, the socket is idle again.
    pub fn stream_ended(&self) {
        self.streams.set(self.streams.get().saturating_sub(1));
        if !self.has_streams() {
            let idle = self.slot.enter_idle(self.has_request.get());
            self.idle.replace(Some(idle));
            self.wake();
        }
    }

    /// See [`Peer::touch`].
    pub fn touch(&self, has_request: bool) {
        self.has_request.set(has_request);
        if let Some(idle) = &*self.idle.borrow() {
            idle.touch(has_request);
        }
    }

    /// See [`Peer::poll_evicted`].
    pub fn poll_evicted(&self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(idle) = &*self.idle.borrow() {
            return idle.poll_evicted(cx);
        }
        let waker = self.waker.take().filter(|waker| waker.will_wake(cx.waker()));
        self.waker.set(Some(waker.unwrap_or_else(|| cx.waker().clone())));
        Poll::Pending
    }

    fn wake(&self) {
        self.resume();
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// See [`ClientLiveness::resume_writer`](crate::state::client_liveness).
    pub fn resume(&self) {
        let watched = match &*self.tcp.borrow() {
            Tcp::Watched(_, watch, key) => watch.upgrade().map(|watch| (watch, *key)),
            Tcp::Unregistered(..) | Tcp::Polled(_) | Tcp::Closed => None,
        };
        if let Some((watch, key)) = watched {
            watch.resume(key);
        }
    }

    /// See [`Peer::is_watched`].
    #[cfg(test)]
    pub fn is_watched(&self) -> bool {
        matches!(&*self.tcp.borrow(), Tcp::Watched(..))
    }

    /// See [`ClientTcp::is_live`].
    pub fn set_live(&self) {
        self.is_live.set(true);
    }

    /// See [`Peer::write_now`]. If the socket accepts nothing, the writer must wait for it; it also
    /// finds the error if the client has gone.
    pub fn write_now(&self, chunks: &[u8]) -> bool {
        let is_possible = match &*self.tcp.borrow() {
            Tcp::Watched(..) => true,
            Tcp::Polled(_) => self.is_writer_waiting.get(),
            Tcp::Unregistered(..) | Tcp::Closed => false,
        };
        if !is_possible || self.unwritten.borrow().is_some() {
            return false;
        }
        if let Some(tls) = self.tls.take() {
            return encrypt_now(tls, chunks, |tls, records| {
                self.tls.set(Some(tls));
                // They are bound to their place in the connection.
                let written = self.write_part(records).unwrap_or(0);
                self.keep_for_writer(&records[written..]);
            });
        }
        let Ok(written) = self.write_part(chunks) else { return false };
        self.keep_for_writer(&chunks[written..]);
        true
    }

    /// Writes as much as the socket accepts now.
    fn write_part(&self, bytes: &[u8]) -> io::Result<usize> {
        match &*self.tcp.borrow() {
            Tcp::Watched(tcp, ..) => (&mut &*tcp).write(bytes),
            Tcp::Polled(tcp) => tcp.try_write(bytes),
            Tcp::Unregistered(..) | Tcp::Closed => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    /// Keeps what must be written before anything else.
    fn keep(&self, rest: &[u8]) {
        if rest.is_empty() {
            return;
        }
        let mut unwritten = self.unwritten.borrow_mut();
        let kept = match unwritten.take() {
            None => Bytes::copy_from_slice(rest),
            Some(before) => [&before, rest].concat().into(),
        };
        *unwritten = Some(Box::new(kept));
    }

    /// Keeps what the writer must write before anything else, and wakes it.
    fn keep_for_writer(&self, rest: &[u8]) {
        if !rest.is_empty() {
            self.is_writer_waiting.set(false);
            self.keep(rest);
            self.wake();
        }
    }

    /// What the client has acknowledged; `None` if the kernel does not report it.
    pub fn progress(&self) -> Option<Progress> {
        tcp_info::progress(self.tcp.borrow().as_fd()?)
    }

    /// Discards unsent data and resets the connection. With a closed receive window, a FIN would
    /// never arrive, and the kernel would keep the data. The owner detects the reset and drops the
    /// socket.
    pub fn abort(&self) -> bool {
        let tcp = self.tcp.borrow();
        let Some(tcp) = tcp.as_fd() else { return false };
        let socket = SockRef::from(&tcp);
        let _ = socket.set_linger(Some(Duration::ZERO));
        socket.shutdown(Shutdown::Both).is_ok()
    }
}

#[cfg(test)]
mod tests;

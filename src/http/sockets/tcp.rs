//! The TCP connection of a client. Its owner reads and writes; other code has a [`Peer`], which
//! keeps neither the connection nor its descriptor open.

use std::{
    cell::{Cell, RefCell},
    io::{self, IoSlice, Read, Write},
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
    watch::{Resume, SocketWatch},
};
use crate::state::client_liveness::Progress;

/// Maximum number of bytes that the kernel buffers beyond the client's receive window. It is small,
/// so that a client that stops reading uses little memory and is detected soon.
const UNSENT_BYTES: u32 = 64 << 10;

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
    idle: RefCell<Option<Box<IdleSocket>>>,
    has_request: Cell<bool>,
    /// The task that closes the socket if it is evicted.
    waker: RefCell<Option<Waker>>,
    /// Whether the connection must be closed after its last stream.
    pub retired: Cell<bool>,
    /// Whether the writer of an event stream has written everything and waits for more, so that
    /// [`Inner::write_now`] may write.
    is_writer_waiting: Cell<bool>,
    /// Whether the stream is live ([`ClientLiveness::is_live`](crate::state::client_liveness)).
    is_live: Cell<bool>,
    /// What [`Inner::write_now`] has taken and the writer must write first.
    unwritten: RefCell<Option<Box<Bytes>>>,
}

/// The socket itself.
enum Tcp {
    /// Not registered with the runtime, because nothing has blocked yet. Most streams never need
    /// it: their request has arrived before they are accepted, and then they are watched.
    Unregistered(StdTcpStream),
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
            Self::Unregistered(tcp) | Self::Watched(tcp, ..) => Some(tcp.as_fd()),
            Self::Closed => None,
        }
    }

    /// Tries to read or write a socket that is not registered. If that would block, registers it.
    /// `None`: poll it.
    fn try_now<R>(
        &mut self,
        io: impl FnOnce(&StdTcpStream) -> io::Result<R>,
    ) -> Option<io::Result<R>> {
        let Self::Unregistered(tcp) = &*self else { return None };
        let done = io(tcp);
        if !matches!(&done, Err(error) if error.kind() == io::ErrorKind::WouldBlock) {
            return Some(done);
        }
        let Self::Unregistered(tcp) = std::mem::replace(self, Self::Closed) else { return None };
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
        let idle = Box::new(slot.enter_idle(false));
        Self(Rc::new(Inner {
            tcp: RefCell::new(Tcp::Unregistered(tcp)),
            slot,
            address,
            streams: Cell::default(),
            idle: RefCell::new(Some(idle)),
            has_request: Cell::default(),
            waker: RefCell::default(),
            retired: Cell::default(),
            is_writer_waiting: Cell::default(),
            is_live: Cell::default(),
            unwritten: RefCell::default(),
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

    /// Writes the rest of what [`Peer::write_now`] has taken.
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
            Tcp::Unregistered(_) | Tcp::Watched(..) | Tcp::Closed => {
                Poll::Ready(Err(io::ErrorKind::NotConnected.into()))
            }
        }
    }

    fn poll_write_bytes(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.io(|mut tcp| tcp.write(bytes), |tcp| tcp.poll_write(cx, bytes))
    }

    /// Whether the client has disconnected, if no bytes are left to read; `None`: the socket is
    /// registered, and a read tells.
    pub fn has_ended(&self) -> Option<bool> {
        match &*self.0.tcp.borrow() {
            Tcp::Unregistered(tcp) => Some(match tcp.peek(&mut [0]) {
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
            Tcp::Unregistered(tcp) => Ok(tcp),
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
        self.0.tcp.replace(Tcp::Unregistered(tcp));
        Ok(())
    }

    /// Reads from a watched socket.
    pub(super) fn read_watched(&self, bytes: &mut [u8]) -> io::Result<usize> {
        match &*self.0.tcp.borrow() {
            Tcp::Watched(tcp, ..) => (&mut &*tcp).read(bytes),
            Tcp::Unregistered(_) | Tcp::Polled(_) | Tcp::Closed => {
                Err(io::ErrorKind::WouldBlock.into())
            }
        }
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
            self.idle.replace(Some(Box::new(idle)));
            self.wake();
        }
    }

    /// See [`Peer::touch`].
    pub fn touch(&self, has_request: bool) {
        self.has_request.set(has_request);
        if let Some(idle) = &mut *self.idle.borrow_mut() {
            idle.touch(has_request);
        }
    }

    /// See [`Peer::poll_evicted`].
    pub fn poll_evicted(&self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(idle) = &mut *self.idle.borrow_mut() {
            return idle.poll_evicted(cx);
        }
        let mut waker = self.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|w| w.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
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
            Tcp::Unregistered(_) | Tcp::Polled(_) | Tcp::Closed => None,
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
        let written = match &*self.tcp.borrow() {
            Tcp::Watched(tcp, ..) => (&mut &*tcp).write(chunks),
            Tcp::Polled(tcp) if self.is_writer_waiting.get() => tcp.try_write(chunks),
            Tcp::Unregistered(_) | Tcp::Polled(_) | Tcp::Closed => return false,
        };
        let Ok(written) = written else { return false };
        if written < chunks.len() {
            self.is_writer_waiting.set(false);
            let rest = Bytes::copy_from_slice(&chunks[written..]);
            self.unwritten.replace(Some(Box::new(rest)));
            self.wake();
        }
        true
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

impl AsyncRead for ClientTcp {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // Both closures need the buffer, and only one of them is called.
        let buffer = RefCell::new(buffer);
        self.io(
            |mut tcp| {
                let mut buffer = buffer.borrow_mut();
                let count = tcp.read(buffer.initialize_unfilled())?;
                buffer.advance(count);
                Ok(())
            },
            |tcp| tcp.poll_read(cx, &mut buffer.borrow_mut()),
        )
    }
}

impl AsyncWrite for ClientTcp {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_bytes(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.io(|mut tcp| tcp.write_vectored(slices), |tcp| tcp.poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io(|_| Ok(()), |tcp| tcp.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io(|tcp| tcp.shutdown(Shutdown::Write), |tcp| tcp.poll_shutdown(cx))
    }
}

#[cfg(test)]
mod tests {
    use std::net;

    use super::*;

    #[test]
    fn accepted_sockets_inherit_the_options_of_the_listener() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        set_inherited_options(&listener);
        let _client = net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let socket = SockRef::from(&accepted);
        assert_eq!(socket.tcp_notsent_lowat().unwrap(), UNSENT_BYTES);
        assert!(socket.tcp_nodelay().unwrap());
    }

    /// ARCHITECTURE.md#what-a-stream-holds lists what else a stream holds.
    #[test]
    fn socket_takes_at_most_its_budget() {
        assert_eq!(size_of::<Inner>(), 152, "update the table");
    }
}

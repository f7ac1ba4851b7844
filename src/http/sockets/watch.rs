//! Watches the sockets of waiting streams. A stream that has written everything needs no task: it
//! only has to notice that its client disconnects, and to discard what its client sends. All such
//! sockets of a worker are registered with one epoll instance, without a task and tokio's 256 bytes
//! for each.

use std::{
    cell::RefCell,
    io,
    net::TcpStream as StdTcpStream,
    os::fd::AsRawFd,
    rc::{Rc, Weak},
    time::Duration,
};

use mio::{Events, Interest, Poll, Registry, Token, unix::SourceFd};
use slab::Slab;
use tokio::io::unix::AsyncFd;

use super::tcp::ClientTcp;

/// Maximum number of events that are taken at once.
const EVENTS: usize = 256;

/// Maximum number of bytes that a client may send on a stream before it is disconnected.
pub const MAX_INBOUND_BYTES: usize = 64 << 10;

/// What continues with a socket that needs a task again; it gets the number of bytes that the
/// client has sent on the stream.
pub type Resume = Box<dyn FnOnce(ClientTcp, usize)>;

/// The waiting streams of one worker.
pub struct SocketWatch {
    registry: Registry,
    streams: RefCell<Slab<Waiting>>,
}

struct Waiting {
    // Dropped first: it contains the connection, which must end before its socket.
    resume: Resume,
    socket: ClientTcp,
    inbound_bytes: usize,
}

impl SocketWatch {
    /// Starts a watch, which ends with the worker. Call this inside the worker's runtime.
    ///
    /// # Errors
    /// The system is out of descriptors.
    pub fn start() -> io::Result<Weak<Self>> {
        let poll = Poll::new()?;
        let registry = poll.registry().try_clone()?;
        // SAFETY: `AsyncFd` owns the `Poll`, which keeps its descriptor open and the same until it
        // is dropped.
        let poll = unsafe { AsyncFd::register_with_interest(poll, tokio::io::Interest::READABLE)? };
        let watch = Rc::new(Self { registry, streams: RefCell::default() });
        let weak = Rc::downgrade(&watch);
        tokio::task::spawn_local(watch.run(poll));
        Ok(weak)
    }

    /// Watches a socket until [`SocketWatch::resume`], which calls `resume`. If the client
    /// disconnects or sends too much, both are dropped. Returns the key.
    ///
    /// # Errors
    /// The system is out of memory for watches.
    pub(super) fn add(
        &self,
        tcp: &StdTcpStream,
        socket: ClientTcp,
        inbound_bytes: usize,
        resume: Resume,
    ) -> io::Result<usize> {
        let mut streams = self.streams.borrow_mut();
        let entry = streams.vacant_entry();
        let key = entry.key();
        self.registry.register(&mut SourceFd(&tcp.as_raw_fd()), Token(key), Interest::READABLE)?;
        entry.insert(Waiting { resume, socket, inbound_bytes });
        Ok(key)
    }

    /// Ends the watch of a socket, and continues with it.
    pub(super) fn resume(&self, key: usize) {
        let removed = self.streams.borrow_mut().try_remove(key);
        if let Some(Waiting { resume, socket, inbound_bytes }) = removed
            && socket.leave_watch(&self.registry).is_ok()
        {
            resume(socket, inbound_bytes);
        }
    }

    async fn run(self: Rc<Self>, mut poll: AsyncFd<Poll>) {
        let mut events = Events::with_capacity(EVENTS);
        while let Ok(mut ready) = poll.readable_mut().await {
            let polled = ready.get_inner_mut().poll(&mut events, Some(Duration::ZERO));
            if polled.is_err() || events.is_empty() {
                ready.clear_ready();
            }
            events.iter().for_each(|event| self.handle(event.token().0));
            // The other tasks of the worker.
            tokio::task::yield_now().await;
        }
    }

    fn handle(&self, key: usize) {
        let mut streams = self.streams.borrow_mut();
        let Some(waiting) = streams.get_mut(key) else { return };
        if waiting.discard().is_err() {
            let removed = streams.remove(key);
            drop(streams);
            drop(removed);
        }
    }
}

impl Waiting {
    /// Discards what the client has sent. Fails if the client has disconnected or sent too much.
    fn discard(&mut self) -> io::Result<()> {
        let mut bytes = [0; 512];
        while self.inbound_bytes <= MAX_INBOUND_BYTES {
            match self.socket.discard_watched(&mut bytes) {
                Ok(count) => self.inbound_bytes += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Err(io::ErrorKind::ConnectionAborted.into())
    }
}

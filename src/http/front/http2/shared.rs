//! The state that a connection, its socket and its streams share. All of them run on one worker
//! thread.

use std::{
    cell::{Cell, RefCell},
    rc::{Rc, Weak},
    task::{Context, Waker},
    time::Instant,
};

use slab::Slab;

use super::{budget::Budget, frames::FrameHead};
use crate::http::sockets::tcp::ClientTcp;

/// State of one connection.
pub struct Shared {
    /// When the connection was opened.
    opened: Instant,
    /// Requests whose responses are incomplete.
    active: Cell<usize>,
    budget: RefCell<Budget>,
    flooded: Cell<bool>,
    evicted: Cell<bool>,
    /// Since when the socket has accepted no data, although there is data to write.
    pub blocked_since: Cell<Option<Instant>>,
    waker: RefCell<Option<Waker>>,
    /// The socket, once h2 has dropped it.
    pub returned: Cell<Option<ClientTcp>>,
}

impl Shared {
    /// Creates the state of a new connection.
    pub fn new(max_streams: u32) -> Rc<Self> {
        Rc::new(Self {
            opened: Instant::now(),
            active: Cell::new(0),
            budget: RefCell::new(Budget::new(max_streams)),
            flooded: Cell::new(false),
            evicted: Cell::new(false),
            blocked_since: Cell::new(None),
            waker: RefCell::default(),
            returned: Cell::new(None),
        })
    }

    /// When the connection was opened.
    pub fn opened(&self) -> Instant {
        self.opened
    }

    /// Whether the connection is evicted.
    pub fn is_evicted(&self) -> bool {
        self.evicted.get()
    }

    /// Marks the connection as evicted.
    pub fn set_evicted(&self) {
        self.evicted.set(true);
    }

    /// Whether no request is in progress.
    pub fn is_idle(&self) -> bool {
        self.active.get() == 0
    }

    /// Counts an inbound frame.
    pub fn count(&self, frame: FrameHead) {
        if !self.budget.borrow_mut().spend(frame, self.opened.elapsed()) {
            self.flooded.set(true);
        }
    }

    /// Whether the client has sent more frames than its budget allows.
    pub fn is_flooded(&self) -> bool {
        self.flooded.get()
    }

    /// Wakes the task of the connection.
    pub fn wake(&self) {
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    /// Sets the task to wake.
    pub fn set_waker(&self, cx: &Context<'_>) {
        let mut waker = self.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|w| w.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
    }
}

/// A request in progress; dropping it wakes the connection.
pub struct Active(Rc<Shared>);

impl Active {
    /// Counts a request.
    pub fn new(shared: &Rc<Shared>) -> Self {
        shared.active.set(shared.active.get() + 1);
        Self(shared.clone())
    }

    /// Whether the socket accepts no data, although there is data to write.
    pub fn is_socket_blocked(&self) -> bool {
        self.0.blocked_since.get().is_some()
    }

    /// Adds tokens, see [`Budget::earn`].
    pub fn earn(&self, tokens: u32) {
        self.0.budget.borrow_mut().earn(tokens);
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.active.set(self.0.active.get() - 1);
        self.0.wake();
    }
}

/// The HTTP/2 connections of one worker, which are notified when the instance closes.
#[derive(Clone, Default)]
pub struct Connections(Rc<All>);

#[derive(Default)]
struct All {
    closing: Cell<bool>,
    open: RefCell<Slab<Weak<Shared>>>,
}

/// A connection's entry; dropping it removes the connection.
pub struct Entry {
    connections: Connections,
    key: usize,
}

impl Connections {
    /// Ends all current and future connections.
    pub fn close(&self) {
        self.0.closing.set(true);
        self.0
            .open
            .borrow()
            .iter()
            .filter_map(|(_, open)| open.upgrade())
            .for_each(|open| open.wake());
    }

    /// Adds a connection.
    pub fn add(&self, shared: &Rc<Shared>) -> Entry {
        let key = self.0.open.borrow_mut().insert(Rc::downgrade(shared));
        Entry { connections: self.clone(), key }
    }
}

impl Entry {
    /// Whether the connection must end.
    pub fn is_closing(&self) -> bool {
        self.connections.0.closing.get()
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.connections.0.open.borrow_mut().remove(self.key);
    }
}

//! Lets a connection reset its stream of HTTP/2.

use std::{
    cell::{Cell, RefCell},
    task::{Context, Waker},
};

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

    /// Whether the stream was reset because the client had stalled.
    pub fn is_stalled(&self) -> bool {
        self.stalled.get()
    }

    /// Requests a reset.
    pub fn request(&self) {
        self.requested.set(true);
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }
}

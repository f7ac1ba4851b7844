//! The body of a request as its handler reads it. The connection reads the socket; both share what
//! was read and not yet taken.

use std::{
    cell::RefCell,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use actix_http::error::PayloadError;
use bytes::{Bytes, BytesMut};
use futures_util::Stream;

use super::body::{Decoder, Step};
use crate::core::malformed::Malformed;

/// Body bytes between a connection and the handler of its current request.
#[derive(Clone)]
pub struct BodyBuffer(Rc<RefCell<State>>);

struct State {
    /// Bytes that were read and not yet taken: of the body, and of what follows it.
    held: BytesMut,
    decoder: Decoder,
    /// The handler waits for more of the body.
    waiting: Option<Waker>,
    /// No more bytes will come.
    closed: bool,
    malformed: Option<Malformed>,
}

impl BodyBuffer {
    /// A request whose body begins with `held`.
    pub fn new(held: BytesMut, decoder: Decoder) -> Self {
        let state = State { held, decoder, waiting: None, closed: false, malformed: None };
        Self(Rc::new(RefCell::new(state)))
    }

    /// Takes bytes back that the handler has not taken: what is left of the body, and what follows.
    /// From then on the handler gets an error.
    pub fn reclaim(&self) -> (BytesMut, Decoder, Option<Malformed>) {
        let mut state = self.0.borrow_mut();
        state.close();
        let decoder = std::mem::replace(&mut state.decoder, Decoder::length(1));
        (std::mem::take(&mut state.held), decoder, state.malformed)
    }

    /// Whether the handler waits for bytes that have not come.
    pub fn is_waiting(&self) -> bool {
        self.0.borrow().waiting.is_some()
    }

    /// Bytes that were read and not yet taken.
    pub fn held_bytes(&self) -> usize {
        self.0.borrow().held.len()
    }

    /// Lets `read` append bytes from the socket.
    pub fn read<T>(&self, read: impl FnOnce(&mut BytesMut) -> T) -> T {
        read(&mut self.0.borrow_mut().held)
    }

    /// More bytes are there. True if the handler waited for them.
    pub fn wake(&self) -> bool {
        self.0.borrow_mut().waiting.take().map(Waker::wake).is_some()
    }

    /// No more bytes will come.
    pub fn close(&self) {
        self.0.borrow_mut().close();
    }
}

impl State {
    fn close(&mut self) {
        self.closed = true;
        if let Some(waiting) = self.waiting.take() {
            waiting.wake();
        }
    }
}

impl Stream for BodyBuffer {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut guard = self.0.borrow_mut();
        let state = &mut *guard;
        match state.decoder.decode(&mut state.held) {
            Ok(Step::Data(bytes)) => Poll::Ready(Some(Ok(bytes))),
            Ok(Step::Ended) => Poll::Ready(None),
            Ok(Step::More) if state.closed => {
                Poll::Ready(Some(Err(PayloadError::Incomplete(None))))
            }
            Ok(Step::More) => {
                state.waiting = Some(cx.waker().clone());
                Poll::Pending
            }
            Err(malformed) => {
                state.malformed = Some(malformed);
                Poll::Ready(Some(Err(PayloadError::EncodingCorrupted)))
            }
        }
    }
}

//! The body of a request as its handler reads it. The connection reads the socket; both share the
//! buffer of bytes that were read but not consumed.

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
use crate::http::malformed::Malformed;

/// The buffer of body bytes between a connection and the handler of its current request.
#[derive(Clone)]
pub struct BodyBuffer(Rc<RefCell<State>>);

struct State {
    /// Bytes that were read but not consumed: the body, and bytes after it.
    held: BytesMut,
    decoder: Decoder,
    /// Wakes the handler that waits for more of the body.
    waiting: Option<Waker>,
    /// No more bytes will arrive.
    closed: bool,
    malformed: Option<Malformed>,
}

impl BodyBuffer {
    /// Creates the buffer of a request whose body begins with `held`.
    pub fn new(held: BytesMut, decoder: Decoder) -> Self {
        let state = State { held, decoder, waiting: None, closed: false, malformed: None };
        Self(Rc::new(RefCell::new(state)))
    }

    /// Takes back the bytes that the handler has not consumed: the rest of the body, and bytes
    /// after it. The handler then gets an error.
    pub fn reclaim(&self) -> (BytesMut, Decoder, Option<Malformed>) {
        let mut state = self.0.borrow_mut();
        state.close();
        let decoder = std::mem::replace(&mut state.decoder, Decoder::length(1));
        (std::mem::take(&mut state.held), decoder, state.malformed)
    }

    /// Whether the handler waits for bytes that have not arrived.
    pub fn is_waiting(&self) -> bool {
        self.0.borrow().waiting.is_some()
    }

    /// Number of bytes that were read but not consumed.
    pub fn held_bytes(&self) -> usize {
        self.0.borrow().held.len()
    }

    /// Calls `read` to append bytes from the socket.
    pub fn read<T>(&self, read: impl FnOnce(&mut BytesMut) -> T) -> T {
        read(&mut self.0.borrow_mut().held)
    }

    /// Wakes the handler after bytes were added; returns whether it was waiting.
    pub fn wake(&self) -> bool {
        self.0.borrow_mut().waiting.take().map(Waker::wake).is_some()
    }

    /// Ends the body: no more bytes will arrive.
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

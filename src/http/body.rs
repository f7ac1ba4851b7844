//! The response body of a stream: a thin adapter from the connection's bytes to actix.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use actix_web::body::{BodySize, MessageBody};
use bytes::Bytes;

use crate::admission::Admitted;

/// Response body of one stream. Dropping it ends the connection.
pub struct EventBody(pub Admitted);

impl MessageBody for EventBody {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Infallible>>> {
        self.0.connection.poll_bytes(cx.waker()).map(|bytes| bytes.map(Ok))
    }
}

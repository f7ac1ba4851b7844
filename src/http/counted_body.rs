//! A JSON response that counts in `limits.queue_bytes_total` until it is sent: polls and histories
//! may be large, and their clients may not read them.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use actix_web::{
    HttpResponse, HttpResponseBuilder,
    body::{BodySize, MessageBody},
    http::header,
};
use bytes::Bytes;
use serde_json::Value;

use crate::state::limits::queued_bytes::ResponseBytes;

/// Size of the pieces in which the body is handed to the connection.
const PIECE_BYTES: usize = 64 << 10;

/// The rest of a body.
struct CountedBody {
    rest: Bytes,
    /// Counts until the connection has dropped this.
    _counted: ResponseBytes,
}

impl MessageBody for CountedBody {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Sized(self.rest.len() as u64)
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Infallible>>> {
        let length = self.rest.len().min(PIECE_BYTES);
        Poll::Ready((length > 0).then(|| Ok(self.rest.split_to(length))))
    }
}

/// Sends `body`, which is never stored by caches, as JSON.
pub fn json(
    response: &mut HttpResponseBuilder,
    body: &Value,
    mut counted: ResponseBytes,
) -> HttpResponse {
    let rest = Bytes::from(body.to_string());
    counted.set(rest.len());
    response
        .content_type(header::ContentType::json())
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .insert_header((header::REFERRER_POLICY, "no-referrer"))
        .message_body(CountedBody { rest, _counted: counted })
        .map(HttpResponse::map_into_boxed_body)
        .unwrap_or_else(|_| HttpResponse::InternalServerError().finish())
}

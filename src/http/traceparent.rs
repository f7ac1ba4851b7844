//! The header `traceparent` of a request.

use actix_web::http::header::HeaderMap;

use crate::core::trace_context::TraceParent;

/// The trace of a request. As W3C trace context requires, an invalid header is ignored, and so is
/// one that occurs twice.
pub fn trace_of(headers: &HeaderMap) -> Option<TraceParent> {
    let mut values = headers.get_all("traceparent");
    let only = values.next().filter(|_| values.next().is_none())?;
    TraceParent::parse(only.to_str().ok()?).ok().flatten()
}

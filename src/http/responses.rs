//! Answers that are no stream: errors in one form, and `sse.busy`.

use actix_web::{
    HttpResponse, HttpResponseBuilder, Resource, Route,
    http::{
        Method, StatusCode,
        header::{self, HeaderValue},
    },
    web,
};
use serde_json::json;

use crate::core::system::{BusyReason, busy};

/// `{"error":"<code>","message":"<fault; fix>"}`
pub fn error(status: StatusCode, code: &str, message: &str) -> HttpResponse {
    fill(&mut HttpResponse::build(status), code, message)
}

/// The same, and the connection is not used again: what the client still sends is not waited for.
pub fn last_error(status: StatusCode, code: &str, message: &str) -> HttpResponse {
    fill(HttpResponse::build(status).force_close(), code, message)
}

fn fill(answer: &mut HttpResponseBuilder, code: &str, message: &str) -> HttpResponse {
    answer
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .insert_header((header::REFERRER_POLICY, "no-referrer"))
        .json(json!({ "error": code, "message": message }))
}

/// 404 in the same form.
pub fn not_found() -> HttpResponse {
    let text = "there is nothing at this path; the documentation lists the endpoints";
    last_error(StatusCode::NOT_FOUND, "not-found", text)
}

/// 431 in the same form.
pub fn head_too_long(max_bytes: usize) -> HttpResponse {
    let message = format!(
        "the request line and the headers have more than {max_bytes} bytes; send a shorter query"
    );
    last_error(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "head-too-long", &message)
}

/// Methods of the public listener.
pub const METHODS: &str = "GET, POST, OPTIONS";

/// The response to `OPTIONS *` (RFC 9110 section 9.3.7).
pub fn server_options() -> HttpResponse {
    HttpResponse::NoContent().insert_header((header::ALLOW, METHODS)).finish()
}

/// A resource with one method; other methods get 405 and an `Allow` header.
pub fn only(method: Method, path: &str, route: Route) -> Resource {
    let other = move || {
        let message = format!("this endpoint takes {method}");
        let mut answer = error(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", &message);
        if let Ok(allowed) = HeaderValue::from_str(method.as_str()) {
            answer.headers_mut().insert(header::ALLOW, allowed);
        }
        std::future::ready(answer)
    };
    web::resource(path).route(route).default_service(web::to(other))
}

/// The head of every event stream.
pub fn event_stream() -> HttpResponseBuilder {
    let mut answer = HttpResponse::Ok();
    answer
        .insert_header((header::CONTENT_TYPE, "text/event-stream"))
        .insert_header((header::CACHE_CONTROL, "no-cache, no-transform"))
        .insert_header(("x-accel-buffering", "no"))
        .insert_header((header::REFERRER_POLICY, "no-referrer"))
        // A connection whose stream has ended is not reused: after a drain it must go elsewhere.
        .force_close();
    answer
}

/// 200, `sse.busy` and the end: an EventSource gives up for good on any other status.
pub fn busy_stream(reason: BusyReason) -> HttpResponse {
    event_stream().body(busy(reason, retry_ms(reason)))
}

/// `sse.busy` for a poll: 503, or 429 if the client connects too often.
pub fn busy_poll(reason: BusyReason) -> HttpResponse {
    let status = match reason {
        BusyReason::TooOften => StatusCode::TOO_MANY_REQUESTS,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    let mut answer =
        error(status, reason.name(), "the gateway cannot serve this now; try again later");
    let seconds = retry_ms(reason).div_ceil(1000);
    answer.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    answer
}

/// 10 to 30 s; where another instance can serve at once, 1 to 3 s.
fn retry_ms(reason: BusyReason) -> u64 {
    match reason {
        BusyReason::Draining => fastrand::u64(1000..=3000),
        _ => fastrand::u64(10_000..=30_000),
    }
}

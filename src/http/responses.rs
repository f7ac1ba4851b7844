//! Responses other than event streams: JSON errors, and `sse.busy`.

use std::future::{Ready, ready};

use actix_web::{
    HttpResponse, HttpResponseBuilder, Resource, Route,
    http::{
        StatusCode,
        header::{self, HeaderName, HeaderValue},
    },
    web,
};
use serde_json::{Value, json};

use crate::core::{control_events::busy, reasons::BusyReason};

/// `{"error":"<code>","message":"<problem; fix>"}`
pub fn error(status: StatusCode, code: &str, message: &str) -> HttpResponse {
    fill(&mut HttpResponse::build(status), code, message)
}

/// Like [`error`], with `Retry-After`.
pub fn retry_later(status: StatusCode, code: &str, message: &str) -> HttpResponse {
    let mut response = error(status, code, message);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

/// Like [`error`], but also closes the connection: the rest of the request is not read.
pub fn last_error(status: StatusCode, code: &str, message: &str) -> HttpResponse {
    fill(HttpResponse::build(status).force_close(), code, message)
}

fn fill(response: &mut HttpResponseBuilder, code: &str, message: &str) -> HttpResponse {
    response
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .insert_header((header::REFERRER_POLICY, "no-referrer"))
        .json(json!({ "error": code, "message": message }))
}

/// A response with data, which caches do not store.
pub fn answer(body: &Value) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .insert_header((header::REFERRER_POLICY, "no-referrer"))
        .json(body)
}

/// The 404 response.
pub fn not_found() -> HttpResponse {
    let text = "unknown path; see docs/reference for the endpoints";
    last_error(StatusCode::NOT_FOUND, "not-found", text)
}

/// The 431 response.
pub fn head_too_long(max_bytes: usize) -> HttpResponse {
    let message = format!(
        "the request line and headers exceed {max_bytes} bytes; shorten the query or the headers"
    );
    last_error(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "head-too-long", &message)
}

/// Methods of the public listener.
pub const METHODS: &str = "GET, POST, OPTIONS";

/// The response to `OPTIONS *` (RFC 9110 section 9.3.7).
pub fn server_options() -> HttpResponse {
    HttpResponse::NoContent().insert_header((header::ALLOW, METHODS)).finish()
}

/// A resource with one route; other methods than these get 405.
pub fn only(methods: &'static str, path: &str, route: Route) -> Resource {
    web::resource(path).route(route).default_service(web::to(other_method(methods)))
}

/// Responds 405, with these methods in the `Allow` header.
pub fn other_method(methods: &'static str) -> impl Fn() -> Ready<HttpResponse> + Clone {
    move || {
        let message = format!("this endpoint only supports {methods}");
        let mut response = error(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", &message);
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(methods));
        ready(response)
    }
}

static X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// The head of every event stream.
pub fn event_stream() -> HttpResponseBuilder {
    let text = HeaderValue::from_static;
    let mut response = HttpResponse::Ok();
    response
        .insert_header((header::CONTENT_TYPE, text("text/event-stream")))
        .insert_header((header::CACHE_CONTROL, text("no-cache, no-transform")))
        .insert_header((X_ACCEL_BUFFERING.clone(), text("no")))
        .insert_header((header::REFERRER_POLICY, text("no-referrer")))
        // A connection whose stream has ended is not reused: after a drain the client must connect
        // to another instance.
        .force_close();
    response
}

/// Status 200 with only `sse.busy`: an EventSource stops reconnecting after any other status.
pub fn busy_stream(reason: BusyReason) -> HttpResponse {
    event_stream().body(busy(reason, retry_ms(reason)))
}

/// `sse.busy` for a poll or a history: 503, or 429 if the client connects too often.
pub fn busy_poll(reason: BusyReason) -> HttpResponse {
    let status = match reason {
        BusyReason::TooOften => StatusCode::TOO_MANY_REQUESTS,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    let mut response =
        error(status, reason.name(), "the gateway cannot accept this request now; retry later");
    let seconds = retry_ms(reason).div_ceil(1000);
    response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    response
}

/// 10 to 30 s; while draining, 1 to 3 s, because another instance can serve the client.
fn retry_ms(reason: BusyReason) -> u64 {
    match reason {
        BusyReason::Draining => fastrand::u64(1000..=3000),
        _ => fastrand::u64(10_000..=30_000),
    }
}

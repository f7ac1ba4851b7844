//! The response to a malformed request: an error in the documented form, after which the connection
//! is closed.

use std::net::SocketAddr;

use actix_web::{
    HttpResponse,
    http::{
        StatusCode,
        header::{ALLOW, HeaderValue},
    },
};

use super::head::{MAX_HEAD_BYTES, MAX_HEADERS};
use crate::{
    http::{front::FrontContext, malformed::Malformed, responses},
    log_limit::LogLimit,
};

/// Minimum time between two log lines, for all workers together.
const LOG_INTERVAL_MS: u64 = 10_000;

static LOG: LogLimit = LogLimit::new(LOG_INTERVAL_MS);

/// Counts a malformed request, and logs it unless another one was logged recently.
pub fn record(context: &FrontContext, malformed: Malformed, peer: Option<SocketAddr>) {
    let reason = malformed.name();
    context.metrics.malformed.with_label_values(&[reason]).inc();
    if let Some(suppressed) = LOG.allow(context.clock.now_ms()) {
        let peer = peer.map(|address| address.to_string()).unwrap_or_default();
        tracing::info!(reason, peer, suppressed, "malformed request");
    }
}

/// The response to a malformed request.
pub fn response(malformed: Malformed) -> HttpResponse {
    let (status, code) = match malformed {
        Malformed::HeadTooLong => return responses::head_too_long(MAX_HEAD_BYTES),
        Malformed::TooManyHeaders => (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "head-too-long"),
        Malformed::Version => (StatusCode::HTTP_VERSION_NOT_SUPPORTED, "version-not-supported"),
        Malformed::Coding => (StatusCode::NOT_IMPLEMENTED, "coding-not-supported"),
        Malformed::Expectation => (StatusCode::EXPECTATION_FAILED, "expectation-failed"),
        Malformed::Connect => (StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed"),
        _ => (StatusCode::BAD_REQUEST, "bad-request"),
    };
    let mut response = responses::last_error(status, code, &message(malformed));
    if malformed == Malformed::Connect {
        response.headers_mut().insert(ALLOW, HeaderValue::from_static(responses::METHODS));
    }
    response
}

fn message(malformed: Malformed) -> String {
    let text = match malformed {
        Malformed::RequestLine => "send a request line \"<method> <target> HTTP/1.1\" and CRLF",
        Malformed::Target => "the request target must be a percent-encoded absolute path without #",
        Malformed::Version => "this version of HTTP is not supported; use HTTP/1.1 or HTTP/2",
        Malformed::Header => "a header field must be \"<name>: <value>\" and CRLF on one line",
        Malformed::Host => "HTTP/1.1 requires exactly one Host header with a valid host",
        Malformed::Length => {
            "the body's length is ambiguous; send one Content-Length or Transfer-Encoding: chunked"
        }
        Malformed::Coding => "this coding is not supported; send Transfer-Encoding: chunked",
        Malformed::Expectation => "this expectation is not supported; send Expect: 100-continue",
        Malformed::Connect => "this is not a proxy; CONNECT is not available",
        Malformed::TooManyHeaders => {
            return format!("the request has more than {MAX_HEADERS} header fields; send fewer");
        }
        Malformed::HeadTooLong => "the request line and headers are too long",
        Malformed::Chunk => "the body is not in the chunked encoding of RFC 9112 section 7.1",
    };
    text.to_owned()
}

//! The body of a request from a backend.

use std::time::Duration;

use actix_web::{
    HttpRequest, HttpResponse,
    http::StatusCode,
    web::{Bytes, Payload},
};

use super::{
    api_keys::{ApiAccess, ApiDenial, check},
    responses,
};
use crate::{
    settings::Scope,
    state::{limits::Limits, stream_context::StreamContext},
};

/// Maximum time to receive a body.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Checks the API key, then reads and returns the body. Nothing is read if the key is denied.
///
/// # Errors
/// The response to send: that of [`check`], 413 if the body is larger than
/// `limits.publish_body_bytes`, 408 if it is not received within 10 s, 400 if it is incomplete. All
/// of them close the connection.
pub async fn receive(
    request: &HttpRequest,
    payload: Payload,
    access: &ApiAccess,
    scope: Scope,
) -> Result<Bytes, Box<HttpResponse>> {
    let StreamContext { settings, clock, limits, .. } = &*access.context;
    check(request, &access.auth, scope)
        .and_then(|key| take(limits, key, clock.now_ms()))
        .map_err(|denial| Box::new(denial.response()))?;
    read(payload, settings.limits.publish_body_bytes).await
}

/// Counts a request with a body, by the digest of its API key.
///
/// # Errors
/// The key exceeds `limits.posts_per_key_per_second`.
pub fn take(limits: &Limits, key: [u8; 32], now_ms: u64) -> Result<(), ApiDenial> {
    match limits.posts_by_key.take(key, now_ms) {
        true => Ok(()),
        false => Err(ApiDenial::TooOften),
    }
}

/// Reads a body of at most `limit` bytes.
///
/// # Errors
/// The response to send, as of [`receive`].
pub async fn read(payload: Payload, limit: usize) -> Result<Bytes, Box<HttpResponse>> {
    let (status, code, message) =
        match tokio::time::timeout(TIMEOUT, payload.to_bytes_limited(limit)).await {
            Ok(Ok(Ok(bytes))) => return Ok(bytes),
            Ok(Ok(Err(_))) => (StatusCode::BAD_REQUEST, "bad-request", "the body is incomplete"),
            Ok(Err(_)) => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "too-large",
                "the body exceeds limits.publish_body_bytes; send less per request",
            ),
            Err(_) => (
                StatusCode::REQUEST_TIMEOUT,
                "body-timeout",
                "the body was not received within 10 s; send it again",
            ),
        };
    Err(Box::new(responses::last_error(status, code, message)))
}

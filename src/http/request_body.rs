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
use crate::{settings::Scope, state::stream_context::StreamContext};

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
        .and_then(|key| match limits.posts_by_key.take(key, clock.now_ms()) {
            true => Ok(()),
            false => Err(ApiDenial::TooOften),
        })
        .map_err(|denial| Box::new(denial.response()))?;
    let limit = settings.limits.publish_body_bytes;
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

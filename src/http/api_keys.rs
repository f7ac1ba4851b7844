//! API keys of backends and operators: compared by digest, in constant time.

use std::time::Duration;

use actix_web::{
    HttpRequest, HttpResponse,
    http::{StatusCode, header},
    web::{Bytes, Payload},
};
use aws_lc_rs::{constant_time::verify_slices_are_equal, digest};

use super::answers;
use crate::{
    core::system::BusyReason,
    settings::{ApiKey, Scope},
    state::instance::Instance,
};

/// Longest wait for a body.
const BODY: Duration = Duration::from_secs(10);

/// Why a key does not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    /// No keys are configured: the endpoint does not exist.
    NoEndpoint,
    /// There is no key in the request.
    Missing,
    /// The key is not configured.
    Unknown,
    /// The key lacks the scope.
    Scope,
    /// The key comes more often than `limits.posts_per_key_per_second`.
    TooOften,
}

impl Denial {
    /// The answer: 404, 401, 403 or 429.
    pub fn answer(self) -> HttpResponse {
        let (status, code, message) = match self {
            Self::NoEndpoint => return answers::not_found(),
            Self::Missing => {
                (StatusCode::UNAUTHORIZED, "api-key-missing", "give an API key as Authorization: Bearer <key>")
            }
            Self::Unknown => {
                (StatusCode::UNAUTHORIZED, "api-key-unknown", "this API key is not configured; see api_keys")
            }
            Self::Scope => (StatusCode::FORBIDDEN, "scope-missing", "this API key lacks the scope; see api_keys"),
            Self::TooOften => (
                StatusCode::TOO_MANY_REQUESTS,
                BusyReason::TooOften.name(),
                "this API key comes more often than limits.posts_per_key_per_second; send several events in one request",
            ),
        };
        let mut answer = answers::last_error(status, code, message);
        if self == Self::TooOften {
            answer.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from_static("1"));
        }
        answer
    }
}

/// Checks the key of a request for a scope; gives its digest.
///
/// # Errors
/// Why it does not do.
pub fn check(request: &HttpRequest, keys: &[ApiKey], scope: Scope) -> Result<[u8; 32], Denial> {
    if keys.is_empty() {
        return Err(Denial::NoEndpoint);
    }
    let key = bearer(request).ok_or(Denial::Missing)?;
    let digest = digest::digest(&digest::SHA256, key.as_bytes());
    // All are compared, so that the time does not tell which one came near.
    let found = keys.iter().fold(None, |found, k| match verify_slices_are_equal(&k.sha256, digest.as_ref()) {
        Ok(()) => Some(k),
        Err(_) => found,
    });
    match found {
        None => Err(Denial::Unknown),
        Some(k) if k.scopes.contains(&scope) => Ok(k.sha256),
        Some(_) => Err(Denial::Scope),
    }
}

/// The body of a request whose key has the scope. The key is checked before anything is read.
///
/// # Errors
/// The answer: that of [`check`], 413 if the body is larger than `limits.publish_body_bytes`, 408 if it does not come, 400 if it
/// breaks off. The connection is not used again.
pub async fn body(
    request: &HttpRequest,
    payload: Payload,
    instance: &Instance,
    scope: Scope,
) -> Result<Bytes, Box<HttpResponse>> {
    check(request, &instance.keys.api(), scope)
        .and_then(|key| match instance.rates.posts_by_key.take(key, instance.now_ms()) {
            true => Ok(()),
            false => Err(Denial::TooOften),
        })
        .map_err(|denial| Box::new(denial.answer()))?;
    let limit = instance.settings.limits.publish_body_bytes;
    let (status, code, message) = match tokio::time::timeout(BODY, payload.to_bytes_limited(limit)).await {
        Ok(Ok(Ok(bytes))) => return Ok(bytes),
        Ok(Ok(Err(_))) => (StatusCode::BAD_REQUEST, "bad-request", "the body cannot be read"),
        Ok(Err(_)) => (
            StatusCode::PAYLOAD_TOO_LARGE,
            "too-large",
            "the body is larger than limits.publish_body_bytes; send less at once",
        ),
        Err(_) => (StatusCode::REQUEST_TIMEOUT, "body-timeout", "the body did not come within 10 s; send it again"),
    };
    Err(Box::new(answers::last_error(status, code, message)))
}

/// The credential of `Authorization: Bearer` (RFC 6750 section 2.1).
pub fn bearer(request: &HttpRequest) -> Option<&str> {
    let value = request.headers().get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, credential) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| credential.trim())
}

//! The API key of a request from a backend or an operator.

use std::sync::Arc;

use actix_web::{
    HttpRequest, HttpResponse,
    http::{StatusCode, header},
};

use super::responses;
use crate::{
    auth::{ApiKeyError, Auth},
    core::reasons::BusyReason,
    settings::Scope,
    state::stream_context::StreamContext,
};

/// Why a request from a backend or an operator is denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiDenial {
    /// The API key does not grant access.
    Key(ApiKeyError),
    /// The key exceeds `limits.posts_per_key_per_second`.
    TooOften,
}

impl ApiDenial {
    /// The response: 404, 401, 403 or 429.
    pub fn response(self) -> HttpResponse {
        let (status, code, message) = match self {
            Self::Key(ApiKeyError::NoneConfigured) => return responses::not_found(),
            Self::Key(ApiKeyError::Missing) => (
                StatusCode::UNAUTHORIZED,
                "api-key-missing",
                "the request has no API key; send Authorization: Bearer <key>",
            ),
            Self::Key(ApiKeyError::Unknown) => (
                StatusCode::UNAUTHORIZED,
                "api-key-unknown",
                "this API key is not configured; see the setting api_keys",
            ),
            Self::Key(ApiKeyError::MissingScope) => (
                StatusCode::FORBIDDEN,
                "scope-missing",
                "this API key does not have the required scope; see the setting api_keys",
            ),
            Self::TooOften => (
                StatusCode::TOO_MANY_REQUESTS,
                BusyReason::TooOften.name(),
                "this API key exceeds limits.posts_per_key_per_second; send several events in one \
                 request",
            ),
        };
        let mut response = responses::last_error(status, code, message);
        if self == Self::TooOften {
            let retry_after = header::HeaderValue::from_static("1");
            response.headers_mut().insert(header::RETRY_AFTER, retry_after);
        }
        response
    }
}

/// The access of backends to one worker: API keys, and the limits of their requests.
pub struct ApiAccess {
    /// The API keys.
    pub auth: Arc<Auth>,
    /// Settings, clock and limits.
    pub context: Arc<StreamContext>,
}

/// Checks the API key of a request for a scope and returns its digest.
///
/// # Errors
/// The reason why access is denied.
pub fn check(request: &HttpRequest, auth: &Auth, scope: Scope) -> Result<[u8; 32], ApiDenial> {
    let key = bearer(request).filter(|key| !key.is_empty());
    auth.api_keys.check(key, scope).map_err(ApiDenial::Key)
}

/// The credential in `Authorization: Bearer` (RFC 6750 section 2.1); empty if it is not text.
pub fn bearer(request: &HttpRequest) -> Option<&str> {
    let value = request.headers().get(header::AUTHORIZATION)?.as_bytes();
    let end = value.iter().position(|byte| *byte == b' ').unwrap_or(value.len());
    let (scheme, credential) = value.split_at(end);
    let text = || std::str::from_utf8(credential).unwrap_or_default().trim();
    scheme.eq_ignore_ascii_case(b"bearer").then(text)
}

//! API keys of backends and operators: compared by digest, in constant time.

use actix_web::{
    HttpRequest, HttpResponse,
    http::{StatusCode, header},
};
use aws_lc_rs::{constant_time::verify_slices_are_equal, digest};

use super::answers;
use crate::settings::{ApiKey, Scope};

/// Checks the key of a request for a scope.
///
/// # Errors
/// The answer: 404 where no keys are configured, 401 without a known key, 403 without the scope.
pub fn check(request: &HttpRequest, keys: &[ApiKey], scope: Scope) -> Result<(), HttpResponse> {
    if keys.is_empty() {
        return Err(answers::not_found());
    }
    let given = request.headers().get(header::AUTHORIZATION).and_then(|v| v.to_str().ok());
    let given = given.and_then(|v| v.split_once(' ')).filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    let Some((_, key)) = given else {
        return Err(answers::error(
            StatusCode::UNAUTHORIZED,
            "api-key-missing",
            "give an API key as Authorization: Bearer <key>",
        ));
    };
    let digest = digest::digest(&digest::SHA256, key.trim().as_bytes());
    // All are compared, so that the time does not tell which one came near.
    let found = keys.iter().fold(None, |found, k| match verify_slices_are_equal(&k.sha256, digest.as_ref()) {
        Ok(()) => Some(k),
        Err(_) => found,
    });
    match found {
        None => Err(answers::error(
            StatusCode::UNAUTHORIZED,
            "api-key-unknown",
            "this API key is not configured; see api_keys",
        )),
        Some(k) if k.scopes.contains(&scope) => Ok(()),
        Some(_) => {
            Err(answers::error(StatusCode::FORBIDDEN, "scope-missing", "this API key lacks the scope; see api_keys"))
        }
    }
}

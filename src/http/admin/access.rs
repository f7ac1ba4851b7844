//! The API key of a request to the admin listener. An address that has sent too many unknown keys
//! is not answered for a while, so that keys cannot be guessed fast.

use std::{net::IpAddr, time::Duration};

use actix_web::{HttpRequest, HttpResponse, http::StatusCode};

use super::Admin;
use crate::{
    auth::ApiKeyError,
    core::{address::site, reasons::BusyReason},
    http::{
        api_keys::{ApiDenial, bearer},
        responses,
    },
    settings::{ApiKey, Scope},
    state::limits::rate::RateLimit,
};

/// Number of unknown keys that an address may send in each [`WINDOW`].
const UNKNOWN_KEYS: u64 = 60;
const WINDOW: Duration = Duration::from_secs(60);

/// The rate of unknown keys by address.
pub fn unknown_keys() -> RateLimit<IpAddr> {
    RateLimit::new(UNKNOWN_KEYS, WINDOW)
}

/// Checks that the request has a key with the scope `admin`, and returns the key.
///
/// # Errors
/// The response to send.
pub fn admin(request: &HttpRequest, admin: &Admin) -> Result<ApiKey, Box<HttpResponse>> {
    let address = request.peer_addr().map(|peer| site(peer.ip()));
    let now_ms = admin.clock.now_ms();
    if address.is_some_and(|address| !admin.unknown_keys.has_room(&address, now_ms)) {
        return Err(Box::new(too_many_unknown()));
    }
    let key = bearer(request).filter(|key| !key.is_empty());
    let key = admin.auth.api_keys.find(key).and_then(|key| match has(&key, Scope::Admin) {
        true => Ok(key),
        false => Err(ApiKeyError::MissingScope),
    });
    key.map_err(|error| {
        if let (ApiKeyError::Unknown, Some(address)) = (error, address) {
            admin.unknown_keys.take(address, now_ms);
        }
        Box::new(ApiDenial::Key(error).response())
    })
}

/// Checks that the request has a key with the scope `admin` and one of `scopes`.
///
/// # Errors
/// The response to send.
pub fn operator(
    request: &HttpRequest,
    state: &Admin,
    scopes: &[Scope],
) -> Result<ApiKey, Box<HttpResponse>> {
    let key = admin(request, state)?;
    match scopes.iter().any(|scope| has(&key, *scope)) {
        true => Ok(key),
        false => Err(Box::new(ApiDenial::Key(ApiKeyError::MissingScope).response())),
    }
}

/// Whether a key has a scope.
pub fn has(key: &ApiKey, scope: Scope) -> bool {
    key.scopes.contains(&scope)
}

fn too_many_unknown() -> HttpResponse {
    responses::retry_later(
        StatusCode::TOO_MANY_REQUESTS,
        BusyReason::TooOften.name(),
        "this address has sent too many unknown API keys; wait a minute",
    )
}

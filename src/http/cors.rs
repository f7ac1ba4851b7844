//! Cross-origin access as configured: exact origins with credentials, or any origin without.

use actix_cors::{Cors, CorsError};
use actix_web::{
    Error,
    body::{EitherBody, MessageBody},
    dev::{ServiceRequest, ServiceResponse},
    http::{Method, StatusCode, header},
    middleware::Next,
};

use super::{request_id::X_REQUEST_ID, responses};
use crate::settings;

/// Middleware that adds the CORS headers and responds to preflight requests.
pub fn cors(settings: &settings::Cors) -> Cors {
    let cors = Cors::default()
        .allowed_methods([Method::GET, Method::POST])
        .allow_any_header()
        .expose_headers([header::RETRY_AFTER, X_REQUEST_ID.clone()])
        .block_on_origin_mismatch(false)
        .max_age(3600);
    if settings.allowed_origins.iter().any(|o| o == "*") {
        return cors.allow_any_origin().send_wildcard();
    }
    if settings.allowed_origins.is_empty() {
        return cors;
    }
    let cors = cors.supports_credentials();
    settings.allowed_origins.iter().fold(cors, |cors, origin| cors.allowed_origin(origin))
}

/// Converts the errors of [`cors`], which actix sends as plain text, to JSON like all other errors,
/// and allows credentials only in responses to allowed origins: actix says so in all of them.
///
/// # Errors
/// Those of the handlers.
pub async fn refusals<B: MessageBody>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<EitherBody<B>>, Error> {
    let mut response = next.call(request).await?;
    let headers = response.headers_mut();
    if !headers.contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN) {
        headers.remove(header::ACCESS_CONTROL_ALLOW_CREDENTIALS);
    }
    let error = response.response().error().and_then(|error| error.as_error::<CorsError>());
    let (status, code, message) = match error {
        None => return Ok(response.map_into_left_body()),
        Some(CorsError::OriginNotAllowed) => (
            StatusCode::FORBIDDEN,
            "origin-not-allowed",
            "this origin is not allowed; add it to cors.allowed_origins",
        ),
        Some(_) => (
            StatusCode::BAD_REQUEST,
            "bad-request",
            "a preflight request needs Origin, and Access-Control-Request-Method: GET or POST",
        ),
    };
    Ok(response.into_response(responses::error(status, code, message)).map_into_right_body())
}

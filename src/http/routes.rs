//! The routes of the public listener.

use actix_cors::Cors;
use actix_web::{
    http::{Method, header},
    web,
};

use super::{answers, events::events, poll::poll, publish::publish, tickets::tickets};
use crate::settings;

/// Puts the public endpoints into an app.
pub fn public(config: &mut web::ServiceConfig) {
    config
        .service(answers::only(Method::GET, "/events", web::get().to(events)))
        .service(answers::only(Method::GET, "/events/poll", web::get().to(poll)))
        .service(answers::only(Method::POST, "/publish", web::post().to(publish)))
        .service(answers::only(Method::POST, "/tickets", web::post().to(tickets)))
        .default_service(web::to(|| async { answers::not_found() }));
}

/// Cross-origin access as configured: exact origins with credentials, or any without.
pub fn cors(settings: &settings::Cors) -> Cors {
    let cors = Cors::default()
        .allowed_methods([Method::GET, Method::POST])
        .allow_any_header()
        .expose_headers([header::RETRY_AFTER])
        .block_on_origin_mismatch(false)
        .max_age(3600);
    if settings.allowed_origins.iter().any(|o| o == "*") {
        return cors.allow_any_origin().send_wildcard();
    }
    if settings.allowed_origins.is_empty() {
        return cors;
    }
    settings.allowed_origins.iter().fold(cors.supports_credentials(), |cors, origin| cors.allowed_origin(origin))
}

//! The routes of the API of the admin page, version 1. Names are in the query, because clients
//! resolve path segments such as `..` before they send them.

use actix_web::web;

use super::{channel, connections, get, key, log, overview, publish, retained, trace, users};
use crate::http::{presence, responses};

/// The routes of the API.
pub fn routes(config: &mut web::ServiceConfig) {
    config
        .service(responses::only("GET, HEAD", "/api/v1/key", get().to(key::key)))
        .service(responses::only("GET, HEAD", "/api/v1/overview", get().to(overview::overview)))
        .service(responses::only("GET, HEAD", "/api/v1/users", get().to(users::users)))
        .service(
            web::resource("/api/v1/connections")
                .route(get().to(connections::connections))
                .route(web::delete().to(connections::end))
                .default_service(web::to(responses::other_method("GET, HEAD, DELETE"))),
        )
        .service(responses::only("GET, HEAD", "/api/v1/presence", get().to(presence::presence)))
        .service(responses::only("GET, HEAD", "/api/v1/channel", get().to(channel::channel_state)))
        .service(responses::only("GET, HEAD", "/api/v1/log", get().to(log::log)))
        .service(responses::only("GET, HEAD", "/api/v1/retained", get().to(retained::retained)))
        .service(responses::only("GET, HEAD", "/api/v1/trace", get().to(trace::trace)))
        .service(responses::only("POST", "/api/v1/events", web::post().to(publish::publish)));
}

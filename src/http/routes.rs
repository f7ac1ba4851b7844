//! The routes of the public listener.

use actix_web::{http::Method, web};

use super::{answers, events::events, poll::poll, publish::publish, tickets::tickets};

/// Puts the public endpoints into an app.
pub fn public(config: &mut web::ServiceConfig) {
    config
        .service(answers::only(Method::GET, "/events", web::get().to(events)))
        .service(answers::only(Method::GET, "/events/poll", web::get().to(poll)))
        .service(answers::only(Method::POST, "/publish", web::post().to(publish)))
        .service(answers::only(Method::POST, "/tickets", web::post().to(tickets)))
        .default_service(web::to(|| async { answers::not_found() }));
}

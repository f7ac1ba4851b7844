//! The routes of the public listener.

use actix_web::web;

use super::{
    events::events, history::history, poll::poll, publish::publish, responses, tickets::tickets,
};

/// Adds the public endpoints to an app.
pub fn public(config: &mut web::ServiceConfig) {
    config
        .service(responses::only("GET", "/events", web::get().to(events)))
        .service(responses::only("GET", "/events/poll", web::get().to(poll)))
        .service(responses::only("GET", "/events/history", web::get().to(history)))
        .service(responses::only("POST", "/publish", web::post().to(publish)))
        .service(responses::only("POST", "/tickets", web::post().to(tickets)))
        .default_service(web::to(|| async { responses::not_found() }));
}

//! The routes of the public listener.

use actix_web::{http::Method, web};

use super::{
    events::events, history::history, poll::poll, publish::publish, responses, tickets::tickets,
};

/// Adds the public endpoints to an app.
pub fn public(config: &mut web::ServiceConfig) {
    config
        .service(responses::only(Method::GET, "/events", web::get().to(events)))
        .service(responses::only(Method::GET, "/events/poll", web::get().to(poll)))
        .service(responses::only(Method::GET, "/events/history", web::get().to(history)))
        .service(responses::only(Method::POST, "/publish", web::post().to(publish)))
        .service(responses::only(Method::POST, "/tickets", web::post().to(tickets)))
        .default_service(web::to(|| async { responses::not_found() }));
}

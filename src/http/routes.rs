//! The routes of the public listener.

use actix_web::{Route, guard, http::Method, web};

use super::{
    events::events, history::history, poll::poll, publish::publish, responses, tickets::tickets,
};

/// A route for GET. Actix's own guard allocates memory to list the methods of a resource, which
/// [`responses::only`] names itself.
fn get_only() -> Route {
    web::route().guard(guard::fn_guard(|context| context.head().method == Method::GET))
}

/// Adds the public endpoints to an app.
pub fn public(config: &mut web::ServiceConfig) {
    config
        .service(responses::only("GET", "/events", get_only().to(events)))
        .service(responses::only("GET", "/events/poll", get_only().to(poll)))
        .service(responses::only("GET", "/events/history", get_only().to(history)))
        .service(responses::only("POST", "/publish", web::post().to(publish)))
        .service(responses::only("POST", "/tickets", web::post().to(tickets)))
        .default_service(web::to(|| async { responses::not_found() }));
}

//! `GET /events`

use actix_http::Request;
use actix_web::{
    HttpRequest, HttpResponse,
    http::{Method, header},
    web,
};

use super::{admission::admit, body::EventBody, responses, worker::Worker};
use crate::core::transport::Transport;

/// Whether a request is for an event stream.
pub fn is_for_stream(request: &Request) -> bool {
    request.method() == Method::GET && request.uri().path() == "/events"
}

/// Opens an event stream.
pub async fn events(request: HttpRequest, worker: web::Data<Worker>) -> HttpResponse {
    match admit(&worker, &request, Transport::Stream).await {
        Ok(mut admitted) => {
            let mut response = responses::event_stream();
            if let Some(secret) = admitted.new_secret.take() {
                response.insert_header((header::SET_COOKIE, worker.set_cookie(&secret)));
            }
            response.body(EventBody(admitted))
        }
        Err(denied) => denied.response(&worker, responses::busy_stream),
    }
}

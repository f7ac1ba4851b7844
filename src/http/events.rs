//! `GET /events`

use actix_web::{HttpRequest, HttpResponse, web};

use super::{admission::admit, answers, body::EventBody, worker::Worker};

/// Opens an event stream.
pub async fn events(request: HttpRequest, worker: web::Data<Worker>) -> HttpResponse {
    match admit(&worker, &request, "stream").await {
        Ok(admitted) => answers::event_stream().body(EventBody(admitted)),
        Err(denied) => denied.answer(&worker, answers::busy_stream),
    }
}

//! `GET /api/v1/trace`: where an event is or was, as the command `trace`.

use std::time::Duration;

use actix_web::{HttpRequest, HttpResponse, web};
use serde_json::json;

use super::{
    Admin, access,
    channel_param::{channel, unavailable},
    payloads::{Payloads, are_wanted},
    responses,
};
use crate::{
    http::params::{BadRequest, Params},
    redis::trace::{
        Bounds, Reads,
        report::{self, Report, Wanted},
    },
};

/// The limits of a search without a channel.
const BOUNDS: Bounds = Bounds { logs: 10_000, time: Duration::from_secs(5) };

/// The report about an event.
pub async fn trace(request: HttpRequest, admin: web::Data<Admin>) -> HttpResponse {
    read(&request, &admin).await.unwrap_or_else(|response| *response)
}

async fn read(request: &HttpRequest, admin: &Admin) -> Result<HttpResponse, Box<HttpResponse>> {
    access::admin(request, admin)?;
    let params = Params::of(request)?;
    let position = params.get("id").and_then(report::position).ok_or_else(|| {
        let message = "id must be an event id as in `id:`, for example 1763719000456-0.k3f9x2";
        Box::new(BadRequest { code: "bad-request", message: message.to_owned() }.response())
    })?;
    let channel = match params.get("channel") {
        Some(_) => Some(channel(&params, admin)?.0),
        None => None,
    };
    let payload = are_wanted(&params)?;
    let reads = Reads { payload, expiry: false };
    let wanted = Wanted { position, channel, reads, bounds: BOUNDS };
    match report::report(&admin.commands, &admin.settings, &wanted).await {
        Ok(report) => Ok(response(&report)),
        Err(error) => Err(Box::new(unavailable(admin, &error))),
    }
}

/// The report, with shortened payloads.
fn response(report: &Report) -> HttpResponse {
    let mut body = json!(report);
    let mut payloads = Payloads::new(true);
    for channel in body["channels"].as_array_mut().into_iter().flatten() {
        let payload = channel["event"]["payload"].as_str().map(str::to_owned);
        if let (Some(payload), Some(event)) = (payload, channel.get_mut("event")) {
            payloads.add(event, &payload);
            event["payload"] = event["data"].take();
            event.as_object_mut().map(|event| event.remove("data"));
        }
    }
    responses::answer(&body)
}

//! `GET /api/v1/retained`: the retained values of a channel.

use actix_web::{HttpRequest, HttpResponse, web};
use serde_json::{Value, json};

use super::{
    Admin, access,
    channel_param::{channel, unavailable},
    limit::limit,
    payloads::{Payloads, are_wanted},
    responses,
};
use crate::{core::retained::RetainedValue, http::params::Params, redis::retained as values};

/// The values of a channel, in the order of their keys.
pub async fn retained(request: HttpRequest, admin: web::Data<Admin>) -> HttpResponse {
    read(&request, &admin).await.unwrap_or_else(|response| *response)
}

async fn read(request: &HttpRequest, admin: &Admin) -> Result<HttpResponse, Box<HttpResponse>> {
    access::admin(request, admin)?;
    let params = Params::of(request)?;
    let (channel, commands) = channel(&params, admin)?;
    let limit = limit(&params)?;
    let wanted = are_wanted(&params)?;
    let all = values::all(&commands, &channel).await;
    let all = all.map_err(|error| Box::new(unavailable(admin, &error)))?;
    let mut payloads = Payloads::new(wanted);
    let listed: Vec<Value> =
        all.iter().take(limit).map(|value| described(value, &mut payloads)).collect();
    Ok(responses::answer(&json!({
        "channel": channel.to_string(), "values": listed, "total": all.len(),
    })))
}

fn described(value: &RetainedValue, payloads: &mut Payloads) -> Value {
    let id = value.position.to_string();
    let mut found = json!({ "key": &*value.key, "id": id, "type": value.event.kind() });
    payloads.add(&mut found, &value.event.data());
    found
}

//! `GET /api/v1/channel`: the state of a channel's log, and what applies to the channel.

use actix_web::{HttpRequest, HttpResponse, web};
use serde_json::json;

use super::{
    Admin, access,
    channel_param::{channel, unavailable},
    responses,
};
use crate::{
    http::params::Params,
    redis::channel_log::{self, LogEntry},
};

/// The state of a channel.
pub async fn channel_state(request: HttpRequest, admin: web::Data<Admin>) -> HttpResponse {
    read(&request, &admin).await.unwrap_or_else(|response| *response)
}

async fn read(request: &HttpRequest, admin: &Admin) -> Result<HttpResponse, Box<HttpResponse>> {
    access::admin(request, admin)?;
    let params = Params::of(request)?;
    let (channel, commands) = channel(&params, admin)?;
    let log = channel_log::state(&commands, &channel).await;
    let log = log.map_err(|error| Box::new(unavailable(admin, &error)))?;
    let policy = admin.settings.channels.of(&channel);
    Ok(responses::answer(&json!({
        "channel": channel.to_string(),
        "length": log.length,
        "firstId": log.first.as_ref().map(LogEntry::id),
        "lastId": log.last.as_ref().map(LogEntry::id),
        "maxLength": policy.max_len,
        "retentionSeconds": policy.retention.as_secs_f64(),
        "maxEventBytes": policy.max_event_bytes,
        "keepRequired": policy.requires_keep,
        "ephemeral": policy.is_ephemeral,
        "rate": policy.rate,
    })))
}

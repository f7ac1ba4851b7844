//! `GET /api/v1/log`: the stored events of a channel, newest first.

use actix_web::{HttpRequest, HttpResponse, web};
use serde_json::{Value, json};

use super::{
    Admin, access,
    channel_param::{channel, unavailable},
    limit::limit,
    payloads::{Payloads, are_wanted},
    responses,
};
use crate::{
    core::{event_options::Retain, id::EventId},
    http::params::{BadRequest, Params},
    redis::channel_log::{self, LogEntry},
};

/// A page of a channel's log.
pub async fn log(request: HttpRequest, admin: web::Data<Admin>) -> HttpResponse {
    read(&request, &admin).await.unwrap_or_else(|response| *response)
}

async fn read(request: &HttpRequest, admin: &Admin) -> Result<HttpResponse, Box<HttpResponse>> {
    access::admin(request, admin)?;
    let params = Params::of(request)?;
    let (channel, commands) = channel(&params, admin)?;
    let limit = limit(&params)?;
    let wanted = are_wanted(&params)?;
    let before = before(&params)?;
    let page = channel_log::before(&commands, &channel, before, limit).await;
    let page = page.map_err(|error| Box::new(unavailable(admin, &error)))?;
    let mut payloads = Payloads::new(wanted);
    let events: Vec<Value> = page.entries.iter().map(|e| described(e, &mut payloads)).collect();
    let next = page.entries.last().filter(|_| page.has_more).map(LogEntry::id);
    Ok(responses::answer(
        &json!({ "channel": channel.to_string(), "events": events, "next": next }),
    ))
}

/// The id before which the entries are wanted: of an event, or of an entry without an epoch.
fn before(params: &Params) -> Result<Option<EventId>, BadRequest> {
    let Some(text) = params.non_empty("before") else { return Ok(None) };
    let id = EventId::parse(text).or_else(|| EventId::parse_entry(text, 0));
    id.map(Some).ok_or_else(|| BadRequest {
        code: "bad-request",
        message: "before must be an id of the log: next of the page before".to_owned(),
    })
}

fn described(entry: &LogEntry, payloads: &mut Payloads) -> Value {
    let Some(event) = &entry.event else {
        return json!({ "id": entry.id(), "type": null, "bytes": null });
    };
    let mut found = json!({ "id": entry.id(), "type": event.kind() });
    payloads.add(&mut found, &event.data());
    if let Some(options) = &event.options {
        match &options.retain {
            Some(Retain::Keep(key)) => found["keep"] = json!(key),
            Some(Retain::Forget(key)) => found["forget"] = json!(key),
            None => {}
        }
        if !options.tags.is_empty() {
            found["tags"] = json!(options.tags.as_str());
        }
        if let Some(until_ms) = options.unseen_ms {
            found["unseenUntilMs"] = json!(until_ms);
        }
    }
    found
}

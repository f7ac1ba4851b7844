//! `GET /events/history`: the stored events of a channel, in pages.

use actix_web::{HttpRequest, HttpResponse, http::StatusCode, web};
use serde_json::{Value, json};

use super::{
    admission::{HttpClient, denied_response},
    client_address::client_address,
    counted_body,
    credentials::{ForeignPage, credential},
    params::{BadRequest, Params},
    responses,
    since::since,
    worker::Worker,
};
use crate::{
    admission::history::{History, HistoryError, HistoryRequest},
    core::{
        channel::Channel,
        event::Event,
        id::{Cursor, EventId, StreamPosition},
    },
};

/// Number of events in a response, unless the request limits it, and the maximum.
const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 1000;

/// Responds with stored events of a channel, oldest first.
pub async fn history(request: HttpRequest, worker: web::Data<Worker>) -> HttpResponse {
    match read(&request, &worker).await {
        Ok(history) => response(history),
        Err(response) => response,
    }
}

async fn read(request: &HttpRequest, worker: &Worker) -> Result<History, HttpResponse> {
    let bad = |error: BadRequest| error.response();
    let params = Params::of(request).map_err(bad)?;
    let now_ms = worker.context.clock.server_ms();
    let credential = credential(request, &params, &worker.ticket_cookie);
    let credential = credential.map_err(ForeignPage::response)?;
    let wanted = HistoryRequest {
        address: client_address(request, &worker.context.settings.server),
        credential,
        channel: channel(&params).map_err(bad)?,
        after: after(&params, now_ms).map_err(bad)?,
        until: until(&params, now_ms).map_err(bad)?,
        limit: limit(&params).map_err(bad)?,
        client: &HttpClient::of(request),
    };
    worker.admission.history(wanted).await.map_err(|error| match error {
        HistoryError::Admission(error) => denied_response(&error, None, responses::busy_poll),
        HistoryError::NotAllowed => responses::error(
            StatusCode::FORBIDDEN,
            "not-allowed",
            "the ticket allows user:<sub>:events, and broadcast:<topic> for its topics only; ask \
             for one of those channels, or for a ticket with this topic",
        ),
        HistoryError::UnknownAfter => unknown_after().response(),
        HistoryError::UnknownUntil => unknown_until().response(),
    })
}

fn channel(params: &Params) -> Result<Channel, BadRequest> {
    params.get("channel").and_then(Channel::parse).ok_or_else(|| BadRequest {
        code: "bad-channel",
        message: "channel must be user:<id>:events or broadcast:<topic>, for example \
                  channel=broadcast:news"
            .to_owned(),
    })
}

/// The position or time after which the events are wanted; before everything without a parameter.
fn after(params: &Params, now_ms: u64) -> Result<StreamPosition, BadRequest> {
    match (params.get("after"), since(params, now_ms)?) {
        (Some(_), Some(_)) => Err(BadRequest {
            code: "bad-since",
            message: "since and after exclude each other; send since with the first request, and \
                      after=<next> with those that follow"
                .to_owned(),
        }),
        (Some(text), None) => position(text, now_ms).ok_or_else(unknown_after),
        (None, Some(since_ms)) => Ok(EventId::before_time(since_ms).into()),
        (None, None) => Ok(StreamPosition::ZERO),
    }
}

/// The position up to which events are wanted.
fn until(params: &Params, now_ms: u64) -> Result<Option<StreamPosition>, BadRequest> {
    let parse = |text| position(text, now_ms).ok_or_else(unknown_until);
    params.get("until").map(parse).transpose()
}

fn position(text: &str, now_ms: u64) -> Option<StreamPosition> {
    let position = Cursor::parse(text).map(|cursor| cursor.position);
    position.filter(|position| position.is_plausible(now_ms))
}

fn unknown_until() -> BadRequest {
    BadRequest {
        code: "bad-until",
        message: "until must be an id from this gateway: the lastEventId of another history, from \
                  which the stream will begin"
            .to_owned(),
    }
}

fn unknown_after() -> BadRequest {
    BadRequest {
        code: "bad-after",
        message: "after must be an id from this gateway: that of an event, next of a history, or \
                  the last event id of a stream"
            .to_owned(),
    }
}

fn limit(params: &Params) -> Result<usize, BadRequest> {
    let Some(text) = params.get("limit") else { return Ok(DEFAULT_LIMIT) };
    let limit = text.parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit));
    limit.ok_or_else(|| BadRequest {
        code: "bad-limit",
        message: format!("limit must be an integer from 1 to {MAX_LIMIT}"),
    })
}

fn response(History { page, position, counted }: History) -> HttpResponse {
    let event = |event: &Event| {
        let id = event.id.unwrap_or_default().to_string();
        json!({ "id": id, "type": event.kind(), "data": event.data() })
    };
    let events: Vec<Value> = page.events.iter().map(|e| event(e)).collect();
    let next = page.next.map(|id| id.to_string());
    let position = position.map(|position| position.to_string());
    let body = json!({ "events": events, "next": next, "lastEventId": position });
    counted_body::json(&mut HttpResponse::Ok(), &body, counted)
}

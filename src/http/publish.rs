//! `POST /publish`, for backends without access to Redis.

use actix_web::{
    HttpRequest, HttpResponse,
    http::{StatusCode, header},
    web,
};
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};

use super::{answers, api_keys, worker::Worker};
use crate::{
    core::envelope::{DEFAULT_TYPE, Refusal},
    redis::publish::{Publish, Unpublished, publish as publish_all},
    settings::Scope,
};

/// Most events in one request.
const MAX_EVENTS: usize = 1000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Event<'a> {
    channel: String,
    #[serde(rename = "type")]
    kind: Option<String>,
    #[serde(borrow)]
    payload: &'a RawValue,
    id: Option<String>,
    retry: Option<u64>,
}

impl From<Event<'_>> for Publish {
    fn from(event: Event<'_>) -> Self {
        Self {
            channel: event.channel,
            kind: event.kind.unwrap_or_else(|| DEFAULT_TYPE.to_owned()),
            payload: event.payload.get().to_owned(),
            key: event.id,
            retry_ms: event.retry,
        }
    }
}

/// Publishes one event or a list.
pub async fn publish(request: HttpRequest, payload: web::Payload, worker: web::Data<Worker>) -> HttpResponse {
    let body = match api_keys::body(&request, payload, &worker.instance, Scope::Publish).await {
        Ok(body) => body,
        Err(answer) => return *answer,
    };
    let one = body.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'{');
    let events = if one {
        serde_json::from_slice::<Event<'_>>(&body).map(|event| vec![event])
    } else {
        serde_json::from_slice::<Vec<Event<'_>>>(&body)
    };
    let events: Vec<Publish> = match events {
        Ok(events) => events.into_iter().map(Publish::from).collect(),
        Err(e) => {
            return bad(&format!(
                "the body is no event or list of events ({e}); send {{\"channel\",\"type\",\"payload\",\"id\"?,\"retry\"?}}"
            ));
        }
    };
    if events.len() > MAX_EVENTS {
        return bad(&format!("more than {MAX_EVENTS} events; send them in several requests"));
    }
    let answers = publish_all(&worker.commands, &events).await;
    worker.instance.metrics.published.inc_by(answers.iter().filter(|a| a.is_ok()).count() as u64);
    for answer in &answers {
        if let Err(Unpublished::Refused(refusal, _)) = answer {
            worker.instance.metrics.rejected.with_label_values(&[refusal.code()]).inc();
        }
    }
    match answers.as_slice() {
        [answer] if one => single(answer),
        all if !all.is_empty() && all.iter().all(|a| matches!(a, Err(Unpublished::Away(_)))) => away(),
        all => HttpResponse::Ok().json(all.iter().map(item).collect::<Vec<_>>()),
    }
}

fn bad(message: &str) -> HttpResponse {
    answers::error(StatusCode::BAD_REQUEST, "bad-request", message)
}

fn away() -> HttpResponse {
    let mut answer = answers::error(
        StatusCode::SERVICE_UNAVAILABLE,
        "redis-away",
        "nothing was published; try again, with an id so that nothing is published twice",
    );
    answer.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from_static("1"));
    answer
}

fn single(answer: &Result<String, Unpublished>) -> HttpResponse {
    match answer {
        Ok(id) => HttpResponse::Ok().json(json!({ "id": id })),
        Err(Unpublished::Refused(Refusal::TooLarge, text)) => {
            answers::error(StatusCode::PAYLOAD_TOO_LARGE, Refusal::TooLarge.code(), text)
        }
        Err(Unpublished::Refused(refusal, text)) => answers::error(StatusCode::BAD_REQUEST, refusal.code(), text),
        Err(Unpublished::Away(text)) => {
            tracing::warn!(error = text, "an event was not published");
            away()
        }
    }
}

fn item(answer: &Result<String, Unpublished>) -> Value {
    match answer {
        Ok(id) => json!({ "id": id }),
        Err(Unpublished::Refused(refusal, text)) => json!({ "error": refusal.code(), "message": text }),
        Err(Unpublished::Away(_)) => json!({ "error": "redis-away", "message": "not published; try again" }),
    }
}

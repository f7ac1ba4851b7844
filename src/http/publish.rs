//! `POST /publish`, for backends without access to Redis.

use std::sync::Arc;

use actix_web::{HttpRequest, HttpResponse, http::StatusCode, web};
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};

use super::{
    publish_spans::PublishSpans, request_body, responses, traceparent::trace_of, worker::Worker,
};
use crate::error_chain::ErrorChain;
use crate::log_limit::LogLimit;
use crate::{
    core::{
        envelope::{Envelope, EnvelopeMembers, Rejection},
        trace_context::TraceParent,
    },
    metrics::Metrics,
    redis::{
        commands::{CommandError, Commands},
        publish::{Publish, PublishError, publish as publish_all},
    },
    settings::Scope,
    spans::Tracer,
    state::clock::unix_ms,
};

/// Maximum number of events in one request.
const MAX_EVENTS: usize = 1000;
/// Limits the log lines while Redis is unavailable; one for the process, not one for each worker.
static UNAVAILABLE_LOG: LogLimit = LogLimit::new(10_000);

/// An event whose members have not been checked: the whole body is parsed first, then each event is
/// checked separately.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Event<'a> {
    #[serde(borrow)]
    channel: &'a RawValue,
    #[serde(borrow, rename = "type")]
    kind: Option<&'a RawValue>,
    #[serde(borrow)]
    payload: &'a RawValue,
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    retry: Option<&'a RawValue>,
    #[serde(borrow)]
    keep: Option<&'a RawValue>,
    #[serde(borrow)]
    forget: Option<&'a RawValue>,
    #[serde(borrow)]
    ephemeral: Option<&'a RawValue>,
    #[serde(borrow)]
    tags: Option<&'a RawValue>,
    #[serde(borrow)]
    unseen: Option<&'a RawValue>,
    #[serde(borrow)]
    traceparent: Option<&'a RawValue>,
}

impl Event<'_> {
    /// `default`: the trace of an event without `traceparent`.
    fn decode(&self, default: Option<TraceParent>) -> Result<Publish, Rejection> {
        let channel =
            serde_json::from_str(self.channel.get()).map_err(|_| Rejection::BadChannel)?;
        let event = Envelope::of(&EnvelopeMembers {
            payload: self.payload,
            kind: self.kind,
            key: self.id,
            retry: self.retry,
            keep: self.keep,
            forget: self.forget,
            ephemeral: self.ephemeral,
            tags: self.tags,
            unseen: self.unseen,
            trace: self.traceparent,
        })?;
        Ok(Publish {
            channel,
            kind: event.kind,
            payload: event.payload.to_owned(),
            key: event.key,
            retry_ms: event.retry_ms,
            options: event.options,
            unseen: event.unseen,
            trace: match self.traceparent {
                Some(_) => event.trace,
                None => default,
            },
        })
    }
}

/// The error for an event that is rejected before it is passed to the library.
fn rejected(rejection: Rejection) -> PublishError {
    let message = match rejection {
        Rejection::BadChannel => "the channel must be a string",
        Rejection::BadType => {
            "the type must be a string of 1 to 128 bytes without control characters"
        }
        Rejection::ReservedType => {
            "types that begin with sse. are reserved for the gateway; choose another name"
        }
        Rejection::BadKey => "the id must be a string of 1 to 256 bytes",
        Rejection::BadRetry => "retry must be an integer from 0 to 86400000 (ms)",
        Rejection::BadKeep => {
            "keep or forget must be a string of 1 to 256 bytes without control characters; use one \
             of them"
        }
        Rejection::BadTags => {
            "tags must be an object of 1 to 8 names of up to 64 letters, digits and _ . - and \
             values of up to 256 bytes without spaces"
        }
        Rejection::BadUnseen => {
            "unseen must be a duration from 1s to 7d, such as \"30s\", and only for \
             user:<id>:events"
        }
        Rejection::BadEphemeral => {
            "ephemeral must be true or false; an ephemeral event is not stored: it takes no id, \
             keep, forget and unseen"
        }
        Rejection::BadTraceParent => {
            "traceparent must be that of W3C trace context, in lower case: \"00-<32 hexadecimal \
             digits>-<16>-<2>\""
        }
        // Only the library rejects for these reasons.
        Rejection::TooLarge
        | Rejection::NotUtf8
        | Rejection::NeedsKeep
        | Rejection::TooManyKept
        | Rejection::TooManyUnseen
        | Rejection::NotStored
        | Rejection::WrongType
        | Rejection::TooOften
        | Rejection::BadEntry => "the payload must be UTF-8 and at most max_event_bytes long",
    };
    PublishError::Rejected(rejection, message.to_owned())
}

/// Publishes one event or a list.
pub async fn publish(
    request: HttpRequest,
    payload: web::Payload,
    worker: web::Data<Worker>,
) -> HttpResponse {
    let body = match request_body::receive(&request, payload, &worker.api, Scope::Publish).await {
        Ok(body) => body,
        Err(response) => return *response,
    };
    let publisher = Publisher {
        commands: &worker.commands,
        metrics: &worker.context.metrics,
        tracer: worker.tracer.as_ref(),
        trace: trace_of(request.headers()),
    };
    publish_body(&body, publisher).await
}

/// What publishes the events of a request.
pub struct Publisher<'a> {
    /// A connection pool.
    pub commands: &'a Commands,
    /// Counts the events.
    pub metrics: &'a Metrics,
    /// Records spans; `None`: tracing is off.
    pub tracer: Option<&'a Arc<Tracer>>,
    /// The trace of the request.
    pub trace: Option<TraceParent>,
}

/// Whether a body is one event, not a list.
pub fn is_one_event(body: &[u8]) -> bool {
    body.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'{')
}

/// Publishes the event, or the list, in a body.
pub async fn publish_body(body: &[u8], publisher: Publisher<'_>) -> HttpResponse {
    let one = is_one_event(body);
    let events = if one {
        serde_json::from_slice::<Event<'_>>(body).map(|event| vec![event])
    } else {
        serde_json::from_slice::<Vec<Event<'_>>>(body)
    };
    let events = match events {
        Ok(events) => events,
        Err(e) => {
            return bad(&format!(
                "the body must be an event or a list of events ({e}); send \
                 {{\"channel\",\"type\",\"payload\",\"id\"?,\"retry\"?,..}}"
            ));
        }
    };
    if events.len() > MAX_EVENTS {
        return bad(&format!("the list exceeds {MAX_EVENTS} events; send several requests"));
    }
    let mut valid = Vec::with_capacity(events.len());
    let Publisher { commands, metrics, tracer, trace } = publisher;
    if let Some(trace) = trace {
        tracing::Span::current().record("trace_id", trace.trace_id_text());
    }
    let mut spans = PublishSpans::begin(tracer, trace);
    let default = spans.default_trace();
    let mut decode = |event: &Event<'_>| event.decode(default).map(|e| valid.push(e)).err();
    let refused: Vec<_> = events.iter().map(&mut decode).collect();
    spans.begin_own(&mut valid);
    let published = publish_all(commands, &valid).await;
    spans.published(&published);
    let mut published = published.into_iter();
    let result = |refused: Option<Rejection>| {
        refused.map_or_else(|| published.next(), |rejection| Some(Err(rejected(rejection))))
    };
    let results: Vec<_> = refused.into_iter().filter_map(result).collect();
    metrics.published.inc_by(results.iter().filter(|a| a.is_ok()).count() as u64);
    for result in &results {
        if let Err(PublishError::Rejected(rejection, _)) = result {
            metrics.rejected.with_label_values(&[rejection.code()]).inc();
        }
    }
    let response = respond(&results, one, &commands.address());
    spans.answered(response.status());
    response
}

/// The response to a request with one event (`one`) or a list.
fn respond(results: &[Result<String, PublishError>], one: bool, address: &str) -> HttpResponse {
    match results {
        [result] if one => single(result, address),
        all if !all.is_empty()
            && all.iter().all(|a| matches!(a, Err(PublishError::Unavailable(_)))) =>
        {
            let code = all.iter().find_map(|a| a.as_ref().err()).map_or(AWAY, unavailable);
            away(code, NOTHING)
        }
        all if !all.is_empty()
            && all.iter().all(|a| matches!(a, Err(PublishError::NoReply(_)))) =>
        {
            away(AWAY, MAYBE)
        }
        all => HttpResponse::Ok().json(all.iter().map(item).collect::<Vec<_>>()),
    }
}

fn bad(message: &str) -> HttpResponse {
    responses::error(StatusCode::BAD_REQUEST, "bad-request", message)
}

/// Message if no command was sent, or Redis refused it temporarily.
const NOTHING: &str = "nothing was published; retry";
/// Message if a command was sent but no reply was received.
const MAYBE: &str =
    "the event may have been published; to retry without duplicates, give each event an id";

/// The code if Redis does not take events for now.
const AWAY: &str = "redis-away";

/// The code of an event that was not published for now.
fn unavailable(error: &PublishError) -> &'static str {
    match error {
        PublishError::Unavailable(error) if error.is_not_adopted() => "not-adopted",
        _ => AWAY,
    }
}

fn away(code: &str, message: &str) -> HttpResponse {
    responses::retry_later(StatusCode::SERVICE_UNAVAILABLE, code, message)
}

fn log_unavailable(address: &str, error: &CommandError) {
    if let Some(suppressed) = UNAVAILABLE_LOG.allow(unix_ms()) {
        let error = ErrorChain(error);
        tracing::warn!(%address, %error, suppressed, "POST /publish failed: Redis is unavailable");
    }
}

fn single(result: &Result<String, PublishError>, address: &str) -> HttpResponse {
    match result {
        Ok(id) => HttpResponse::Ok().json(id_of(id)),
        Err(PublishError::Rejected(Rejection::TooLarge, text)) => {
            responses::error(StatusCode::PAYLOAD_TOO_LARGE, Rejection::TooLarge.code(), text)
        }
        // The event is valid; it can be published once there is room, or the key is deleted.
        Err(PublishError::Rejected(
            rejection @ (Rejection::WrongType | Rejection::TooManyKept | Rejection::TooManyUnseen),
            text,
        )) => responses::error(StatusCode::CONFLICT, rejection.code(), text),
        Err(PublishError::Rejected(Rejection::TooOften, text)) => {
            let code = Rejection::TooOften.code();
            responses::retry_later(StatusCode::TOO_MANY_REQUESTS, code, text)
        }
        Err(PublishError::Rejected(rejection, text)) => {
            responses::error(StatusCode::BAD_REQUEST, rejection.code(), text)
        }
        Err(fault @ PublishError::Unavailable(error)) => {
            log_unavailable(address, error);
            away(unavailable(fault), NOTHING)
        }
        Err(PublishError::NoReply(error)) => {
            log_unavailable(address, error);
            away(AWAY, MAYBE)
        }
    }
}

/// The id of an event; null for an ephemeral one.
fn id_of(id: &str) -> Value {
    json!({ "id": (!id.is_empty()).then_some(id) })
}

fn item(result: &Result<String, PublishError>) -> Value {
    match result {
        Ok(id) => id_of(id),
        Err(PublishError::Rejected(rejection, text)) => {
            json!({ "error": rejection.code(), "message": text })
        }
        Err(fault @ PublishError::Unavailable(_)) => {
            json!({ "error": unavailable(fault), "message": NOTHING })
        }
        Err(PublishError::NoReply(_)) => json!({ "error": AWAY, "message": MAYBE }),
    }
}

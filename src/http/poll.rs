//! `GET /events/poll`, for networks in which streaming is blocked: the same way in, one answer instead of a stream.

use std::{future::poll_fn, task::Poll, time::Duration};

use actix_web::{HttpRequest, HttpResponse, http::header, web};
use bytes::Bytes;
use serde_json::{Value, json};

use super::{
    admission::{Admitted, Denied, Params, admit},
    answers,
    worker::Worker,
};
use crate::core::{
    parser::{Parsed, Parser},
    system::CloseReason,
};

/// Longest `wait` in seconds.
const MAX_WAIT_S: f64 = 30.0;
/// A join that takes longer is left to the next poll.
const MAX_JOIN: Duration = Duration::from_secs(10);
/// An answer has about so many bytes of events at the most; the rest is left to the next poll.
const ANSWER_BYTES: usize = 1 << 20;

/// Answers with the events after the client's cursor, or waits for the first.
pub async fn poll(request: HttpRequest, worker: web::Data<Worker>) -> HttpResponse {
    let result = match wait(&request) {
        Ok(wait) => admit(&worker, &request, "poll").await.map(|admitted| (admitted, wait)),
        Err(denied) => Err(denied),
    };
    match result {
        Ok((admitted, wait)) => answer(&admitted, wait).await,
        Err(denied) => denied.answer(&worker, answers::busy_poll),
    }
}

fn wait(request: &HttpRequest) -> Result<Duration, Denied> {
    let params = Params::of(request)?;
    let Some(text) = params.get("wait") else { return Ok(Duration::ZERO) };
    match text.parse::<f64>() {
        Ok(s) if (0.0..=MAX_WAIT_S).contains(&s) => Ok(Duration::from_secs_f64(s)),
        _ => Err(Denied::Bad("bad-wait", format!("wait must be a number of seconds from 0 to {MAX_WAIT_S}"))),
    }
}

async fn answer(admitted: &Admitted, wait: Duration) -> HttpResponse {
    let connection = &admitted.connection;
    let (mut events, mut gap, mut bytes) = (Vec::new(), Value::Null, 0);
    let mut parser = Parser::default();
    // Without a cursor there is nothing to wait for: the client learns where it stands.
    let started = tokio::time::Instant::now();
    let until = started + if admitted.has_cursor { wait } else { Duration::ZERO };
    loop {
        let joined = connection.is_live();
        let found = !events.is_empty() || !gap.is_null();
        if connection.is_idle() && joined && found || bytes > ANSWER_BYTES {
            break;
        }
        let deadline = if joined && connection.is_idle() { until } else { until.max(started + MAX_JOIN) };
        // The end of a join that had nothing to tell is news as well.
        let next = poll_fn(|cx| match connection.poll_bytes(cx.waker()) {
            Poll::Pending if !joined && connection.is_live() => Poll::Ready(Some(Bytes::new())),
            other => other,
        });
        let Ok(Some(chunk)) = tokio::time::timeout_at(deadline, next).await else { break };
        bytes += chunk.len();
        parser.push(&chunk, |event| take(event, &mut events, &mut gap));
    }
    connection.set_reason(CloseReason::PollDone);
    let caught_up = connection.is_idle() && connection.is_live();
    let last = if caught_up { connection.position() } else { connection.cursor() };
    let mut answer = HttpResponse::Ok();
    if let Some(cookie) = &admitted.set_cookie {
        answer.insert_header((header::SET_COOKIE, cookie.as_str()));
    }
    answer
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .insert_header((header::REFERRER_POLICY, "no-referrer"))
        .json(json!({ "events": events, "lastEventId": last.to_string(), "gap": gap }))
}

fn take(event: Parsed, events: &mut Vec<Parsed>, gap: &mut Value) {
    match event.kind.as_str() {
        "sse.gap" => *gap = serde_json::from_str(&event.data).unwrap_or_default(),
        system if system.starts_with("sse.") => {}
        _ => events.push(event),
    }
}

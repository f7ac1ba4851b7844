//! `GET /events/poll`, for networks that block streams: the same admission as for streams, but one
//! response.

use std::{future::poll_fn, task::Poll, time::Duration};

use actix_web::{HttpRequest, HttpResponse, http::header, web};
use serde_json::{Value, json};

use super::{
    admission::{Denial, admit, denied_response},
    counted_body,
    params::{BadRequest, Params},
    responses,
    worker::Worker,
};
use crate::{
    admission::{AdmissionError, Admitted},
    core::{
        control_events::{Gap, SnapshotKeys},
        id::Cursor,
        part::Part,
        queue::{Content, Queued},
        reasons::{BusyReason, CloseReason},
        transport::Transport,
    },
    state::limits::queued_bytes::ResponseBytes,
};

/// Maximum `wait` in seconds.
const MAX_WAIT_S: f64 = 30.0;
/// Maximum duration of the catch-up; the next poll continues it.
const MAX_CATCH_UP: Duration = Duration::from_secs(10);
/// Approximate maximum size of the events in one response; the next poll gets the rest.
const RESPONSE_BYTES: usize = 1 << 20;

/// The same while the response has not got all retained values, with which every poll would begin
/// again: their own limits apply (`redis/retained.rs`).
const VALUES_BYTES: usize = usize::MAX;

/// Responds with the events after the client's cursor, or waits for the first one.
pub async fn poll(request: HttpRequest, worker: web::Data<Worker>) -> HttpResponse {
    let result = match wait(&request) {
        Ok(wait) => {
            admit(&worker, &request, Transport::Poll).await.map(|admitted| (admitted, wait))
        }
        Err(error) => Err(Denial::from(error)),
    };
    match result {
        Ok((admitted, wait)) => respond(&worker, &admitted, wait).await,
        Err(denied) => denied.response(&worker, responses::busy_poll),
    }
}

fn wait(request: &HttpRequest) -> Result<Duration, BadRequest> {
    let params = Params::of(request)?;
    let Some(text) = params.get("wait") else { return Ok(Duration::ZERO) };
    match text.parse::<f64>() {
        Ok(s) if (0.0..=MAX_WAIT_S).contains(&s) => Ok(Duration::from_secs_f64(s)),
        _ => Err(BadRequest {
            code: "bad-wait",
            message: format!("wait must be a number of seconds from 0 to {MAX_WAIT_S}"),
        }),
    }
}

/// The events and the gap of a response, as collected so far.
#[derive(Default)]
struct Collected {
    events: Vec<Value>,
    gap: Option<Gap>,
    snapshot: Option<SnapshotKeys>,
    bytes: usize,
}

impl Collected {
    fn is_empty(&self) -> bool {
        self.events.is_empty() && self.gap.is_none() && self.snapshot.is_none()
    }

    /// Adds a frame, after which the client's cursor is `cursor`.
    fn add(&mut self, frame: Queued, cursor: Cursor) {
        self.bytes += frame.content.frame().len();
        match frame.content {
            Content::Event(event) => {
                let id = event.id.map(|_| cursor.to_string());
                let mut json = json!({ "id": id, "type": event.kind(), "data": event.data() });
                if event.id.is_none() && event.retain().is_some() {
                    json["retained"] = json!(true);
                }
                self.events.push(json);
            }
            Content::Gap(gap) => self.gap = Some(gap.gap),
            // A split stream has one for each part.
            Content::Snapshot(snapshot) => {
                self.snapshot.get_or_insert_default().extend(snapshot.keys);
            }
            Content::Control(_) => {}
        }
    }
}

async fn respond(worker: &Worker, admitted: &Admitted, wait: Duration) -> HttpResponse {
    let connection = &admitted.connection;
    let mut collected = Collected::default();
    let is_anonymous = connection.client.session.is_none();
    let mut counted = ResponseBytes::new(worker.context.limits.clone(), is_anonymous);
    // Without a cursor there is nothing to wait for: the response contains the current position.
    let started = tokio::time::Instant::now();
    let until = started + if admitted.has_cursor { wait } else { Duration::ZERO };
    loop {
        let was_live = connection.is_live();
        let complete = connection.is_idle() && was_live && !collected.is_empty();
        let limit = match connection.needs_snapshot(Part::Whole) {
            true => VALUES_BYTES,
            false => RESPONSE_BYTES,
        };
        if complete || collected.bytes > limit {
            break;
        }
        if !counted.has_room() {
            if collected.is_empty() || connection.needs_snapshot(Part::Whole) {
                return full(worker, admitted);
            }
            break;
        }
        let idle = was_live && connection.is_idle();
        let deadline = if idle { until } else { until.max(started + MAX_CATCH_UP) };
        // The end of a catch-up without events also ends the wait.
        let next = poll_fn(|cx| match connection.poll_frame(cx.waker()) {
            Poll::Pending if !was_live && connection.is_live() => Poll::Ready(Next::Live),
            Poll::Pending => Poll::Pending,
            Poll::Ready(None) => Poll::Ready(Next::End),
            Poll::Ready(Some(frame)) => Poll::Ready(Next::Frame(frame)),
        });
        match tokio::time::timeout_at(deadline, next).await {
            Ok(Next::Frame(frame)) => {
                collected.add(frame, connection.named_cursor());
                counted.set(collected.bytes);
            }
            Ok(Next::Live) => {}
            Ok(Next::End) | Err(_) => break,
        }
    }
    connection.set_reason(CloseReason::PollDone);
    let caught_up = connection.is_idle() && connection.is_live();
    let last = match caught_up {
        true => connection.position().into(),
        false => connection.named_cursor(),
    };
    let mut response = HttpResponse::Ok();
    if let Some(secret) = &admitted.new_secret {
        response.insert_header((header::SET_COOKIE, worker.set_cookie(secret)));
    }
    let Collected { events, gap, snapshot, .. } = collected;
    let mut body = json!({ "events": events, "lastEventId": last.to_string(), "gap": gap });
    if let Some(snapshot) = snapshot {
        body["snapshot"] = json!(snapshot);
    }
    counted_body::json(&mut response, &body, counted)
}

/// Other responses, which their clients do not read, take the room. The client has lost nothing: it
/// polls again from the same position.
fn full(worker: &Worker, admitted: &Admitted) -> HttpResponse {
    admitted.connection.set_reason(CloseReason::PollDone);
    let error = AdmissionError::Busy(BusyReason::Full);
    worker.admission.count(&error);
    let cookie = admitted.new_secret.as_ref().map(|secret| worker.set_cookie(secret));
    denied_response(&error, cookie.as_deref(), responses::busy_poll)
}

enum Next {
    Frame(Queued),
    /// The catch-up has ended.
    Live,
    /// The stream has ended.
    End,
}

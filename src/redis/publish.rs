//! Durable publishes on behalf of a backend: `FCALL sse_publish`.

use redis::Cmd;

use super::commands::{CommandError, Commands};
use crate::core::envelope::Rejection;

/// One event to publish.
#[derive(Clone, Debug, Default)]
pub struct Publish {
    /// Channel of the event.
    pub channel: String,
    /// Event type.
    pub kind: String,
    /// Payload.
    pub payload: String,
    /// Idempotency key.
    pub key: Option<String>,
    /// The event's `retry:` in ms.
    pub retry_ms: Option<u64>,
}

/// Why an event was not published.
#[derive(Debug)]
pub enum PublishError {
    /// The event is rejected: code and text.
    Refused(Rejection, String),
    /// Redis is unavailable, and the event was not published.
    Away(String),
    /// Redis has not replied: the event may have been published.
    Unanswered(String),
}

fn call(commands: &Commands, publish: &Publish) -> Cmd {
    let mut call = commands.call("publish", &[&publish.channel]);
    call.arg(&publish.kind).arg(&publish.payload);
    if let Some(key) = &publish.key {
        call.arg("KEY").arg(key);
    }
    if let Some(ms) = publish.retry_ms {
        call.arg("RETRY").arg(ms);
    }
    call
}

/// Publishes events in order, and returns the id or the error of each.
pub async fn publish(commands: &Commands, events: &[Publish]) -> Vec<Result<String, PublishError>> {
    let mut pipeline = redis::pipe();
    pipeline.ignore_errors();
    for event in events {
        pipeline.add_command(call(commands, event));
    }
    match commands.run_all::<Vec<redis::RedisResult<String>>>(&pipeline).await {
        Ok(replies) => replies.into_iter().map(|reply| reply.map_err(refusal)).collect(),
        Err(fault) => events.iter().map(|_| Err(unpublished(&fault))).collect(),
    }
}

/// The rejection in an error of the library: `SSE <code>: <text>`.
fn refusal(error: redis::RedisError) -> PublishError {
    let detail = error.detail().unwrap_or_default().to_owned();
    let found = Rejection::ALL.iter().find(|r| detail.starts_with(&format!("{}:", r.code())));
    match (error.code(), found) {
        (Some("SSE"), Some(refusal)) => {
            PublishError::Refused(*refusal, detail[refusal.code().len() + 1..].trim().to_owned())
        }
        _ => unpublished(&CommandError::from(error)),
    }
}

fn unpublished(fault: &CommandError) -> PublishError {
    match fault {
        CommandError::Unavailable(_) | CommandError::Rejected(_) => {
            PublishError::Away(fault.to_string())
        }
        CommandError::NoReply(_) => PublishError::Unanswered(fault.to_string()),
    }
}

//! Durable publishes on behalf of a backend: `FCALL sse_publish`.

use std::sync::Arc;

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
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// It is rejected: code and text.
    #[error("{0}: {1}")]
    Rejected(Rejection, String),
    /// Redis cannot take it now. The error is shared by all events of a pipeline.
    #[error(transparent)]
    Unavailable(Arc<CommandError>),
    /// Redis has not replied: it may have been published.
    #[error(transparent)]
    NoReply(Arc<CommandError>),
}

fn call(commands: &Commands, publish: &Publish) -> Cmd {
    let mut call = commands.call("publish", &[commands.keys.publish(&publish.channel)]);
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
    let calls = events.iter().map(|event| call(commands, event)).collect();
    let replies = commands.run_each::<String>(calls).await;
    replies.into_iter().map(|reply| reply.map_err(unpublished)).collect()
}

/// The rejection in an error of the library: `SSE <code>: <text>`.
fn rejection(error: &CommandError) -> Option<PublishError> {
    let CommandError::Rejected(error) = error else { return None };
    let detail = error.detail().filter(|_| error.code() == Some("SSE"))?;
    let (code, text) = detail.split_once(':')?;
    let rejection = Rejection::ALL.iter().find(|rejection| rejection.code() == code)?;
    Some(PublishError::Rejected(*rejection, text.trim().to_owned()))
}

fn unpublished(error: Arc<CommandError>) -> PublishError {
    match &*error {
        CommandError::NoReply(_) => PublishError::NoReply(error),
        rejected => rejection(rejected).unwrap_or(PublishError::Unavailable(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rejections_of_the_library_are_known() {
        let library = include_str!("library/events.lua");
        let (_, rest) = library.split_once("local function fault(").expect("the function fault");
        let (fault, _) = rest.split_once("\nend\n").expect("its end");
        let returned = fault.split("return '").skip(1).filter_map(|rest| rest.split('\'').next());
        // The library finds these when it writes the event.
        let later = [Rejection::WrongType, Rejection::TooOften];
        let known = Rejection::ALL.iter().filter(|rejection| !later.contains(rejection));
        let known: Vec<_> = known.map(|rejection| rejection.code()).collect();
        assert_eq!(returned.collect::<Vec<_>>(), known, "the library differs from core/envelope");
    }
}

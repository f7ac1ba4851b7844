//! Durable publishes on behalf of a backend: `FCALL sse_publish`.

use std::sync::Arc;

use redis::Cmd;

use super::commands::{CommandError, Commands};
use crate::core::{
    envelope::Rejection,
    event_options::{EventOptions, Retain},
    trace_context::TraceParent,
};

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
    /// Retained value, tags, and whether it is ephemeral.
    pub options: Option<Box<EventOptions>>,
    /// Within which time a stream must be handed the event, such as `30s`.
    pub unseen: Option<String>,
    /// The trace to which it belongs.
    pub trace: Option<TraceParent>,
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
    let Publish { key, retry_ms, options, unseen, .. } = publish;
    add_options(&mut call, key.as_deref(), *retry_ms, options.as_deref(), unseen.as_deref());
    add_trace(&mut call, publish.trace);
    call
}

/// Adds the options of an event to a call of the library.
pub fn add_options(
    call: &mut Cmd,
    key: Option<&str>,
    retry_ms: Option<u64>,
    options: Option<&EventOptions>,
    unseen: Option<&str>,
) {
    if let Some(key) = key {
        call.arg("KEY").arg(key);
    }
    if let Some(ms) = retry_ms {
        call.arg("RETRY").arg(ms);
    }
    if let Some(unseen) = unseen {
        call.arg("UNSEEN").arg(unseen);
    }
    let Some(EventOptions { retain, tags, is_ephemeral, .. }) = options else { return };
    let retain = retain.as_ref().map(|retain| match retain {
        Retain::Keep(key) => ["KEEP", key],
        Retain::Forget(key) => ["FORGET", key],
    });
    call.arg(retain.as_ref().map(|words| &words[..]));
    if *is_ephemeral {
        call.arg("EPHEMERAL");
    }
    if !tags.is_empty() {
        call.arg("TAGS").arg(tags.as_str().split(' ').collect::<Vec<_>>());
    }
}

/// Adds the trace of an event to a call of the library.
pub fn add_trace(call: &mut Cmd, trace: Option<TraceParent>) {
    if let Some(trace) = trace {
        call.arg("TRACE").arg(trace.to_string());
    }
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
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn rejections_of_the_library_are_known() {
        let library = super::super::library::SOURCE;
        let codes = library.split("return '").chain(library.split("return nil, '")).skip(1);
        let codes: HashSet<_> = codes
            .filter_map(|rest| rest.split_once("',"))
            .map(|(code, _)| code)
            .filter(|code| code.contains(char::is_alphabetic) && code.contains('-'))
            .filter(|code| !code.contains(' '))
            .collect();
        // The gateway rejects what it cannot relay.
        let known = Rejection::ALL.iter().filter(|rejection| **rejection != Rejection::NotStored);
        let known: HashSet<_> = known.map(|rejection| rejection.code()).collect();
        assert_eq!(codes, known, "the library differs from core/envelope");
    }
}

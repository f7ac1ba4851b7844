use std::time::Duration;

use redis::{Cmd, ConnectionLike};
use serde::Serialize;

use crate::{Error, SseGateway, retries::Retries};

/// An event that [`Event::send`] publishes.
#[must_use = "an event is published by `send`"]
pub struct Event<'a> {
    gateway: &'a SseGateway,
    call: Result<Cmd, Error>,
    tags: Vec<String>,
    has_key: bool,
}

impl<'a> Event<'a> {
    pub(crate) fn new(
        gateway: &'a SseGateway,
        key: Result<String, Error>,
        kind: &str,
        payload: impl Serialize,
    ) -> Self {
        let call = key.and_then(|key| {
            let payload = serde_json::to_string(&payload).map_err(|error| {
                Error::new("bad-payload", format!("the payload is not JSON: {error}"))
            })?;
            let mut call = redis::cmd("FCALL");
            call.arg((&gateway.function, 1, key, kind, payload));
            Ok(call)
        });
        Self { gateway, call, tags: Vec::new(), has_key: false }
    }

    pub(crate) fn fail_if(&mut self, check: Result<(), Error>) {
        if let Err(error) = check {
            self.call = Err(error);
        }
    }

    fn with(mut self, name: &str, value: &str) -> Self {
        if let Ok(call) = &mut self.call {
            call.arg((name, value));
        }
        self
    }

    /// Idempotency key: a second event with it is dropped, and has the id of the first one.
    pub fn key(mut self, key: &str) -> Self {
        self.has_key = true;
        self.with("KEY", key)
    }

    /// The event's `retry:`.
    pub fn retry(self, delay: Duration) -> Self {
        self.with("RETRY", &delay.as_millis().to_string())
    }

    /// Keeps the event as the channel's current value for this key.
    pub fn keep(self, key: &str) -> Self {
        self.with("KEEP", key)
    }

    /// Publishes the event, and removes the value that was kept for this key.
    pub fn forget(self, key: &str) -> Self {
        self.with("FORGET", key)
    }

    /// Delivers the event live only: it is not stored and has no id.
    pub fn ephemeral(mut self) -> Self {
        if let Ok(call) = &mut self.call {
            call.arg("EPHEMERAL");
        }
        self
    }

    /// Adds a label for the filters of tickets.
    pub fn tag(mut self, name: &str, value: &str) -> Self {
        self.tags.push(format!("{name}={value}"));
        self
    }

    /// Reports the event as undelivered if the user does not get it within this time.
    pub fn unseen(self, within: Duration) -> Self {
        self.with("UNSEEN", &format!("{}ms", within.as_millis()))
    }

    /// Adds the publisher's trace (W3C trace context); an empty text is no trace.
    pub fn traceparent(self, traceparent: &str) -> Self {
        match traceparent {
            "" => self,
            _ => self.with("TRACE", traceparent),
        }
    }

    fn command(self) -> Result<(Cmd, Retries), Error> {
        let mut call = self.call?;
        if !self.tags.is_empty() {
            call.arg("TAGS").arg(self.tags);
        }
        Ok((call, Retries::new(self.gateway.settings.retry_for, self.has_key)))
    }

    /// Publishes the event. Returns its id, which is empty for an ephemeral event.
    pub fn send(self, redis: &mut impl ConnectionLike) -> Result<String, Error> {
        let (call, retries) = self.command()?;
        retries.run(|| call.query(redis))
    }

    /// Publishes the event. Returns its id, which is empty for an ephemeral event.
    #[cfg(feature = "tokio")]
    pub async fn send_async(
        self,
        redis: &mut impl redis::aio::ConnectionLike,
    ) -> Result<String, Error> {
        let (call, retries) = self.command()?;
        retries.run_async(async || call.query_async(redis).await).await
    }
}

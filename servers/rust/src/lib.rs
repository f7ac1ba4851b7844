//! Publishes events to sse-gateway and issues tickets for it. The README has examples.
#![warn(missing_docs)]

mod error;
mod event;
mod names;
mod retries;
mod ticket;
mod undelivered;

use std::time::Duration;

pub use error::Error;
pub use event::Event;
use serde::Serialize;
pub use ticket::Ticket;
pub use undelivered::Undelivered;

const MIN_SECRET_BYTES: usize = 32;

/// Settings of a [`SseGateway`].
#[derive(Clone)]
pub struct Settings {
    /// `tickets.secret` of the gateway, 32 bytes or more. Only tickets need it.
    pub secret: Option<Vec<u8>>,
    /// `tickets.audience` of the gateway. Default: `sse-gateway`.
    pub audience: String,
    /// `tickets.issuer` of the gateway.
    pub issuer: Option<String>,
    /// The `kid` of the secret, if the gateway has several keys.
    pub key_id: Option<String>,
    /// `tickets.max_ttl` of the gateway. Default: 60 s.
    pub max_ttl: Duration,
    /// `redis.key_prefix` of the gateway. Default: `sse:`.
    pub key_prefix: String,
    /// `redis.channel_prefix` of the gateway. Default: empty.
    pub channel_prefix: String,
    /// How long temporary errors are retried; zero: never. Default: 3 s.
    pub retry_for: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            secret: None,
            audience: "sse-gateway".to_owned(),
            issuer: None,
            key_id: None,
            max_ttl: Duration::from_secs(60),
            key_prefix: "sse:".to_owned(),
            channel_prefix: String::new(),
            retry_for: Duration::from_secs(3),
        }
    }
}

/// Publishes events and issues tickets.
pub struct SseGateway {
    settings: Settings,
    function: String,
    undelivered: String,
}

impl SseGateway {
    /// Checks the settings.
    ///
    /// # Errors
    ///
    /// `bad-secret` if the secret has fewer than 32 bytes.
    pub fn new(settings: Settings) -> Result<Self, Error> {
        if settings.secret.as_ref().is_some_and(|secret| secret.len() < MIN_SECRET_BYTES) {
            return Err(Error::new("bad-secret", "secret must have at least 32 bytes"));
        }
        let Settings { key_prefix, channel_prefix, .. } = &settings;
        let function = names::function(key_prefix);
        let undelivered = format!("{key_prefix}undelivered:{{{channel_prefix}broadcast}}");
        Ok(Self { settings, function, undelivered })
    }

    /// Signs a ticket (a JWT, HS256) for a user that you have authenticated. It is for one
    /// connection.
    ///
    /// # Errors
    ///
    /// The code names the member that is invalid, for example `bad-topics`.
    pub fn ticket(&self, ticket: &Ticket) -> Result<String, Error> {
        ticket.sign(&self.settings)
    }

    /// An event on `user:<id>:events` or `broadcast:<topic>`. Publish it with [`Event::send`].
    pub fn publish(&self, channel: &str, kind: &str, payload: impl Serialize) -> Event<'_> {
        Event::new(self, names::channel_key(channel, &self.settings.channel_prefix), kind, payload)
    }

    /// An event for all streams of a user. Publish it with [`Event::send`].
    pub fn publish_to_user(&self, user: &str, kind: &str, payload: impl Serialize) -> Event<'_> {
        let mut event = self.publish(&format!("user:{user}:events"), kind, payload);
        event.fail_if(names::check_user(user));
        event
    }

    /// An event for all streams whose ticket has the topic. Publish it with [`Event::send`].
    pub fn publish_to_broadcast(
        &self,
        topic: &str,
        kind: &str,
        payload: impl Serialize,
    ) -> Event<'_> {
        self.publish(&format!("broadcast:{topic}"), kind, payload)
    }
}

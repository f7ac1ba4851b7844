//! What hubs and connections need from the instance.

use std::{sync::Arc, time::Duration};

use super::{clock::Clock, limits::Limits, presence::Presence, sightings::Sightings};
use crate::{
    core::{channel_rules::ChannelRules, topics::Topics},
    metrics::Metrics,
    settings::{self, Settings},
};

/// What the hubs and connections of all workers share.
pub struct StreamContext {
    /// Limits of queues, intervals of heartbeats, ages.
    pub settings: StreamSettings,
    /// Monotonic time.
    pub clock: Arc<Clock>,
    /// The metrics of streams.
    pub metrics: Arc<Metrics>,
    /// The count of queued bytes.
    pub limits: Arc<Limits>,
    /// Which events with `UNSEEN` were handed over.
    pub sightings: Arc<Sightings>,
    /// Which users have a stream; `None` without `presence.enabled`.
    pub presence: Option<Arc<Presence>>,
}

/// The settings of streams. They contain no secrets.
pub struct StreamSettings {
    /// `[server]`
    pub server: settings::Server,
    /// `[limits]`
    pub limits: settings::Limits,
    /// The channel rules.
    pub channels: ChannelRules,
    /// The settings of sessions in `[tickets]`.
    pub sessions: SessionSettings,
    /// `tickets.anonymous_topics`
    pub anonymous_topics: Topics,
}

/// The settings of sessions.
pub struct SessionSettings {
    /// `tickets.reconnect_grace`
    pub reconnect_grace: Duration,
    /// `tickets.max_session`
    pub max_session: Duration,
    /// `tickets.session_cookie`
    pub cookie: bool,
}

impl StreamSettings {
    /// Takes what streams need from all settings.
    pub fn new(settings: &Settings) -> Self {
        let anonymous_topics = settings.tickets.anonymous_topics.iter().map(String::as_str);
        Self {
            // The parser of the setting has checked them.
            anonymous_topics: Topics::parse(anonymous_topics).unwrap_or_default(),
            server: settings.server.clone(),
            limits: settings.limits.clone(),
            channels: settings.channels.clone(),
            sessions: SessionSettings {
                reconnect_grace: settings.tickets.reconnect_grace,
                max_session: settings.tickets.max_session,
                cookie: settings.tickets.session_cookie,
            },
        }
    }
}

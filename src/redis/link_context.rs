//! The shared state of the tasks of the link thread.

use std::sync::Arc;

use super::link_state::LinkState;
use crate::{
    core::part::ServerIndex,
    metrics::Metrics,
    settings::Settings,
    state::{clock::Clock, delivery::Delivery},
};

/// The shared state of the supervisor, the reading task and the recorder.
#[derive(Clone)]
pub struct LinkContext {
    /// The server of the link.
    pub server: ServerIndex,
    /// The settings.
    pub settings: Arc<Settings>,
    /// Monotonic time; the supervisor sets its server time.
    pub clock: Arc<Clock>,
    /// The metrics of the link and the recorder.
    pub metrics: Arc<Metrics>,
    /// The state of the link, which the supervisor and the reading task update.
    pub state: Arc<LinkState>,
    /// Where received events go.
    pub delivery: Arc<Delivery>,
}

impl LinkContext {
    /// Creates the context of a link that has not been up yet and has no workers yet.
    pub fn new(settings: Arc<Settings>, clock: Arc<Clock>, metrics: Arc<Metrics>) -> Self {
        Self {
            server: ServerIndex::default(),
            state: Arc::new(LinkState::new(clock.clone())),
            delivery: Arc::new(Delivery::new(settings.history.replay_cache_bytes)),
            settings,
            clock,
            metrics,
        }
    }
}

/// A link context for unit tests.
#[cfg(test)]
pub mod testing {
    use super::*;

    /// A context with default settings, except for `changes`: variables without their prefix.
    pub fn link_context(changes: &[(&str, &str)]) -> LinkContext {
        let settings = crate::state::testing::settings(changes);
        LinkContext::new(settings, Arc::new(Clock::new()), Arc::new(Metrics::new()))
    }
}

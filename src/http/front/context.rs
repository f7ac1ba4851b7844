//! What the connections of one worker share.

use std::sync::Arc;

use ipnet::IpNet;

use crate::{
    metrics::Metrics,
    settings::{Limits, Settings},
    state::{clock::Clock, lifecycle::Lifecycle},
};

/// The shared state of the connections of one worker.
#[derive(Clone)]
pub struct FrontContext {
    /// The limits of connections.
    pub limits: Limits,
    /// `server.trusted_proxies`: these may give requests an id.
    pub trusted_proxies: Vec<IpNet>,
    /// Monotonic time, for the rate of log lines.
    pub clock: Arc<Clock>,
    /// Counts malformed requests.
    pub metrics: Arc<Metrics>,
    /// Connections end once the instance is closed.
    pub lifecycle: Arc<Lifecycle>,
}

impl FrontContext {
    /// Takes what connections need from the settings.
    pub fn new(
        settings: &Settings,
        clock: Arc<Clock>,
        metrics: Arc<Metrics>,
        lifecycle: Arc<Lifecycle>,
    ) -> Self {
        let (limits, trusted_proxies) =
            (settings.limits.clone(), settings.server.trusted_proxies.clone());
        Self { limits, trusted_proxies, clock, metrics, lifecycle }
    }
}

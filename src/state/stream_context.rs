//! What hubs and connections need from the instance.

use std::sync::Arc;

use super::{clock::Clock, limits::Limits};
use crate::{metrics::Metrics, settings::Settings};

/// What the hubs and connections of all workers share.
pub struct StreamContext {
    /// Limits of queues, intervals of heartbeats, ages.
    pub settings: Arc<Settings>,
    /// Monotonic time.
    pub clock: Arc<Clock>,
    /// The metrics of streams.
    pub metrics: Arc<Metrics>,
    /// The count of queued bytes.
    pub limits: Arc<Limits>,
}

//! Logs go to stderr, as text or as one JSON object a line.

use tracing_subscriber::{Layer, filter::Targets, fmt, layer::SubscriberExt, util::SubscriberInitExt};

use crate::settings;

/// Starts logging; a second call changes nothing.
pub fn start(settings: &settings::Log) {
    let filter: Targets = settings.level.parse().unwrap_or_default();
    let layer = fmt::layer().with_writer(std::io::stderr).with_target(true);
    let layer = match settings.json {
        true => layer.json().flatten_event(true).with_current_span(false).boxed(),
        false => layer.boxed(),
    };
    let _ = tracing_subscriber::registry().with(layer.with_filter(filter)).try_init();
}

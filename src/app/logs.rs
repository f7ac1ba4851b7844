//! Logging to stderr, as text or as one JSON object per line.

use std::io::IsTerminal;

use tracing_subscriber::{
    Layer, filter::Targets, fmt, layer::SubscriberExt, util::SubscriberInitExt,
};

use super::plain_fields::PlainFields;
use crate::settings;

/// Starts logging; a second call changes nothing.
pub fn start(settings: &settings::Log) {
    let own: Targets = settings.level.parse().unwrap_or_default();
    // actix logs its start, which the gateway logs itself. h2 warns about some invalid frames, so
    // any client could fill the log. Levels for them in the setting have precedence.
    let filter = Targets::new()
        .with_target("actix_server", tracing::Level::WARN)
        .with_target("h2", tracing::Level::ERROR)
        .with_targets(own.iter());
    let filter = own.default_level().map_or(filter.clone(), |level| filter.with_default(level));
    let has_colors = std::io::stderr().is_terminal();
    let layer = fmt::layer().with_writer(std::io::stderr).with_ansi(has_colors).with_target(true);
    let layer = match settings.json {
        // No span has a parent, so a list of spans would say the same as the current span.
        true => layer.json().flatten_event(true).with_span_list(false).boxed(),
        false if has_colors => layer.boxed(),
        false => layer.fmt_fields(PlainFields).boxed(),
    };
    let _ = tracing_subscriber::registry().with(layer.with_filter(filter)).try_init();
}

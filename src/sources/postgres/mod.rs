//! Postgres as a source: the rows of an outbox table, and plain notifications.

mod entry;
mod notify;
mod outbox;
mod unconfirmed;

pub use notify::NotifySource;
pub use outbox::OutboxSource;

use super::{
    metrics::SourceMetrics,
    source::{Fault, SourceError},
};
use crate::{
    metrics::Metrics,
    postgres::{TlsError, connect::Connector, error::PostgresError, outbox::OutboxOptions},
    redis::commands::Commands,
    settings::Settings,
};

/// The sources that the settings ask for, with their metrics.
#[derive(Default)]
pub struct PostgresSources {
    /// The outbox table.
    pub outbox: Option<(OutboxSource, SourceMetrics)>,
    /// Notifications.
    pub notify: Option<(NotifySource, SourceMetrics)>,
}

impl PostgresSources {
    /// Creates the sources, which connect when they are run.
    ///
    /// # Errors
    /// `sources.postgres.ca_file` cannot be used.
    pub fn new(
        settings: &Settings,
        metrics: &Metrics,
        commands: impl Fn() -> Commands,
    ) -> Result<Self, TlsError> {
        let postgres = &settings.sources.postgres;
        let Some(url) = &postgres.url else { return Ok(Self::default()) };
        let connector = Connector::new(url, postgres)?;
        let max_event_bytes = settings.channels.largest_event_bytes();
        let outbox = postgres.outbox.as_ref().map(|table| {
            let metrics = SourceMetrics::new(metrics, OutboxSource::NAME);
            let options = OutboxOptions {
                table: table.clone(),
                published: postgres.published,
                batch: postgres.batch,
                max_event_bytes,
            };
            let poll_interval = postgres.poll_interval;
            let source = OutboxSource::new(connector.clone(), options, poll_interval, commands());
            (source, metrics)
        });
        let notify = (!postgres.channels.is_empty()).then(|| {
            let metrics = SourceMetrics::new(metrics, NotifySource::NAME);
            let channels = postgres.channels.clone();
            let commands = commands();
            let source =
                NotifySource::new(connector, channels, max_event_bytes, commands, metrics.clone());
            (source, metrics)
        });
        Ok(Self { outbox, notify })
    }
}

impl From<PostgresError> for SourceError {
    fn from(error: PostgresError) -> Self {
        let text = error.to_string();
        let fault = match error.is_permanent() {
            true => Fault::Misconfigured,
            false => Fault::Unavailable,
        };
        let cause = match error {
            PostgresError::Unavailable { source, .. }
            | PostgresError::Login { source, .. }
            | PostgresError::Tls { source, .. }
            | PostgresError::Failed { source, .. } => Some(source),
            _ => None,
        };
        match (fault, cause) {
            (Fault::Unavailable, Some(cause)) => Self::unavailable(text, cause),
            // The text says everything.
            (Fault::Unavailable, None) => Self::unavailable(text, "did not reply"),
            (Fault::Misconfigured, Some(cause)) => Self::misconfigured(text).caused_by(cause),
            (Fault::Misconfigured, None) => Self::misconfigured(text),
        }
    }
}

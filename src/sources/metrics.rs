//! The metrics of one external source.

use prometheus::{Gauge, IntCounter, IntGauge};

use crate::metrics::Metrics;

/// The metrics of one external source.
#[derive(Clone)]
pub struct SourceMetrics {
    /// Whether this instance is the reader.
    pub reader: IntGauge,
    /// Entries that were published.
    pub published: IntCounter,
    /// Entries that were published before.
    pub duplicates: IntCounter,
    /// Entries that were rejected.
    pub rejected: IntCounter,
    /// Entries that were deleted or dropped before they were published.
    pub lost: IntCounter,
    /// Interruptions during which entries may have been lost.
    pub breaks: IntCounter,
    /// Failed attempts to read or to publish.
    pub errors: IntCounter,
    /// Age of the oldest entry that was read and is not published yet, s.
    pub lag: Gauge,
}

impl SourceMetrics {
    /// The metrics of the source with this name, which exist from now on.
    pub fn new(metrics: &Metrics, source: &str) -> Self {
        let label = &[source];
        Self {
            reader: metrics.source_reader.with_label_values(label),
            published: metrics.source_published.with_label_values(label),
            duplicates: metrics.source_duplicates.with_label_values(label),
            rejected: metrics.source_rejected.with_label_values(label),
            lost: metrics.source_lost.with_label_values(label),
            breaks: metrics.source_breaks.with_label_values(label),
            errors: metrics.source_errors.with_label_values(label),
            lag: metrics.source_lag.with_label_values(label),
        }
    }
}

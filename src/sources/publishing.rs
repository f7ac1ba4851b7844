//! Publishes the entries of a source: in order on each channel, repeated until Redis has taken or
//! rejected each of them.

use std::{cell::Cell, sync::Arc, time::Duration};

use super::{
    lease::SourceLease,
    metrics::SourceMetrics,
    source::{Entry, Outcome, Unusable},
};
use crate::{
    backoff::Backoff,
    core::{channel::Channel, envelope::Rejection, trace_context::TraceParent},
    error_chain::ErrorChain,
    log_limit::LogLimit,
    metrics::Metrics,
    redis::{
        commands::Commands,
        link_context::LinkContext,
        publish::{Publish, PublishError, publish_entries},
        rejected::{self, Rejected},
    },
    settings::Settings,
    spans::{OpenSpan, Tracer},
    state::clock::unix_ms,
};

const FIRST_RETRY: Duration = Duration::from_millis(100);
const MAX_RETRY: Duration = Duration::from_secs(5);
/// Minimum time between log lines of one kind, ms.
const LOG_INTERVAL_MS: u64 = 10_000;

/// This instance may not publish any more: it has lost the lease.
pub struct LeaseLost;

/// Publishes the entries of one source.
pub struct Publisher {
    source: String,
    commands: Commands,
    settings: Arc<Settings>,
    all: Arc<Metrics>,
    metrics: SourceMetrics,
    tracer: Option<Arc<Tracer>>,
    /// When the oldest entry that waits was written, ms since 1970.
    oldest_ms: Cell<Option<u64>>,
    retry_log: LogLimit,
    rejected_log: LogLimit,
}

/// An entry whose event waits to be published.
struct Waiting {
    /// Its number in the list.
    number: usize,
    id: String,
    event: Publish,
    span: Option<OpenSpan>,
}

impl Publisher {
    pub fn new(
        source: &str,
        context: &LinkContext,
        commands: Commands,
        metrics: SourceMetrics,
    ) -> Self {
        Self {
            source: source.to_owned(),
            commands,
            settings: context.settings.clone(),
            all: context.metrics.clone(),
            metrics,
            tracer: context.tracer.clone(),
            oldest_ms: Cell::new(None),
            retry_log: LogLimit::new(LOG_INTERVAL_MS),
            rejected_log: LogLimit::new(LOG_INTERVAL_MS),
        }
    }

    /// Updates the metric of the lag.
    pub fn measure_lag(&self) {
        let lag_ms = self.oldest_ms.get().map_or(0, |ms| unix_ms().saturating_sub(ms));
        self.metrics.lag.set(lag_ms as f64 / 1000.0);
    }

    /// Nothing waits (any more).
    pub fn clear_lag(&self) {
        self.oldest_ms.set(None);
        self.measure_lag();
    }

    /// Publishes entries, and returns what became of each. Repeats whatever Redis refuses for now,
    /// with a back-off, and thereby keeps back the entries behind it.
    ///
    /// # Errors
    /// The lease was lost. Some entries may have been published.
    pub async fn publish(
        &self,
        lease: &SourceLease,
        entries: Vec<Entry>,
    ) -> Result<Vec<Outcome>, LeaseLost> {
        self.oldest_ms.set(entries.iter().find_map(|entry| entry.written_ms));
        self.measure_lag();
        let mut outcomes: Vec<Option<Outcome>> = entries.iter().map(|_| None).collect();
        let mut waiting = Vec::new();
        for (number, Entry { id, event, .. }) in entries.into_iter().enumerate() {
            let trace = event.as_ref().ok().and_then(|event| event.trace);
            match event.and_then(|event| self.checked(&id, event)) {
                Ok(event) => waiting.push(self.begin(number, id, event)),
                Err(unusable) => {
                    outcomes[number] = Some(self.reject(&id, unusable, trace).await);
                }
            }
        }
        let mut backoff = Backoff::new(FIRST_RETRY, MAX_RETRY);
        while !waiting.is_empty() {
            if !lease.is_valid() {
                return Err(LeaseLost);
            }
            let before = waiting.len();
            waiting = self.attempt(waiting, &mut outcomes).await;
            self.measure_lag();
            if waiting.is_empty() {
                break;
            }
            if waiting.len() < before {
                backoff.reset();
            }
            tokio::time::sleep(backoff.delay()).await;
        }
        Ok(outcomes.into_iter().flatten().collect())
    }

    /// Begins the span of an entry, which lasts until the entry has an outcome.
    fn begin(&self, number: usize, id: String, mut event: Publish) -> Waiting {
        let span = self
            .tracer
            .as_ref()
            .and_then(|tracer| tracer.call_for_event("append", event.trace, &event.channel));
        let span = span.map(|mut span| {
            span.text("sse.source", self.source.as_str());
            span.text("sse.source.entry", id.as_str());
            event.trace = Some(span.context());
            span
        });
        Waiting { number, id, event, span }
    }

    /// One attempt to publish. Returns the entries that Redis has refused for now.
    async fn attempt(
        &self,
        waiting: Vec<Waiting>,
        outcomes: &mut [Option<Outcome>],
    ) -> Vec<Waiting> {
        let events: Vec<&Publish> = waiting.iter().map(|entry| &entry.event).collect();
        let results = publish_entries(&self.commands, &events).await;
        let mut refused = Vec::new();
        for (mut entry, result) in waiting.into_iter().zip(results) {
            let outcome = match result {
                Ok(true) => {
                    self.metrics.published.inc();
                    Outcome::Stored
                }
                Ok(false) => {
                    self.metrics.duplicates.inc();
                    Outcome::Duplicate
                }
                // The rate of a channel rule slows a source down, and drops none of its entries.
                Err(PublishError::Rejected(reason, text)) if reason != Rejection::TooOften => {
                    if let Some(span) = &mut entry.span {
                        span.fail(reason.code());
                    }
                    let Publish { channel, payload, trace, .. } = entry.event;
                    let unusable = Unusable { reason, text, channel, message: payload };
                    self.reject(&entry.id, unusable, trace).await
                }
                Err(error) => {
                    self.log_retry(&entry, &error);
                    refused.push(entry);
                    continue;
                }
            };
            if let Some(mut span) = entry.span {
                span.text("sse.outcome", outcome.name());
                span.end();
            }
            outcomes[entry.number] = Some(outcome);
        }
        if !refused.is_empty() {
            self.metrics.errors.inc();
        }
        refused
    }

    /// The event with its key. Checks what would be refused on the way to the library.
    fn checked(&self, id: &str, mut event: Publish) -> Result<Publish, Unusable> {
        let prefix = &self.settings.redis.channel_prefix;
        let name = event.channel.strip_prefix(prefix.as_str()).unwrap_or(&event.channel);
        let policy = Channel::parse(name).map(|channel| self.settings.channels.of(&channel));
        let max = policy
            .map_or(self.settings.channels.largest_event_bytes(), |policy| policy.max_event_bytes);
        if event.payload.len() > max {
            let text = format!(
                "the payload has {} bytes, max_event_bytes (of history, or of a rule in channels) \
                 is {max}",
                event.payload.len()
            );
            let Publish { channel, payload, .. } = event;
            return Err(Unusable { reason: Rejection::TooLarge, text, channel, message: payload });
        }
        // An ephemeral event is not stored, so nothing recognises it.
        let is_ephemeral = policy.is_some_and(|policy| policy.is_ephemeral)
            || event.options.as_ref().is_some_and(|options| options.is_ephemeral);
        if !is_ephemeral {
            event.key.get_or_insert_with(|| format!("{}:{id}", self.source));
        }
        Ok(event)
    }

    async fn reject(&self, id: &str, unusable: Unusable, trace: Option<TraceParent>) -> Outcome {
        let Unusable { reason, text, channel, message } = unusable;
        self.metrics.rejected.inc();
        self.all.rejected.with_label_values(&[reason.code()]).inc();
        let rejected = Rejected::new(channel.as_bytes(), reason, message.as_bytes());
        let stored = rejected::write(&self.commands, &rejected).await;
        if let Some(suppressed) = self.rejected_log.allow(unix_ms()) {
            let source = &self.source;
            let trace_id = trace.map(|trace| trace.trace_id_text());
            tracing::warn!(
                source, entry = id, channel, %reason, text, trace_id, suppressed,
                "rejected an entry of a source"
            );
            if let Err(error) = stored {
                let (address, error) = (self.commands.address(), ErrorChain(&error));
                tracing::warn!(source, %address, %error, "could not keep a rejected entry");
            }
        }
        Outcome::Rejected { reason, text }
    }

    fn log_retry(&self, entry: &Waiting, error: &PublishError) {
        if let Some(suppressed) = self.retry_log.allow(unix_ms()) {
            tracing::warn!(
                source = self.source,
                entry = entry.id,
                channel = entry.event.channel,
                address = %self.commands.address(),
                error = %ErrorChain(error),
                trace_id = entry.event.trace.map(|trace| trace.trace_id_text()),
                suppressed,
                "could not publish an entry of a source; it is tried again"
            );
        }
    }
}

//! The outbox table as a source.

use std::{
    mem::take,
    time::{Duration, Instant},
};

use tokio::time::timeout;

use super::{entry::entry, unconfirmed::Unconfirmed};
use crate::{
    error_chain::ErrorChain,
    postgres::{
        connect::Connector,
        error::PostgresError,
        outbox::{Outbox, OutboxOptions, Row, RowName, RowOutcomes},
    },
    redis::commands::{CommandError, Commands},
    sources::source::{Entry, Outcome, Source, SourceError},
    state::clock::unix_ms,
};

/// Reads an outbox table.
pub struct OutboxSource {
    connector: Connector,
    options: OutboxOptions,
    poll_interval: Duration,
    outbox: Option<Outbox>,
    /// The rows of the open transaction, in order.
    batch: Vec<RowName>,
    /// When to look for rows without a notification.
    next_poll: Instant,
    unconfirmed: Unconfirmed,
}

impl OutboxSource {
    /// The name of the source.
    pub const NAME: &'static str = "postgres";

    /// A source that is not connected yet.
    pub fn new(
        connector: Connector,
        options: OutboxOptions,
        poll_interval: Duration,
        commands: Commands,
    ) -> Self {
        Self {
            connector,
            options,
            poll_interval,
            outbox: None,
            batch: Vec::new(),
            next_poll: Instant::now(),
            unconfirmed: Unconfirmed::new(commands, Self::NAME),
        }
    }

    /// Deletes or marks rows that were published while Postgres became unavailable.
    async fn confirm_earlier(&mut self, outbox: &Outbox) -> Result<(), SourceError> {
        let rows = self.unconfirmed.all().await.map_err(without_redis)?;
        if rows.is_empty() {
            return Ok(());
        }
        tracing::info!(
            address = %outbox.address(),
            published = rows.published.len(),
            rejected = rows.rejected.len(),
            "confirming rows that were published before Postgres became unavailable"
        );
        outbox.finish(&rows).await?;
        self.unconfirmed.clear().await.map_err(without_redis)
    }

    /// The next rows, once there are some, or an empty list after `wait`.
    async fn rows(&mut self, wait: Duration) -> Result<Vec<Row>, PostgresError> {
        let until = Instant::now() + wait;
        let Some(outbox) = &self.outbox else { return Ok(Vec::new()) };
        loop {
            let now = Instant::now();
            let quiet = self.next_poll.min(until).saturating_duration_since(now);
            // A notification that came meanwhile returns at once.
            match timeout(quiet, outbox.inserted()).await {
                Ok(inserted) => inserted?,
                Err(_) if Instant::now() < self.next_poll => return Ok(Vec::new()),
                Err(_) => {}
            }
            let rows = outbox.begin().await?;
            if !rows.is_empty() {
                // There may be more.
                self.next_poll = Instant::now();
                return Ok(rows);
            }
            self.next_poll = Instant::now() + self.poll_interval;
            if Instant::now() >= until {
                return Ok(Vec::new());
            }
        }
    }

    fn row_outcomes(&mut self, outcomes: &[Outcome]) -> RowOutcomes {
        let mut rows = RowOutcomes::default();
        for (row, outcome) in take(&mut self.batch).into_iter().zip(outcomes) {
            match outcome {
                Outcome::Stored | Outcome::Duplicate => rows.published.push(row),
                Outcome::Rejected { reason, text } => {
                    rows.rejected.push((row, format!("{reason}: {text}")));
                }
            }
        }
        rows
    }
}

fn without_redis(error: CommandError) -> SourceError {
    SourceError::unavailable("Redis did not reply about rows that were published before", error)
}

impl Source for OutboxSource {
    fn name(&self) -> &str {
        Self::NAME
    }

    async fn prepare(&mut self) -> Result<(), SourceError> {
        let outbox = Outbox::open(&self.connector, &self.options).await?;
        self.confirm_earlier(&outbox).await?;
        self.next_poll = Instant::now();
        self.outbox = Some(outbox);
        Ok(())
    }

    async fn next(&mut self, wait: Duration) -> Result<Vec<Entry>, SourceError> {
        let rows = self.rows(wait).await?;
        self.batch = rows.iter().map(Row::name).collect();
        let (now_ms, max) = (unix_ms(), self.options.max_event_bytes);
        Ok(rows.into_iter().map(|row| entry(row, now_ms, max)).collect())
    }

    async fn done(&mut self, outcomes: &[Outcome]) -> Result<(), SourceError> {
        let rows = self.row_outcomes(outcomes);
        let Some(outbox) = &self.outbox else { return Ok(()) };
        let Err(error) = outbox.finish(&rows).await else { return Ok(()) };
        self.outbox = None;
        if let Err(error) = self.unconfirmed.keep(rows).await {
            let error = ErrorChain(&error);
            tracing::warn!(%error, "could not keep in Redis which rows were published");
        }
        Err(error.into())
    }

    async fn close(&mut self) {
        // Ends the transaction, too.
        self.outbox = None;
        self.batch.clear();
    }

    async fn check(&mut self) -> Result<String, SourceError> {
        let outbox = Outbox::open(&self.connector, &self.options).await?;
        Ok(format!("reads the table {} at {}", self.options.table, outbox.address()))
    }
}

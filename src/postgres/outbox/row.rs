//! One row of an outbox.

use super::RowName;

/// One row: an event to publish. Values are not checked yet; texts are cut above the limits of
/// events, so that they are rejected.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Its id: rows are published in this order.
    pub id: i64,
    /// Channel of the event.
    pub channel: String,
    /// Event type.
    pub kind: String,
    /// The payload; `None` if it is larger than the limit of events.
    pub payload: Option<String>,
    /// Idempotency key.
    pub key: Option<String>,
    /// The retained value to set.
    pub keep: Option<String>,
    /// The retained value to delete.
    pub forget: Option<String>,
    /// Tags, a JSON object.
    pub tags: Option<String>,
    /// The event's `retry:` in ms.
    pub retry_ms: Option<i64>,
    /// Within which time a stream must be handed the event.
    pub unseen: Option<String>,
    /// The trace to which the event belongs, a `traceparent`.
    pub traceparent: Option<String>,
    /// Time since the row was inserted, in seconds, by the clock of Postgres.
    pub age_seconds: f64,
}

impl Row {
    /// Which row it is.
    pub fn name(&self) -> RowName {
        RowName { id: self.id, key: self.key.clone() }
    }

    pub(super) fn of(row: &tokio_postgres::Row) -> Result<Self, tokio_postgres::Error> {
        Ok(Self {
            id: row.try_get(0)?,
            channel: row.try_get::<_, Option<_>>(1)?.unwrap_or_default(),
            kind: row.try_get::<_, Option<_>>(2)?.unwrap_or_default(),
            payload: row.try_get(3)?,
            key: row.try_get(4)?,
            keep: row.try_get(5)?,
            forget: row.try_get(6)?,
            tags: row.try_get(7)?,
            retry_ms: row.try_get(8)?,
            unseen: row.try_get(9)?,
            traceparent: row.try_get(10)?,
            age_seconds: row.try_get::<_, Option<_>>(11)?.unwrap_or_default(),
        })
    }
}

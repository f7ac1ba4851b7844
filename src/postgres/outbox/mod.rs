//! The outbox table: backends insert rows in their own transactions, the gateway publishes and
//! then deletes or marks them.
//!
//! Rows stay locked while they are being published, so that two readers never publish at once, and
//! the rows of a reader that dies become available at once.

mod row;
mod statements;
mod table;

use std::sync::Arc;

use tokio::sync::Notify;
use tokio_postgres::{
    Statement,
    types::{ToSql, Type},
};

pub use row::Row;
pub use table::Table;

use self::statements::Statements;
use super::{connect::Connector, error::PostgresError, session::Session};
use crate::settings::{PublishedRows, TableName};

/// Maximum bytes of the payloads of one batch. A single larger row, up to the maximum size of an
/// event, is a batch of its own.
const MAX_BATCH_BYTES: i64 = 1 << 20;

/// What an outbox needs to know of the settings.
#[derive(Clone, Debug)]
pub struct OutboxOptions {
    /// The table.
    pub table: TableName,
    /// What happens to the rows of published events.
    pub published: PublishedRows,
    /// Maximum number of rows to read at a time.
    pub batch: usize,
    /// Payloads larger than this are not read, bytes.
    pub max_event_bytes: usize,
}

/// Which row: its id, and its idempotency key, because a truncated table uses ids again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowName {
    /// Its id.
    pub id: i64,
    /// Its idempotency key.
    pub key: Option<String>,
}

/// What has become of rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RowOutcomes {
    /// Rows whose events were published.
    pub published: Vec<RowName>,
    /// Rows that can never be published, with the reason.
    pub rejected: Vec<(RowName, String)>,
}

impl RowOutcomes {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.published.is_empty() && self.rejected.is_empty()
    }
}

/// An open connection that reads an outbox.
pub struct Outbox {
    session: Session,
    read: Statement,
    published: Statement,
    rejected: Statement,
    limits: [i64; 2],
    max_event_bytes: i64,
    inserted: Arc<Notify>,
}

impl Outbox {
    /// Connects, checks the table, and listens for its notifications.
    ///
    /// # Errors
    /// See [`PostgresError`].
    pub async fn open(
        connector: &Connector,
        options: &OutboxOptions,
    ) -> Result<Self, PostgresError> {
        let inserted = Arc::new(Notify::new());
        let wake = inserted.clone();
        let session = connector.connect(move |_| wake.notify_one()).await?;
        let table = Table::check(&session, connector.user(), options).await?;
        if table.reformats_payload {
            tracing::warn!(
                table = %options.table,
                "the column payload has the type jsonb, which reformats events; use json or text"
            );
        }
        if table.hides_rows {
            tracing::warn!(
                table = %options.table,
                user = connector.user(),
                "row-level security may hide rows from the gateway; run: ALTER ROLE ... BYPASSRLS"
            );
        }
        let client = &session.client;
        // Postgres keeps the order: rows that were inserted after the first read cause a
        // notification.
        let listen = format!("LISTEN \"{}\"", options.table.table());
        session.run(client.batch_execute(&listen)).await?;
        let Statements { read, published, rejected } = Statements::of(&table, options);
        let read = client.prepare_typed(&read, &[Type::INT8; 3]);
        let published = client.prepare_typed(&published, &[Type::INT8_ARRAY, Type::TEXT_ARRAY]);
        let rejected = client.prepare_typed(&rejected, &[Type::INT8, Type::TEXT, Type::TEXT]);
        let prepare = async { tokio::try_join!(read, published, rejected) };
        let (read, published, rejected) = session.run(prepare).await?;
        let number = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        Ok(Self {
            session,
            read,
            published,
            rejected,
            limits: [number(options.batch), MAX_BATCH_BYTES],
            max_event_bytes: number(options.max_event_bytes),
            inserted,
        })
    }

    /// The servers, without credentials.
    pub fn address(&self) -> &Arc<str> {
        self.session.address()
    }

    /// Waits until rows may have been inserted.
    ///
    /// # Errors
    /// The connection has ended.
    pub async fn inserted(&self) -> Result<(), PostgresError> {
        tokio::select! {
            () = self.inserted.notified() => Ok(()),
            () = self.session.ended() => {
                // Returns the reason, or that the connection is closed.
                self.session.run(self.session.client.batch_execute("")).await
            }
        }
    }

    /// Reads and locks the next rows, in the order of their ids, in a transaction that
    /// [`Outbox::finish`] ends. If there are none, no transaction is open.
    ///
    /// # Errors
    /// See [`PostgresError`]. The outbox must be dropped then.
    pub async fn begin(&self) -> Result<Vec<Row>, PostgresError> {
        let client = &self.session.client;
        let [rows, bytes] = &self.limits;
        let begin = client.batch_execute("BEGIN");
        // Sent together, and executed in this order.
        let limits: [&(dyn ToSql + Sync); 3] = [rows, bytes, &self.max_event_bytes];
        let read = client.query(&self.read, &limits);
        let both = async { tokio::try_join!(begin, read) };
        let ((), rows) = self.session.run(both).await?;
        if rows.is_empty() {
            self.session.run(client.batch_execute("COMMIT")).await?;
        }
        let rows = async { rows.iter().map(Row::of).collect() };
        self.session.run(rows).await
    }

    /// Deletes or marks rows, and ends the transaction of [`Outbox::begin`], if one is open. Other
    /// rows of the batch are read again.
    ///
    /// # Errors
    /// See [`PostgresError`]. The outbox must be dropped then. The rows may have been deleted or
    /// marked; to repeat it does no harm.
    pub async fn finish(&self, outcomes: &RowOutcomes) -> Result<(), PostgresError> {
        let client = &self.session.client;
        for (row, error) in &outcomes.rejected {
            let values: [&(dyn ToSql + Sync); 3] = [&row.id, &row.key, error];
            self.session.run(client.execute(&self.rejected, &values)).await?;
        }
        let ids: Vec<_> = outcomes.published.iter().map(|row| row.id).collect();
        let keys: Vec<_> = outcomes.published.iter().map(|row| row.key.as_deref()).collect();
        if !ids.is_empty() {
            self.session.run(client.execute(&self.published, &[&ids, &keys])).await?;
        }
        // Without a transaction, this is only a warning in the log of Postgres.
        self.session.run(client.batch_execute("COMMIT")).await
    }
}

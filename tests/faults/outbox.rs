//! A backend that writes rows of a Postgres outbox, each with a row of a ledger in the same
//! transaction, so that it knows after a failure whether the row was committed.

use crate::harness::gateway::Builder;
use crate::harness::{Postgres, eventually_within};
use crate::journal::{Journal, Kind};
use crate::world::LIMIT;
use std::sync::Arc;
use std::time::Duration;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error};

/// The label of the source in metrics.
pub const SOURCE: (&str, &str) = ("source", "postgres");
/// Maximum time of an attempt: a stopped server does not respond.
const ATTEMPT: Duration = Duration::from_secs(1);
/// The pause after an attempt that failed.
const RETRY: Duration = Duration::from_millis(50);

/// Starts a server with the outbox and the ledger.
pub async fn start() -> Arc<Postgres> {
    let postgres = Postgres::start().await;
    postgres.sql("CREATE TABLE ledger (n bigint PRIMARY KEY)").await;
    Arc::new(postgres)
}

/// A gateway that reads the outbox.
pub fn enable(builder: Builder, postgres: &Postgres) -> Builder {
    builder.env("SOURCES__POSTGRES__URL", &postgres.url()).env("SOURCES__POSTGRES__TIMEOUT", "2s")
}

/// Waits until the gateways have published all rows.
pub async fn emptied(postgres: &Postgres) {
    eventually_within(LIMIT, "an empty outbox", || async {
        (postgres.number("SELECT count(*) FROM sse_outbox").await == 0).then_some(())
    })
    .await;
}

/// Writes rows over one connection.
pub struct Writer {
    postgres: Arc<Postgres>,
    journal: Journal,
    client: Option<Client>,
}

impl Writer {
    /// A writer that is not connected yet.
    pub fn new(postgres: Arc<Postgres>, journal: Journal) -> Writer {
        Writer { postgres, journal, client: None }
    }

    /// Writes a row, and repeats that until it is committed.
    pub async fn write(&mut self, channel: &str) {
        let number = self.journal.begin(channel, Kind::Outbox);
        let insert = format!(
            "BEGIN; INSERT INTO ledger VALUES ({number});
             INSERT INTO sse_outbox (channel, type, payload)
               VALUES ('{channel}', 'row', '{{\"n\":{number}}}'); COMMIT"
        );
        loop {
            self.journal.attempt(number);
            match tokio::time::timeout(ATTEMPT, self.attempt(&insert)).await {
                Ok(Ok(())) => return self.journal.acknowledge(number, None),
                // An earlier attempt was committed, although no reply came.
                Ok(Err(error)) if error.code() == Some(&SqlState::UNIQUE_VIOLATION) => {
                    self.client = None;
                    return self.journal.acknowledge(number, None);
                }
                Ok(Err(error)) => self.journal.failed(format!("{channel}: {error}")),
                Err(_) => self.journal.failed(format!("{channel}: no reply of Postgres")),
            }
            self.client = None;
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn attempt(&mut self, insert: &str) -> Result<(), Error> {
        if self.client.is_none() {
            self.client = Some(self.postgres.try_client().await?);
        }
        self.client.as_ref().expect("a client").batch_execute(insert).await
    }
}

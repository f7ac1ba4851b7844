//! One connection to Postgres, whose statements have a time limit.

use std::{sync::Arc, time::Duration};

use tokio::task::AbortHandle;
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use super::{connect::IDLE_IN_TRANSACTION, error::PostgresError};

/// Settings of the session that a pooler would lose, and whether the server is a standby.
const SERVER: &str = "SELECT
    (SELECT setting FROM pg_settings WHERE name = 'idle_in_transaction_session_timeout'),
    pg_is_in_recovery()";

/// How much longer than the server the gateway waits for a statement, so that the server's own
/// error comes first.
const MARGIN: Duration = Duration::from_secs(1);

/// One connection. Dropping it ends the connection, and so its transaction.
pub struct Session {
    /// For statements, within [`Session::run`].
    pub client: Client,
    driver: AbortHandle,
    ended: CancellationToken,
    address: Arc<str>,
    timeout: Duration,
}

impl Session {
    pub(super) fn new(
        client: Client,
        driver: AbortHandle,
        ended: CancellationToken,
        address: Arc<str>,
        timeout: Duration,
    ) -> Self {
        Self { client, driver, ended, address, timeout }
    }

    /// The servers, without credentials.
    pub fn address(&self) -> &Arc<str> {
        &self.address
    }

    /// Returns when the connection has ended.
    pub async fn ended(&self) {
        self.ended.cancelled().await;
    }

    /// Checks that the session is one of a primary, without a pooler in between.
    ///
    /// # Errors
    /// See [`PostgresError`].
    pub async fn check_is_direct(&self) -> Result<(), PostgresError> {
        let row = self.run(self.client.query_one(SERVER, &[])).await?;
        let values = async { Ok((row.try_get::<_, Option<String>>(0)?, row.try_get(1)?)) };
        let (timeout, is_standby): (_, bool) = self.run(values).await?;
        let address = self.address.clone();
        if timeout != Some(IDLE_IN_TRANSACTION.as_millis().to_string()) {
            return Err(PostgresError::Pooler { address });
        }
        if is_standby { Err(PostgresError::ReadOnly { address }) } else { Ok(()) }
    }

    /// Awaits the result of a statement. After an error the session must be dropped, because a
    /// transaction may be open.
    ///
    /// # Errors
    /// See [`PostgresError`].
    pub async fn run<T>(
        &self,
        statement: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, PostgresError> {
        let limit = self.timeout + MARGIN;
        match tokio::time::timeout(limit, statement).await {
            Ok(result) => result.map_err(|error| PostgresError::of(&self.address, error)),
            Err(_) => {
                let (address, timeout) = (self.address.clone(), limit);
                Err(PostgresError::Timeout { address, timeout })
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

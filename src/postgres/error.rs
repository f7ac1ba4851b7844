//! Errors of Postgres. Each names the fault and the fix; none contains a row or a password.

use std::{error::Error, fmt, sync::Arc, time::Duration};

use tokio_postgres::error::SqlState;

use crate::{error_chain::ErrorChain, settings::parse::show_duration};

/// What Postgres or the connection to it reported.
///
/// Its text leaves out the details of the server's message, which may quote a row.
#[derive(Debug)]
pub struct Cause(pub tokio_postgres::Error);

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_db_error() {
            Some(db) => write!(f, "{} (SQLSTATE {})", db.message(), db.code().code()),
            None => ErrorChain(&self.0).fmt(f),
        }
    }
}

impl Error for Cause {}

/// Why Postgres cannot be used, or not now.
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    /// There was no reply in time.
    #[error("Postgres at {address} did not reply within {}", show_duration(*.timeout))]
    Timeout {
        /// The servers.
        address: Arc<str>,
        /// `sources.postgres.timeout`
        timeout: Duration,
    },
    /// No server can be reached, or the connection has ended.
    #[error("Postgres at {address} is unavailable")]
    Unavailable {
        /// The servers.
        address: Arc<str>,
        #[source]
        /// The reason.
        source: Cause,
    },
    /// The login was refused.
    #[error(
        "Postgres at {address} refuses this user; check user, password and database in \
         sources.postgres.url, and pg_hba.conf on the server"
    )]
    Login {
        /// The servers.
        address: Arc<str>,
        #[source]
        /// The reason.
        source: Cause,
    },
    /// TLS failed: the server has none, or its certificate is not trusted.
    #[error(
        "Postgres at {address}: the TLS connection failed; set sources.postgres.ca_file to the \
         certificate of the server's authority and use the host name of the certificate, or, if \
         the server has no TLS and the network is trusted, add sslmode=disable to \
         sources.postgres.url"
    )]
    Tls {
        /// The servers.
        address: Arc<str>,
        #[source]
        /// The reason.
        source: Cause,
    },
    /// All servers refuse writes.
    #[error(
        "Postgres at {address} is a standby or read-only; name the primary in \
         sources.postgres.url, or all servers, separated by commas, so that the gateway finds it"
    )]
    ReadOnly {
        /// The servers.
        address: Arc<str>,
    },
    /// A connection pooler is in between.
    #[error(
        "Postgres at {address} is a connection pooler, which loses notifications and session \
         settings; name the server itself in sources.postgres.url"
    )]
    Pooler {
        /// The servers.
        address: Arc<str>,
    },
    /// The table does not exist.
    #[error(
        "{table}: the table does not exist for user {user} in this database; create it with the \
         SQL in docs/guides/postgres-outbox.md, or correct sources.postgres.outbox"
    )]
    NoTable {
        /// The table.
        table: String,
        /// The user.
        user: String,
    },
    /// Columns are missing or have another type.
    #[error("{table}: {faults}")]
    Columns {
        /// The table.
        table: String,
        /// What is wrong with which column, with the fix.
        faults: String,
    },
    /// The user lacks rights.
    #[error("{table}: user {user} lacks {rights}; run: GRANT {rights} ON {table} TO \"{user}\"")]
    Rights {
        /// The table.
        table: String,
        /// The user.
        user: String,
        /// The missing rights.
        rights: String,
    },
    /// Any other error of the server.
    #[error("Postgres at {address} reported an error")]
    Failed {
        /// The servers.
        address: Arc<str>,
        #[source]
        /// The reason.
        source: Cause,
    },
}

impl PostgresError {
    /// Classifies an error of the server at `address`.
    pub fn of(address: &Arc<str>, error: tokio_postgres::Error) -> Self {
        let address = address.clone();
        let text = ErrorChain(&error).to_string();
        let Some(db) = error.as_db_error() else {
            return if text.contains("does not allow writes") {
                Self::ReadOnly { address }
            } else if text.contains("TLS") {
                Self::Tls { address, source: Cause(error) }
            } else if text.starts_with("invalid configuration") || text.contains("authentication") {
                Self::Login { address, source: Cause(error) }
            } else {
                Self::Unavailable { address, source: Cause(error) }
            };
        };
        let code = db.code().clone();
        let unavailable = [
            SqlState::ADMIN_SHUTDOWN,
            SqlState::CRASH_SHUTDOWN,
            SqlState::CANNOT_CONNECT_NOW,
            SqlState::TOO_MANY_CONNECTIONS,
            SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT,
        ];
        let login = [
            SqlState::INVALID_PASSWORD,
            SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
            SqlState::INVALID_CATALOG_NAME,
        ];
        if db.message().contains("unsupported startup parameter") {
            Self::Pooler { address }
        } else if login.contains(&code) {
            Self::Login { address, source: Cause(error) }
        } else if code == SqlState::READ_ONLY_SQL_TRANSACTION {
            Self::ReadOnly { address }
        } else if unavailable.contains(&code) {
            Self::Unavailable { address, source: Cause(error) }
        } else {
            Self::Failed { address, source: Cause(error) }
        }
    }

    /// Whether the configuration or the database must be changed. Otherwise another attempt can
    /// succeed.
    pub fn is_permanent(&self) -> bool {
        !matches!(self, Self::Timeout { .. } | Self::Unavailable { .. })
    }
}

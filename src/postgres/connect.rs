//! Connects to Postgres.

use std::{future::poll_fn, sync::Arc, time::Duration};

use tokio_postgres::{
    AsyncMessage, Config, Connection, NoTls, Notification,
    tls::{MakeTlsConnect, TlsConnect, TlsStream},
};
use tokio_postgres_rustls::MakeRustlsConnect;
use tokio_util::sync::CancellationToken;

use super::{
    error::{Cause, PostgresError},
    session::Session,
    tls::{self, TlsError},
};
use crate::settings::{Postgres, PostgresUrl};

/// A transaction in which the gateway is idle for this long is ended by the server, so that a hung
/// gateway does not hold its rows.
pub const IDLE_IN_TRANSACTION: Duration = Duration::from_secs(10);

/// Unacknowledged bytes for this long end the connection.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(10);
const KEEPALIVE_IDLE: Duration = Duration::from_secs(10);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_RETRIES: u32 = 3;

/// Opens connections to the servers of `sources.postgres.url`.
#[derive(Clone)]
pub struct Connector {
    config: Config,
    tls: Option<MakeRustlsConnect>,
    address: Arc<str>,
    timeout: Duration,
}

impl Connector {
    /// A connector for these settings.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub fn new(url: &PostgresUrl, settings: &Postgres) -> Result<Self, TlsError> {
        let tls = url.tls.then(|| tls::connector(settings.ca.as_ref())).transpose()?;
        let mut config = url.config.clone();
        let options = config.get_options().unwrap_or_default().to_owned();
        // A pooler refuses these, or ignores them: `Session::check_is_direct` notices that.
        // Compiling a short statement takes longer than executing it.
        config.options(format!(
            "{options} -c jit=off -c statement_timeout={} \
             -c idle_in_transaction_session_timeout={}",
            settings.timeout.as_millis(),
            IDLE_IN_TRANSACTION.as_millis(),
        ));
        config.connect_timeout(settings.timeout);
        config.tcp_user_timeout(TCP_USER_TIMEOUT);
        config.keepalives_idle(KEEPALIVE_IDLE).keepalives_interval(KEEPALIVE_INTERVAL);
        config.keepalives_retries(KEEPALIVE_RETRIES);
        Ok(Self { config, tls, address: url.to_string().into(), timeout: settings.timeout })
    }

    /// The servers, without credentials.
    pub fn address(&self) -> &Arc<str> {
        &self.address
    }

    /// The user to log in as.
    pub fn user(&self) -> &str {
        self.config.get_user().unwrap_or_default()
    }

    /// Connects to the first server that accepts writes. `notified` is called for each
    /// notification of the session; it must not block.
    ///
    /// # Errors
    /// See [`PostgresError`].
    pub async fn connect(
        &self,
        notified: impl FnMut(Notification) + Send + 'static,
    ) -> Result<Session, PostgresError> {
        let connecting = async {
            match self.tls.clone() {
                Some(tls) => self.connect_with(tls, notified).await,
                None => self.connect_with(NoTls, notified).await,
            }
        };
        // Each server has the timeout of a connect; this one bounds the whole handshake.
        let servers = self.config.get_hosts().len().max(self.config.get_hostaddrs().len()).max(1);
        let limit = self.timeout * u32::try_from(servers).unwrap_or(u32::MAX);
        match tokio::time::timeout(limit, connecting).await {
            Ok(connected) => connected.map_err(|error| PostgresError::of(&self.address, error)),
            Err(_) => Err(PostgresError::Timeout { address: self.address.clone(), timeout: limit }),
        }
    }

    async fn connect_with<T>(
        &self,
        tls: T,
        notified: impl FnMut(Notification) + Send + 'static,
    ) -> Result<Session, tokio_postgres::Error>
    where
        T: MakeTlsConnect<tokio_postgres::Socket> + Send,
        T::Stream: TlsStream + Send + 'static,
        T::TlsConnect: TlsConnect<tokio_postgres::Socket> + Send,
    {
        let (client, connection) = self.config.connect(tls).await?;
        let ended = CancellationToken::new();
        let driver = tokio::spawn(drive(connection, notified, ended.clone(), self.address.clone()));
        Ok(Session::new(client, driver.abort_handle(), ended, self.address.clone(), self.timeout))
    }
}

/// Reads and writes until the connection ends.
async fn drive<S>(
    mut connection: Connection<tokio_postgres::Socket, S>,
    mut notified: impl FnMut(Notification),
    ended: CancellationToken,
    address: Arc<str>,
) where
    S: TlsStream + Unpin,
{
    let _ended = ended.drop_guard();
    loop {
        match poll_fn(|context| connection.poll_message(context)).await {
            Some(Ok(AsyncMessage::Notification(notification))) => notified(notification),
            Some(Ok(_)) => {}
            Some(Err(error)) => {
                let error = Cause(error);
                tracing::debug!(%address, %error, "the connection to Postgres ended");
                return;
            }
            None => return,
        }
    }
}

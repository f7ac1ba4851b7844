//! Notifications of channels of Postgres (`NOTIFY`), which have no replay.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tokio::sync::mpsc;

use super::{connect::Connector, error::PostgresError, session::Session};

/// Maximum number of notifications that wait; with at most 8,000 bytes each, 32 MiB.
const CAPACITY: usize = 4096;

/// What a session has received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// The channel of Postgres.
    pub channel: String,
    /// The payload: at most 8,000 bytes, which Postgres enforces.
    pub payload: String,
}

/// An open connection that listens.
pub struct Notifications {
    session: Session,
    received: mpsc::Receiver<Notice>,
    dropped: Arc<AtomicU64>,
}

impl Notifications {
    /// Connects and listens on these channels.
    ///
    /// # Errors
    /// See [`PostgresError`].
    pub async fn open(connector: &Connector, channels: &[String]) -> Result<Self, PostgresError> {
        let (sender, received) = mpsc::channel(CAPACITY);
        let dropped = Arc::new(AtomicU64::new(0));
        let count = dropped.clone();
        let notified = move |notification: tokio_postgres::Notification| {
            let channel = notification.channel().to_owned();
            let payload = notification.payload().to_owned();
            if sender.try_send(Notice { channel, payload }).is_err() {
                count.fetch_add(1, Ordering::Relaxed);
            }
        };
        let session = connector.connect(notified).await?;
        session.check_is_direct().await?;
        let listen: String = channels.iter().map(|name| format!("LISTEN \"{name}\";")).collect();
        session.run(session.client.batch_execute(&listen)).await?;
        Ok(Self { session, received, dropped })
    }

    /// The servers, without credentials.
    pub fn address(&self) -> &Arc<str> {
        self.session.address()
    }

    /// Waits for the next notifications, at most `max`.
    ///
    /// # Errors
    /// The connection has ended, and all notifications were returned.
    pub async fn next(&mut self, max: usize) -> Result<Vec<Notice>, PostgresError> {
        let mut notices = Vec::new();
        // The sender is dropped when the connection ends.
        if self.received.recv_many(&mut notices, max).await > 0 {
            return Ok(notices);
        }
        // Returns the reason, or that the connection is closed.
        self.session.run(self.session.client.batch_execute("")).await.map(|()| notices)
    }

    /// The number of notifications that were dropped since the last call, because too many waited.
    pub fn take_dropped(&self) -> u64 {
        self.dropped.swap(0, Ordering::Relaxed)
    }
}

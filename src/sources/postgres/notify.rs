//! Notifications of Postgres as a source: `NOTIFY` with an envelope that also names the channel.

use std::time::{Duration, Instant};

use serde::Deserialize;
use tokio::time::timeout;

use crate::{
    core::envelope::{Envelope, Rejection, decode},
    postgres::{
        connect::Connector,
        notifications::{Notice, Notifications},
    },
    redis::{
        commands::{CommandError, Commands},
        publish::Publish,
    },
    sources::{
        metrics::SourceMetrics,
        source::{Entry, MAX_ENTRIES, Outcome, Source, SourceError, Unusable},
    },
};

/// Streams are warned about missing notifications for this long after one was published.
const IN_USE: Duration = Duration::from_secs(30 * 86_400);
/// Time between writes that say that notifications are in use.
const IN_USE_RENEWAL: Duration = Duration::from_secs(3600);

/// Reads notifications.
pub struct NotifySource {
    connector: Connector,
    channels: Vec<String>,
    max_event_bytes: usize,
    commands: Commands,
    metrics: SourceMetrics,
    notifications: Option<Notifications>,
    /// Of the session; with a number, it identifies a notification.
    session: uuid::Uuid,
    received: u64,
    noted_use: Option<Instant>,
}

/// The member that an envelope in a notification has in addition.
#[derive(Deserialize)]
struct Target {
    channel: String,
}

impl NotifySource {
    /// The name of the source.
    pub const NAME: &'static str = "postgres-notify";

    /// A source that is not connected yet.
    pub fn new(
        connector: Connector,
        channels: Vec<String>,
        max_event_bytes: usize,
        commands: Commands,
        metrics: SourceMetrics,
    ) -> Self {
        Self {
            connector,
            channels,
            max_event_bytes,
            commands,
            metrics,
            notifications: None,
            session: uuid::Uuid::nil(),
            received: 0,
            noted_use: None,
        }
    }

    fn key(&self) -> String {
        self.commands.keys.source_position(Self::NAME)
    }

    /// Warns streams that notifications may be missing, if any were published lately.
    async fn warn(&self) -> Result<(), CommandError> {
        let is_in_use: bool = self.commands.run(redis::cmd("EXISTS").arg(self.key())).await?;
        if is_in_use {
            self.metrics.breaks.inc();
            let call = self.commands.call("unrecorded", &[self.commands.keys.recorder()]);
            self.commands.run::<String>(&call).await?;
        }
        Ok(())
    }

    /// Notes that notifications are in use.
    async fn note_use(&mut self) -> Result<(), CommandError> {
        if self.noted_use.is_some_and(|noted| noted.elapsed() < IN_USE_RENEWAL) {
            return Ok(());
        }
        let mut set = redis::cmd("SET");
        set.arg(self.key()).arg("used").arg("PX").arg(IN_USE.as_millis() as u64);
        self.commands.run::<String>(&set).await?;
        self.noted_use = Some(Instant::now());
        Ok(())
    }

    fn entry(&mut self, notice: Notice) -> Entry {
        self.received += 1;
        let id = format!("{}-{}", self.session, self.received);
        Entry { id, event: event(notice, self.max_event_bytes), written_ms: None }
    }
}

fn event(notice: Notice, max_event_bytes: usize) -> Result<Publish, Unusable> {
    let Notice { payload: message, channel: from } = notice;
    let Ok(Target { channel }) = serde_json::from_str(&message) else {
        let text = format!(
            "a notification on {from} must be a JSON object with channel and payload, for example \
             {{\"channel\":\"user:42:events\",\"payload\":1}}"
        );
        let (reason, channel) = (Rejection::BadEntry, String::new());
        return Err(Unusable { reason, text, channel, message });
    };
    let is_envelope = serde_json::from_str::<WithPayload<'_>>(&message).is_ok();
    let decoded = match is_envelope {
        true => decode(message.as_bytes(), max_event_bytes),
        false => Err(Rejection::BadEntry),
    };
    match decoded {
        Ok(Envelope { kind, payload, key, retry_ms, options, unseen, trace }) => Ok(Publish {
            channel,
            kind,
            payload: payload.to_owned(),
            key,
            retry_ms,
            options,
            unseen,
            trace,
        }),
        Err(reason) => {
            let text = "the notification is invalid; see the reference page Errors".to_owned();
            Err(Unusable { reason, text, channel, message })
        }
    }
}

/// Whether there is a payload.
#[derive(Deserialize)]
struct WithPayload<'a> {
    #[serde(borrow, rename = "payload")]
    _payload: &'a serde_json::value::RawValue,
}

fn without_redis(error: CommandError) -> SourceError {
    SourceError::unavailable("Redis did not reply", error)
}

impl Source for NotifySource {
    fn name(&self) -> &str {
        Self::NAME
    }

    async fn prepare(&mut self) -> Result<(), SourceError> {
        self.notifications = Some(Notifications::open(&self.connector, &self.channels).await?);
        (self.session, self.received) = (uuid::Uuid::new_v4(), 0);
        // After LISTEN: what is sent from now on arrives.
        self.warn().await.map_err(without_redis)
    }

    async fn next(&mut self, wait: Duration) -> Result<Vec<Entry>, SourceError> {
        let Some(notifications) = &mut self.notifications else { return Ok(Vec::new()) };
        let Ok(notices) = timeout(wait, notifications.next(MAX_ENTRIES)).await else {
            return Ok(Vec::new());
        };
        let notices = notices?;
        let dropped = notifications.take_dropped();
        if dropped > 0 {
            tracing::warn!(
                address = %notifications.address(),
                dropped,
                "too many notifications of Postgres waited; use an outbox table"
            );
            self.metrics.lost.inc_by(dropped);
            self.warn().await.map_err(without_redis)?;
        }
        self.note_use().await.map_err(without_redis)?;
        Ok(notices.into_iter().map(|notice| self.entry(notice)).collect())
    }

    async fn done(&mut self, _: &[Outcome]) -> Result<(), SourceError> {
        Ok(())
    }

    async fn close(&mut self) {
        let Some(notifications) = self.notifications.take() else { return };
        let address = notifications.address();
        tracing::debug!(%address, "stopped listening for notifications of Postgres");
    }

    async fn check(&mut self) -> Result<String, SourceError> {
        let notifications = Notifications::open(&self.connector, &self.channels).await?;
        let channels = self.channels.join(", ");
        Ok(format!("listens on {channels} at {}", notifications.address()))
    }
}

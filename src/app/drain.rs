//! Drains an instance (ARCHITECTURE.md#shutdown).

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::time::error::Elapsed;

use super::{link_thread::LinkThread, listener::Listener, source_thread::SourceThread};
use crate::{
    redis::link_context::LinkContext,
    settings::PlainPublish,
    spans::exporter::Exporter,
    state::{
        lifecycle::Lifecycle,
        limits::Limits,
        mailbox::{Command, Message},
    },
};

/// Time for clients to receive their last frame after the window.
const LAST_FRAMES: Duration = Duration::from_secs(3);
/// Maximum time for the recorder and the sources to hand over, and for presence to end. What these
/// leave of it is for the last spans.
const HAND_OVER: Duration = Duration::from_secs(3);

/// The parts of an instance that end in order.
pub(super) struct Drain {
    pub context: LinkContext,
    pub limits: Arc<Limits>,
    pub lifecycle: Arc<Lifecycle>,
    pub link: LinkThread,
    pub sources: Option<SourceThread>,
    pub public: Listener,
    pub admin: Listener,
    pub exporter: Option<Exporter>,
}

impl Drain {
    /// Makes the instance not ready, and logs the signal that caused it.
    pub fn announce(&self, signal: &str) {
        let drain = &self.context.settings.drain;
        tracing::info!(signal, delay = ?drain.delay, window = ?drain.window, "draining");
        self.lifecycle.start_draining();
    }

    /// Ends the streams, then presence, the sources and the recorder, then the listeners and the
    /// links; exports the last spans.
    pub async fn run(mut self) {
        self.end_streams().await;
        let end = Instant::now() + 2 * HAND_OVER;
        if tokio::time::timeout(HAND_OVER, self.link.leave_presence()).await.is_err() {
            tracing::warn!("presence could not be ended; it ends with its lease");
        }
        let records = self.context.settings.publishers.plain == PlainPublish::Record;
        let recorder = records.then(|| self.link.hand_over());
        let recorder = async {
            if hand_over(recorder).await.is_err() {
                tracing::warn!("the recorder could not hand over to the standby");
            }
        };
        let sources = self.sources.map(SourceThread::hand_over);
        let sources = async {
            if hand_over(sources).await.is_err() {
                tracing::warn!("the sources could not be handed over; their leases expire");
            }
        };
        // At the same time, because each may take all of it.
        tokio::join!(recorder, sources);
        self.public.stop().await;
        self.admin.stop().await;
        self.context.servers.close();
        if let Some(exporter) = self.exporter {
            exporter.flush(end.saturating_duration_since(Instant::now())).await;
        }
    }

    async fn end_streams(&self) {
        let drain = &self.context.settings.drain;
        // Not ready but still serving, so that balancers notice. This applies even without
        // streams, because clients may still connect.
        tokio::time::sleep(drain.delay).await;
        self.lifecycle.close();
        let window_ms = drain.window.as_millis() as u64;
        self.context.delivery.mailboxes.send(|| Message::Command(Command::Drain { window_ms }));
        let connections = &self.limits.connections;
        let all_closed = async {
            while connections.count() > 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        if tokio::time::timeout(drain.window + LAST_FRAMES, all_closed).await.is_err() {
            tracing::warn!(
                connections = connections.count(),
                "some clients did not receive their last frame"
            );
        }
    }
}

/// Waits at most [`HAND_OVER`] for what hands over, if anything does.
async fn hand_over(handing: Option<impl Future<Output = ()>>) -> Result<(), Elapsed> {
    match handing {
        Some(handing) => tokio::time::timeout(HAND_OVER, handing).await,
        None => Ok(()),
    }
}

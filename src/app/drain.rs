//! Runs a gateway until it receives a signal, and then drains it (ARCHITECTURE.md#shutdown).

use std::{io, time::Duration};

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{build::Gateway, memory};
use crate::{
    settings::PlainPublish,
    state::mailbox::{Command, Message},
};

/// Time for clients to receive their last frame after the window.
const LAST_FRAMES: Duration = Duration::from_secs(3);
/// Maximum time for the recorder to hand over.
const HAND_OVER: Duration = Duration::from_secs(3);

/// SIGTERM and SIGINT.
pub struct Signals {
    term: Signal,
    int: Signal,
}

impl Signals {
    /// Installs the handlers, so that the signals no longer end the process by default.
    ///
    /// # Errors
    /// The handlers cannot be installed.
    pub fn listen() -> io::Result<Self> {
        Ok(Self { term: signal(SignalKind::terminate())?, int: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.term.recv() => "SIGTERM",
            _ = self.int.recv() => "SIGINT",
        }
    }
}

/// Exit status after a second signal.
const EXIT_SECOND_SIGNAL: i32 = 130;

impl Gateway {
    /// Serves until the first signal, then drains; a second signal ends the process at once.
    pub async fn run(self, mut signals: Signals) {
        let Self { context, limits, lifecycle, link, public, admin, refresher, .. } = self;
        if let Some(refresher) = refresher {
            actix_rt::spawn(refresher.run());
        }
        actix_rt::spawn(memory::trim_regularly(
            context.metrics.clone(),
            limits.connections.clone(),
        ));
        let name = signals.next().await;
        let drain = context.settings.drain.clone();
        tracing::info!(signal = name, delay = ?drain.delay, window = ?drain.window, "draining");
        lifecycle.start_draining();
        let drained = async {
            // Not ready but still serving, so that balancers notice. This applies even without
            // streams, because clients may still connect.
            tokio::time::sleep(drain.delay).await;
            lifecycle.close();
            let window_ms = drain.window.as_millis() as u64;
            context.delivery.mailboxes.send(|| Message::Command(Command::Drain { window_ms }));
            let all_closed = async {
                while limits.connections.count() > 0 {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            if tokio::time::timeout(drain.window + LAST_FRAMES, all_closed).await.is_err() {
                tracing::warn!(
                    connections = limits.connections.count(),
                    "some clients did not receive their last frame"
                );
            }
            let records = context.settings.publishers.plain == PlainPublish::Record;
            if records && tokio::time::timeout(HAND_OVER, link.hand_over()).await.is_err() {
                tracing::warn!("the recorder could not hand over to the standby");
            }
            public.stop().await;
            admin.stop().await;
        };
        tokio::select! {
            () = drained => tracing::info!("drained"),
            name = signals.next() => {
                tracing::warn!(signal = name, "second signal, exiting at once");
                std::process::exit(EXIT_SECOND_SIGNAL);
            }
        }
    }
}

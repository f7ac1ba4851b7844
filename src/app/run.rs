//! Runs a gateway until it receives a signal, and then drains it.

use super::{build::Gateway, drain::Drain, memory, signals::Signals};

/// Exit status after a second signal.
const EXIT_SECOND_SIGNAL: i32 = 130;

impl Gateway {
    /// Serves until the first signal, then drains; a second signal ends the process at once.
    pub async fn run(self, mut signals: Signals) {
        let Self { context, limits, lifecycle, link, sources, public, admin, .. } = self;
        if let Some(refresher) = self.refresher {
            actix_rt::spawn(refresher.run());
        }
        actix_rt::spawn(memory::return_regularly());
        let exporter = self.exporter;
        let drain = Drain { context, limits, lifecycle, link, sources, public, admin, exporter };
        let name = signals.next().await;
        drain.announce(name);
        tokio::select! {
            () = drain.run() => tracing::info!("drained"),
            name = signals.next() => {
                tracing::warn!(signal = name, "second signal, exiting at once");
                std::process::exit(EXIT_SECOND_SIGNAL);
            }
        }
    }
}

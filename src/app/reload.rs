//! Keys and certificate without a restart: on SIGHUP, and when a file that they come from has
//! changed, the settings are read again. Ticket keys, API keys and the certificate are replaced. If
//! there is an error, it is logged and the previous values stay active. Open streams continue.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{Instant, MissedTickBehavior},
};

use super::{tls::Certificate, watch::Watch};
use crate::{
    auth::Auth,
    metrics::Metrics,
    settings::{Loaded, Settings, Source, check::warnings},
};

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// After a failure it is tried again this often: what was missing may be a file that nobody watches
/// yet.
const AGAIN: Duration = Duration::from_secs(10);
/// Settings that are taken over; all others need a restart.
const TAKEN: &[&str] = &[
    "tickets.secret",
    "tickets.secret_file",
    "tickets.keys",
    "api_keys",
    "server.tls.certificate",
    "server.tls.key",
];

/// Takes keys and certificate over as they change.
pub struct Reloader {
    source: Source,
    auth: Arc<Auth>,
    metrics: Arc<Metrics>,
    certificate: Option<Arc<Certificate>>,
    watch: Watch,
    /// The last settings without a fault.
    good: Loaded,
    /// The faults that were told last, and when.
    faults: Option<(Vec<String>, Instant)>,
}

/// From now on SIGHUP does not end the process.
///
/// # Errors
/// The system refuses.
pub fn hangup() -> io::Result<Signal> {
    signal(SignalKind::hangup())
}

impl Reloader {
    /// Watches the files from which `good` was read.
    pub fn new(
        source: Source,
        good: Loaded,
        auth: Arc<Auth>,
        metrics: Arc<Metrics>,
        certificate: Option<Arc<Certificate>>,
    ) -> Self {
        let mut new = Self {
            source,
            auth,
            metrics,
            certificate,
            watch: Watch::default(),
            good,
            faults: None,
        };
        new.watch.take(new.files());
        new
    }

    /// Never ends.
    pub async fn run(mut self, mut hangup: Signal) {
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let asked = tokio::select! {
                _ = hangup.recv() => true,
                _ = looks.tick() => false,
            };
            // Files may be slow: not on the thread that takes the signals.
            let work = actix_rt::task::spawn_blocking(move || {
                let again = self.faults.as_ref().is_some_and(|(_, at)| at.elapsed() >= AGAIN);
                if asked || self.watch.has_changed() || again {
                    self.reload(asked);
                }
                self
            });
            match work.await {
                Ok(back) => self = back,
                Err(e) => {
                    return tracing::error!(
                        error = %e,
                        "keys and certificate can no longer be reloaded; restart the gateway"
                    );
                }
            }
        }
    }

    fn reload(&mut self, asked: bool) {
        // Before the files are read: what changes meanwhile is a change.
        let files = self.files();
        self.watch.take(files.clone());
        let mut faults: Vec<String> = Vec::new();
        match self.source.load() {
            Err(all) => faults.extend(all.iter().map(ToString::to_string)),
            Ok(new) => match self.auth.verifier.keys.set_own(&new.settings.tickets.keys) {
                Err(e) => faults.push(format!("tickets.keys: a key cannot be used ({e})")),
                Ok(()) => self.take(new),
            },
        }
        match self.read_certificate() {
            Ok(true) => tracing::info!("new certificate active"),
            Ok(false) => {}
            Err(e) => faults.push(e.to_string()),
        }
        if self.files() != files {
            self.watch.take(self.files());
        }
        let metrics = &self.metrics;
        if faults.is_empty() {
            metrics.reloads.with_label_values(&["ok"]).inc();
            let (keys, api_keys) =
                (self.good.settings.tickets.keys.len(), self.auth.api_keys.count());
            tracing::info!(signal = asked, keys, api_keys, "keys and certificate reloaded");
            self.faults = None;
            return;
        }
        metrics.reloads.with_label_values(&["failed"]).inc();
        if asked || self.faults.as_ref().is_none_or(|(told, _)| *told != faults) {
            for fault in &faults {
                tracing::error!(
                    fault,
                    "could not load a new key or certificate; the previous values stay active"
                );
            }
        }
        self.faults = Some((faults, Instant::now()));
    }

    /// Puts the keys of these settings into use; those of the tickets are already.
    fn take(&mut self, new: Loaded) {
        self.auth.api_keys.replace(new.settings.api_keys.clone());
        warnings(&new.settings).iter().for_each(|w| tracing::warn!("{w}"));
        for key in new.changed_since(&self.good).into_iter().filter(|key| !TAKEN.contains(key)) {
            tracing::warn!(key, "setting changed; restart the gateway to apply it");
        }
        let tls = |settings: &Settings| settings.server.tls_certificate.is_some();
        if tls(&new.settings) != self.certificate.is_some()
            && tls(&new.settings) != tls(&self.good.settings)
        {
            tracing::warn!(key = "server.tls", "restart the gateway to turn TLS on or off");
        }
        self.good = new;
    }

    fn read_certificate(&self) -> io::Result<bool> {
        let server = &self.good.settings.server;
        match (&self.certificate, &server.tls_certificate, &server.tls_key) {
            (Some(in_use), Some(certificate), Some(key)) => in_use.read_again(certificate, key),
            _ => Ok(false),
        }
    }

    /// All files that keys come from, the configuration among them.
    fn files(&self) -> Vec<PathBuf> {
        let settings = &self.good.settings;
        let keys = settings.tickets.keys.iter().filter_map(|k| k.file.clone());
        let tls = [&settings.server.tls_certificate, &settings.server.tls_key]
            .into_iter()
            .flatten()
            .cloned();
        self.source.file.iter().cloned().chain(keys).chain(tls).collect()
    }
}

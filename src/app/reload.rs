//! Reloads keys and the certificate without a restart: on SIGHUP, and when one of their files has
//! changed. Ticket keys, API keys and the certificate are replaced. Errors are logged, and the
//! previous values stay active. Open streams continue.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{Instant, MissedTickBehavior},
};

use super::{
    tls::{Certificate, CertificateError},
    watch::Watch,
};
use crate::{
    auth::Auth,
    error_chain::ErrorChain,
    metrics::Metrics,
    settings::{ConfigError, Loaded, Settings, Source, check::warnings},
};

/// Interval at which the files are checked.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// Interval of retries after a failure, which may be caused by a file that is not watched yet.
const RETRY_INTERVAL: Duration = Duration::from_secs(10);
/// Settings that can be reloaded; all others need a restart.
const RELOADABLE: &[&str] = &[
    "tickets.secret",
    "tickets.secret_file",
    "tickets.keys",
    "api_keys",
    "server.tls.certificate",
    "server.tls.key",
];

/// Why a key or certificate was not replaced.
#[derive(Debug, thiserror::Error)]
enum ReloadError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("tickets.keys: a key cannot be used")]
    Keys(#[source] jsonwebtoken::errors::Error),
    #[error(transparent)]
    Certificate(#[from] CertificateError),
}

/// Reloads keys and the certificate when they change.
pub struct Reloader {
    source: Source,
    auth: Arc<Auth>,
    metrics: Arc<Metrics>,
    certificate: Option<Arc<Certificate>>,
    watch: Watch,
    /// The last valid settings.
    active: Loaded,
    /// The errors that were last logged, and when.
    errors: Option<(Vec<String>, Instant)>,
}

/// Installs a handler for SIGHUP, so that the signal no longer ends the process.
///
/// # Errors
/// The handler cannot be installed.
pub fn hangup() -> io::Result<Signal> {
    signal(SignalKind::hangup())
}

impl Reloader {
    /// Watches the files from which `active` was read.
    pub fn new(
        source: Source,
        active: Loaded,
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
            active,
            errors: None,
        };
        new.watch.start(new.files());
        new
    }

    /// Reloads on changes and on SIGHUP. Returns only if a reload panicked.
    pub async fn run(mut self, mut hangup: Signal) {
        let mut checks = tokio::time::interval(CHECK_INTERVAL);
        checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let on_signal = tokio::select! {
                _ = hangup.recv() => true,
                _ = checks.tick() => false,
            };
            // File systems may be slow, so this must not block the thread that receives signals.
            let work = actix_rt::task::spawn_blocking(move || {
                let retry =
                    self.errors.as_ref().is_some_and(|(_, at)| at.elapsed() >= RETRY_INTERVAL);
                if on_signal || self.watch.has_changed() || retry {
                    self.reload(on_signal);
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

    fn reload(&mut self, on_signal: bool) {
        // Before the files are read, so that a change during the reload is detected.
        let files = self.files();
        self.watch.start(files.clone());
        let errors = self.replace();
        if self.files() != files {
            self.watch.start(self.files());
        }
        if errors.is_empty() {
            self.report_success(on_signal);
        } else {
            self.report(&errors, on_signal);
        }
    }

    /// Replaces what can be loaded, and returns the errors of the rest.
    fn replace(&mut self) -> Vec<ReloadError> {
        let mut errors = Vec::new();
        match self.source.load() {
            Err(all) => errors.extend(all.into_iter().map(ReloadError::Config)),
            Ok(new) => match self.auth.verifier.keys.set_own(&new.settings.tickets.keys) {
                Err(error) => errors.push(ReloadError::Keys(error)),
                Ok(()) => self.activate(new),
            },
        }
        match self.read_certificate() {
            Ok(true) => tracing::info!("new certificate active"),
            Ok(false) => {}
            Err(error) => errors.push(ReloadError::Certificate(error)),
        }
        errors
    }

    fn report_success(&mut self, on_signal: bool) {
        self.metrics.reloads.with_label_values(&["ok"]).inc();
        let (keys, api_keys) =
            (self.active.settings.tickets.keys.len(), self.auth.api_keys.count());
        tracing::info!(signal = on_signal, keys, api_keys, "keys and certificate reloaded");
        self.errors = None;
    }

    /// Counts the errors, and logs them unless a retry has failed in the same way.
    fn report(&mut self, errors: &[ReloadError], on_signal: bool) {
        self.metrics.reloads.with_label_values(&["failed"]).inc();
        let texts: Vec<String> = errors.iter().map(|e| ErrorChain(e).to_string()).collect();
        if on_signal || self.errors.as_ref().is_none_or(|(logged, _)| *logged != texts) {
            for error in &texts {
                tracing::error!(
                    error,
                    "could not load a new key or certificate; the previous values stay active"
                );
            }
        }
        self.errors = Some((texts, Instant::now()));
    }

    /// Activates the API keys of these settings; the ticket keys are active already.
    fn activate(&mut self, new: Loaded) {
        self.auth.api_keys.replace(new.settings.api_keys.clone());
        warnings(&new.settings).iter().for_each(|w| tracing::warn!("{w}"));
        for key in
            new.changed_since(&self.active).into_iter().filter(|key| !RELOADABLE.contains(key))
        {
            tracing::warn!(key, "setting changed; restart the gateway to apply it");
        }
        let tls = |settings: &Settings| settings.server.tls_certificate.is_some();
        if tls(&new.settings) != self.certificate.is_some()
            && tls(&new.settings) != tls(&self.active.settings)
        {
            tracing::warn!(key = "server.tls", "restart the gateway to turn TLS on or off");
        }
        self.active = new;
    }

    fn read_certificate(&self) -> Result<bool, CertificateError> {
        let server = &self.active.settings.server;
        match (&self.certificate, &server.tls_certificate, &server.tls_key) {
            (Some(in_use), Some(certificate), Some(key)) => in_use.reload(certificate, key),
            _ => Ok(false),
        }
    }

    /// All files that contain keys, including the configuration.
    fn files(&self) -> Vec<PathBuf> {
        let settings = &self.active.settings;
        let keys = settings.tickets.keys.iter().filter_map(|k| k.file.clone());
        let tls = [&settings.server.tls_certificate, &settings.server.tls_key]
            .into_iter()
            .flatten()
            .cloned();
        self.source.file.iter().cloned().chain(keys).chain(tls).collect()
    }
}

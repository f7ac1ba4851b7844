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
    settings::{ConfigError, Loaded, Settings, SettingsSource, check::warnings},
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
    source: SettingsSource,
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
        source: SettingsSource,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        auth::{Credential, CredentialSource, NewTicket},
        settings::load::ENV_PREFIX,
        state::clock::unix_ms,
    };

    /// A gateway's keys in a directory of the test, and what reloads them.
    struct Fixture {
        directory: PathBuf,
        reloader: Reloader,
    }

    impl Fixture {
        fn new(name: &str) -> Self {
            let directory =
                std::env::temp_dir().join(format!("sse-reload-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&directory).unwrap();
            let (config, secret) = (directory.join("gateway.toml"), directory.join("secret"));
            std::fs::write(&secret, "a".repeat(32)).unwrap();
            std::fs::write(&config, "").unwrap();
            let env = format!("{ENV_PREFIX}TICKETS__SECRET_FILE");
            let env = vec![(env, secret.to_str().unwrap().into())];
            let source = SettingsSource { file: Some(config), env };
            let active = source.load().unwrap_or_else(|errors| panic!("{errors:?}"));
            let metrics = Arc::new(Metrics::new());
            let (auth, _) = Auth::new(&active.settings, &metrics).unwrap();
            Self { directory, reloader: Reloader::new(source, active, auth, metrics, None) }
        }

        fn write(&self, name: &str, content: &str) {
            std::fs::write(self.directory.join(name), content).unwrap();
        }

        fn ticket(&self) -> String {
            let verifier = &self.reloader.auth.verifier;
            verifier
                .mint(&NewTicket { user: "u", ..NewTicket::default() }, 60, unix_ms() / 1000)
                .unwrap()
        }

        fn accepts(&self, ticket: &str) -> bool {
            let credential = Credential { token: ticket, source: CredentialSource::Query };
            self.reloader.auth.verifier.verify(credential, unix_ms() / 1000).is_ok()
        }

        fn count(&self, result: &str) -> u64 {
            self.reloader.metrics.reloads.with_label_values(&[result]).get()
        }
    }

    impl Drop for Fixture {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.directory);
        }
    }

    #[test]
    fn new_keys_replace_the_previous_ones() {
        let mut gateway = Fixture::new("keys");
        let ticket = gateway.ticket();
        gateway.write("secret", &"b".repeat(32));
        let key = "api_keys = [{ sha256 = \"{}\", scopes = [\"publish\"] }]";
        gateway.write("gateway.toml", &key.replace("{}", &"0".repeat(64)));
        gateway.reloader.reload(false);
        assert!(!gateway.accepts(&ticket) && gateway.accepts(&gateway.ticket()));
        assert_eq!(gateway.reloader.auth.api_keys.count(), 1);
        assert_eq!((gateway.count("ok"), gateway.count("failed")), (1, 0));
    }

    #[test]
    fn invalid_configuration_keeps_the_previous_keys() {
        let mut gateway = Fixture::new("invalid");
        let ticket = gateway.ticket();
        gateway.write("secret", "too short");
        gateway.reloader.reload(false);
        assert!(gateway.accepts(&ticket));
        assert_eq!((gateway.count("ok"), gateway.count("failed")), (0, 1));
        let (errors, _) = gateway.reloader.errors.as_ref().expect("an error");
        assert!(errors[0].contains("tickets.secret_file: an HS256 secret"), "{errors:?}");
        // A retry succeeds as soon as the file is valid.
        gateway.write("secret", &"b".repeat(32));
        gateway.reloader.reload(false);
        assert!(gateway.reloader.errors.is_none() && !gateway.accepts(&ticket));
    }

    #[test]
    fn all_files_with_keys_are_watched() {
        let mut gateway = Fixture::new("watch");
        let names = |files: Vec<PathBuf>| -> Vec<_> {
            let name = |path: &PathBuf| path.file_name()?.to_str().map(str::to_owned);
            files.iter().filter_map(name).collect()
        };
        assert_eq!(names(gateway.reloader.files()), ["gateway.toml", "secret"]);
        gateway.write("another", &"c".repeat(32));
        let another = gateway.directory.join("another");
        let key = "tickets.keys = [{ kid = \"k\", algorithm = \"HS256\", secret_file = {} }]";
        gateway.write("gateway.toml", &key.replace("{}", &format!("{another:?}")));
        gateway.reloader.reload(false);
        assert_eq!(names(gateway.reloader.files()), ["gateway.toml", "secret", "another"]);
        assert!(!gateway.reloader.watch.has_changed());
        gateway.write("another", &"c".repeat(40));
        let _ = gateway.reloader.watch.has_changed();
        assert!(gateway.reloader.watch.has_changed(), "the new file is watched, too");
    }
}

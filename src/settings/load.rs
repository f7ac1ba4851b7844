//! Loads settings: defaults, then the TOML file, then the environment. All errors are reported at
//! once.

use std::{
    collections::BTreeMap,
    hash::{BuildHasher, RandomState},
    path::{Path, PathBuf},
    sync::LazyLock,
};

use secrecy::{ExposeSecret, SecretString};
use toml::Value;

use super::{
    Settings,
    check::{self, KeySource},
    error::{ConfigError, Origin},
    file::{self, unknown},
    table::KEYS,
};

/// Prefix of the environment variables that are settings.
pub const ENV_PREFIX: &str = "SSE_GATEWAY__";

/// The values that were given, by key, each with its origin.
pub(super) type Values = BTreeMap<String, (Origin, Value)>;

/// Where settings come from; they can be loaded again at any time.
#[derive(Clone, Default)]
pub struct SettingsSource {
    /// The TOML file.
    pub file: Option<PathBuf>,
    /// The environment at the start of the process. It may contain keys and passwords.
    pub env: Vec<(String, SecretString)>,
}

impl SettingsSource {
    /// This file and the environment of the process.
    pub fn of_process(file: Option<PathBuf>) -> Self {
        let utf8 = |(k, v): (std::ffi::OsString, std::ffi::OsString)| {
            let name = k.into_string().ok().filter(|name| name.starts_with(ENV_PREFIX))?;
            Some((name, v.into_string().ok()?.into()))
        };
        Self { file, env: std::env::vars_os().filter_map(utf8).collect() }
    }

    /// Loads the settings from the file as it is now.
    ///
    /// # Errors
    /// Every error of the configuration, not only the first.
    pub fn load(&self) -> Result<Loaded, Vec<ConfigError>> {
        self.load_for(KeySource::Required)
    }

    /// Loads the settings for a command that verifies no tickets: a ticket key is not required.
    ///
    /// # Errors
    /// As [`SettingsSource::load`].
    pub fn load_keyless(&self) -> Result<Loaded, Vec<ConfigError>> {
        self.load_for(KeySource::Optional)
    }

    fn load_for(&self, ticket_key: KeySource) -> Result<Loaded, Vec<ConfigError>> {
        let exposed = |(name, value): &(String, SecretString)| {
            (name.clone(), value.expose_secret().to_owned())
        };
        let env = self.env.iter().map(exposed);
        let (settings, values) = load_values(self.file.as_deref(), env, ticket_key)?;
        Ok(Loaded { settings, fingerprints: fingerprints(&values) })
    }
}

/// Settings, and fingerprints of the values from which they were made.
pub struct Loaded {
    /// The settings.
    pub settings: Settings,
    /// In the order of [`KEYS`].
    fingerprints: Vec<u64>,
}

impl Loaded {
    /// The names of the settings whose values differ from `before`.
    pub fn changed_since(&self, before: &Self) -> Vec<&'static str> {
        let pairs = self.fingerprints.iter().zip(&before.fingerprints);
        let changed = KEYS.iter().zip(pairs).filter(|(_, (new, old))| new != old);
        changed.map(|(key, _)| key.name).collect()
    }
}

/// A hash of each value, given or default, with a key that only this process knows. The values
/// themselves are not kept, because some are secret.
fn fingerprints(values: &Values) -> Vec<u64> {
    static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    let of_default = |literal| HASHER.hash_one(default_of(literal).to_string());
    let of = |key: &super::table::Key| match values.get(key.name) {
        Some((_, value)) => HASHER.hash_one(value.to_string()),
        None => of_default(key.default),
    };
    KEYS.iter().map(of).collect()
}

/// Loads the settings from an optional file and from environment variables.
///
/// # Errors
/// Every error of the configuration, not only the first.
pub fn load(
    file: Option<&Path>,
    env: impl Iterator<Item = (String, String)>,
) -> Result<Settings, Vec<ConfigError>> {
    load_values(file, env, KeySource::Required).map(|(settings, _)| settings)
}

fn load_values(
    file: Option<&Path>,
    env: impl Iterator<Item = (String, String)>,
    ticket_key: KeySource,
) -> Result<(Settings, Values), Vec<ConfigError>> {
    let (mut values, mut errors) = (Values::new(), Vec::new());
    if let Some(path) = file {
        let (found, faulty) = file::read(path);
        errors.extend(faulty);
        let origin = |line| Origin::File(path.into(), Some(line));
        values.extend(found.into_iter().map(|(key, (line, v))| (key, (origin(line), v))));
    }
    for (name, value) in env {
        let Some(rest) = name.strip_prefix(ENV_PREFIX) else { continue };
        let key = rest.to_ascii_lowercase().replace("__", ".");
        if KEYS.iter().any(|k| k.name == key) {
            values.insert(key, (Origin::Variable(name), Value::String(value)));
        } else {
            let message = unknown(&key);
            errors.push(ConfigError::new(Origin::Variable(name), key, message));
        }
    }
    let mut settings = Settings::default();
    for key in KEYS {
        let (origin, value) = match values.get(key.name) {
            Some((origin, value)) => (origin.clone(), value.clone()),
            None => (Origin::Unset, default_of(key.default)),
        };
        if let Err(problem) = (key.set)(&mut settings, &value) {
            let error = |problem| ConfigError::new(origin.clone(), key.name, problem);
            errors.extend(problem.each().into_iter().map(error));
        }
    }
    settings.channels = settings.channels.with_default(settings.history.policy());
    check::consistency(&settings, &values, ticket_key, &mut errors);
    if errors.is_empty() {
        return Ok((settings, values));
    }
    errors.sort_by_key(|e| e.origin.order());
    Err(errors)
}

/// Parses a default of the table, which is written as TOML.
pub fn default_of(literal: &str) -> Value {
    let table = format!("x = {literal}").parse::<toml::Table>();
    table.ok().and_then(|mut t| t.remove("x")).unwrap_or(Value::String(literal.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: (&str, &str) = ("TICKETS__SECRET", "a secret of more than thirty-two bytes");

    fn source(file: Option<PathBuf>, env: &[(&str, &str)]) -> SettingsSource {
        let env = env.iter().map(|(k, v)| (format!("{ENV_PREFIX}{k}"), (*v).into())).collect();
        SettingsSource { file, env }
    }

    fn loaded(env: &[(&str, &str)]) -> Loaded {
        source(None, env).load().map_err(|errors| errors[0].to_string()).unwrap()
    }

    fn file(name: &str, content: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("sse-load-{name}-{}", std::process::id()));
        std::fs::write(&path, content).unwrap();
        path
    }

    #[test]
    fn variables_override_the_file_which_overrides_defaults() {
        let path = file("order", "[server]\nworkers = 3\nretry = \"9s\"\n");
        let settings = source(Some(path.clone()), &[SECRET, ("SERVER__WORKERS", "5")]).load();
        std::fs::remove_file(path).unwrap();
        let server = settings.unwrap_or_else(|errors| panic!("{errors:?}")).settings.server;
        assert_eq!(
            (server.workers, server.retry.as_secs(), server.heartbeat.as_secs()),
            (5, 9, 15)
        );
    }

    #[test]
    fn errors_come_in_the_order_file_variables_missing() {
        let path = file("errors", "[server]\nworkers = 3\nretry = 1\nnonsense = 1\n");
        let env = [("SERVER__WORKERS", "many"), ("SERVER__NONSENSE", "1")];
        let errors = source(Some(path.clone()), &env).load().err().unwrap();
        std::fs::remove_file(path).unwrap();
        let mut keys: Vec<_> = errors.iter().map(|error| error.key.as_str()).collect();
        assert_eq!(keys[..2], ["server.retry", "server.nonsense"], "by line");
        assert_eq!(keys.pop(), Some("tickets.secret"), "{errors:?}");
        keys[2..].sort();
        assert_eq!(keys[2..], ["server.nonsense", "server.workers"]);
    }

    #[test]
    fn commands_without_tickets_need_no_key() {
        assert!(source(None, &[]).load_keyless().is_ok());
        assert!(source(None, &[]).load().is_err());
    }

    #[test]
    fn changed_values_are_named_even_secret_ones() {
        let before = loaded(&[SECRET, ("SERVER__RETRY", "2s")]);
        let after = loaded(&[(SECRET.0, &SECRET.1.replace('a', "b")), ("LOG__LEVEL", "warn")]);
        assert_eq!(
            after.changed_since(&before),
            ["tickets.secret", "log.level"],
            "2s is a default"
        );
        assert!(before.changed_since(&loaded(&[SECRET])).is_empty());
    }
}

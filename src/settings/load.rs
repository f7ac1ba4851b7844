//! Loads settings: defaults, then the TOML file, then the environment. All errors are reported at
//! once.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use toml::Value;

use super::{
    Settings,
    check::{self, KeySource},
    error::{ConfigError, Origin},
    file::{self, unknown},
    table::{KEYS, Key},
};

/// Prefix of the environment variables that are settings.
pub const ENV_PREFIX: &str = "SSE_GATEWAY__";

/// The values that were given, by key, each with its origin.
pub(super) type Values = BTreeMap<String, (Origin, Value)>;

/// Where settings come from; they can be loaded again at any time.
#[derive(Clone, Default)]
pub struct Source {
    /// The TOML file.
    pub file: Option<PathBuf>,
    /// The environment at the start of the process.
    pub env: Vec<(String, String)>,
}

impl Source {
    /// This file and the environment of the process.
    pub fn of_process(file: Option<PathBuf>) -> Self {
        let utf8 = |(k, v): (std::ffi::OsString, std::ffi::OsString)| {
            Some((k.into_string().ok()?, v.into_string().ok()?))
        };
        let env = std::env::vars_os().filter_map(utf8);
        Self { file, env: env.filter(|(name, _)| name.starts_with(ENV_PREFIX)).collect() }
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
    /// As [`Source::load`].
    pub fn load_keyless(&self) -> Result<Loaded, Vec<ConfigError>> {
        self.load_for(KeySource::Optional)
    }

    fn load_for(&self, ticket_key: KeySource) -> Result<Loaded, Vec<ConfigError>> {
        let (settings, values) =
            load_values(self.file.as_deref(), self.env.iter().cloned(), ticket_key)?;
        Ok(Loaded { settings, values })
    }
}

/// Settings, and the values from which they were made.
pub struct Loaded {
    /// The settings.
    pub settings: Settings,
    values: Values,
}

impl Loaded {
    /// The names of the settings whose values differ from `before`.
    pub fn changed_since(&self, before: &Self) -> Vec<&'static str> {
        let value = |of: &Values, key: &Key| match of.get(key.name) {
            Some((_, value)) => value.clone(),
            None => default_of(key.default),
        };
        let changed = |key: &&Key| value(&self.values, key) != value(&before.values, key);
        KEYS.iter().filter(changed).map(|key| key.name).collect()
    }
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
        if let Err(message) = (key.set)(&mut settings, &value) {
            errors.push(ConfigError::new(origin, key.name, message));
        }
    }
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

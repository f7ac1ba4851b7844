//! defaults < TOML file < environment; all faults at once.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
};

use toml::Value;

use super::{
    Settings,
    table::{KEYS, Key},
};

/// Begins the names of the environment variables that are settings.
pub const ENV_PREFIX: &str = "SSE_GATEWAY__";

/// One fault of a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The key, or the file, or the environment variable.
    pub key: String,
    /// What is wrong and how to mend it.
    pub text: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.text)
    }
}

fn fault(key: impl Into<String>, text: impl Into<String>) -> Fault {
    Fault { key: key.into(), text: text.into() }
}

/// Loads the settings from an optional file and from environment variables.
///
/// # Errors
/// Every fault of the configuration, not only the first.
pub fn load(file: Option<&Path>, env: impl Iterator<Item = (String, String)>) -> Result<Settings, Vec<Fault>> {
    load_values(file, env, true).map(|(settings, _)| settings)
}

/// The values that were given: by key, each with the name under which it came.
type Values = BTreeMap<String, (String, Value)>;

/// Where settings come from, so that they can be read again.
#[derive(Clone, Default)]
pub struct Source {
    /// The file.
    pub file: Option<PathBuf>,
    /// The environment, which stays as it was at the start.
    pub env: Vec<(String, String)>,
}

impl Source {
    /// This file and the environment of the process.
    pub fn of_process(file: Option<PathBuf>) -> Self {
        let env = std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)));
        Self { file, env: env.filter(|(name, _)| name.starts_with(ENV_PREFIX)).collect() }
    }

    /// Loads the settings as they are now.
    ///
    /// # Errors
    /// As of [`load`].
    pub fn load(&self) -> Result<Loaded, Vec<Fault>> {
        self.load_for(true)
    }

    /// The same for who only looks at Redis: without a ticket key it is good, too.
    ///
    /// # Errors
    /// As of [`load`].
    pub fn load_keyless(&self) -> Result<Loaded, Vec<Fault>> {
        self.load_for(false)
    }

    fn load_for(&self, needs_key: bool) -> Result<Loaded, Vec<Fault>> {
        let (settings, values) = load_values(self.file.as_deref(), self.env.iter().cloned(), needs_key)?;
        Ok(Loaded { settings, values })
    }
}

/// Settings, and how they were written.
pub struct Loaded {
    /// The settings.
    pub settings: Settings,
    values: Values,
}

impl Loaded {
    /// The keys whose values are not those of before.
    pub fn changed_since(&self, before: &Self) -> Vec<&'static str> {
        let value = |of: &Values, key: &Key| match of.get(key.name) {
            Some((_, value)) => value.clone(),
            None => default_of(key.default),
        };
        KEYS.iter().filter(|key| value(&self.values, key) != value(&before.values, key)).map(|key| key.name).collect()
    }
}

fn load_values(
    file: Option<&Path>,
    env: impl Iterator<Item = (String, String)>,
    needs_key: bool,
) -> Result<(Settings, Values), Vec<Fault>> {
    let mut faults = Vec::new();
    let mut values = Values::new();
    if let Some(path) = file {
        read_file(path, &mut values, &mut faults);
    }
    for (name, value) in env {
        if let Some(rest) = name.strip_prefix(ENV_PREFIX) {
            let key = rest.to_ascii_lowercase().replace("__", ".");
            if KEYS.iter().any(|k| k.name == key) {
                values.insert(key, (name, Value::String(value)));
            } else {
                faults.push(fault(name, unknown(&key)));
            }
        }
    }
    let mut settings = Settings::default();
    for key in KEYS {
        let (source, value) = match values.get(key.name) {
            Some((source, value)) => (source.as_str(), value.clone()),
            None => (key.name, default_of(key.default)),
        };
        if let Err(text) = (key.set)(&mut settings, &value) {
            faults.push(fault(source, text));
        }
    }
    cross_check(&settings, &values, needs_key, &mut faults);
    if faults.is_empty() { Ok((settings, values)) } else { Err(faults) }
}

/// A default of the table as a value.
pub fn default_of(literal: &str) -> Value {
    let document = format!("x = {literal}");
    document.parse::<toml::Table>().ok().and_then(|mut t| t.remove("x")).unwrap_or(Value::String(literal.to_owned()))
}

fn read_file(path: &Path, values: &mut Values, faults: &mut Vec<Fault>) {
    let shown = path.display().to_string();
    let content = match std::fs::read_to_string(path) {
        Ok(content) => content,
        Err(e) => return faults.push(fault(shown, format!("cannot be read ({e}); give a readable file"))),
    };
    match content.parse::<toml::Table>() {
        Ok(table) => flatten("", &table, values, faults),
        // The parser's message quotes the line, which may hold a secret.
        Err(e) => {
            let line = e.span().map_or(1, |span| 1 + content[..span.start.min(content.len())].matches('\n').count());
            faults.push(fault(shown, format!("line {line} is no TOML ({}); mend it", e.message())));
        }
    }
}

fn flatten(prefix: &str, table: &toml::Table, values: &mut Values, faults: &mut Vec<Fault>) {
    for (name, value) in table {
        let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        if KEYS.iter().any(|k| k.name == key) {
            values.insert(key.clone(), (key, value.clone()));
        } else if let (Value::Table(inner), true) = (value, KEYS.iter().any(|k| k.name.starts_with(&format!("{key}."))))
        {
            flatten(&key, inner, values, faults);
        } else {
            let text = unknown(&key);
            faults.push(fault(key, text));
        }
    }
}

fn unknown(key: &str) -> String {
    let nearest = KEYS.iter().map(|k| (distance(k.name, key), k.name)).min();
    match nearest {
        Some((d, name)) if d <= 3 => format!("is no setting; did you mean {name}?"),
        _ => "is no setting; remove it, or see config/gateway.toml for all of them".to_owned(),
    }
}

/// Levenshtein distance, for the hint only.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let next = (diagonal + usize::from(ca != *cb)).min(row[j] + 1).min(row[j + 1] + 1);
            diagonal = std::mem::replace(&mut row[j + 1], next);
        }
    }
    row[b.len()]
}

fn cross_check(s: &Settings, values: &Values, needs_key: bool, faults: &mut Vec<Fault>) {
    let given = |key: &str| values.get(key).is_some_and(|(_, v)| v.as_str() != Some(""));
    if given("tickets.secret") && given("tickets.secret_file") {
        faults.push(fault("tickets.secret", "is given beside tickets.secret_file; give one of them"));
    }
    // A key that was given and is faulty is told already.
    let key_faults = ["tickets.secret", "tickets.secret_file", "tickets.keys", "tickets.jwks_url"];
    if needs_key
        && s.tickets.keys.is_empty()
        && s.tickets.jwks_url.is_none()
        && !faults.iter().any(|f| {
            key_faults.contains(&f.key.to_ascii_lowercase().replace("__", ".").trim_start_matches("sse_gateway."))
        })
    {
        faults.push(fault(
            "tickets.secret",
            "there is no key to verify tickets with; set SSE_GATEWAY__TICKETS__SECRET (e.g. to the output of `openssl rand -hex 32`), tickets.secret_file, tickets.keys or tickets.jwks_url",
        ));
    }
    let mut kids: Vec<_> = s.tickets.keys.iter().map(|k| &k.kid).collect();
    kids.sort();
    if kids.windows(2).any(|pair| pair[0] == pair[1]) {
        faults.push(fault("tickets.keys", "two keys have the same kid (or none); give each its own"));
    }
    if s.server.tls_certificate.is_some() != s.server.tls_key.is_some() {
        faults.push(fault("server.tls", "only one of certificate and key is given; give both or none"));
    }
}

/// Hints for settings that work but should not stay so.
pub fn warnings(s: &Settings) -> Vec<String> {
    let weak = s.tickets.keys.iter().any(|k| k.algorithm == super::Algorithm::HS256 && k.material.len() < 32);
    let mut all = Vec::new();
    if weak {
        all.push("an HS256 ticket secret has fewer than 32 bytes and can be guessed (RFC 7518 section 3.2); use the output of `openssl rand -hex 32`".to_owned());
    }
    if s.tickets.jwks_url.as_ref().is_some_and(|url| url.scheme() == "http" && !is_this_host(url)) {
        all.push("tickets.jwks_url is not https: whoever sits on the way can put keys of his own into the key set; use https".to_owned());
    }
    if s.limits.queue_bytes < s.history.max_event_bytes {
        all.push("limits.queue_bytes is less than history.max_event_bytes: each event of that size is read from the log once more; give more".to_owned());
    }
    if s.limits.queue_bytes_total < s.limits.queue_bytes {
        all.push("limits.queue_bytes_total is less than limits.queue_bytes: one slow client is enough to reach it; give more".to_owned());
    }
    all
}

fn is_this_host(url: &reqwest::Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

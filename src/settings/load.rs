//! defaults < TOML file < environment; all faults at once.

use std::{collections::BTreeMap, fmt, path::Path};

use toml::Value;

use super::{Settings, table::KEYS};

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
    load_all(file, env, true)
}

/// The same for who only looks at Redis: without a ticket key it is good, too.
///
/// # Errors
/// Every other fault of the configuration.
pub fn load_keyless(file: Option<&Path>, env: impl Iterator<Item = (String, String)>) -> Result<Settings, Vec<Fault>> {
    load_all(file, env, false)
}

fn load_all(
    file: Option<&Path>,
    env: impl Iterator<Item = (String, String)>,
    needs_key: bool,
) -> Result<Settings, Vec<Fault>> {
    let mut faults = Vec::new();
    let mut values: BTreeMap<String, (String, Value)> = BTreeMap::new();
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
    if faults.is_empty() { Ok(settings) } else { Err(faults) }
}

/// A default of the table as a value.
pub fn default_of(literal: &str) -> Value {
    let document = format!("x = {literal}");
    document.parse::<toml::Table>().ok().and_then(|mut t| t.remove("x")).unwrap_or(Value::String(literal.to_owned()))
}

fn read_file(path: &Path, values: &mut BTreeMap<String, (String, Value)>, faults: &mut Vec<Fault>) {
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

fn flatten(prefix: &str, table: &toml::Table, values: &mut BTreeMap<String, (String, Value)>, faults: &mut Vec<Fault>) {
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

fn cross_check(s: &Settings, values: &BTreeMap<String, (String, Value)>, needs_key: bool, faults: &mut Vec<Fault>) {
    let given = |key: &str| values.get(key).is_some_and(|(_, v)| v.as_str() != Some(""));
    if given("tickets.secret") && given("tickets.secret_file") {
        faults.push(fault("tickets.secret", "is given beside tickets.secret_file; give one of them"));
    }
    // A key that was given and is faulty is told already.
    let key_faults = ["tickets.secret", "tickets.secret_file", "tickets.keys"];
    if needs_key
        && s.tickets.keys.is_empty()
        && !faults.iter().any(|f| {
            key_faults.contains(&f.key.to_ascii_lowercase().replace("__", ".").trim_start_matches("sse_gateway."))
        })
    {
        faults.push(fault(
            "tickets.secret",
            "there is no key to verify tickets with; set SSE_GATEWAY__TICKETS__SECRET (e.g. to the output of `openssl rand -hex 32`), tickets.secret_file or tickets.keys",
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
    if s.limits.queue_bytes < s.history.max_event_bytes {
        all.push("limits.queue_bytes is less than history.max_event_bytes: each event of that size is read from the log once more; give more".to_owned());
    }
    if s.limits.queue_bytes_total < s.limits.queue_bytes {
        all.push("limits.queue_bytes_total is less than limits.queue_bytes: one slow client is enough to reach it; give more".to_owned());
    }
    all
}

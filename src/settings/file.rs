//! The TOML file: its values by key, each with its line.

use std::{collections::BTreeMap, ops::Range, path::Path};

use toml::{
    Value,
    de::{DeTable, DeValue},
};

use super::{
    error::{ConfigError, Origin, ValueError},
    table::KEYS,
};

/// The values of a file by key, each with the line of its key.
pub type FileValues = BTreeMap<String, (usize, Value)>;

/// Reads a file.
///
/// # Errors
/// The file cannot be read or is not TOML; keys that are not settings. Values are checked later.
pub fn read(path: &Path) -> (FileValues, Vec<ConfigError>) {
    match std::fs::read_to_string(path) {
        Ok(content) => parse(path, &content),
        Err(e) => {
            let origin = Origin::File(path.into(), None);
            let problem = ValueError::UnreadableConfig(e);
            (FileValues::new(), vec![ConfigError::new(origin, "", problem)])
        }
    }
}

fn parse(path: &Path, content: &str) -> (FileValues, Vec<ConfigError>) {
    let line = |span: Range<usize>| {
        1 + content.bytes().take(span.start).filter(|byte| *byte == b'\n').count()
    };
    let (values, table) = match (content.parse::<toml::Table>(), DeTable::parse(content)) {
        (Ok(values), Ok(table)) => (values, table),
        // Only the parser's message: the error itself quotes the line, which may contain a secret.
        (Err(e), _) | (_, Err(e)) => {
            let origin = Origin::File(path.into(), Some(e.span().map_or(1, line)));
            let message = format!("must be valid TOML ({}); correct this line", e.message());
            return (FileValues::new(), vec![ConfigError::new(origin, "", message)]);
        }
    };
    let mut lines = BTreeMap::new();
    collect_lines("", table.get_ref(), &line, &mut lines);
    let (mut found, mut errors) = (FileValues::new(), Vec::new());
    let line_of = |key: &str| lines.get(key).copied().unwrap_or(1);
    flatten("", &values, &mut |key, value| match value {
        Some(value) => {
            found.insert(key.to_owned(), (line_of(key), value.clone()));
        }
        None => {
            let origin = Origin::File(path.into(), Some(line_of(key)));
            errors.push(ConfigError::new(origin, key, unknown(key)));
        }
    });
    (found, errors)
}

fn join(prefix: &str, name: &str) -> String {
    if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") }
}

fn collect_lines(
    prefix: &str,
    table: &DeTable<'_>,
    line: &impl Fn(Range<usize>) -> usize,
    lines: &mut BTreeMap<String, usize>,
) {
    for (name, value) in table {
        let key = join(prefix, name.get_ref());
        lines.insert(key.clone(), line(name.span()));
        if let DeValue::Table(inner) = value.get_ref() {
            collect_lines(&key, inner, line, lines);
        }
    }
}

/// Calls `take` with each setting and its value, and with each unknown key and `None`.
fn flatten(prefix: &str, table: &toml::Table, take: &mut impl FnMut(&str, Option<&Value>)) {
    for (name, value) in table {
        let key = join(prefix, name);
        let is_section = || KEYS.iter().any(|k| k.name.starts_with(&format!("{key}.")));
        match value {
            value if KEYS.iter().any(|k| k.name == key) => take(&key, Some(value)),
            Value::Table(inner) if is_section() => flatten(&key, inner, take),
            _ => take(&key, None),
        }
    }
}

/// The message for a key that is not a setting.
pub fn unknown(key: &str) -> String {
    let nearest = KEYS.iter().map(|k| (strsim::levenshtein(k.name, key), k.name)).min();
    match nearest {
        Some((distance, name)) if distance <= 3 => {
            format!("unknown setting; did you mean {name}?")
        }
        _ => "unknown setting; remove it (config/gateway.toml lists all settings)".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_and_unknown_keys_carry_their_lines() {
        let content = "api_keys = []\n\n[server]\nlisten = \"x\"\nlistn = 1\n[server.tls]\n\
                       key = \"k\"\n[nonsense]\na = 1\n";
        let (values, errors) = parse(Path::new("g.toml"), content);
        let lines: Vec<_> = values.iter().map(|(key, (line, _))| (key.as_str(), *line)).collect();
        assert_eq!(lines, [("api_keys", 1), ("server.listen", 4), ("server.tls.key", 7)]);
        let errors: Vec<_> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(errors.len(), 2);
        let hint = "g.toml:5: server.listn: unknown setting; did you mean server.listen?";
        assert!(errors.contains(&hint.to_owned()), "{errors:?}");
        assert!(errors.iter().any(|e| e.starts_with("g.toml:8: nonsense: ")), "{errors:?}");
    }

    #[test]
    fn syntax_errors_name_their_line_only() {
        let (_, errors) = parse(Path::new("g.toml"), "a = 1\n[tickets]\nsecret = \"hushhush\n");
        let text = errors[0].to_string();
        assert!(text.starts_with("g.toml:3: must be valid TOML"), "{text}");
        assert!(!text.contains("hushhush"), "{text}");
    }
}

//! Parsers of ticket keys and API keys. Errors never contain key material.

use std::path::{Path, PathBuf};

use secrecy::SecretSlice;
use toml::Value;

use super::{
    Algorithm, ApiKey, Scope, TicketKey,
    error::{ValueError, invalid},
    parse::{Parsed, json, text, words},
};

/// Shortest HS256 secret in bytes (RFC 7518 section 3.2).
const MIN_SECRET_BYTES: usize = 32;

/// An array of tables, from TOML or as JSON in a string.
pub(super) fn tables(value: &Value) -> Parsed<Vec<toml::Table>> {
    let not_a_list =
        |kind: &str| invalid!("must be an array of tables, see config/gateway.toml (got a {kind})");
    match value {
        Value::Array(items) => items
            .iter()
            .map(|item| item.as_table().cloned().ok_or_else(|| not_a_list(item.type_str())))
            .collect(),
        Value::String(s) if s.trim().is_empty() => Ok(Vec::new()),
        Value::String(s) => match json(s)? {
            Value::String(_) => Err(not_a_list("string")),
            parsed => tables(&parsed),
        },
        other => Err(not_a_list(other.type_str())),
    }
}

fn check_members(table: &toml::Table, known: &[&str]) -> Parsed<()> {
    match table.keys().find(|k| !known.contains(&k.as_str())) {
        Some(k) => Err(invalid!("unknown member {k:?}; use {}", known.join(", "))),
        None => Ok(()),
    }
}

/// `api_keys`: `[{ sha256 = "<64 hex digits>", scopes = ["publish", "admin"] }]`.
pub fn api_keys(value: &Value) -> Parsed<Vec<ApiKey>> {
    tables(value)?.iter().map(api_key).collect()
}

fn api_key(table: &toml::Table) -> Parsed<ApiKey> {
    check_members(table, &["sha256", "scopes"])?;
    let mut sha256 = [0; 32];
    let digits = table.get("sha256").and_then(Value::as_str).unwrap_or_default();
    hex::decode_to_slice(digits, &mut sha256).map_err(|_| {
        invalid!(
            "each entry needs sha256 with 64 hex digits; use the output of \
         `printf %s KEY | sha256sum`"
        )
    })?;
    let scopes = table
        .get("scopes")
        .ok_or_else(|| invalid!("each entry needs scopes, for example scopes = [\"publish\"]"))?;
    let scope = |word: &String| {
        let found = Scope::ALL.into_iter().find(|scope| scope.name() == word);
        found.ok_or_else(|| {
            invalid!("unknown scope {word:?}; use publish, tickets, admin or operate")
        })
    };
    Ok(ApiKey { sha256, scopes: words(scopes)?.iter().map(scope).collect::<Parsed<_>>()? })
}

/// `tickets.keys`: `[{ kid, algorithm, secret | secret_file | public_key | public_key_file }]`.
pub fn ticket_keys(value: &Value) -> Parsed<Vec<TicketKey>> {
    tables(value)?.iter().map(ticket_key).collect()
}

fn ticket_key(table: &toml::Table) -> Parsed<TicketKey> {
    let known = ["kid", "algorithm", "secret", "secret_file", "public_key", "public_key_file"];
    check_members(table, &known)?;
    let member =
        |name: &str| table.get(name).map(text).transpose().map_err(|e| invalid!("{name} {e}"));
    let algorithm = match member("algorithm")?.as_deref() {
        Some("HS256") => Algorithm::HS256,
        Some("RS256") => Algorithm::RS256,
        Some("ES256") => Algorithm::ES256,
        Some("EdDSA") => Algorithm::EdDSA,
        _ => {
            return Err(invalid!("each entry needs an algorithm: HS256, RS256, ES256 or EdDSA"));
        }
    };
    let (inline, file) = match algorithm {
        Algorithm::HS256 => ("secret", "secret_file"),
        _ => ("public_key", "public_key_file"),
    };
    let kid = member("kid")?;
    match (member(inline)?, member(file)?.map(PathBuf::from)) {
        (Some(s), None) => key(kid, algorithm, s.into_bytes(), None),
        (None, Some(path)) => key(kid, algorithm, read_secret(&path)?, Some(path)),
        _ => Err(invalid!(
            "a key for {algorithm:?} needs exactly one of {inline} and {file}; set one"
        )),
    }
}

fn key(
    kid: Option<String>,
    algorithm: Algorithm,
    material: Vec<u8>,
    file: Option<PathBuf>,
) -> Parsed<TicketKey> {
    if algorithm == Algorithm::HS256 {
        check_length(&material)?;
    }
    let key = TicketKey { kid, algorithm, material: SecretSlice::from(material), file };
    match key.decoding_key() {
        Ok(_) => Ok(key),
        Err(source) => Err(ValueError::Key { file: key.file, algorithm, source }),
    }
}

/// `tickets.secret`: the secret itself, or `None` if it is empty.
pub fn secret(value: &Value) -> Parsed<Option<TicketKey>> {
    let secret = text(value)?.into_bytes();
    if secret.is_empty() {
        return Ok(None);
    }
    key(None, Algorithm::HS256, secret, None).map(Some)
}

/// `tickets.secret_file`: the file that contains the secret, or `None` if it is empty.
pub fn secret_file(value: &Value) -> Parsed<Option<TicketKey>> {
    let path = PathBuf::from(text(value)?);
    if path.as_os_str().is_empty() {
        return Ok(None);
    }
    key(None, Algorithm::HS256, read_secret(&path)?, Some(path)).map(Some)
}

fn check_length(secret: &[u8]) -> Parsed<()> {
    if secret.len() >= MIN_SECRET_BYTES {
        return Ok(());
    }
    Err(invalid!(
        "an HS256 secret must have at least {MIN_SECRET_BYTES} bytes (got {}); use the output of \
         `openssl rand -hex 32`",
        secret.len()
    ))
}

/// The content of a file without trailing white space.
fn read_secret(path: &Path) -> Parsed<Vec<u8>> {
    let mut content =
        std::fs::read(path).map_err(|source| ValueError::UnreadableFile(path.into(), source))?;
    while content.last().is_some_and(u8::is_ascii_whitespace) {
        content.pop();
    }
    if content.is_empty() {
        return Err(invalid!("{} is empty; write the secret into it", path.display()));
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_secrets_are_errors_without_the_secret() {
        let error = secret(&Value::String("hushhush".into())).err().unwrap().to_string();
        assert!(error.contains("at least 32 bytes (got 8)"), "{error}");
        assert!(!error.contains("hushhush"), "{error}");
        assert!(secret(&Value::String("x".repeat(32))).is_ok_and(|key| key.is_some()));
        assert!(secret(&Value::String(String::new())).is_ok_and(|key| key.is_none()));
        let keys = r#"[{"algorithm": "HS256", "secret": "hushhush"}]"#;
        assert!(ticket_keys(&Value::String(keys.into())).is_err());
    }
}

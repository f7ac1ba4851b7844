//! `[sources.postgres]`: its values and their parsers.

use std::{fmt, time::Duration};

use toml::Value;

use super::{
    PemFile, PostgresUrl,
    error::{ValueError, invalid},
    parse::{Parsed, optional_text, path, text, words},
};

/// Maximum length of a name in Postgres, bytes (`NAMEDATALEN` - 1).
const MAX_NAME_BYTES: usize = 63;
/// Maximum number of channels of Postgres to listen on.
const MAX_CHANNELS: usize = 64;

/// `[sources.postgres]`
#[derive(Clone, Debug, Default)]
pub struct Postgres {
    /// Where Postgres is, with its credentials; `None` = the source is off.
    pub url: Option<PostgresUrl>,
    /// The authorities to trust; `None` = the public ones.
    pub ca: Option<PemFile>,
    /// Maximum time to connect, and to wait for a reply.
    pub timeout: Duration,
    /// The outbox table; `None` = none is read.
    pub outbox: Option<TableName>,
    /// What happens to the rows of published events.
    pub published: PublishedRows,
    /// Maximum number of rows to read at a time.
    pub batch: usize,
    /// How often to look for rows without a notification.
    pub poll_interval: Duration,
    /// Channels of Postgres whose notifications are published.
    pub channels: Vec<String>,
}

impl Postgres {
    /// The number of sources: the outbox, and notifications.
    pub fn len(&self) -> usize {
        match self.url {
            Some(_) => usize::from(self.outbox.is_some()) + usize::from(!self.channels.is_empty()),
            None => 0,
        }
    }

    /// Whether nothing is read from Postgres.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What happens to the rows of published events (`sources.postgres.published`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PublishedRows {
    /// They are deleted.
    #[default]
    Delete,
    /// `published_at` is set.
    Mark,
}

/// The name of a table, with or without its schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableName {
    schema: Option<String>,
    table: String,
}

impl TableName {
    /// The table's name without the schema, which is also the channel of its notifications.
    pub fn table(&self) -> &str {
        &self.table
    }

    /// The name in SQL, quoted.
    pub fn quoted(&self) -> String {
        match &self.schema {
            Some(schema) => format!("\"{schema}\".\"{}\"", self.table),
            None => format!("\"{}\"", self.table),
        }
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.schema {
            Some(schema) => write!(f, "{schema}.{}", self.table),
            None => f.write_str(&self.table),
        }
    }
}

/// Whether a text can be quoted as a name in SQL as it is.
fn is_name(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"_-$".contains(&b);
    (1..=MAX_NAME_BYTES).contains(&name.len()) && name.bytes().all(allowed)
}

/// A URL of Postgres, or `None` if it is empty. The value is not shown: it may contain a password.
pub fn url(value: &Value) -> Parsed<Option<PostgresUrl>> {
    optional_text(value)?.map(|url| parse_url(&url)).transpose()
}

/// The URL in a file, or `None` if the path is empty.
pub fn url_file(value: &Value) -> Parsed<Option<PostgresUrl>> {
    let Some(path) = path(value)? else { return Ok(None) };
    match std::fs::read_to_string(&path) {
        Ok(content) => parse_url(content.trim()).map(Some),
        Err(source) => Err(ValueError::UnreadableFile(path, source)),
    }
}

fn parse_url(url: &str) -> Parsed<PostgresUrl> {
    PostgresUrl::parse(url).map_err(|error| invalid!("{error}"))
}

/// `table` or `schema.table`, or `None` if it is empty.
pub fn table(value: &Value) -> Parsed<Option<TableName>> {
    let Some(name) = optional_text(value)? else { return Ok(None) };
    let (schema, table) = match name.split_once('.') {
        Some((schema, table)) => (Some(schema), table),
        None => (None, name.as_str()),
    };
    if schema.is_some_and(|schema| !is_name(schema)) || !is_name(table) {
        return Err(invalid!(
            "must be a table, for example \"sse_outbox\" or \"public.sse_outbox\", of ASCII \
             letters, digits, _ - $, in the case in which Postgres stores it"
        ));
    }
    Ok(Some(TableName { schema: schema.map(str::to_owned), table: table.to_owned() }))
}

/// `delete` or `mark`.
pub fn published(value: &Value) -> Parsed<PublishedRows> {
    match text(value)?.as_str() {
        "delete" => Ok(PublishedRows::Delete),
        "mark" => Ok(PublishedRows::Mark),
        _ => Err(invalid!("must be \"delete\" or \"mark\"")),
    }
}

/// Channels of Postgres.
pub fn channels(value: &Value) -> Parsed<Vec<String>> {
    let channels = words(value)?;
    if channels.len() > MAX_CHANNELS || !channels.iter().all(|name| is_name(name)) {
        return Err(invalid!(
            "must list at most {MAX_CHANNELS} channels of Postgres of ASCII letters, digits, _ - \
             $, for example [\"sse\"]"
        ));
    }
    Ok(channels)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn string(s: &str) -> Value {
        Value::String(s.to_owned())
    }

    #[test]
    fn tables_are_quoted_and_safe() {
        let name = |s: &str| table(&string(s)).map(|name| name.unwrap().quoted()).ok();
        assert_eq!(name("sse_outbox").as_deref(), Some(r#""sse_outbox""#));
        assert_eq!(name("app.SseOutbox").as_deref(), Some(r#""app"."SseOutbox""#));
        for bad in ["a\"b", "a.b.c", "a b", ".a", "a.", "ä", &"a".repeat(64)] {
            assert_eq!(name(bad), None, "{bad}");
        }
        assert!(table(&string("")).unwrap().is_none());
    }

    #[test]
    fn channels_are_names() {
        assert_eq!(channels(&string("sse,orders")).unwrap(), ["sse", "orders"]);
        assert!(channels(&string("a\"b")).is_err());
        assert!(channels(&string(&vec!["a"; 65].join(","))).is_err());
    }

    #[test]
    fn errors_of_a_url_contain_no_password() {
        let error = url(&string("postgres://u:hush@db/shop?x=hush")).unwrap_err().to_string();
        assert!(!error.contains("hush"), "{error}");
        assert!(error.contains("sslmode"), "{error}");
    }
}

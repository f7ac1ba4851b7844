//! Whether the outbox table has the columns and rights that the reader needs.

use std::collections::BTreeMap;

use super::OutboxOptions;
use crate::{
    postgres::{error::PostgresError, session::Session},
    settings::PublishedRows,
};

/// Columns that a table may have, in the order in which they are read.
pub(super) const OPTIONAL: [&str; 6] = ["keep", "forget", "tags", "retry", "unseen", "traceparent"];

const INTEGERS: &[&str] = &["bigint", "integer", "smallint"];
const TEXTS: &[&str] = &["text", "character varying", "uuid"];
const DOCUMENTS: &[&str] = &["json", "text", "jsonb", "character varying"];
const TIMES: &[&str] = &["timestamp with time zone"];

/// Columns with the types that they may have, and their definition.
const COLUMNS: [(&str, &[&str], &str); 14] = [
    ("id", INTEGERS, "bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY"),
    ("channel", TEXTS, "text NOT NULL"),
    ("type", TEXTS, "text NOT NULL DEFAULT 'message'"),
    ("payload", DOCUMENTS, "json NOT NULL"),
    ("key", TEXTS, "text NOT NULL DEFAULT gen_random_uuid()"),
    ("created_at", TIMES, "timestamptz NOT NULL DEFAULT clock_timestamp()"),
    ("error", TEXTS, "text"),
    ("published_at", TIMES, "timestamptz"),
    ("keep", TEXTS, "text"),
    ("forget", TEXTS, "text"),
    ("tags", DOCUMENTS, "json"),
    ("retry", INTEGERS, "integer"),
    ("unseen", TEXTS, "text"),
    ("traceparent", TEXTS, "text"),
];

/// `$1`: the table, quoted.
const FACTS: &str = "SELECT
    to_regclass($1) IS NOT NULL,
    has_table_privilege(to_regclass($1), 'SELECT'),
    has_any_column_privilege(to_regclass($1), 'UPDATE'),
    has_table_privilege(to_regclass($1), 'DELETE'),
    row_security_active(to_regclass($1))";

/// `$1`: the table, quoted. Types without their parameters.
const TYPES: &str = "SELECT attname::text, format_type(atttypid, NULL)
    FROM pg_attribute WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped";

/// A table that the reader can use.
#[derive(Debug)]
pub struct Table {
    /// The type of each column.
    types: BTreeMap<String, String>,
    /// Whether policies of row-level security apply, which may hide rows.
    pub hides_rows: bool,
    /// Whether Postgres stores payloads in another form than they were inserted in.
    pub reformats_payload: bool,
}

impl Table {
    /// Checks server, table and rights.
    ///
    /// # Errors
    /// See [`PostgresError`].
    pub async fn check(
        session: &Session,
        user: &str,
        options: &OutboxOptions,
    ) -> Result<Self, PostgresError> {
        let (client, name) = (&session.client, options.table.quoted());
        let is_mark = options.published == PublishedRows::Mark;
        let (table, user) = (options.table.to_string(), user.to_owned());
        session.check_is_direct().await?;
        let row = session.run(client.query_one(FACTS, &[&name])).await?;
        let get = async {
            let flag = |n| row.try_get::<_, Option<bool>>(n).map(Option::unwrap_or_default);
            Ok((flag(0)?, [flag(1)?, flag(2)?, flag(3)?], flag(4)?))
        };
        let (exists, has, hides_rows) = session.run(get).await?;
        if !exists {
            return Err(PostgresError::NoTable { table, user });
        }
        let needed = [true, true, !is_mark];
        let rights = ["SELECT", "UPDATE", "DELETE"].into_iter().zip(has).zip(needed);
        let missing = rights.filter(|((_, has), needed)| *needed && !has);
        let rights = missing.map(|((right, _), _)| right).collect::<Vec<_>>().join(", ");
        if !rights.is_empty() {
            return Err(PostgresError::Rights { table, user, rights });
        }
        let rows = session.run(client.query(TYPES, &[&name])).await?;
        let types =
            async { rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect() };
        let types: BTreeMap<String, String> = session.run(types).await?;
        let faults = faults(&types, &table, is_mark);
        if !faults.is_empty() {
            return Err(PostgresError::Columns { table, faults });
        }
        let reformats_payload = types["payload"] == "jsonb";
        Ok(Self { types, hides_rows, reformats_payload })
    }

    pub(super) fn has(&self, column: &str) -> bool {
        self.types.contains_key(column)
    }
}

/// What is wrong with the columns, with the statements that correct it.
fn faults(types: &BTreeMap<String, String>, table: &str, is_mark: bool) -> String {
    let is_needed = |name: &str| match name {
        "published_at" => is_mark,
        name => !OPTIONAL.contains(&name),
    };
    let fault = |(name, allowed, definition): &(&str, &[&str], &str)| match types.get(*name) {
        None if is_needed(name) => Some(format!(
            "column {name} is missing; run: ALTER TABLE {table} ADD COLUMN {name} {definition}"
        )),
        Some(found) if !allowed.contains(&found.as_str()) => Some(format!(
            "column {name} has the type {found}; change it to {}",
            allowed.first().unwrap_or(&"text")
        )),
        _ => None,
    };
    COLUMNS.iter().filter_map(fault).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn types(columns: &[(&str, &str)]) -> BTreeMap<String, String> {
        columns.iter().map(|(name, kind)| ((*name).to_owned(), (*kind).to_owned())).collect()
    }

    const MINIMAL: [(&str, &str); 7] = [
        ("id", "bigint"),
        ("channel", "text"),
        ("type", "text"),
        ("payload", "json"),
        ("key", "uuid"),
        ("created_at", "timestamp with time zone"),
        ("error", "text"),
    ];

    #[test]
    fn optional_columns_may_be_missing() {
        assert_eq!(faults(&types(&MINIMAL), "t", false), "");
        let text = faults(&types(&MINIMAL), "t", true);
        assert_eq!(
            text,
            "column published_at is missing; run: ALTER TABLE t ADD COLUMN published_at timestamptz"
        );
    }

    #[test]
    fn all_faults_are_named_with_their_fix() {
        let mut columns = MINIMAL.to_vec();
        columns[0] = ("id", "uuid");
        columns[4] = ("keys", "text");
        columns.push(("retry", "text"));
        let text = faults(&types(&columns), "t", false);
        for part in [
            "column id has the type uuid; change it to bigint",
            "ADD COLUMN key text NOT NULL DEFAULT gen_random_uuid()",
            "column retry has the type text; change it to bigint",
        ] {
            assert!(text.contains(part), "{text}");
        }
    }
}

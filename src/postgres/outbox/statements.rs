//! The SQL of an outbox.

use super::{OutboxOptions, Table, table::OPTIONAL};
use crate::settings::PublishedRows;

/// Bytes of a text column to read; more than any valid value has.
const TEXT_LIMIT: usize = 1024;
/// Bytes of tags to read, as JSON; more than 8 valid tags have.
const TAGS_LIMIT: usize = 8192;

/// The statements of one table.
pub(super) struct Statements {
    /// Reads and locks rows: `$1` rows, `$2` bytes of payloads, `$3` bytes of one payload.
    pub read: String,
    /// Deletes or marks rows: `$1` their ids, `$2` their keys.
    pub published: String,
    /// Marks one row: `$1` its id, `$2` its key, `$3` the reason.
    pub rejected: String,
}

impl Statements {
    pub(super) fn of(table: &Table, options: &OutboxOptions) -> Self {
        let name = options.table.quoted();
        let is_mark = options.published == PublishedRows::Mark;
        let open = match is_mark {
            true => "error IS NULL AND published_at IS NULL",
            false => "error IS NULL",
        };
        let published = match is_mark {
            true => format!("UPDATE {name} AS o SET published_at = clock_timestamp() FROM"),
            false => format!("DELETE FROM {name} AS o USING"),
        };
        let key = cut("key", TEXT_LIMIT);
        // A batch has rows until their payloads reach the limit, at least one. Their ids are an
        // array, so that Postgres looks them up in the index, however many rows wait.
        let read = format!(
            "SELECT id::int8, {channel}, {kind},
                CASE WHEN octet_length(payload::text) <= $3 THEN payload::text END, {key},
                {columns},
                extract(epoch FROM clock_timestamp() - created_at)::float8
            FROM {name}
            WHERE {open} AND id = ANY(ARRAY(
                SELECT id FROM (
                    SELECT id, sum(bytes) OVER (ORDER BY id) - bytes AS before
                    FROM (
                        SELECT id, least(octet_length(payload::text), $3)::int8 AS bytes
                        FROM {name} WHERE {open} ORDER BY id LIMIT $1
                    ) AS first
                ) AS sizes WHERE before <= $2))
            ORDER BY id FOR UPDATE",
            channel = cut("channel", TEXT_LIMIT),
            kind = cut("type", TEXT_LIMIT),
            columns = OPTIONAL.map(|column| optional(table, column)).join(", "),
        );
        Self {
            read,
            published: format!(
                "{published} unnest($1, $2) AS done(row_id, row_key)
                WHERE o.id = row_id AND {key} IS NOT DISTINCT FROM row_key"
            ),
            rejected: format!(
                "UPDATE {name} SET error = $3 WHERE id = $1 AND {key} IS NOT DISTINCT FROM $2"
            ),
        }
    }
}

fn cut(column: &str, limit: usize) -> String {
    format!("left({column}::text, {limit})")
}

/// An optional column of the table, or NULL.
fn optional(table: &Table, column: &str) -> String {
    match (table.has(column), column) {
        (true, "retry") => "retry::int8".to_owned(),
        (true, "tags") => cut(column, TAGS_LIMIT),
        (true, _) => cut(column, TEXT_LIMIT),
        (false, "retry") => "NULL::int8".to_owned(),
        (false, _) => "NULL::text".to_owned(),
    }
}

//! Rows that were published, but could not be deleted or marked, because Postgres had become
//! unavailable.
//!
//! Until Postgres is back they are kept in this process, and in Redis for other instances:
//! idempotency keys would recognise them for `history.dedupe_window` only.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    postgres::outbox::{RowName, RowOutcomes},
    redis::commands::{CommandError, Commands},
};

/// How long Redis keeps them.
const RETENTION: Duration = Duration::from_secs(7 * 86_400);

/// The rows of one outbox.
pub struct Unconfirmed {
    commands: Commands,
    key: String,
    own: RowOutcomes,
}

impl Unconfirmed {
    /// None yet, of the source with this name.
    pub fn new(commands: Commands, source: &str) -> Self {
        let key = commands.keys.source_position(source);
        Self { commands, key, own: RowOutcomes::default() }
    }

    /// Keeps rows until they are confirmed.
    ///
    /// # Errors
    /// Redis did not take them. This process keeps them in any case.
    pub async fn keep(&mut self, rows: RowOutcomes) -> Result<(), CommandError> {
        self.own.published.extend(rows.published);
        self.own.rejected.extend(rows.rejected);
        let mut pipe = redis::pipe();
        pipe.atomic().cmd("HSET").arg(&self.key).arg(fields(&self.own)).ignore();
        pipe.cmd("PEXPIRE").arg(&self.key).arg(RETENTION.as_millis() as u64).ignore();
        self.commands.run_all(&pipe).await
    }

    /// All rows that wait to be confirmed, of this and other instances.
    ///
    /// # Errors
    /// Redis did not reply.
    pub async fn all(&self) -> Result<RowOutcomes, CommandError> {
        let kept: BTreeMap<String, String> =
            self.commands.run(redis::cmd("HGETALL").arg(&self.key)).await?;
        let mut all = self.own.clone();
        for (name, error) in kept {
            let Some(row) = parse(&name) else { continue };
            match error.is_empty() {
                true => all.published.push(row),
                false => all.rejected.push((row, error)),
            }
        }
        Ok(all)
    }

    /// Forgets them after they were confirmed.
    ///
    /// # Errors
    /// Redis did not reply. To confirm them again does no harm.
    pub async fn clear(&mut self) -> Result<(), CommandError> {
        self.own = RowOutcomes::default();
        self.commands.run::<u64>(redis::cmd("DEL").arg(&self.key)).await.map(drop)
    }
}

/// Fields of the hash: `<id> <key>`, or `<id>` without a key, and the reason of a rejection.
fn fields(rows: &RowOutcomes) -> Vec<(String, &str)> {
    let published = rows.published.iter().map(|row| (row, ""));
    let rejected = rows.rejected.iter().map(|(row, error)| (row, error.as_str()));
    let name = |row: &RowName| match &row.key {
        Some(key) => format!("{} {key}", row.id),
        None => row.id.to_string(),
    };
    published.chain(rejected).map(|(row, error)| (name(row), error)).collect()
}

fn parse(name: &str) -> Option<RowName> {
    let (id, key) = match name.split_once(' ') {
        Some((id, key)) => (id, Some(key.to_owned())),
        None => (name, None),
    };
    Some(RowName { id: id.parse().ok()?, key })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_rows_survive_as_text() {
        let row = |id, key: Option<&str>| RowName { id, key: key.map(str::to_owned) };
        let rows = RowOutcomes {
            published: vec![row(7, Some("a b")), row(-1, Some(""))],
            rejected: vec![(row(9, None), "bad-key: x".to_owned())],
        };
        let parsed: Vec<_> = fields(&rows).iter().filter_map(|(name, _)| parse(name)).collect();
        assert_eq!(parsed, [row(7, Some("a b")), row(-1, Some("")), row(9, None)]);
        assert_eq!(parse("x"), None);
    }
}

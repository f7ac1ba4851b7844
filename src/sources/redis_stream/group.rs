//! The commands for a consumer group of a stream.

use std::time::Duration;

use redis::{Cmd, FromRedisValue, RedisError, RedisResult, Value};

use crate::redis::commands::{CommandError, Commands};

/// The only consumer of the group: one instance at a time reads, and the next one continues with
/// what the one before it has not confirmed.
const CONSUMER: &str = "sse-gateway";

/// The id of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StreamId {
    /// When the entry was written, unless its writer has chosen the id: ms since 1970.
    pub ms: u64,
    seq: u64,
}

impl StreamId {
    /// Parses `<ms>-<seq>`.
    pub fn parse(text: &str) -> Option<Self> {
        let (ms, seq) = text.split_once('-')?;
        Some(Self { ms: ms.parse().ok()?, seq: seq.parse().ok()? })
    }
}

/// An entry as it is in the stream.
#[derive(Debug)]
pub struct StreamEntry {
    /// `<ms>-<seq>`
    pub id: String,
    /// Names and values, in order.
    pub fields: Vec<(Vec<u8>, Vec<u8>)>,
}

impl StreamEntry {
    /// Bytes of all names and values.
    pub fn bytes(&self) -> usize {
        self.fields.iter().map(|(name, value)| name.len() + value.len()).sum()
    }
}

type RawEntry = (String, Vec<(Vec<u8>, Vec<u8>)>);

fn entries(raw: Vec<RawEntry>) -> Vec<StreamEntry> {
    raw.into_iter().map(|(id, fields)| StreamEntry { id, fields }).collect()
}

/// Entries that were delivered and not confirmed.
pub struct Unconfirmed {
    /// The first ones, in order.
    pub entries: Vec<StreamEntry>,
    /// Entries that were deleted from the stream meanwhile.
    pub deleted: usize,
    /// Whether there are no others.
    pub is_end: bool,
}

/// Entries that were not delivered before.
pub struct Fresh {
    /// The entries, in order.
    pub entries: Vec<StreamEntry>,
    /// Whether these are exactly the ones that are delivered and not confirmed. Otherwise another
    /// reader has received some, for example this instance before it was paused.
    pub are_alone: bool,
}

/// A consumer group of a stream.
pub struct Group {
    commands: Commands,
    stream: String,
    group: String,
}

/// Whether a command failed because the stream or its group does not exist.
fn is_missing(error: &CommandError) -> bool {
    error.reply().and_then(RedisError::code) == Some("NOGROUP")
}

impl Group {
    pub fn new(commands: Commands, stream: String, group: String) -> Self {
        Self { commands, stream, group }
    }

    /// Where its Redis is, for logs.
    pub fn address(&self) -> std::sync::Arc<str> {
        self.commands.address()
    }

    /// The commands for the server of the stream, which is one of several on a cluster.
    fn here(&self) -> Result<Commands, CommandError> {
        self.commands.of_key(&self.stream)
    }

    async fn run<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, CommandError> {
        self.here()?.run(command).await
    }

    fn pending(&self) -> Cmd {
        let mut command = redis::cmd("XPENDING");
        command.arg(&self.stream).arg(&self.group);
        command
    }

    /// The number of entries that were delivered and not confirmed; `None`: the group does not
    /// exist.
    pub async fn count_unconfirmed(&self) -> Result<Option<u64>, CommandError> {
        match self.run::<PendingSummary>(&self.pending()).await {
            Ok((count, ..)) => Ok(Some(count)),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The last id of the stream; `None`: it does not exist.
    pub async fn last_id(&self) -> Result<Option<StreamId>, CommandError> {
        let mut command = redis::cmd("XINFO");
        command.arg("STREAM").arg(&self.stream);
        match self.run::<Value>(&command).await {
            Ok(info) => {
                Ok(text_of(&info, "last-generated-id").as_deref().and_then(StreamId::parse))
            }
            Err(error) if error.reply().and_then(RedisError::code) == Some("ERR") => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Creates the group, and the stream if it does not exist. `start` is the id of the entry
    /// before the first one, or `$`.
    pub async fn create(&self, start: &str) -> Result<(), CommandError> {
        let mut command = redis::cmd("XGROUP");
        command.arg("CREATE").arg(&self.stream).arg(&self.group).arg(start).arg("MKSTREAM");
        match self.run::<String>(&command).await {
            Err(error) if error.reply().and_then(RedisError::code) == Some("BUSYGROUP") => Ok(()),
            created => created.map(drop),
        }
    }

    /// Reads entries that any consumer has received and not confirmed.
    pub async fn unconfirmed(&self, count: usize) -> Result<Unconfirmed, CommandError> {
        let mut command = redis::cmd("XAUTOCLAIM");
        command.arg(&self.stream).arg(&self.group).arg(CONSUMER).arg(0).arg("0-0");
        command.arg("COUNT").arg(count);
        let (next, raw, deleted): (String, Vec<RawEntry>, Vec<String>) = self.run(&command).await?;
        Ok(Unconfirmed { entries: entries(raw), deleted: deleted.len(), is_end: next == "0-0" })
    }

    /// Waits for entries that were not delivered before. After `wait`, none is delivered to this
    /// call.
    pub async fn fresh(&self, count: usize, wait: Duration) -> Result<Fresh, CommandError> {
        let mut read = redis::cmd("XREADGROUP");
        read.arg("GROUP").arg(&self.group).arg(CONSUMER).arg("COUNT").arg(count);
        // 0 would be for ever.
        read.arg("BLOCK").arg(wait.as_millis().max(1) as u64);
        read.arg("STREAMS").arg(&self.stream).arg(">");
        let mut pipeline = redis::pipe();
        pipeline.add_command(read).add_command(self.pending());
        type Streams = Option<Vec<(String, Vec<RawEntry>)>>;
        let (streams, (pending, first, last, _)): (Streams, PendingSummary) =
            self.here()?.run_all(&pipeline).await?;
        let raw = streams.into_iter().flatten().flat_map(|(_, entries)| entries).collect();
        let entries = entries(raw);
        let ends = [entries.first(), entries.last()].map(|entry| entry.map(|entry| &*entry.id));
        let are_alone =
            pending == entries.len() as u64 && ends == [first.as_deref(), last.as_deref()];
        Ok(Fresh { entries, are_alone })
    }

    /// Confirms entries.
    pub async fn confirm(&self, ids: &[String]) -> Result<(), CommandError> {
        let mut command = redis::cmd("XACK");
        command.arg(&self.stream).arg(&self.group).arg(ids);
        self.run::<u64>(&command).await.map(drop)
    }

    /// The number of entries that were trimmed before they were delivered, since the last call.
    /// Known only if all entries that are still in the stream were delivered; otherwise 0. Also 0
    /// if entries were deleted one by one (`XDEL`).
    pub async fn trimmed(&self) -> Result<u64, CommandError> {
        let mut of_stream = redis::cmd("XINFO");
        of_stream.arg("STREAM").arg(&self.stream);
        let mut of_groups = redis::cmd("XINFO");
        of_groups.arg("GROUPS").arg(&self.stream);
        let mut pipeline = redis::pipe();
        pipeline.atomic().add_command(of_stream).add_command(of_groups);
        let (stream, groups): (Value, Vec<Value>) = self.here()?.run_all(&pipeline).await?;
        let own =
            groups.iter().find(|group| text_of(group, "name").as_deref() == Some(&self.group));
        let Some(own) = own else { return Ok(0) };
        let (last, added) =
            (text_of(&stream, "last-generated-id"), text_of(&stream, "entries-added"));
        let lag = text_of(own, "lag").and_then(|lag| lag.parse().ok()).unwrap_or(0);
        let (Some(last), Some(added)) = (last, added) else { return Ok(0) };
        if lag == 0 || text_of(own, "last-delivered-id").as_ref() != Some(&last) {
            return Ok(0);
        }
        // Otherwise they would be counted again.
        let mut command = redis::cmd("XGROUP");
        command.arg("SETID").arg(&self.stream).arg(&self.group).arg(&last);
        command.arg("ENTRIESREAD").arg(added);
        self.run::<String>(&command).await?;
        Ok(lag)
    }

    /// Commands that this user may not run on the stream.
    pub async fn refused(&self) -> Result<Vec<&'static str>, CommandError> {
        let (s, g) = (&*self.stream, &*self.group);
        let probes: [(&'static str, &[&str]); 6] = [
            ("XPENDING", &[s, g]),
            ("XINFO", &["STREAM", s]),
            ("XGROUP", &["CREATE", s, g, "$"]),
            ("XAUTOCLAIM", &[s, g, CONSUMER, "0", "0-0"]),
            ("XREADGROUP", &["GROUP", g, CONSUMER, "STREAMS", s, ">"]),
            ("XACK", &[s, g, "0-0"]),
        ];
        // Redis checks permissions when it queues a command, and nothing is executed.
        let mut pipeline = redis::pipe();
        pipeline.cmd("MULTI");
        for (name, args) in &probes {
            pipeline.cmd(name).arg(args);
        }
        pipeline.cmd("DISCARD").ignore_errors();
        let replies: Vec<RedisResult<Value>> = self.here()?.run_all(&pipeline).await?;
        let refused = |reply: &RedisResult<Value>| {
            reply.as_ref().is_err_and(|error| error.code() == Some("NOPERM"))
        };
        let pairs = probes.iter().zip(&replies[1..]);
        Ok(pairs.filter(|(_, reply)| refused(reply)).map(|((name, _), _)| *name).collect())
    }
}

/// The reply of XPENDING: number, first and last id, and the number of each consumer.
type PendingSummary = (u64, Option<String>, Option<String>, Value);

/// A value of a reply of names and values, as text.
fn text_of(reply: &Value, name: &str) -> Option<String> {
    let is_named = |found: &Value| {
        redis::from_redis_value_ref::<String>(found).is_ok_and(|found| found == name)
    };
    let value = match reply {
        Value::Array(items) => &items.chunks_exact(2).find(|pair| is_named(&pair[0]))?[1],
        Value::Map(pairs) => pairs.iter().find(|(found, _)| is_named(found)).map(|(_, v)| v)?,
        _ => return None,
    };
    redis::from_redis_value_ref::<Option<String>>(value).ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_compared_by_time_and_number() {
        let id = |text| StreamId::parse(text).unwrap();
        assert!(id("9-1") < id("10-0") && id("10-9") < id("10-10"));
        assert_eq!(StreamId::parse("7"), None);
    }
}

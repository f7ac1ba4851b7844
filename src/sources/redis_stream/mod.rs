//! A Redis stream that others write, read through a consumer group.
//!
//! The group knows which entries were delivered and not confirmed. All instances are the same
//! consumer of it. A reader begins with what was not confirmed, in order. After each read it
//! checks that nobody else has received an entry: a paused reader may have, and these entries come
//! first.

mod group;
pub mod mapping;

use std::time::Duration;

use self::group::{Fresh, Group, StreamEntry, StreamId, Unconfirmed};
use super::{
    metrics::SourceMetrics,
    source::{Entry, MAX_BYTES, MAX_ENTRIES, Outcome, Source, SourceError},
};
use crate::{
    redis::{
        commands::{CommandError, Commands},
        locate::Locator,
        tls::TlsError,
    },
    settings::{
        self,
        sources::{RedisStream as StreamSettings, StreamStart},
    },
};

/// Entries of the first read. The number grows as long as entries are small.
const FIRST_COUNT: usize = 16;

/// Ids with lower times are not those of a clock: the year 2001.
const FIRST_MS: u64 = 1_000_000_000_000;

/// A Redis stream.
pub struct RedisStream {
    settings: StreamSettings,
    group: Group,
    /// The Redis of the gateway, where the position is kept in case that the group is deleted.
    gateway: Commands,
    position_key: String,
    metrics: SourceMetrics,
    /// The longest wait that leaves time for the reply.
    max_wait: Duration,
    /// The last confirmed entry, as far as this instance knows.
    position: Option<String>,
    /// Whether everything that was not confirmed by earlier readers was read.
    is_live: bool,
    /// The ids of the last `next`.
    unconfirmed: Vec<String>,
    count: usize,
    /// Whether entries were read since it was checked that none was trimmed.
    has_read: bool,
}

/// Connections to the Redis of a stream, if it is another one than that of the gateway.
///
/// # Errors
/// The files in `[redis.tls]` cannot be used.
pub fn own_commands(
    stream: &StreamSettings,
    redis: &settings::Redis,
) -> Result<Option<(Commands, Locator)>, TlsError> {
    let Some(url) = &stream.url else { return Ok(None) };
    let redis = settings::Redis { url: url.clone(), ..redis.clone() };
    let locator = Locator::new(&redis)?;
    Ok(Some((Commands::new(&redis, locator.clone(), None), locator)))
}

impl RedisStream {
    /// `commands` reach the Redis of the stream, and `gateway` that of the gateway.
    pub fn new(
        settings: StreamSettings,
        commands: Commands,
        gateway: Commands,
        command_timeout: Duration,
        metrics: SourceMetrics,
    ) -> Self {
        let group = Group::new(commands, settings.stream.clone(), settings.group.clone());
        Self {
            position_key: gateway.keys.source_position(&settings.name),
            group,
            gateway,
            settings,
            metrics,
            max_wait: command_timeout / 2,
            position: None,
            is_live: false,
            unconfirmed: Vec::new(),
            count: FIRST_COUNT,
            has_read: true,
        }
    }

    fn error(&self, what: &str, error: CommandError) -> SourceError {
        let StreamSettings { stream, group, .. } = &self.settings;
        if error.is_wrong_type() {
            let text = format!(
                "the key {stream:?} is not a stream; delete it, or name another key in \
                 sources.redis_streams"
            );
            return SourceError::misconfigured(text).caused_by(error);
        }
        let address = self.group.address();
        SourceError::unavailable(
            format!("could not {what} (group {group:?} of the stream {stream:?} at {address})"),
            error,
        )
    }

    /// Creates the group if it does not exist: after the last confirmed entry if there is one.
    async fn create_group(&mut self) -> Result<(), SourceError> {
        if self.position.is_none() {
            let mut get = redis::cmd("GET");
            get.arg(&self.position_key);
            let stored = self.gateway.run::<Option<String>>(&get).await;
            let stored = stored.map_err(|error| {
                SourceError::unavailable("could not read the position of the source", error)
            })?;
            self.position = stored.and_then(|stored| self.own_position(&stored));
        }
        let last = self.group.last_id().await.map_err(|e| self.error("read the stream", e))?;
        let start = match (&self.position, self.settings.start) {
            (None, StreamStart::New) => "$",
            (None, StreamStart::Beginning) => "0",
            // The stream was deleted, too, and begins again.
            (Some(position), _) if last < StreamId::parse(position) => "0",
            (Some(position), _) => position,
        };
        self.group.create(start).await.map_err(|e| self.error("create the consumer group", e))?;
        let StreamSettings { name, stream, group, .. } = &self.settings;
        if self.position.is_some() {
            tracing::warn!(
                source = name,
                stream,
                group,
                start,
                "the consumer group was missing and was created again"
            );
        } else {
            tracing::info!(source = name, stream, group, start, "created the consumer group");
        }
        Ok(())
    }

    /// The position in a stored text, unless it is that of another stream.
    fn own_position(&self, stored: &str) -> Option<String> {
        let (position, stream) = stored.split_once(' ')?;
        StreamId::parse(position)?;
        (stream == self.settings.stream).then(|| position.to_owned())
    }

    fn count_lost(&self, lost: u64, message: &str) {
        if lost > 0 {
            let StreamSettings { name, stream, .. } = &self.settings;
            self.metrics.lost.inc_by(lost);
            tracing::error!(source = name, stream, lost, "{message}");
        }
    }

    /// Reads what earlier readers have received and not confirmed. `None`: nothing is left.
    async fn read_unconfirmed(&mut self) -> Result<Option<Vec<StreamEntry>>, CommandError> {
        loop {
            let Unconfirmed { entries, deleted, is_end } =
                self.group.unconfirmed(self.count).await?;
            self.count_lost(
                deleted as u64,
                "entries were deleted from the stream before they were published; keep them until \
                 they are confirmed",
            );
            match (entries.is_empty(), is_end) {
                (false, _) => return Ok(Some(entries)),
                (true, true) => return Ok(None),
                (true, false) => {}
            }
        }
    }

    /// The next entries; none if there are none within `wait`.
    async fn read(&mut self, wait: Duration) -> Result<Vec<StreamEntry>, CommandError> {
        if !self.is_live {
            if let Some(entries) = self.read_unconfirmed().await? {
                return Ok(entries);
            }
            self.is_live = true;
        }
        let wait = wait.min(self.max_wait);
        let Fresh { entries, are_alone } = self.group.fresh(self.count, wait).await?;
        if !are_alone {
            // Those of the other reader come first; these ones are not confirmed, either.
            tracing::warn!(
                source = self.settings.name,
                group = self.settings.group,
                "another reader has received entries; they are read first"
            );
            self.is_live = false;
            return Ok(Vec::new());
        }
        if entries.is_empty() && std::mem::take(&mut self.has_read) {
            let trimmed = self.group.trimmed().await?;
            self.count_lost(
                trimmed,
                "entries were trimmed from the stream before they were read; raise MAXLEN of its \
                 XADD",
            );
        }
        Ok(entries)
    }

    /// Adapts the number of entries of the next read to the size of these.
    fn adapt_count(&mut self, entries: &[StreamEntry]) {
        let bytes: usize = entries.iter().map(StreamEntry::bytes).sum();
        if bytes > MAX_BYTES {
            self.count = (self.count / 2).max(1);
        } else if entries.len() == self.count && bytes < MAX_BYTES / 4 {
            self.count = (self.count * 2).min(MAX_ENTRIES);
        }
    }
}

impl Source for RedisStream {
    fn name(&self) -> &str {
        &self.settings.name
    }

    async fn prepare(&mut self) -> Result<(), SourceError> {
        let found = self.group.count_unconfirmed().await;
        match found.map_err(|error| self.error("read the consumer group", error))? {
            Some(0) => {}
            Some(entries) => tracing::info!(
                source = self.settings.name,
                entries,
                "continuing with entries that were read and not confirmed"
            ),
            None => self.create_group().await?,
        }
        Ok(())
    }

    async fn next(&mut self, wait: Duration) -> Result<Vec<Entry>, SourceError> {
        let entries =
            self.read(wait).await.map_err(|error| self.error("read the stream", error))?;
        self.has_read |= !entries.is_empty();
        self.adapt_count(&entries);
        self.unconfirmed = entries.iter().map(|entry| entry.id.clone()).collect();
        let entry = |StreamEntry { id, fields }: StreamEntry| Entry {
            event: mapping::event(&self.settings.mapping, &fields),
            // Others were chosen by the writer.
            written_ms: StreamId::parse(&id).map(|id| id.ms).filter(|ms| *ms >= FIRST_MS),
            id,
        };
        Ok(entries.into_iter().map(entry).collect())
    }

    async fn done(&mut self, _: &[Outcome]) -> Result<(), SourceError> {
        let ids = std::mem::take(&mut self.unconfirmed);
        let confirmed = self.group.confirm(&ids).await;
        confirmed.map_err(|error| self.error("confirm entries", error))?;
        let Some(last) = ids.into_iter().next_back() else { return Ok(()) };
        let mut set = redis::cmd("SET");
        set.arg(&self.position_key).arg(format!("{last} {}", self.settings.stream));
        self.position = Some(last);
        self.gateway.run::<()>(&set).await.map_err(|error| {
            SourceError::unavailable("could not write the position of the source", error)
        })
    }

    async fn close(&mut self) {
        self.unconfirmed.clear();
        self.is_live = false;
        self.has_read = true;
    }

    async fn check(&mut self) -> Result<String, SourceError> {
        let StreamSettings { stream, group, .. } = &self.settings;
        let refused = self.group.refused().await;
        let refused = refused.map_err(|error| self.error("check the permissions", error))?;
        if !refused.is_empty() {
            return Err(SourceError::misconfigured(format!(
                "Redis refuses {} on {stream:?}; allow the user what docs/guides/redis-streams.md \
                 lists",
                refused.join(", ")
            )));
        }
        let found = self.group.count_unconfirmed().await;
        Ok(match found.map_err(|error| self.error("read the consumer group", error))? {
            Some(count) => format!(
                "stream {stream:?}, group {group:?}: {count} entries read and not confirmed"
            ),
            None => format!(
                "stream {stream:?}: the group {group:?} does not exist yet; it is created when the \
                 gateway starts"
            ),
        })
    }
}

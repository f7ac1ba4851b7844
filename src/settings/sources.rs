//! The settings of external sources.

use super::{Postgres, RedisUrl};
use crate::core::template::Template;

/// `[sources]`
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// Redis streams that others write.
    pub redis_streams: Vec<RedisStream>,
    /// An outbox table and notifications of Postgres.
    pub postgres: Postgres,
}

impl Sources {
    /// The number of sources.
    pub fn len(&self) -> usize {
        let Self { redis_streams, postgres } = self;
        redis_streams.len() + postgres.len()
    }

    /// Whether no source is configured.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// One table of `sources.redis_streams`.
#[derive(Clone, Debug)]
pub struct RedisStream {
    /// The name of the source.
    pub name: String,
    /// The key of the stream.
    pub stream: String,
    /// The consumer group.
    pub group: String,
    /// The Redis of the stream; `None`: that of the gateway.
    pub url: Option<RedisUrl>,
    /// Where a new consumer group begins.
    pub start: StreamStart,
    /// How an entry becomes an event.
    pub mapping: EntryMapping,
}

/// Where a new consumer group begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StreamStart {
    /// With entries that are written from then on.
    #[default]
    New,
    /// With the first entry of the stream.
    Beginning,
}

/// How an entry becomes an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryMapping {
    /// The fields of the entry have the names of an event's members.
    Members,
    /// A field contains an envelope.
    Envelope {
        /// The name of the field.
        field: String,
        /// The channel; `None`: the field `channel`.
        channel: Option<Template>,
    },
    /// Templates make the event of any fields.
    Templates(Box<EntryTemplates>),
}

/// The event that is made of any fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryTemplates {
    /// The channel.
    pub channel: Template,
    /// The type; `None`: `message`.
    pub kind: Option<Template>,
    /// The field with the payload; `None`: an object of all fields.
    pub payload: Option<String>,
    /// The idempotency key; `None`: of the entry's id.
    pub key: Option<Template>,
    /// The key of the retained value.
    pub keep: Option<Template>,
}

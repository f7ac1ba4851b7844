use std::{collections::HashMap, time::Duration};

use redis::{Cmd, ConnectionLike, RedisError, RedisResult, cmd};

use crate::{Error, SseGateway, retries::Retries};

const READ_AT_MOST: usize = 100;
const CLAIM_AFTER: Duration = Duration::from_secs(60);

/// An event that its user was not handed in time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undelivered {
    /// The entry's id, for [`SseGateway::acknowledge`].
    pub entry: String,
    /// The event's channel.
    pub channel: String,
    /// The event's id.
    pub id: String,
    /// The event's type.
    pub kind: String,
    /// As published: usually JSON.
    pub payload: String,
}

type Entries = Vec<(String, HashMap<String, String>)>;
type Claimed = (String, Entries, Vec<String>);
type Read = Option<Vec<(String, Entries)>>;

/// The commands that read as a consumer of a group.
struct Reader {
    create: Cmd,
    claim: Cmd,
    read: Cmd,
}

impl Reader {
    fn new(stream: &str, group: &str, consumer: &str, idle: Duration) -> Self {
        let [mut create, mut claim, mut read] = ["XGROUP", "XAUTOCLAIM", "XREADGROUP"].map(cmd);
        create.arg(("CREATE", stream, group, "0", "MKSTREAM"));
        claim.arg((stream, group, consumer, idle.as_millis() as u64, "0", "COUNT", READ_AT_MOST));
        read.arg(("GROUP", group, consumer, "COUNT", READ_AT_MOST, "STREAMS", stream, ">"));
        Self { create, claim, read }
    }
}

fn created(reply: RedisResult<()>) -> RedisResult<()> {
    let exists = |error: &RedisError| error.code() == Some("BUSYGROUP");
    reply.or_else(|error| if exists(&error) { Ok(()) } else { Err(error) })
}

fn entries(reply: Read) -> Entries {
    reply.into_iter().flatten().next().map(|(_, entries)| entries).unwrap_or_default()
}

fn events(entries: Entries) -> Vec<Undelivered> {
    let event = |(entry, mut fields): (String, HashMap<String, String>)| {
        let [channel, id, kind, payload] = ["channel", "id", "type", "payload"]
            .map(|name| fields.remove(name).unwrap_or_default());
        Undelivered { entry, channel, id, kind, payload }
    };
    entries.into_iter().map(event).collect()
}

impl SseGateway {
    /// Reads up to 100 undelivered events as a consumer of a group: first those that another
    /// consumer read a minute ago and did not acknowledge, then new ones. Does not wait for events.
    pub fn undelivered(
        &self,
        redis: &mut impl ConnectionLike,
        group: &str,
        consumer: &str,
    ) -> Result<Vec<Undelivered>, Error> {
        self.claim(redis, group, consumer, CLAIM_AFTER)
    }

    /// Like [`SseGateway::undelivered`], but takes over events that another consumer read at least
    /// `idle` ago.
    pub fn claim(
        &self,
        redis: &mut impl ConnectionLike,
        group: &str,
        consumer: &str,
        idle: Duration,
    ) -> Result<Vec<Undelivered>, Error> {
        let reader = Reader::new(&self.undelivered, group, consumer, idle);
        let found = self.repeatable().run(|| {
            created(reader.create.query(redis))?;
            let (_, claimed, _): Claimed = reader.claim.query(redis)?;
            if claimed.is_empty() { reader.read.query(redis).map(entries) } else { Ok(claimed) }
        });
        found.map(events)
    }

    /// Acknowledges undelivered events: no consumer of the group gets them again.
    pub fn acknowledge(
        &self,
        redis: &mut impl ConnectionLike,
        group: &str,
        events: &[Undelivered],
    ) -> Result<(), Error> {
        let Some(call) = self.acknowledgement(group, events) else { return Ok(()) };
        self.repeatable().run(|| call.query(redis))
    }

    /// The asynchronous form of [`SseGateway::undelivered`].
    #[cfg(feature = "tokio")]
    pub async fn undelivered_async(
        &self,
        redis: &mut impl redis::aio::ConnectionLike,
        group: &str,
        consumer: &str,
    ) -> Result<Vec<Undelivered>, Error> {
        self.claim_async(redis, group, consumer, CLAIM_AFTER).await
    }

    /// The asynchronous form of [`SseGateway::claim`].
    #[cfg(feature = "tokio")]
    pub async fn claim_async(
        &self,
        redis: &mut impl redis::aio::ConnectionLike,
        group: &str,
        consumer: &str,
        idle: Duration,
    ) -> Result<Vec<Undelivered>, Error> {
        let reader = Reader::new(&self.undelivered, group, consumer, idle);
        let call = async || {
            created(reader.create.query_async(redis).await)?;
            let (_, claimed, _): Claimed = reader.claim.query_async(redis).await?;
            if !claimed.is_empty() {
                return Ok(claimed);
            }
            reader.read.query_async(redis).await.map(entries)
        };
        self.repeatable().run_async(call).await.map(events)
    }

    /// The asynchronous form of [`SseGateway::acknowledge`].
    #[cfg(feature = "tokio")]
    pub async fn acknowledge_async(
        &self,
        redis: &mut impl redis::aio::ConnectionLike,
        group: &str,
        events: &[Undelivered],
    ) -> Result<(), Error> {
        let Some(call) = self.acknowledgement(group, events) else { return Ok(()) };
        self.repeatable().run_async(async || call.query_async(redis).await).await
    }

    fn acknowledgement(&self, group: &str, events: &[Undelivered]) -> Option<Cmd> {
        let entries: Vec<_> = events.iter().map(|event| &event.entry).collect();
        let mut call = cmd("XACK");
        call.arg((&self.undelivered, group)).arg(&entries);
        (!entries.is_empty()).then_some(call)
    }

    fn repeatable(&self) -> Retries {
        Retries::new(self.settings.retry_for, true)
    }
}

//! What was published, as the demo page shows it next to what it received. Read from the logs and
//! not from a stream, so that it does not depend on the delivery that the page demonstrates, and
//! does not make a user online.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::{
    core::{
        catch_up::ClockSnapshot,
        channel::Channel,
        event::Event,
        id::{EventId, StreamPosition},
        topics::Topics,
    },
    http::worker::Worker,
    redis::{
        commands::CommandError,
        history::{self, HistoryRange},
        link::LinkDown,
        log,
        routes::Route,
    },
    state::clock::unix_ms,
};

/// Maximum number of events, and of their bytes, to read from one log.
const LIMIT: usize = 1000;
const LIMIT_BYTES: usize = 8 << 20;
/// Maximum number of topics to read at a time; the page does not show new events of further ones.
const MAX_TOPICS: usize = 100;

/// Why the logs cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum PublishedError {
    /// There is no link to a server.
    #[error("Redis is unavailable")]
    Link,
    /// A command failed.
    #[error(transparent)]
    Command(#[from] CommandError),
}

impl From<LinkDown> for PublishedError {
    fn from(_: LinkDown) -> Self {
        Self::Link
    }
}

/// The events of a user's channel and of all broadcasts that were stored after a position, and the
/// position from which to continue; without a position, only that of now.
///
/// # Errors
/// See [`PublishedError`].
pub async fn published(
    worker: &Worker,
    user: &str,
    after: Option<StreamPosition>,
) -> Result<Value, PublishedError> {
    let routes = &worker.admission.routes;
    let of_user = routes.user_when_up(user).await.ok_or(PublishedError::Link)?;
    let broadcasts = routes.broadcasts_when_up().await.ok_or(PublishedError::Link)?;
    // Before the logs are read: then they contain everything up to these positions.
    let (user_clock, clock) =
        (of_user.link().log_snapshot().await?, broadcasts.link().log_snapshot().await?);
    let Some(after) = after else {
        return Ok(reply(&[], StreamPosition { user: user_clock.h, broadcasts: clock.h }));
    };
    let channel = Channel::User(user.into());
    let (mut events, user) = read(&of_user, &user_clock, after.user, vec![channel]).await?;
    let since_ms = after.broadcasts.ms;
    let all = Topics::parse(["*"].into_iter()).unwrap_or_default();
    let (mut channels, _) = log::active_broadcasts(&broadcasts.commands, &all, since_ms).await?;
    channels.truncate(MAX_TOPICS);
    let (more, upto) = read(&broadcasts, &clock, after.broadcasts, channels).await?;
    events.extend(more);
    Ok(reply(&events, StreamPosition { user, broadcasts: upto }))
}

/// Reads channels of one server, in the order of their ids, up to the first position at which one
/// of them exceeds the limits.
async fn read(
    route: &Route,
    clock: &ClockSnapshot,
    after: EventId,
    channels: Vec<Channel>,
) -> Result<(Vec<Arc<Event>>, EventId), PublishedError> {
    let (mut events, mut upto) = (Vec::new(), clock.h);
    for channel in channels {
        let range =
            HistoryRange { channel, after, until: None, limit: LIMIT, limit_bytes: LIMIT_BYTES };
        let page = history::read(&route.commands, &range, clock, |_| true).await?;
        if let (Some(_), Some(last)) = (page.next, page.events.last()) {
            upto = upto.min(last.id.unwrap_or(upto));
        }
        events.extend(page.events);
    }
    events.retain(|event: &Arc<Event>| event.id.is_some_and(|id| id <= upto));
    events.sort_by_key(|event| event.id);
    Ok((events, upto))
}

fn reply(events: &[Arc<Event>], next: StreamPosition) -> Value {
    let event = |event: &Arc<Event>| {
        let id = event.id.unwrap_or_default();
        json!({
            "id": id.to_string(),
            "at": id.ms,
            "type": event.kind(),
            "channel": event.channel.to_string(),
        })
    };
    let events: Vec<Value> = events.iter().map(event).collect();
    json!({ "events": events, "next": next.to_string(), "now": unix_ms() })
}

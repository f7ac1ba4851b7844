//! The watermark of the link's server: a position up to which everything has arrived on the link,
//! because Redis orders the reply with the messages (ARCHITECTURE.md#clock-epochs-and-watermark).

use redis::{Cmd, RedisResult, aio::ConnectionLike};

use super::{
    commands::{CommandError, Commands},
    locate::{Confirmation, LocateError},
    named_reply::NamedReply,
};
use crate::{
    core::{
        catch_up::ClockSnapshot,
        id::{EventId, parse_epoch},
    },
    settings::ServerAddress,
};

/// Why there is no watermark.
#[derive(Debug, thiserror::Error)]
pub enum WatermarkError {
    /// Redis does not reply, or replies with an error.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// The server is a replica.
    #[error("the server is a replica; redis.url must name the primary")]
    Replica,
    /// The sentinels name another server.
    #[error("the sentinels name another server as the primary")]
    Deposed,
    /// The sentinels cannot say whether the server is the primary.
    #[error("the server is not confirmed as the primary")]
    Unconfirmed(#[from] LocateError),
    /// The library is not loaded.
    #[error("the function library is not loaded")]
    NoLibrary,
    /// The reply makes no sense.
    #[error("the function library returned an impossible position")]
    Reply,
}

fn call(commands: &Commands, function: &str, seen: EventId) -> Cmd {
    let mut call = commands.call(function, &[commands.keys.node()]);
    call.arg(seen.to_string());
    call
}

/// Takes the watermark of the server on `connection`, and adopts the server if it is not known
/// (yet).
/// `server` is the address of the connection, which sentinels must confirm before an adoption.
/// `seen` is the highest id that this instance has received: an adopted server's clock is past it.
///
/// # Errors
/// See [`WatermarkError`].
pub async fn take(
    connection: &mut impl ConnectionLike,
    commands: &Commands,
    server: Option<&ServerAddress>,
    seen: EventId,
) -> Result<ClockSnapshot, WatermarkError> {
    let mut reply = query(connection, &call(commands, "watermark", seen)).await?;
    if reply.text("state") == "unknown" {
        if commands.locator.confirms(server).await? == Confirmation::Denied {
            return Err(WatermarkError::Deposed);
        }
        reply = query(connection, &call(commands, "adopt", seen)).await?;
    }
    match reply.text("state") {
        "replica" => Err(WatermarkError::Replica),
        "adopted" => snapshot(&reply).ok_or(WatermarkError::Reply),
        _ => Err(WatermarkError::Reply),
    }
}

/// The watermark of an adopted server, for commands that do not read the link: the snapshot says
/// nothing about what has arrived. `None`: no gateway has adopted this server.
///
/// # Errors
/// See [`WatermarkError`].
pub async fn observe(
    connection: &mut impl ConnectionLike,
    commands: &Commands,
) -> Result<Option<ClockSnapshot>, WatermarkError> {
    match query(connection, &call(commands, "watermark", EventId::ZERO)).await {
        Ok(reply) => Ok(snapshot(&reply)),
        Err(WatermarkError::NoLibrary) => Ok(None),
        Err(error) => Err(error),
    }
}

async fn query(
    connection: &mut impl ConnectionLike,
    call: &Cmd,
) -> Result<NamedReply, WatermarkError> {
    let reply: RedisResult<NamedReply> = call.query_async(connection).await;
    reply.map_err(|error| match error.detail() {
        Some(detail) if detail.contains("Function not found") => WatermarkError::NoLibrary,
        _ => CommandError::from(error).into(),
    })
}

/// The snapshot in a reply; `None` if it has none, or an impossible one.
fn snapshot(reply: &NamedReply) -> Option<ClockSnapshot> {
    let text = |name: &str| reply.text(name);
    let ms = |name: &str| reply.number::<u64>(name).unwrap_or(0);
    let now_ms = ms("now_ms");
    let h = EventId::parse(text("h")).filter(|h| h.is_plausible(now_ms))?;
    // Without a start, all of a log is read for cursors of an earlier epoch.
    let start = EventId::parse_entry(text("start"), h.epoch).filter(|start| *start <= h);
    // A break that this server's clock cannot have reached is forged, or of another history.
    let unrecorded = EventId::parse(text("unrecorded")).filter(|id| *id <= h);
    Some(ClockSnapshot {
        h,
        start: start.unwrap_or_default(),
        previous_epoch: parse_epoch(text("previous")).unwrap_or(0),
        unrecorded: unrecorded.unwrap_or_default(),
        raised_ms: ms("raised_ms"),
        shorter_ms: ms("shorter_ms"),
        now_ms,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPLY: [(&str, &str); 8] = [
        ("state", "adopted"),
        ("h", "900-3.b"),
        ("start", "800-0"),
        ("previous", "a"),
        ("unrecorded", ""),
        ("raised_ms", "0"),
        ("shorter_ms", "0"),
        ("now_ms", "905"),
    ];

    fn with(changes: &[(&str, &str)]) -> Option<ClockSnapshot> {
        let text = |text: &str| redis::Value::BulkString(text.into());
        let all = REPLY.iter().chain(changes);
        let pairs = all.flat_map(|(name, value)| [text(name), text(value)]).collect();
        snapshot(&redis::from_redis_value(redis::Value::Array(pairs)).unwrap())
    }

    #[test]
    fn snapshot_is_read_by_name() {
        let clock = with(&[("unrecorded", "850-0.b"), ("raised_ms", "7")]).unwrap();
        assert_eq!(clock.h, EventId::parse("900-3.b").unwrap());
        assert_eq!(clock.start, EventId::parse("800-0.b").unwrap());
        assert_eq!((clock.previous_epoch, clock.raised_ms, clock.now_ms), (10, 7, 905));
        assert_eq!(clock.unrecorded, EventId::parse("850-0.b").unwrap());
        assert_eq!(with(&[]).unwrap().unrecorded, EventId::ZERO);
    }

    #[test]
    fn impossible_values_are_not_believed() {
        assert_eq!(with(&[("h", "900-3")]), None);
        assert_eq!(with(&[("h", "99999999999999-0.b")]), None);
        assert_eq!(with(&[("start", "901-0")]).unwrap().start, EventId::ZERO);
        assert_eq!(
            with(&[("unrecorded", "99999999999999-0.b")]).unwrap().unrecorded,
            EventId::ZERO
        );
    }
}

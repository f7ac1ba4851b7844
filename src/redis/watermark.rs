//! The watermark of the link's server: a position up to which everything has arrived on the link,
//! because Redis orders the reply with the messages (ARCHITECTURE.md#clock-epochs-and-watermark).

use std::sync::Arc;

use redis::{Cmd, RedisResult, aio::ConnectionLike};

use super::{
    adoption::NotAdopted,
    cluster::slots::SlotRanges,
    commands::{CommandError, Commands},
    locate::LocateError,
    named_reply::NamedReply,
};
use crate::core::{
    catch_up::ClockSnapshot,
    channel_rules::Retentions,
    id::{Epoch, EventId, parse_epoch},
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
    /// The sentinels cannot say whether the server is the primary.
    #[error("the server is not confirmed as the primary")]
    Unconfirmed(#[from] LocateError),
    /// The node owns no slot (any more).
    #[error("the node of the cluster owns no slot")]
    NoSlot,
    /// The library is not loaded.
    #[error("the function library is not loaded")]
    NoLibrary,
    /// The server is not the primary, or may not be it.
    #[error(transparent)]
    NotAdopted(#[from] NotAdopted),
    /// The reply makes no sense.
    #[error("the function library returned an impossible position")]
    Reply,
}

/// What a watermark says about its server.
pub enum Taken {
    /// The server is adopted.
    Adopted(Watermark),
    /// The server is not adopted.
    Unknown(UnknownServer),
}

/// The watermark of an adopted server.
pub struct Watermark {
    /// The position up to which everything has arrived, and more.
    pub clock: ClockSnapshot,
    /// Whether the server knows that its data is or was on other servers, too.
    pub is_replicated: bool,
    /// Whether the node key does not say so yet: adopt the server again.
    pub is_unmarked: bool,
}

/// A server process that is not adopted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownServer {
    /// The process.
    pub run_id: Arc<str>,
    /// The last epoch that it or its node key knows; its clock, at least the time of Redis.
    pub known: EventId,
    /// Whether its data is or was on other servers, too.
    pub is_replicated: bool,
    /// The slots that it owns, if it is a node of a cluster.
    pub slots: SlotRanges,
    /// Whether it has yielded to another server at its address.
    pub is_yielded: bool,
}

/// What a gateway knows about a server that it adopts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AdoptOptions {
    /// The process has all data of the one before, to which the gateway was linked.
    pub is_durable: bool,
    /// The former primary follows the server and lost nothing: a planned failover.
    pub is_handed_over: bool,
    /// The server is not the only one: Sentinel or a cluster named it.
    pub is_replicated: bool,
    /// Channels of the server have or had retained values.
    pub had_values: bool,
    /// Events up to this position of a rival are lost.
    pub lost: Option<EventId>,
    /// For a node of a cluster: what the gateway knows of the other nodes.
    pub cluster: Option<ClusterKnowledge>,
}

/// What a gateway knows of the other nodes of a cluster when it adopts one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterKnowledge {
    /// The highest position of each other node.
    pub others: Vec<EventId>,
    /// The slots of the node, as far as the gateway knows.
    pub slots: Arc<SlotRanges>,
    /// The slots that moved to this node without a loss, and the epochs that they continue.
    pub vouchers: Vec<(SlotRanges, Vec<u64>)>,
}

impl ClusterKnowledge {
    /// A position after all that the others have assigned.
    fn floor(&self) -> EventId {
        self.others.iter().fold(EventId::ZERO, |floor, id| EventId {
            epoch: floor.epoch.max(id.epoch),
            ..if (id.ms, id.seq) > (floor.ms, floor.seq) { *id } else { floor }
        })
    }

    /// The highest position in an epoch, if one is known; otherwise the epoch's first one.
    pub fn highest_in(&self, epoch: u64) -> EventId {
        let in_epoch = self.others.iter().filter(|id| id.epoch == epoch);
        in_epoch.max().copied().unwrap_or(EventId { epoch, ..EventId::ZERO })
    }
}

/// A call of a function of adoption, with its key and its first argument.
///
/// # Errors
/// The node owns no slot.
pub(super) fn call(commands: &Commands, function: &str, seen: &str) -> Result<Cmd, WatermarkError> {
    let mut call = commands.call(function, &[commands.node_key().ok_or(WatermarkError::NoSlot)?]);
    call.arg(seen);
    Ok(call)
}

/// Takes the watermark of the server on `connection`.
/// `seen` is the highest id that this instance has received: an adopted server's clock is past it.
///
/// # Errors
/// See [`WatermarkError`].
pub async fn take(
    connection: &mut impl ConnectionLike,
    commands: &Commands,
    seen: EventId,
) -> Result<Taken, WatermarkError> {
    let reply = query(connection, &call(commands, "watermark", &seen.to_string())?).await?;
    match reply.text("state") {
        "unknown" => Ok(Taken::Unknown(UnknownServer {
            run_id: reply.text("run_id").into(),
            known: EventId::parse(reply.text("known")).unwrap_or_default(),
            is_replicated: reply.text("replicated") == "1",
            slots: SlotRanges::parse(reply.text("slots")),
            is_yielded: reply.text("yielded") == "1",
        })),
        _ => adopted(&reply).map(Taken::Adopted),
    }
}

/// Adopts the server on `connection`.
///
/// # Errors
/// See [`WatermarkError`].
pub async fn adopt(
    connection: &mut impl ConnectionLike,
    commands: &Commands,
    seen: EventId,
    options: AdoptOptions,
) -> Result<Watermark, WatermarkError> {
    let mut call = call(commands, "adopt", &seen.to_string())?;
    if options.is_durable {
        call.arg("DURABLE");
    }
    if options.is_handed_over {
        call.arg("HANDED-OVER");
    }
    if options.is_replicated {
        call.arg("REPLICATED");
    }
    if options.had_values {
        call.arg("KEPT");
    }
    if let Some(lost) = options.lost {
        call.arg("LOST").arg(lost.to_string());
    }
    if let Some(knowledge) = options.cluster {
        call.arg("FLOOR").arg(knowledge.floor().to_string());
        call.arg("SLOTS").arg(knowledge.slots.to_string());
        for (slots, epochs) in knowledge.vouchers {
            let epochs: Vec<String> =
                epochs.into_iter().map(|epoch| Epoch(epoch).to_string()).collect();
            call.arg("VOUCH").arg(slots.to_string()).arg(epochs.join(","));
        }
    }
    adopted(&query(connection, &call).await?)
}

fn adopted(reply: &NamedReply) -> Result<Watermark, WatermarkError> {
    match reply.text("state") {
        "replica" => Err(WatermarkError::Replica),
        "adopted" => Ok(Watermark {
            clock: snapshot(reply).ok_or(WatermarkError::Reply)?,
            is_replicated: reply.text("replicated") == "1",
            is_unmarked: reply.text("unmarked") == "1",
        }),
        _ => Err(WatermarkError::Reply),
    }
}

/// What a node of a cluster was when it gave slots away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Giver {
    /// The last position that it assigned, or a later one.
    pub h: EventId,
    /// The epochs of which nothing was lost, newest first: its own, and those that this continues.
    pub epochs: Vec<u64>,
    /// The slots that it owns now.
    pub slots: SlotRanges,
    /// Whether it is a replica now.
    pub is_replica: bool,
}

/// Asks a node that gives slots away; from now on it knows that they have left. `None`: it may not
/// have been their master all the time.
///
/// # Errors
/// The node does not reply, or has no library.
pub async fn ask_giver(
    connection: &mut impl ConnectionLike,
    commands: &Commands,
) -> RedisResult<Option<Giver>> {
    let call = commands.call::<&str>("given", &[]);
    let reply: NamedReply = call.query_async(connection).await?;
    // Without a position, it is unknown.
    Ok(EventId::parse(reply.text("h")).map(|h| {
        let continued = reply.text("continues").split(',').filter_map(parse_epoch);
        let epochs = std::iter::once(h.epoch).chain(continued).collect();
        let slots = SlotRanges::parse(reply.text("slots"));
        Giver { h, epochs, slots, is_replica: reply.text("state") == "replica" }
    }))
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
    // Without a position: this is no gateway, whose watermark confirms that the server is in use.
    match query(connection, &call(commands, "watermark", "")?).await {
        Ok(reply) => Ok(snapshot(&reply)),
        Err(WatermarkError::NoLibrary) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether gateways have adopted the server, or have taken its watermark, since it started.
pub async fn is_confirmed(connection: &mut impl ConnectionLike, commands: &Commands) -> bool {
    let Ok(call) = call(commands, "watermark", "") else { return false };
    query(connection, &call).await.is_ok_and(|reply| reply.text("confirmed") == "1")
}

/// The epoch in the memory of a replica's library. `None`: the server is not a replica, or its
/// library has no epoch.
///
/// # Errors
/// The server does not reply, or has no library.
pub async fn epoch_of_replica(
    connection: &mut impl ConnectionLike,
    commands: &Commands,
) -> RedisResult<Option<u64>> {
    // A replica of a cluster replies only then.
    let _: RedisResult<()> = redis::cmd("READONLY").query_async(connection).await;
    let call = call(commands, "watermark", "").map_err(std::io::Error::other)?;
    let reply: NamedReply = call.query_async(connection).await?;
    Ok((reply.text("state") == "replica").then(|| parse_epoch(reply.text("epoch"))).flatten())
}

/// Sends a call of [`call`].
///
/// # Errors
/// See [`WatermarkError`].
pub(super) async fn query(
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
        continues: text("continues").split(',').filter_map(parse_epoch).collect(),
        unrecorded: unrecorded.unwrap_or_default(),
        raised_ms: ms("raised_ms"),
        shorter_ms: ms("shorter_ms"),
        retentions: Retentions::parse(text("retentions")),
        now_ms,
        may_have_values: text("kept") == "1",
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
        let changes = [("unrecorded", "850-0.b"), ("raised_ms", "7"), ("continues", "a,9")];
        let clock = with(&changes).unwrap();
        assert!(clock.continues.contains(10) && clock.continues.contains(9));
        assert_eq!(clock.h, EventId::parse("900-3.b").unwrap());
        assert_eq!(clock.start, EventId::parse("800-0.b").unwrap());
        assert_eq!((clock.previous_epoch, clock.raised_ms, clock.now_ms), (10, 7, 905));
        assert_eq!(clock.unrecorded, EventId::parse("850-0.b").unwrap());
        assert_eq!(clock.retentions, None);
        let retentions = with(&[("retentions", "3600000 1f")]).unwrap().retentions;
        assert_eq!(retentions, Retentions::parse("3600000 1f"));
        let plain = with(&[]).unwrap();
        assert_eq!((plain.unrecorded, plain.continues), (EventId::ZERO, Default::default()));
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

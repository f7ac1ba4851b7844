//! Rivals: other primaries at the address of `redis.url`, which have a history of their own
//! (ARCHITECTURE.md#rivals).

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use redis::{RedisResult, aio::ConnectionLike, aio::MultiplexedConnection};
use tokio::sync::mpsc;

use super::{
    adoption::PROBE_INTERVAL,
    commands::Commands,
    link_context::LinkContext,
    named_reply::NamedReply,
    pool,
    watermark::{self, WatermarkError},
};
use crate::core::id::{Epoch, EventId, parse_epoch};

/// Longest time between two connections that look for a rival.
const INTERVAL: Duration = Duration::from_secs(4);
/// If all connections reach the same rival for this long, the server of the link is out of reach.
const OUT_OF_REACH: Duration = Duration::from_secs(5);
/// The least number of these connections, on a busy machine.
const OUT_OF_REACH_PROBES: u32 = 10;
/// Connections of a new link that look for a server that others use.
const FIRST_PROBES: usize = 4;

/// A primary at the same address as the server of the link.
pub enum Rival {
    /// It accepts no events any more. `lost`: the last position that it assigned.
    Yielded {
        /// `None`: none.
        lost: Option<EventId>,
    },
    /// Gateways use it, in a later epoch than that of the link.
    Preferred {
        /// A connection to it.
        connection: MultiplexedConnection,
        /// Its epoch.
        epoch: u64,
    },
    /// New connections reach only this one.
    Alone,
}

/// What a server says when it is asked to yield.
pub enum Answer {
    /// It accepts no events (any more). The last position that it assigned; `None`: none.
    Yielded(Option<EventId>),
    /// Gateways use it, in this later epoch.
    InUse(u64),
    /// It is a replica.
    Replica,
}

/// Asks the server on `connection` to yield to one in `epoch`. `is_forced`: even if gateways use it
/// in a later epoch.
///
/// # Errors
/// See [`WatermarkError`].
pub async fn ask_to_yield(
    connection: &mut impl ConnectionLike,
    commands: &Commands,
    epoch: u64,
    is_forced: bool,
) -> Result<Answer, WatermarkError> {
    let mut call = watermark::call(commands, "yield", &Epoch(epoch).to_string())?;
    if is_forced {
        call.arg("FORCE");
    }
    let reply: NamedReply = match watermark::query(connection, &call).await {
        // It accepts no events either.
        Err(WatermarkError::NoLibrary) => return Ok(Answer::Yielded(None)),
        reply => reply?,
    };
    Ok(match reply.text("state") {
        "yielded" => Answer::Yielded(EventId::parse(reply.text("lost"))),
        "in-use" => Answer::InUse(parse_epoch(reply.text("epoch")).ok_or(WatermarkError::Reply)?),
        _ => Answer::Replica,
    })
}

/// Whether a link reaches a server that no gateway uses, although another one at this address is in
/// use.
pub async fn is_outsider(
    connection: &mut impl ConnectionLike,
    run_id: &str,
    commands: &Commands,
    context: &LinkContext,
) -> bool {
    if watermark::is_confirmed(connection, commands).await {
        return false;
    }
    let probes = (0..FIRST_PROBES).map(|_| async {
        let Ok((reached, mut other)) = connect(context).await else { return false };
        *reached != *run_id && watermark::is_confirmed(&mut other, commands).await
    });
    join_all(probes).await.contains(&true)
}

async fn connect(context: &LinkContext) -> RedisResult<(Arc<str>, MultiplexedConnection)> {
    let config = pool::timeouts(context.settings.redis.command_timeout);
    let mut connection = pool::connect(&context.locator, &config).await?.connection;
    Ok((pool::run_id(&mut connection).await?, connection))
}

/// Looks for rivals of a link's server until the link ends.
pub struct Watch {
    context: LinkContext,
    commands: Commands,
    /// The process of the link.
    run_id: Arc<str>,
    rivals: mpsc::Sender<Rival>,
    /// The only process that connections have reached.
    alone: Option<Alone>,
}

/// The only process that several connections in a row have reached.
struct Alone {
    run_id: Arc<str>,
    since: Instant,
    connections: u32,
}

impl Watch {
    /// Looks for rivals of the process `run_id`, and sends them to `rivals`.
    pub fn new(
        context: LinkContext,
        commands: Commands,
        run_id: Arc<str>,
        rivals: mpsc::Sender<Rival>,
    ) -> Self {
        Self { context, commands, run_id, rivals, alone: None }
    }

    /// Runs until the receiver of the rivals is dropped.
    pub async fn run(mut self) {
        loop {
            self.pause().await;
            // A connection that fails may be one to the link's server.
            let Ok((reached, connection)) = connect(&self.context).await else {
                self.alone = None;
                continue;
            };
            if reached == self.run_id {
                self.alone = None;
                continue;
            }
            let rival = self.meet(&reached, connection).await;
            let Ok(Some(rival)) = rival else { continue };
            if self.rivals.send(rival).await.is_err() {
                return;
            }
        }
    }

    /// Waits for the next connection. Irregularly: a balancer must not send all connections of one
    /// gateway to one server, and those of another gateway to another one.
    async fn pause(&self) {
        let factor = 0.5 + fastrand::f64() * 0.5;
        if self.alone.is_some() {
            return tokio::time::sleep(PROBE_INTERVAL.mul_f64(factor * 1.5)).await;
        }
        let mismatch = self.context.state.server.mismatch();
        let _ = tokio::time::timeout(INTERVAL.mul_f64(factor), mismatch).await;
    }

    async fn meet(
        &mut self,
        reached: &Arc<str>,
        mut connection: MultiplexedConnection,
    ) -> Result<Option<Rival>, WatermarkError> {
        let Some(epoch) = self.context.state.epoch() else { return Ok(None) };
        let lost = match ask_to_yield(&mut connection, &self.commands, epoch, false).await? {
            Answer::Replica => return Ok(None),
            Answer::InUse(epoch) => return Ok(Some(Rival::Preferred { connection, epoch })),
            Answer::Yielded(lost) => lost,
        };
        let before = self.alone.take().filter(|alone| alone.run_id == *reached);
        let first = || Alone { run_id: reached.clone(), since: Instant::now(), connections: 0 };
        let alone = self.alone.insert(before.unwrap_or_else(first));
        alone.connections += 1;
        let is_alone =
            alone.since.elapsed() >= OUT_OF_REACH && alone.connections >= OUT_OF_REACH_PROBES;
        Ok(Some(if is_alone { Rival::Alone } else { Rival::Yielded { lost } }))
    }
}

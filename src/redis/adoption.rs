//! Whether this gateway adopts the server process that a link reaches: only an adopted one accepts
//! events (ARCHITECTURE.md#adoption-and-fence).

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use redis::{Value, aio::ConnectionLike};

use super::{
    commands::Commands,
    handover,
    link_context::LinkContext,
    link_state::LinkState,
    locate::Confirmation,
    watermark::{self, AdoptOptions, Taken, UnknownServer, Watermark, WatermarkError},
};
use crate::{
    core::{catch_up::ClockSnapshot, channel::Channel, id::EventId},
    settings::ServerAddress,
};

/// A server that knows less than this gateway is adopted if no other one was reached for this long.
const ALONE: Duration = Duration::from_secs(5);
/// Time between two connections that look for another server meanwhile.
pub const PROBE_INTERVAL: Duration = Duration::from_millis(300);

/// Why a server is not adopted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAdopted {
    /// It knows less than this gateway has seen: call [`Adoption::probed`] and ask again.
    #[error("the server knows less than this gateway has seen; waiting for another one")]
    Behind,
    /// Another server is the primary.
    #[error("another server is the primary")]
    Denied,
}

/// The server of a link that was up.
struct Served {
    run_id: Arc<str>,
    /// Whether it wrote to disk before it replied.
    is_durable: bool,
}

/// What links have brought.
#[derive(Clone, Default)]
struct Brought {
    highest: EventId,
    last_event: Option<(EventId, Channel)>,
}

impl Brought {
    fn of(state: &LinkState) -> Self {
        Self { highest: state.highest_id(), last_event: state.last_event() }
    }
}

/// The only server that connections have reached since then.
struct Waiting {
    run_id: Arc<str>,
    since: Instant,
}

/// Adopts the servers that the links of one address reach, one after the other.
#[derive(Default)]
pub struct Adoption {
    /// Whether the data is or was on several servers.
    pub is_replicated: bool,
    /// Whether channels have or had retained values.
    had_values: bool,
    /// Whether the server that was served before follows the current one and lost nothing.
    is_handed_over: bool,
    /// Maximum time to wait for a replica's answer.
    timeout: Duration,
    served: Option<Served>,
    current: Option<Served>,
    /// What the links before the current one have brought. A lone server may have adopted itself:
    /// then the current one can bring events of its new epoch before the first watermark.
    brought: Brought,
    waiting: Option<Waiting>,
}

/// Whether a process is adopted at once. `last` is the last one that this gateway adopted.
fn decide(
    server: &UnknownServer,
    seen: EventId,
    last: Option<&str>,
    confirmation: Confirmation,
) -> Result<(), NotAdopted> {
    let entry = |id: EventId| (id.ms, id.seq);
    let is_behind = server.known.epoch < seen.epoch || entry(server.known) < entry(seen);
    match confirmation {
        Confirmation::Denied => Err(NotAdopted::Denied),
        Confirmation::Confirmed => Ok(()),
        // Both of two servers may have yielded: then the one that was served before is adopted.
        Confirmation::Unknown
            if server.is_yielded && seen != EventId::ZERO && last != Some(&*server.run_id) =>
        {
            Err(NotAdopted::Behind)
        }
        // A wiped process is still the same one.
        Confirmation::Unknown if last == Some(&*server.run_id) || !is_behind => Ok(()),
        Confirmation::Unknown => Err(NotAdopted::Behind),
    }
}

impl Adoption {
    /// Begins with a new link, which reaches the process `run_id`.
    pub async fn begin(
        &mut self,
        connection: &mut impl ConnectionLike,
        run_id: Arc<str>,
        commands: &Commands,
        context: &LinkContext,
    ) {
        self.brought = Brought::of(&context.state);
        let seen = self.brought.highest;
        self.timeout = context.settings.redis.command_timeout;
        let is_other = self.served.as_ref().is_some_and(|served| served.run_id != run_id);
        self.is_handed_over = is_other && {
            handover::is_handed_over(connection, commands, self.timeout, seen.epoch).await
        };
        // Every connection must have reached the same process.
        if self.waiting.as_ref().is_some_and(|waiting| waiting.run_id != run_id) {
            self.waiting = None;
        }
        let is_durable = writes_before_replying(connection).await;
        self.current = Some(Served { run_id, is_durable });
    }

    /// Takes a watermark on the link, and adopts its server if that is not adopted but may be.
    /// `address` is that of the server, which Sentinel or the cluster must confirm.
    ///
    /// # Errors
    /// See [`WatermarkError`].
    pub async fn watermark(
        &mut self,
        connection: &mut impl ConnectionLike,
        commands: &Commands,
        address: Option<&ServerAddress>,
        state: &LinkState,
    ) -> Result<ClockSnapshot, WatermarkError> {
        let brought = match self.current {
            Some(_) => self.brought.clone(),
            None => Brought::of(state),
        };
        let mut seen = brought.highest;
        // Sentinel or the cluster decide which server is the primary: so there are several.
        let is_confirmed = commands.locator.has_judge();
        let had_values = self.had_values;
        let mut options =
            AdoptOptions { is_replicated: is_confirmed, had_values, ..AdoptOptions::default() };
        let watermark = match watermark::take(connection, commands, seen).await? {
            Taken::Adopted(watermark) => {
                let clock = &watermark.clock;
                let is_next = clock.h.epoch != seen.epoch
                    && clock.previous_epoch == seen.epoch
                    && !clock.continues.contains(seen.epoch);
                if is_next {
                    self.prove(&mut options, connection, commands, &brought).await;
                }
                let is_proved = options.is_durable || options.is_handed_over;
                let is_unmarked =
                    watermark.is_unmarked || (is_confirmed && !watermark.is_replicated);
                if is_proved || is_unmarked {
                    // It is adopted in any case; this write may fail (NOREPLICAS).
                    let again = watermark::adopt(connection, commands, seen, options).await;
                    again.unwrap_or(watermark)
                } else {
                    watermark
                }
            }
            Taken::Unknown(server) => {
                self.is_replicated |= server.is_replicated;
                options.cluster = commands.locator.cluster_knowledge(&server.slots).await;
                let confirmation = commands.locator.confirms(address).await?;
                self.decide(&server, seen, confirmation, commands)?;
                if server.known.epoch == seen.epoch {
                    self.prove(&mut options, connection, commands, &brought).await;
                } else if let Some(knowledge) = &options.cluster
                    && seen == EventId::ZERO
                    && self.follows_promoted(&server, connection, commands).await
                {
                    options.is_handed_over = true;
                    seen = knowledge.highest_in(server.known.epoch);
                }
                watermark::adopt(connection, commands, seen, options).await?
            }
        };
        Ok(self.adopted(watermark))
    }

    /// Whether a master of a cluster was promoted in a planned failover: the former one, whose
    /// epoch is in the node key, follows it and lost nothing.
    async fn follows_promoted(
        &self,
        server: &UnknownServer,
        connection: &mut impl ConnectionLike,
        commands: &Commands,
    ) -> bool {
        let epoch = server.known.epoch;
        epoch > 0 && handover::is_handed_over(connection, commands, self.timeout, epoch).await
    }

    fn adopted(&mut self, watermark: Watermark) -> ClockSnapshot {
        self.is_replicated |= watermark.is_replicated;
        self.had_values |= watermark.clock.may_have_values;
        self.waiting = None;
        if let Some(current) = self.current.take() {
            self.served = Some(current);
        }
        // A server that was wiped or restored may not know of values that clients have.
        ClockSnapshot { may_have_values: self.had_values, ..watermark.clock }
    }

    fn decide(
        &mut self,
        server: &UnknownServer,
        seen: EventId,
        confirmation: Confirmation,
        commands: &Commands,
    ) -> Result<(), NotAdopted> {
        let last = self.served.as_ref().map(|served| &*served.run_id);
        let decision = decide(server, seen, last, confirmation);
        if decision != Err(NotAdopted::Behind) {
            return decision;
        }
        match &self.waiting {
            Some(waiting) if waiting.run_id == server.run_id => {
                if waiting.since.elapsed() >= ALONE { Ok(()) } else { decision }
            }
            _ => {
                let (address, known) = (commands.address(), server.known);
                tracing::warn!(
                    %address, %known, %seen,
                    is_yielded = server.is_yielded,
                    "the server knows less than this gateway has seen (an old primary? restored or \
                     empty data?) or has yielded to another one: adopting it in {} s if no other \
                     server answers at this address",
                    ALONE.as_secs()
                );
                self.waiting =
                    Some(Waiting { run_id: server.run_id.clone(), since: Instant::now() });
                decision
            }
        }
    }

    /// While a server is [`NotAdopted::Behind`]: records which process a new connection reached,
    /// empty if none. Returns whether it is the same one.
    pub fn probed(&mut self, run_id: &str) -> bool {
        let is_same = self.waiting.as_ref().is_some_and(|waiting| *waiting.run_id == *run_id);
        if !is_same {
            self.waiting = None;
        }
        is_same
    }

    /// Finds out whether the server has everything that the one before had.
    async fn prove(
        &self,
        options: &mut AdoptOptions,
        connection: &mut impl ConnectionLike,
        commands: &Commands,
        brought: &Brought,
    ) {
        options.is_handed_over = self.is_handed_over;
        options.is_durable = self.is_same_data(connection, commands, brought).await;
    }

    /// Whether this process has the data of the one before: both wrote it to disk before they
    /// replied, and the last event that the gateway received is still there.
    async fn is_same_data(
        &self,
        connection: &mut impl ConnectionLike,
        commands: &Commands,
        brought: &Brought,
    ) -> bool {
        let (Some(before), Some(now)) = (&self.served, &self.current) else { return false };
        if !before.is_durable || !now.is_durable || before.run_id == now.run_id {
            return false;
        }
        let Some((id, channel)) = &brought.last_event else { return true };
        let mut command = redis::cmd("XRANGE");
        command.arg(commands.keys.log(channel)).arg(id.entry()).arg(id.entry());
        let found = command.query_async::<Vec<Value>>(connection).await;
        found.is_ok_and(|entries| !entries.is_empty())
    }
}

/// Whether the server writes each command to its append-only file before it replies; `false` if
/// CONFIG is not permitted.
async fn writes_before_replying(connection: &mut impl ConnectionLike) -> bool {
    let mut command = redis::cmd("CONFIG");
    command.arg("GET").arg("appendonly").arg("appendfsync");
    let found = command.query_async::<std::collections::HashMap<String, String>>(connection).await;
    found.is_ok_and(|found| {
        let is = |name: &str, value: &str| found.get(name).is_some_and(|v| v == value);
        is("appendonly", "yes") && is("appendfsync", "always")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redis::cluster::slots::SlotRanges;

    fn id(text: &str) -> EventId {
        EventId::parse(text).unwrap()
    }

    fn server(known: &str) -> UnknownServer {
        UnknownServer {
            run_id: "one".into(),
            known: id(known),
            is_replicated: true,
            slots: SlotRanges::default(),
            is_yielded: false,
        }
    }

    #[test]
    fn server_that_knows_less_than_this_gateway_waits() {
        let decide =
            |known, seen, last| decide(&server(known), id(seen), last, Confirmation::Unknown);
        assert_eq!(decide("7-0.b", "7-0.b", None), Ok(()));
        assert_eq!(decide("9-0.c", "7-0.b", None), Ok(()));
        assert_eq!(decide("9-0.a", "7-0.b", None), Err(NotAdopted::Behind), "an earlier epoch");
        assert_eq!(decide("9-0.c", "9-1.b", None), Err(NotAdopted::Behind), "an earlier clock");
        assert_eq!(decide("9-0.0", "9-1.b", Some("other")), Err(NotAdopted::Behind));
        assert_eq!(decide("9-0.0", "9-1.b", Some("one")), Ok(()), "the same process, wiped");
        assert_eq!(decide("0-0.0", "0-0.0", None), Ok(()), "the first server of all");
    }

    #[test]
    fn server_that_has_yielded_waits() {
        let yielded = UnknownServer { is_yielded: true, ..server("9-0.c") };
        let decide = |seen, last, confirmation| decide(&yielded, id(seen), last, confirmation);
        let unknown = Confirmation::Unknown;
        assert_eq!(decide("7-0.b", Some("other"), unknown), Err(NotAdopted::Behind));
        assert_eq!(decide("7-0.b", None, unknown), Err(NotAdopted::Behind));
        assert_eq!(decide("7-0.b", Some("one"), unknown), Ok(()), "the server before");
        assert_eq!(decide("0-0.0", None, unknown), Ok(()), "a new gateway");
        assert_eq!(decide("7-0.b", None, Confirmation::Confirmed), Ok(()));
    }

    #[test]
    fn sentinel_and_cluster_decide_first() {
        let decide = |known, confirmation| decide(&server(known), id("9-0.b"), None, confirmation);
        assert_eq!(decide("1-0.a", Confirmation::Confirmed), Ok(()));
        assert_eq!(decide("9-0.b", Confirmation::Denied), Err(NotAdopted::Denied));
    }

    #[test]
    fn another_process_ends_the_wait() {
        let waiting = || Some(Waiting { run_id: "one".into(), since: Instant::now() });
        let mut adoption = Adoption { waiting: waiting(), ..Adoption::default() };
        assert!(adoption.probed("one") && adoption.probed("one"));
        assert!(!adoption.probed("two") && !adoption.probed("one"));
    }
}

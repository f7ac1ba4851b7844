//! Begins and drives every catch-up: on connect, after an overflow, after a link failure, and when
//! a predecessor is missing. `core::catch_up` makes the decisions.
//!
//! A catch-up takes a clock snapshot, reads logs and replay cache in pages, and waits for the
//! writer between pages. If Redis is unavailable it waits and continues; the client's stream stays
//! open.
//!
//! The parts of a split stream catch up independently of each other. A part may have moved to
//! another server: each catch-up asks the routes for the server of its part.

mod first;
mod gap;
mod values;

use std::{cell::Cell, rc::Rc, sync::Arc, time::Duration};

use tokio::sync::{Semaphore, mpsc};
use tracing::Instrument;

use self::{
    gap::{GapFlags, find_gap},
    values::send_values,
};
use super::{
    commands::CommandError,
    link::LinkDown,
    log, replay_cache_fill,
    routes::{Route, Routes},
};
use crate::{
    backoff::Backoff,
    core::{
        catch_up::{self, ClockSnapshot, Merge, Start},
        channel::Channel,
        event::Event,
        id::EventId,
        page::Page,
        part::Part,
        reasons::CatchUpCause,
        retained::Retained,
    },
    error_chain::ErrorChain,
    state::{
        client::Client,
        connection::Connection,
        delivery::Delivery,
        hub::{CatchUpRequest, Hub},
    },
};

/// Maximum number of catch-ups of one worker that read at the same time.
const READERS: usize = 32;
/// Maximum number of events in one page, shared by the logs of a catch-up.
const PAGE_EVENTS: usize = 256;
/// The delay after a failure, and the longest one.
const FIRST_RETRY: Duration = Duration::from_millis(200);
const MAX_RETRY: Duration = Duration::from_millis(500);

/// Drives the catch-ups of one worker.
pub struct CatchUpDriver {
    hub: Rc<Hub>,
    delivery: Arc<Delivery>,
    routes: Routes,
    readers: Semaphore,
}

/// A catch-up that has begun: from then on, live events of its part wait for its end.
struct CatchUp {
    connection: Rc<Connection>,
    part: Part,
    cause: CatchUpCause,
    number: u32,
    /// The cursor; `None`: the client's id cannot be resumed from.
    from: Option<EventId>,
    /// The retained values at H, if they were read already.
    values: Cell<Option<Box<Retained>>>,
}

impl CatchUp {
    fn begin(connection: Rc<Connection>, part: Part, cause: CatchUpCause) -> Self {
        let (number, from) = connection.begin_catch_up(part);
        Self { connection, part, cause, number, from, values: Cell::default() }
    }

    /// Whether the connection still needs this catch-up.
    fn is_current(&self) -> bool {
        self.connection.is_catching_up(self.part, self.number)
    }

    fn check_current(&self) -> Result<(), Interrupted> {
        if self.is_current() { Ok(()) } else { Err(Interrupted::Superseded) }
    }
}

/// The state of the server from which a catch-up reads. It is passed in a box, because it has 312
/// bytes.
struct Snapshot {
    route: Route,
    clock: ClockSnapshot,
}

/// What a catch-up reads from.
#[derive(Debug)]
enum CatchUpSource {
    Log(Channel),
    /// The replay cache: all broadcasts of the client's topics.
    Cache,
}

/// Why an attempt did not finish.
enum Interrupted {
    /// The connection ended, or another catch-up has begun.
    Superseded,
    /// What was being read has changed: read again from what was delivered.
    Changed,
    /// Redis is unavailable.
    Unavailable(CommandError),
}

impl From<CommandError> for Interrupted {
    fn from(error: CommandError) -> Self {
        Self::Unavailable(error)
    }
}

impl CatchUpDriver {
    /// The driver of one worker.
    pub fn new(hub: Rc<Hub>, delivery: Arc<Delivery>, routes: Routes) -> Rc<Self> {
        Rc::new(Self { hub, delivery, routes, readers: Semaphore::new(READERS) })
    }

    /// Serves the hub's requests until the worker ends.
    pub async fn run(self: Rc<Self>, mut requests: mpsc::UnboundedReceiver<CatchUpRequest>) {
        while let Some((connection, part, cause)) = requests.recv().await {
            // Both parts of a stream that is split now were detached.
            let part = if self.split_if_needed(&connection) { Part::Whole } else { part };
            for part in connection.parts(part) {
                // Otherwise the hub requests it again when the link is up.
                if self.may_catch_up(&connection, part) {
                    let catch_up = (connection.clone(), part, cause);
                    tokio::task::spawn_local(self.clone().catch_up(catch_up));
                }
            }
        }
    }

    async fn catch_up(self: Rc<Self>, (connection, part, cause): CatchUpRequest) {
        let catch_up = CatchUp::begin(connection, part, cause);
        if let Some(snapshot) = self.snapshot(&catch_up).await {
            self.drive(catch_up, snapshot).await;
        }
    }

    fn route(&self, connection: &Connection, part: Part) -> Option<Route> {
        match (part, connection.client.user()) {
            (Part::Whole | Part::User, Some(user)) => self.routes.user(user),
            (Part::Broadcasts, _) | (_, None) => self.routes.broadcasts(),
        }
    }

    fn may_catch_up(&self, connection: &Connection, part: Part) -> bool {
        self.route(connection, part).is_some_and(|route| self.hub.may_catch_up(route.index()))
    }

    /// Whether the streams of a client read from two servers. Those of an anonymous client read
    /// only the broadcasts.
    fn is_split(&self, client: &Client) -> bool {
        client.user().is_some_and(|user| self.routes.has_separate_broadcasts(user))
    }

    /// Splits a whole stream whose sources are on two servers. Returns whether it did.
    fn split_if_needed(&self, connection: &Connection) -> bool {
        let must_split = !connection.is_split() && self.is_split(&connection.client);
        if must_split {
            connection.split();
        }
        must_split
    }

    /// Takes a snapshot at the server that has the part now, subscribed to the user's channel if
    /// that belongs to the part. The catch-up must have begun.
    async fn attach(&self, catch_up: &CatchUp) -> Result<Box<Snapshot>, LinkDown> {
        let snapshot = self.attach_once(catch_up).await?;
        let from = catch_up.from.unwrap_or(EventId::ZERO);
        if from.epoch <= snapshot.clock.h.epoch || from > self.routes.highest_id() {
            return Ok(snapshot);
        }
        // Another server assigned the cursor before the part moved here, and the gateway that
        // adopted this one did not know its epoch. The next watermark begins a later one.
        snapshot.route.state().raise_highest_id(from);
        Box::pin(self.attach_once(catch_up)).await
    }

    async fn attach_once(&self, catch_up: &CatchUp) -> Result<Box<Snapshot>, LinkDown> {
        let CatchUp { connection: c, part, .. } = catch_up;
        let route = self.route(c, *part).ok_or(LinkDown)?;
        // First, so that the hub detaches the part if this link breaks from now on.
        c.set_server(*part, route.index());
        let user = c.client.user().filter(|_| *part != Part::Broadcasts && !c.is_subscribed());
        let Some(user) = user else {
            let clock = route.link().clock_snapshot(c.client.user(), *part).await?;
            return Ok(Box::new(Snapshot { route, clock }));
        };
        let (clock, subscription) = route.link().subscribe(user, *part).await?;
        if catch_up.is_current() {
            c.set_subscription(Box::new(subscription));
        }
        Ok(Box::new(Snapshot { route, clock }))
    }

    /// Takes a snapshot after the catch-up began; `None` if it is no longer needed.
    async fn snapshot(&self, catch_up: &CatchUp) -> Option<Box<Snapshot>> {
        let mut backoff = Backoff::new(FIRST_RETRY, MAX_RETRY);
        while catch_up.is_current() {
            match self.attach(catch_up).await {
                Ok(snapshot) => return Some(snapshot),
                Err(LinkDown) => tokio::time::sleep(backoff.delay()).await,
            }
        }
        None
    }

    /// Catches up until the part is live or the connection has ended. `snapshot` was taken after
    /// the catch-up began.
    async fn drive(&self, catch_up: CatchUp, snapshot: Box<Snapshot>) {
        let span = catch_up.connection.span();
        self.attempts(catch_up, snapshot).instrument(span).await;
    }

    async fn attempts(&self, mut catch_up: CatchUp, mut snapshot: Box<Snapshot>) {
        let mut backoff = Backoff::new(FIRST_RETRY, MAX_RETRY);
        loop {
            let cause = catch_up.cause.name();
            self.hub.context.metrics.catch_ups.with_label_values(&[cause]).inc();
            tracing::debug!(cause, "catch-up started");
            match self.attempt(&catch_up, &snapshot).await {
                Ok(()) => {
                    let CatchUp { connection, part, .. } = &catch_up;
                    let Some((again, cause)) = connection.finish_catch_up(*part, snapshot.clock.h)
                    else {
                        return;
                    };
                    for other in connection.parts(again).filter(|other| other != part) {
                        self.hub.catch_up_again(connection.clone(), other, cause);
                    }
                    catch_up.cause = cause;
                    backoff.reset();
                }
                Err(Interrupted::Superseded) => return,
                // Also if a log changed while it was read: no attempt follows without a pause.
                Err(interrupted @ (Interrupted::Changed | Interrupted::Unavailable(_))) => {
                    if let Interrupted::Unavailable(error) = interrupted {
                        let address = snapshot.route.commands.address();
                        let error = ErrorChain(&error);
                        tracing::debug!(%address, %error, "catch-up waits for Redis");
                    }
                    tokio::time::sleep(backoff.delay()).await;
                    if !catch_up.is_current() {
                        return;
                    }
                }
            }
            catch_up = CatchUp::begin(catch_up.connection, catch_up.part, catch_up.cause);
            match self.snapshot(&catch_up).await {
                Some(next) => snapshot = next,
                None => return,
            }
        }
    }

    fn start(&self, catch_up: &CatchUp, clock: &ClockSnapshot) -> Start {
        // The list of active topics lives as long as the longest retention.
        let retention_ms = self.hub.context.settings.channels.longest_retention_ms(clock);
        catch_up::start(catch_up.from, clock, retention_ms)
    }

    /// The snapshot, with the epochs of other servers that its server continues for all slots of
    /// the part.
    async fn with_vouchers(
        &self,
        CatchUp { connection, part, from, .. }: &CatchUp,
        Snapshot { route, clock }: &Snapshot,
    ) -> Result<Box<Snapshot>, Interrupted> {
        let from = from.unwrap_or(EventId::ZERO);
        let mut continues = clock.continues;
        let is_of_another = from.epoch != clock.h.epoch && !continues.contains(from.epoch);
        if is_of_another && !from.is_time() {
            let user = connection.client.user().filter(|_| part.includes(Part::User));
            let user = user.map(|user| Channel::User(user.clone()));
            let broadcasts = part.includes(Part::Broadcasts);
            let broadcasts = broadcasts.then(|| Channel::Broadcast("any".into()));
            let mut vouched = Vec::new();
            for channel in user.iter().chain(&broadcasts) {
                vouched.push(route.vouched_epochs(channel).await?);
            }
            if vouched.iter().all(|epochs| epochs.contains(&from.epoch)) {
                continues = continues.with([from.epoch]);
            }
        }
        let mut clock = ClockSnapshot { continues, ..*clock };
        // Another master may have had a slot in between, and appended events by its own clock.
        if continues.contains(from.epoch) && self.routes.is_cluster() {
            clock.previous_epoch = 0;
        }
        Ok(Box::new(Snapshot { route: route.clone(), clock }))
    }

    /// Queues everything over (cursor, H].
    async fn attempt(&self, catch_up: &CatchUp, snapshot: &Snapshot) -> Result<(), Interrupted> {
        catch_up.check_current()?;
        let c = &*catch_up.connection;
        let part = catch_up.part;
        let snapshot = &self.with_vouchers(catch_up, snapshot).await?;
        let clock = &snapshot.clock;
        catch_up.check_current()?;
        let (reset, unrecorded, stale) = match self.start(catch_up, clock) {
            Start::Restart(reason) => {
                self.require_values(catch_up, snapshot, false).await?;
                let values = self.needed_values(catch_up, snapshot).await?;
                c.restart(part, reason, clock.h.into());
                return send_values(catch_up, &values).await;
            }
            // The server of the broadcasts has the recorder.
            Start::Read { reset, unrecorded, stale } => {
                (reset, unrecorded && part != Part::User, stale)
            }
        };
        let from = catch_up.from.unwrap_or(EventId::ZERO);
        if from >= clock.h {
            let values = self.needed_values(catch_up, snapshot).await?;
            return send_values(catch_up, &values).await;
        }
        let (sources, too_many) = self.sources(catch_up, snapshot, stale).await?;
        let mut merge = Merge::new(from, clock, sources);
        let mut first = true;
        let mut values = None;
        loop {
            let pages = self.read(c, &merge, snapshot, first).await?;
            catch_up.check_current()?;
            self.check_epochs(&pages, snapshot)?;
            if first {
                let flags = GapFlags { reset, unrecorded, stale, too_many };
                let rules = &self.hub.context.settings.channels;
                let is_stale = |channel: &Channel| {
                    catch_up::is_stale(from, clock, rules.retention_ms(channel, clock))
                };
                let gap = find_gap(c, part, &merge, &pages, from, flags, is_stale);
                if gap.is_some() {
                    self.require_values(catch_up, snapshot, reset).await?;
                }
                // Before the gap: if they cannot be read, the next attempt finds the gap again.
                values = self.needed_values(catch_up, snapshot).await?;
                if let Some((reason, channels)) = gap {
                    c.queue_gap(part, reason, channels);
                }
                send_values(catch_up, &values).await?;
            }
            let done = pages.is_empty();
            for (n, page) in pages {
                merge.feed(n, page, first).map_err(|_| Interrupted::Changed)?;
            }
            first = false;
            let superseded = values.as_ref().map(Retained::superseded);
            let is_superseded =
                |event: &Event| superseded.as_ref().is_some_and(|s| s.contains(event));
            while let Some(event) = merge.pop() {
                if !c.sees(&event) || is_superseded(&event) {
                    continue;
                }
                c.replay(part, &event);
                c.room().await;
                catch_up.check_current()?;
            }
            if done {
                return Ok(());
            }
        }
    }

    /// Ends an attempt that finds events of a later epoch than the server's own: they are of
    /// another master, which had the slot for a moment, and this one has not noticed that. If the
    /// attempt ended at its H, the position could pass them by. The next watermark begins a later
    /// epoch.
    fn check_epochs(
        &self,
        pages: &[(usize, Page)],
        Snapshot { route, clock }: &Snapshot,
    ) -> Result<(), Interrupted> {
        let mut later = pages.iter().flat_map(|(_, page)| page.in_later_epochs(clock.h.epoch));
        match later.find(|id| id.is_plausible(clock.now_ms)) {
            Some(id) if self.routes.is_cluster() => {
                route.state().raise_highest_id(id);
                Err(Interrupted::Changed)
            }
            _ => Ok(()),
        }
    }

    /// The sources of a catch-up, and whether more topics were active than it can read.
    async fn sources(
        &self,
        CatchUp { connection: c, part, from, .. }: &CatchUp,
        Snapshot { route, clock }: &Snapshot,
        stale: bool,
    ) -> Result<(Vec<CatchUpSource>, bool), Interrupted> {
        let mut sources = Vec::new();
        if let Some(user) = c.client.user().filter(|_| part.includes(Part::User)) {
            sources.push(CatchUpSource::Log(Channel::User(user.clone())));
        }
        if c.client.topics.is_empty() || !part.includes(Part::Broadcasts) {
            return Ok((sources, false));
        }
        let from = from.unwrap_or(EventId::ZERO);
        let _reader = self.readers.acquire().await.map_err(|_| Interrupted::Superseded)?;
        let (cache, topics) = (&self.delivery.replay_cache, &c.client.topics);
        let shortest_ms = self.hub.context.settings.channels.shortest_retention_ms(clock);
        // Logs with a shorter retention may be gone. What the cache has was read in time.
        let may_fill = !catch_up::is_stale(from, clock, shortest_ms);
        let commands = &route.commands;
        if !stale
            && replay_cache_fill::reaches(cache, commands, from, clock, topics, may_fill).await?
        {
            sources.push(CatchUpSource::Cache);
            return Ok((sources, false));
        }
        let since_ms = clock.read_after(from).ms;
        let (topics, too_many) = log::active_broadcasts(&route.commands, topics, since_ms).await?;
        sources.extend(topics.into_iter().map(CatchUpSource::Log));
        Ok((sources, too_many))
    }

    /// Reads a page of every source whose next event is unknown.
    async fn read(
        &self,
        c: &Connection,
        merge: &Merge<CatchUpSource>,
        Snapshot { route, clock }: &Snapshot,
        first: bool,
    ) -> Result<Vec<(usize, Page)>, Interrupted> {
        let (mut numbers, mut logs, mut pages) = (Vec::new(), Vec::new(), Vec::new());
        let wanted: Vec<_> = merge.wants().collect();
        let count = (PAGE_EVENTS / wanted.len().max(1)).max(8);
        for (n, source, next) in wanted {
            match source {
                CatchUpSource::Log(channel) => {
                    numbers.push(n);
                    logs.push((channel.clone(), next));
                }
                CatchUpSource::Cache => {
                    // A cache that was trimmed meanwhile may not reach back far enough.
                    let (events, more) = self
                        .delivery
                        .replay_cache
                        .read(next.position, clock.h, &c.client.topics, count)
                        .ok_or(Interrupted::Changed)?;
                    pages.push((n, Page { events, more, ..Page::default() }));
                }
            }
        }
        if !logs.is_empty() {
            let _reader = self.readers.acquire().await.map_err(|_| Interrupted::Superseded)?;
            pages.extend(
                numbers.into_iter().zip(log::pages(&route.commands, &logs, count, first).await?),
            );
        }
        Ok(pages)
    }
}

#[cfg(test)]
mod tests;

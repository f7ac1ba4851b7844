//! Begins and drives every catch-up: on connect, after an overflow, after a link failure, and when
//! a predecessor is missing. `core::catch_up` makes the decisions.
//!
//! A catch-up takes a clock snapshot, reads logs and replay cache in pages, and waits for the
//! writer between pages. If Redis is unavailable it waits and continues; the client's stream stays
//! open.

use std::{
    collections::{HashMap, HashSet},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use tokio::sync::{Semaphore, mpsc};
use tracing::Instrument;

use super::{
    commands::CommandError,
    link::{LinkDown, UserSubscription},
    log, replay_cache_fill,
    routes::{Route, Routes},
};
use crate::{
    backoff::Backoff,
    core::{
        catch_up::{self, ClockSnapshot, Merge, Start},
        channel::Channel,
        id::EventId,
        page::Page,
        reasons::{CatchUpCause, GapReason},
    },
    error_chain::ErrorChain,
    state::{
        client::MAX_GAP_CHANNELS,
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

/// A catch-up that has begun: from then on, live events of its connection wait for its end.
struct CatchUp {
    connection: Rc<Connection>,
    cause: CatchUpCause,
    number: u64,
    /// The cursor; `None`: the client's id cannot be resumed from.
    from: Option<EventId>,
}

impl CatchUp {
    fn begin(connection: Rc<Connection>, cause: CatchUpCause) -> Self {
        let (number, from) = connection.begin_catch_up();
        Self { connection, cause, number, from }
    }

    /// Whether the connection still needs this catch-up.
    fn is_current(&self) -> bool {
        self.connection.is_catching_up(self.number)
    }

    fn check_current(&self) -> Result<(), Interrupted> {
        if self.is_current() { Ok(()) } else { Err(Interrupted::Superseded) }
    }
}

/// The state of the server from which a catch-up reads.
struct Snapshot {
    route: Route,
    clock: ClockSnapshot,
}

/// The first catch-up of a connection, which is subscribed but has no first frame yet.
pub struct FirstCatchUp {
    catch_up: CatchUp,
    snapshot: Snapshot,
    /// The client has no cursor, so there is nothing to read.
    is_new: bool,
    /// Whether the stream continues from the client's cursor.
    pub resumed: bool,
}

impl FirstCatchUp {
    /// The cursor for the first frame; `None` if the stream cannot continue from the client's id.
    pub fn cursor(&self) -> Option<EventId> {
        self.catch_up.from
    }
}

/// What a catch-up reads from.
#[derive(Debug)]
enum CatchUpSource {
    Log(Channel),
    /// The replay cache: all broadcasts of the client's topics.
    Cache,
}

/// Reasons why events after a cursor may be missing.
#[derive(Clone, Copy)]
struct GapFlags {
    /// A new epoch began after the cursor.
    reset: bool,
    /// A break in the history is after the cursor.
    unrecorded: bool,
    /// The cursor is older than the retention.
    stale: bool,
    /// More topics were active than a catch-up reads.
    too_many: bool,
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
        while let Some((connection, cause)) = requests.recv().await {
            let driver = self.clone();
            tokio::task::spawn_local(async move {
                let catch_up = CatchUp::begin(connection, cause);
                if let Some(snapshot) = driver.snapshot(&catch_up).await {
                    driver.drive(catch_up, snapshot).await;
                }
            });
        }
    }

    /// Subscribes to the channel of a connection's user, and decides where its stream begins. The
    /// stream gets nothing before [`CatchUpDriver::start_first`].
    ///
    /// # Errors
    /// The link is down, or does not respond in time.
    pub async fn subscribe(
        &self,
        connection: &Rc<Connection>,
    ) -> Result<(UserSubscription, FirstCatchUp), LinkDown> {
        let mut catch_up = CatchUp::begin(connection.clone(), CatchUpCause::Resume);
        let route = self.routes.user(&connection.client.user).ok_or(LinkDown)?;
        let (clock, subscription) = route.link.subscribe(&connection.client.user).await?;
        let is_new = !connection.has_cursor();
        if is_new {
            connection.start_at(clock.h);
            catch_up.from = Some(clock.h);
        }
        let resumed = !is_new && matches!(self.start(&catch_up, &clock), Start::Read { .. });
        let snapshot = Snapshot { route, clock };
        Ok((subscription, FirstCatchUp { catch_up, snapshot, is_new, resumed }))
    }

    /// Starts the first catch-up of a connection, which runs in the background. The first frame
    /// must have been queued before.
    pub fn start_first(self: &Rc<Self>, first: FirstCatchUp) {
        let FirstCatchUp { catch_up, snapshot, is_new, .. } = first;
        if !catch_up.is_current() {
            // The link broke during the wait, before the hub could restart this connection.
            self.hub.catch_up_again(catch_up.connection, CatchUpCause::Link);
        } else if !is_new {
            let driver = self.clone();
            tokio::task::spawn_local(async move { driver.drive(catch_up, snapshot).await });
        } else if let Some(cause) = catch_up.connection.finish_catch_up(snapshot.clock.h) {
            self.hub.catch_up_again(catch_up.connection, cause);
        }
    }

    /// Takes a snapshot after the catch-up began; `None` if it is no longer needed.
    async fn snapshot(&self, catch_up: &CatchUp) -> Option<Snapshot> {
        let mut backoff = Backoff::new(FIRST_RETRY, MAX_RETRY);
        while catch_up.is_current() {
            if let Some(route) = self.routes.user(&catch_up.connection.client.user) {
                if let Ok(clock) = route.link.clock_snapshot().await {
                    return Some(Snapshot { route, clock });
                }
            }
            tokio::time::sleep(backoff.delay()).await;
        }
        None
    }

    /// Catches up until the connection is live or has ended. `snapshot` was taken after the catch-up
    /// began.
    async fn drive(&self, catch_up: CatchUp, snapshot: Snapshot) {
        let span = catch_up.connection.span();
        self.attempts(catch_up, snapshot).instrument(span).await;
    }

    async fn attempts(&self, mut catch_up: CatchUp, mut snapshot: Snapshot) {
        let mut backoff = Backoff::new(FIRST_RETRY, MAX_RETRY);
        loop {
            let cause = catch_up.cause.name();
            self.hub.context.metrics.catch_ups.with_label_values(&[cause]).inc();
            tracing::debug!(cause, "catch-up started");
            match self.attempt(&catch_up, &snapshot).await {
                Ok(()) => match catch_up.connection.finish_catch_up(snapshot.clock.h) {
                    None => return,
                    Some(cause) => {
                        catch_up.cause = cause;
                        backoff.reset();
                    }
                },
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
            catch_up = CatchUp::begin(catch_up.connection, catch_up.cause);
            match self.snapshot(&catch_up).await {
                Some(next) => snapshot = next,
                None => return,
            }
        }
    }

    fn start(&self, catch_up: &CatchUp, clock: &ClockSnapshot) -> Start {
        let retention = self.hub.context.settings.retention;
        catch_up::start(catch_up.from, clock, retention.as_millis() as u64)
    }

    /// Queues everything over (cursor, H].
    async fn attempt(&self, catch_up: &CatchUp, snapshot: &Snapshot) -> Result<(), Interrupted> {
        catch_up.check_current()?;
        let clock = &snapshot.clock;
        let c = &*catch_up.connection;
        let (reset, unrecorded, stale) = match self.start(catch_up, clock) {
            Start::Restart(reason) => {
                c.restart(reason, clock);
                return Ok(());
            }
            Start::Read { reset, unrecorded, stale } => (reset, unrecorded, stale),
        };
        let from = catch_up.from.unwrap_or(EventId::ZERO);
        if from >= clock.h {
            return Ok(());
        }
        let (sources, too_many) = self.sources(c, from, snapshot, stale).await?;
        let mut merge = Merge::new(from, clock, sources);
        let mut first = true;
        loop {
            let pages = self.read(c, &merge, snapshot, first).await?;
            catch_up.check_current()?;
            if first {
                let flags = GapFlags { reset, unrecorded, stale, too_many };
                report_gap(c, &merge, &pages, from, flags);
            }
            let done = pages.is_empty();
            for (n, page) in pages {
                merge.feed(n, page, first).map_err(|_| Interrupted::Changed)?;
            }
            first = false;
            while let Some(event) = merge.pop() {
                c.replay(&event);
                c.room().await;
                catch_up.check_current()?;
            }
            if done {
                return Ok(());
            }
        }
    }

    /// The sources of a catch-up, and whether more topics were active than it can read.
    async fn sources(
        &self,
        c: &Connection,
        from: EventId,
        Snapshot { route, clock }: &Snapshot,
        stale: bool,
    ) -> Result<(Vec<CatchUpSource>, bool), Interrupted> {
        let mut sources = vec![CatchUpSource::Log(Channel::User(c.client.user.clone()))];
        if c.client.topics.is_empty() {
            return Ok((sources, false));
        }
        let _reader = self.readers.acquire().await.map_err(|_| Interrupted::Superseded)?;
        let cache = &self.delivery.replay_cache;
        if !stale
            && replay_cache_fill::reaches(cache, &route.commands, from, clock, &c.client.topics)
                .await?
        {
            sources.push(CatchUpSource::Cache);
        } else {
            let (topics, too_many) = log::active_broadcasts(
                &route.commands,
                &c.client.topics,
                clock.read_after(from).ms,
            )
            .await?;
            sources.extend(topics.into_iter().map(CatchUpSource::Log));
            return Ok((sources, too_many));
        }
        Ok((sources, false))
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

/// Queues `sse.gap` if events after the cursor may be missing; `pages` are the first ones.
fn report_gap(
    c: &Connection,
    merge: &Merge<CatchUpSource>,
    pages: &[(usize, Page)],
    from: EventId,
    flags: GapFlags,
) {
    if flags.reset {
        return c.queue_gap(GapReason::Reset, c.client.channels().collect());
    }
    let logs: HashMap<usize, &CatchUpSource> =
        merge.wants().map(|(n, source, _)| (n, source)).collect();
    let (mut trimmed, mut expired) = (Vec::new(), Vec::new());
    for (n, page) in pages {
        let Some(CatchUpSource::Log(channel)) = logs.get(n) else { continue };
        match catch_up::gap(from, flags.stale, page) {
            Some(GapReason::Trimmed) => trimmed.push(channel.to_string()),
            Some(_) => expired.push(channel.to_string()),
            None => {}
        }
    }
    // Active topics are only known as long as the retention.
    let patterns = || c.client.topics.prefixes().map(|p| format!("broadcast:{p}*"));
    if flags.too_many {
        trimmed.extend(patterns());
    }
    if flags.stale {
        expired.extend(patterns());
    }
    let reason = match (trimmed.is_empty(), expired.is_empty()) {
        (false, _) => GapReason::Trimmed,
        (true, false) => GapReason::Expired,
        (true, true) if flags.unrecorded => {
            return c.queue_gap(GapReason::Unrecorded, c.client.channels().collect());
        }
        (true, true) => return,
    };
    let mut seen = HashSet::new();
    let channels = trimmed.into_iter().chain(expired).filter(|name| seen.insert(name.clone()));
    c.queue_gap(reason, channels.take(MAX_GAP_CHANNELS).collect());
}

#[cfg(test)]
mod tests;

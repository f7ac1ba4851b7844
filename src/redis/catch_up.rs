//! Drives catch-ups: takes the clock snapshot, reads logs and replay cache in pages, and waits for
//! the writer between pages. `core::catch_up` makes the decisions. A catch-up that cannot reach
//! Redis waits and continues; the client's stream stays open.

use std::{collections::HashSet, rc::Rc, sync::Arc, time::Duration};

use tokio::sync::{Semaphore, mpsc};
use tracing::Instrument;

use super::{
    commands::{CommandError, Commands},
    link::Link,
    log, replay_cache_fill,
};
use crate::{
    backoff::Backoff,
    core::{
        catch_up::{self, ClockSnapshot, Merge, Page, Start},
        channel::Channel,
        id::EventId,
        system::{CatchUpCause, GapReason},
    },
    state::{
        connection::{Connection, MAX_GAP_CHANNELS},
        delivery::Delivery,
        hub::{CatchUpRequest, Hub},
    },
};

/// Catch-ups of one worker that read at the same time.
const READERS: usize = 32;
/// Events of one page, shared by the logs of a catch-up.
const PAGE_EVENTS: usize = 256;
/// The delay after a failure, and the longest one.
const FIRST_RETRY: Duration = Duration::from_millis(200);
const MAX_RETRY: Duration = Duration::from_millis(500);

/// Drives the catch-ups of one worker.
pub struct CatchUpDriver {
    hub: Rc<Hub>,
    delivery: Arc<Delivery>,
    commands: Commands,
    link: Link,
    readers: Semaphore,
}

/// What a catch-up reads from.
#[derive(Debug)]
enum Source {
    Log(Channel),
    /// All broadcasts of the client's topics, from memory.
    Cache,
}

/// Reasons why events after a cursor may be missing.
#[derive(Clone, Copy)]
struct GapFlags {
    /// A break in the history is after the cursor.
    unrecorded: bool,
    /// The cursor is older than the retention.
    stale: bool,
    /// More topics were active than a catch-up reads.
    too_many: bool,
}

/// Why a catch-up did not finish.
enum Interrupted {
    /// The connection ended, or another catch-up took over.
    Void,
    /// Start anew from what was delivered.
    Again,
    Away(CommandError),
}

impl From<CommandError> for Interrupted {
    fn from(error: CommandError) -> Self {
        Self::Away(error)
    }
}

impl CatchUpDriver {
    /// For one worker.
    pub fn new(hub: Rc<Hub>, delivery: Arc<Delivery>, commands: Commands, link: Link) -> Rc<Self> {
        Rc::new(Self { hub, delivery, commands, link, readers: Semaphore::new(READERS) })
    }

    /// Serves the hub's orders as long as the worker lives.
    pub async fn run(self: Rc<Self>, mut orders: mpsc::UnboundedReceiver<CatchUpRequest>) {
        while let Some((connection, cause)) = orders.recv().await {
            let catch_up = self.clone();
            tokio::task::spawn_local(async move { catch_up.catch_up(connection, cause).await });
        }
    }

    /// Catches up until the connection is live, or gone.
    pub async fn catch_up(&self, connection: Rc<Connection>, cause: CatchUpCause) {
        let (generation, from) = connection.begin_catch_up();
        if let Some(clock) = self.snapshot(&connection, generation).await {
            self.go_on(connection, cause, generation, from, clock).await;
        }
    }

    /// A clock snapshot taken after that catch-up began; `None` if another one has begun, or none
    /// is needed.
    async fn snapshot(&self, connection: &Connection, generation: u64) -> Option<ClockSnapshot> {
        let mut backoff = Backoff::new(FIRST_RETRY, MAX_RETRY);
        while connection.is_catching_up(generation) {
            match self.link.mark().await {
                Ok(clock) => return Some(clock),
                Err(_) => tokio::time::sleep(backoff.delay()).await,
            }
        }
        None
    }

    /// Continues a catch-up with a clock snapshot that was taken after it began.
    pub async fn go_on(
        &self,
        connection: Rc<Connection>,
        cause: CatchUpCause,
        generation: u64,
        from: Option<EventId>,
        clock: ClockSnapshot,
    ) {
        let span = connection.span();
        self.attempts(connection, cause, generation, from, clock).instrument(span).await;
    }

    async fn attempts(
        &self,
        connection: Rc<Connection>,
        mut cause: CatchUpCause,
        mut generation: u64,
        mut from: Option<EventId>,
        mut clock: ClockSnapshot,
    ) {
        let mut backoff = Backoff::new(FIRST_RETRY, MAX_RETRY);
        loop {
            self.hub.context.metrics.catch_ups.with_label_values(&[cause.name()]).inc();
            tracing::debug!(cause = cause.name(), "catch-up started");
            match self.attempt(&connection, generation, from, &clock).await {
                Ok(()) => match connection.finish_catch_up(clock.h) {
                    None => return,
                    Some(next) => {
                        cause = next;
                        backoff.reset();
                    }
                },
                Err(Interrupted::Void) => return,
                // Also where a log changed while it was read: nothing loops at full speed.
                Err(interrupted @ (Interrupted::Again | Interrupted::Away(_))) => {
                    if let Interrupted::Away(error) = interrupted {
                        let address = &*self.commands.address;
                        tracing::debug!(%address, %error, "catch-up waits for Redis");
                    }
                    tokio::time::sleep(backoff.delay()).await;
                    if !connection.is_catching_up(generation) {
                        return;
                    }
                }
            }
            (generation, from) = connection.begin_catch_up();
            match self.snapshot(&connection, generation).await {
                Some(next) => clock = next,
                None => return,
            }
        }
    }

    async fn attempt(
        &self,
        c: &Connection,
        generation: u64,
        from: Option<EventId>,
        clock: &ClockSnapshot,
    ) -> Result<(), Interrupted> {
        if !c.is_catching_up(generation) {
            return Err(Interrupted::Void);
        }
        let retention_ms = self.hub.context.settings.history.retention.as_millis() as u64;
        let (unrecorded, stale) = match catch_up::start(from, clock, retention_ms) {
            Start::Restart(reason) => {
                c.restart(reason, clock);
                return Ok(());
            }
            Start::Read { unrecorded, stale } => (unrecorded, stale),
        };
        let from = from.unwrap_or(EventId::ZERO);
        if from >= clock.h {
            return Ok(());
        }
        let (sources, too_many) = self.sources(c, from, stale).await?;
        let mut merge = Merge::new(from, clock.h, sources);
        let mut first = true;
        loop {
            let pages = self.read(c, &merge, clock.h, first).await?;
            if !c.is_catching_up(generation) {
                return Err(Interrupted::Void);
            }
            if first {
                self.tell(c, &merge, &pages, from, GapFlags { unrecorded, stale, too_many });
            }
            let done = pages.is_empty();
            for (n, page) in pages {
                merge.feed(n, page, first).map_err(|_| Interrupted::Again)?;
            }
            first = false;
            while let Some(event) = merge.pop() {
                c.replay(&event);
                c.room().await;
                if !c.is_catching_up(generation) {
                    return Err(Interrupted::Void);
                }
            }
            if done {
                return Ok(());
            }
        }
    }

    /// What the catch-up reads; the flag says that there are too many topics to read all.
    async fn sources(
        &self,
        c: &Connection,
        from: EventId,
        stale: bool,
    ) -> Result<(Vec<Source>, bool), Interrupted> {
        let mut sources = vec![Source::Log(Channel::User(c.client.user.clone()))];
        if c.client.topics.is_empty() {
            return Ok((sources, false));
        }
        let _reader = self.readers.acquire().await.map_err(|_| Interrupted::Void)?;
        let cache = &self.delivery.replay_cache;
        if !stale
            && replay_cache_fill::reaches(cache, &self.commands, from, &c.client.topics).await?
        {
            sources.push(Source::Cache);
        } else {
            let (topics, too_many) =
                log::active_broadcasts(&self.commands, &c.client.topics, from).await?;
            sources.extend(topics.into_iter().map(Source::Log));
            return Ok((sources, too_many));
        }
        Ok((sources, false))
    }

    /// Reads a page of every log whose next event is not known.
    async fn read(
        &self,
        c: &Connection,
        merge: &Merge<Source>,
        h: EventId,
        first: bool,
    ) -> Result<Vec<(usize, Page)>, Interrupted> {
        let (mut numbers, mut logs, mut pages) = (Vec::new(), Vec::new(), Vec::new());
        let wanted: Vec<_> = merge.wants().collect();
        let count = (PAGE_EVENTS / wanted.len().max(1)).max(8);
        for (n, source, after) in wanted {
            match source {
                Source::Log(channel) => {
                    numbers.push(n);
                    logs.push((channel.clone(), after));
                }
                Source::Cache => {
                    // A tail that was cut meanwhile no longer reaches back: the logs do.
                    let (events, more) = self
                        .delivery
                        .replay_cache
                        .read(after, h, &c.client.topics, count)
                        .ok_or(Interrupted::Again)?;
                    pages.push((
                        n,
                        Page { events, more, upto: EventId::ZERO, last_ever: EventId::ZERO },
                    ));
                }
            }
        }
        if !logs.is_empty() {
            let _reader = self.readers.acquire().await.map_err(|_| Interrupted::Void)?;
            pages.extend(
                numbers.into_iter().zip(log::pages(&self.commands, &logs, count, first).await?),
            );
        }
        Ok(pages)
    }

    /// Tells the client, once, what it may have lost.
    fn tell(
        &self,
        c: &Connection,
        merge: &Merge<Source>,
        pages: &[(usize, Page)],
        from: EventId,
        flags: GapFlags,
    ) {
        let logs: std::collections::HashMap<usize, &Source> =
            merge.wants().map(|(n, source, _)| (n, source)).collect();
        let (mut trimmed, mut expired) = (Vec::new(), Vec::new());
        for (n, page) in pages {
            let Some(Source::Log(channel)) = logs.get(n) else { continue };
            match catch_up::gap(from, flags.stale, page) {
                Some(GapReason::Trimmed) => trimmed.push(channel.to_string()),
                Some(_) => expired.push(channel.to_string()),
                None => {}
            }
        }
        // Which topics there were is known for as long as the retention only.
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
                return c.tell_gap(GapReason::Unrecorded, c.client.channels().collect());
            }
            (true, true) => return,
        };
        let mut seen = HashSet::new();
        let channels = trimmed.into_iter().chain(expired).filter(|name| seen.insert(name.clone()));
        c.tell_gap(reason, channels.take(MAX_GAP_CHANNELS).collect());
    }
}

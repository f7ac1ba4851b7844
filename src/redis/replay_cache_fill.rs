//! Loads missing broadcasts into the replay cache, once for all waiting catch-ups.

use std::sync::Arc;

use super::{
    commands::{CommandError, Commands},
    log,
};
use crate::{
    core::{
        catch_up::{self, ClockSnapshot, Merge},
        event::Event,
        id::EventId,
        topics::Topics,
    },
    state::replay_cache::ReplayCache,
};

/// Maximum time span to load: enough for a link break or a restart.
const REACH_MS: u64 = 10 * 60 * 1000;
const PAGE_EVENTS: usize = 1024;

/// Whether the replay cache contains every broadcast of the topics after `from`. If not, and if
/// other streams may need them, too, loads them. `may_fill`: no log that had an event after `from`
/// can have expired.
///
/// # Errors
/// Redis does not respond.
pub async fn reaches(
    cache: &ReplayCache,
    commands: &Commands,
    from: EventId,
    clock: &ClockSnapshot,
    topics: &Topics,
    may_fill: bool,
) -> Result<bool, CommandError> {
    // The cache is in the order of ids, in which a time has no place.
    if from.is_time() {
        return Ok(false);
    }
    let covered = || cache.start().is_some_and(|start| start <= from);
    if covered() {
        return Ok(true);
    }
    // A few exact topics are read faster from their own logs.
    if !may_fill || topics.prefixes().next().is_none() {
        return Ok(false);
    }
    let _turn = cache.filling.lock().await;
    if covered() {
        return Ok(true);
    }
    // In another epoch than the snapshot's, nothing says where the logs must be read.
    let is_near = |start: &EventId| {
        start.epoch == clock.h.epoch && start.ms.saturating_sub(from.ms) < REACH_MS
    };
    let Some(start) = cache.start().filter(is_near) else { return Ok(false) };
    let upto = ClockSnapshot { h: start, ..*clock };
    match read(commands, from, &upto, cache.limit_bytes() / 2).await? {
        Some(events) => Ok(cache.prepend(from, start, &events)),
        None => Ok(false),
    }
}

/// Reads all broadcasts in (from, H]; `None` if some are missing or they are too large.
async fn read(
    commands: &Commands,
    from: EventId,
    clock: &ClockSnapshot,
    limit_bytes: usize,
) -> Result<Option<Vec<Arc<Event>>>, CommandError> {
    let all = Topics::parse(["*"].into_iter()).unwrap_or_default().with_presence(true);
    let (logs, too_many) =
        log::active_broadcasts(commands, &all, clock.read_after(from).ms).await?;
    if too_many {
        return Ok(None);
    }
    let count = (PAGE_EVENTS / logs.len().max(1)).max(8);
    let mut merge = Merge::new(from, clock, logs);
    let (mut events, mut bytes, mut first) = (Vec::new(), 0, true);
    loop {
        let (numbers, wanted): (Vec<_>, Vec<_>) =
            merge.wants().map(|(n, channel, after)| (n, (channel.clone(), after))).unzip();
        if wanted.is_empty() {
            return Ok(Some(events));
        }
        let pages = log::pages(commands, &wanted, count, first).await?;
        for (n, page) in numbers.into_iter().zip(pages) {
            // They may be of another master: the catch-up itself must find them.
            if page.in_later_epochs(clock.h.epoch).next().is_some()
                || first && catch_up::gap(from, false, &page).is_some()
                || merge.feed(n, page, first).is_err()
            {
                return Ok(None);
            }
        }
        first = false;
        while let Some(event) = merge.pop() {
            bytes += event.frame.len();
            events.push(event);
        }
        if bytes > limit_bytes {
            return Ok(None);
        }
    }
}

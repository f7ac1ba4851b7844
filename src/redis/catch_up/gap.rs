//! Which gap a catch-up reports.

use std::collections::{HashMap, HashSet};

use super::CatchUpSource;
use crate::{
    core::{
        catch_up::{self, Merge},
        channel::Channel,
        id::EventId,
        page::Page,
        part::Part,
        reasons::GapReason,
    },
    state::{client::MAX_GAP_CHANNELS, connection::Connection},
};

/// Reasons why events after a cursor may be missing.
#[derive(Clone, Copy)]
pub(super) struct GapFlags {
    /// A new epoch began after the cursor.
    pub reset: bool,
    /// A break in the history is after the cursor.
    pub unrecorded: bool,
    /// The cursor is older than the longest retention.
    pub stale: bool,
    /// More topics were active than a catch-up reads.
    pub too_many: bool,
}

/// The reason and the channels if events of a part after the cursor may be missing; `pages` are the
/// first ones. `is_stale`: whether the cursor is older than the retention of a channel.
pub(super) fn find_gap(
    c: &Connection,
    part: Part,
    merge: &Merge<CatchUpSource>,
    pages: &[(usize, Page)],
    from: EventId,
    flags: GapFlags,
    is_stale: impl Fn(&Channel) -> bool,
) -> Option<(GapReason, Vec<String>)> {
    if flags.reset {
        let channels: Vec<_> = c.client.channels(part).collect();
        return (!channels.is_empty()).then_some((GapReason::Reset, channels));
    }
    let logs: HashMap<usize, &CatchUpSource> =
        merge.wants().map(|(n, source, _)| (n, source)).collect();
    let (mut trimmed, mut expired) = (Vec::new(), Vec::new());
    for (n, page) in pages {
        let Some(CatchUpSource::Log(channel)) = logs.get(n) else { continue };
        match catch_up::gap(from, is_stale(channel), page) {
            Some(GapReason::Trimmed) => trimmed.push(channel.to_string()),
            Some(_) => expired.push(channel.to_string()),
            None => {}
        }
    }
    // Active topics are only known as long as the longest retention.
    let topics = part.includes(Part::Broadcasts).then_some(&c.client.topics);
    let prefixes = || topics.into_iter().flat_map(|topics| topics.prefixes());
    let patterns = || prefixes().map(|prefix| format!("broadcast:{prefix}*"));
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
            return Some((GapReason::Unrecorded, c.client.channels(Part::Whole).collect()));
        }
        (true, true) => return None,
    };
    let mut seen = HashSet::new();
    let channels = trimmed.into_iter().chain(expired).filter(|name| seen.insert(name.clone()));
    Some((reason, channels.take(MAX_GAP_CHANNELS).collect()))
}

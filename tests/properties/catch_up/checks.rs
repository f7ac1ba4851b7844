//! What must hold at the end of a simulation.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use sse_gateway::core::{id::EventId, part::Part, reasons::GapReason};

use super::{Gap, Received, Simulation, of};
use crate::redis_model::{Key, Published, number_of};

impl Simulation {
    /// Every event of a server arrived once. Positions rise, except where the stream, or its part,
    /// was restarted. A part of a split stream may go back to a lower epoch, with `reset`.
    pub fn check_order(&self, server: usize) -> Result<(), TestCaseError> {
        let (mut last, mut ids) = (BTreeMap::new(), BTreeSet::new());
        let order = |id: EventId| if self.servers.len() > 1 { id.epoch } else { 0 };
        for received in &self.received {
            let id = match received {
                Received::Event(n, id) if *n == server => {
                    prop_assert!(ids.insert(*id), "{} twice: {:?}", id, self.received);
                    let is_later = last.get(&order(*id)).is_none_or(|last| id > last);
                    prop_assert!(is_later, "{} is late: {:?}", id, self.received);
                    *id
                }
                Received::Position(position) => of(server, *position),
                Received::Gap(gap) if gap.server == server => {
                    if gap.reason == GapReason::UnknownId {
                        last.clear();
                    }
                    continue;
                }
                Received::Event(..) | Received::Gap(_) | Received::Value(..) => continue,
            };
            let is_later = last.insert(order(id), id).is_none_or(|last| id >= last);
            prop_assert!(is_later, "{} is late: {:?}", id, self.received);
        }
        Ok(())
    }

    /// Every event that is still in a log arrived, and the others are before a gap that the gateway
    /// noticed after they were lost.
    pub fn check_missing(&self, n: usize, epochs_change: bool) -> Result<(), TestCaseError> {
        let server = &self.servers[n];
        let received = |wanted: EventId| {
            self.received
                .iter()
                .any(|r| matches!(r, Received::Event(from, id) if *from == n && *id == wanted))
        };
        // The client has a later value of its key.
        let mut values = BTreeMap::<&Key, usize>::new();
        for received in &self.received {
            if let Received::Value(key, number) = received {
                let newest = values.entry(key).or_default();
                *newest = (*newest).max(*number);
            }
        }
        let is_superseded = |e: &Published| {
            let value = e.key.as_ref().and_then(|key| values.get(key));
            value.is_some_and(|value| *value >= e.number)
        };
        let is_due = |e: &Published| !epochs_change || !self.is_lost_unknown(n, e.lost_at);
        let missing = |e: &&Published| {
            self.is_wanted(n, e.id) && is_due(e) && !received(e.id) && !is_superseded(e)
        };
        for event in server.redis.published.iter().filter(missing) {
            let is_overtaken = server.overtaken.contains(&event.id);
            // An overtaken event is lost from the beginning, even if its log has it for a while.
            let since = event.lost_at.filter(|_| !is_overtaken).unwrap_or(event.at);
            let own_gaps = || self.gaps().filter(|gap| gap.server == n);
            let mut skipped = own_gaps().filter(|gap| gap.reason == GapReason::UnknownId);
            let may_be_missing =
                event.lost_at.is_some() || is_overtaken || skipped.any(|gap| gap.at >= event.at);
            prop_assert!(may_be_missing, "{} is in a log: {:?}", event.id, self.received);
            let covers = |gap: &Gap| match gap.reason {
                GapReason::Trimmed => gap.at >= since && gap.from < event.id,
                // A part of a split stream skips it, if its server went back to a lower epoch.
                GapReason::Reset if self.servers.len() > 1 && is_overtaken => gap.at >= event.at,
                _ => gap.at >= since,
            };
            let mut gaps = own_gaps();
            prop_assert!(
                gaps.any(covers),
                "{} was lost silently at {}: {:?}",
                event.id,
                since,
                self.received
            );
        }
        Ok(())
    }

    /// The client knows the current values. Without new epochs, none went back to an earlier one.
    pub fn check_values(&self, epochs_change: bool) -> Result<(), TestCaseError> {
        let mut current = BTreeMap::new();
        for channel in &self.channels {
            for value in self.servers[self.server_of(channel)].redis.values(channel) {
                let key = (channel.clone(), value.key.to_string());
                current.insert(key, number_of(&value.event));
            }
        }
        prop_assert_eq!(&self.values, &current, "{:?}", self.received);
        prop_assert!(!self.gateway.stream.needs_snapshot(Part::Whole));
        prop_assert!(epochs_change || self.regressions.is_empty(), "{:?}", self.regressions);
        Ok(())
    }

    /// No gap without a cause.
    pub fn check_gaps(&self, epochs_change: bool) -> Result<(), TestCaseError> {
        for gap in self.gaps() {
            let is_possible = match gap.reason {
                // The epoch of a foreign entry is not known: a catch-up that began before the
                // fail-over may take an event behind it for the rest of a trimmed log.
                GapReason::Trimmed => self.was_trimmed || (self.has_foreign && epochs_change),
                GapReason::Reset => epochs_change && !gap.from.is_time(),
                GapReason::UnknownId => epochs_change,
                _ => false,
            };
            prop_assert!(is_possible, "{:?}: {:?}", gap, self.received);
        }
        Ok(())
    }
}

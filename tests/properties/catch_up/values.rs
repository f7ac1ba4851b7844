//! The retained values that the client knows.

use std::collections::BTreeMap;

use proptest::prelude::*;
use sse_gateway::core::{event::Event, event_options::Retain, part::Part};

use super::Simulation;
use crate::redis_model::number_of;

impl Simulation {
    /// Applies an event to the client's values.
    pub(super) fn change_value(&mut self, event: &Event) {
        let Some(retain) = event.retain() else { return };
        let key = (event.channel.clone(), retain.key().to_owned());
        let number = number_of(event);
        if let Some(before) = self.newest.insert(key.clone(), number).filter(|b| *b > number) {
            self.regressions.push(format!("{key:?}: {before}, {number}"));
        }
        match retain {
            Retain::Keep(_) => self.values.insert(key, number),
            Retain::Forget(_) => self.values.remove(&key),
        };
    }

    /// The client knows the current values. Without new epochs, none went back to an earlier one.
    pub(super) fn check_values(&self, epochs_change: bool) -> Result<(), TestCaseError> {
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
}

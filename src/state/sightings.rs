//! Which events with `UNSEEN` were handed to a stream of their user.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;

use crate::core::id::EventId;

/// Maximum number of events that wait to be reported. Those beyond it count as unseen.
const MAX_WAITING: usize = 100_000;

/// Events that were handed over, until they are reported to Redis.
#[derive(Default)]
pub struct Sightings(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    by_user: HashMap<Arc<str>, Vec<EventId>>,
    count: usize,
}

impl Sightings {
    /// An event was handed to a stream of its user. Returns whether there was room for it.
    pub fn add(&self, user: &Arc<str>, id: EventId) -> bool {
        let mut waiting = self.0.lock();
        let has_room = waiting.count < MAX_WAITING;
        if has_room {
            waiting.count += 1;
            waiting.by_user.entry(user.clone()).or_default().push(id);
        }
        has_room
    }

    /// Takes all that wait, by user.
    pub fn take(&self) -> HashMap<Arc<str>, Vec<EventId>> {
        std::mem::take(&mut *self.0.lock()).by_user
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::testing::id;

    #[test]
    fn sightings_are_bounded_and_taken_once() {
        let (sightings, user) = (Sightings::default(), "1".into());
        assert!((0..MAX_WAITING as u64).all(|ms| sightings.add(&user, id(ms))));
        assert!(!sightings.add(&user, id(1)));
        assert_eq!(sightings.take()[&user].len(), MAX_WAITING);
        assert!(sightings.take().is_empty() && sightings.add(&user, id(1)));
    }
}

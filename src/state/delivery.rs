//! Where the links deliver what they receive: the workers' mailboxes and the replay cache.

use std::sync::{
    Arc,
    atomic::{AtomicU16, Ordering},
};

use super::{
    mailbox::{Mailboxes, Message},
    replay_cache::ReplayCache,
};
use crate::core::{event::Event, id::EventId, part::ServerIndex};

/// The mailboxes of the workers, and the cache of recent broadcasts. Its methods keep the two
/// consistent.
pub struct Delivery {
    /// The workers' mailboxes.
    pub mailboxes: Mailboxes,
    /// Recent broadcasts.
    pub replay_cache: ReplayCache,
    /// The server that has the broadcasts.
    broadcast_server: AtomicU16,
}

impl Delivery {
    /// Without workers, and with an empty cache of at most this many bytes. Server 0 has the
    /// broadcasts.
    pub fn new(replay_cache_bytes: usize) -> Self {
        Self {
            mailboxes: Mailboxes::default(),
            replay_cache: ReplayCache::new(replay_cache_bytes),
            broadcast_server: AtomicU16::default(),
        }
    }

    /// Whether the server has the broadcasts. The replay cache depends on no other server.
    fn has_broadcasts(&self, server: ServerIndex) -> bool {
        self.broadcast_server.load(Ordering::Relaxed) == server.0
    }

    /// Delivers an event to the cache and to the workers that may have a stream for it.
    pub fn event(&self, server: ServerIndex, event: Event) {
        let event = Arc::new(event);
        if self.has_broadcasts(server) {
            self.replay_cache.push(&event);
        }
        self.mailboxes.send_event(server, &event);
    }

    /// Everything up to this id of the server has been delivered.
    pub fn watermark(&self, server: ServerIndex, id: EventId) {
        self.mailboxes.send(|| Message::Watermark(server, id));
    }

    /// Plain messages before this position of the server may be missing.
    pub fn unrecorded(&self, server: ServerIndex, id: EventId) {
        self.mailboxes.send(|| Message::Unrecorded(server, id));
    }

    /// A new epoch has begun, in which the link brings everything after `start`. The event that is
    /// the first sign of the epoch is after it.
    pub fn new_epoch(&self, server: ServerIndex, start: EventId) {
        if self.has_broadcasts(server) {
            self.replay_cache.clear();
            self.replay_cache.begin(start);
        }
        self.mailboxes.send(|| Message::NewEpoch(server));
    }

    /// The link is up, and brings everything after `h`.
    pub fn link_up(&self, server: ServerIndex, h: EventId) {
        if self.has_broadcasts(server) {
            self.replay_cache.begin(h);
        }
        self.watermark(server, h);
        self.mailboxes.send(|| Message::LinkUp(server));
    }

    /// The link was lost: what comes next may not follow what was delivered.
    pub fn link_down(&self, server: ServerIndex) {
        self.mailboxes.send(|| Message::LinkDown(server));
        if self.has_broadcasts(server) {
            self.replay_cache.clear();
        }
    }

    /// The channels of these users are on other servers now, whose routes must be known already.
    pub fn users_moved(&self, users: &Arc<[Arc<str>]>) {
        self.mailboxes.send(|| Message::UsersMoved(users.clone()));
    }

    /// The link of this server is about to bring the broadcasts. The replay cache depends on it from
    /// now on, and begins with [`Delivery::link_up`].
    pub fn broadcasts_on(&self, server: ServerIndex) {
        if self.broadcast_server.swap(server.0, Ordering::Relaxed) != server.0 {
            self.replay_cache.clear();
        }
    }

    /// The broadcasts are on this server now, whose route must be known already. The link brings
    /// everything after `h`; `None`: it is down.
    pub fn broadcasts_moved(&self, server: ServerIndex, h: Option<EventId>) {
        self.broadcast_server.store(server.0, Ordering::Relaxed);
        self.replay_cache.clear();
        if let Some(h) = h {
            self.replay_cache.begin(h);
        }
        self.mailboxes.send(|| Message::BroadcastsMoved);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        core::topics::Topics,
        state::testing::{event, id},
    };

    #[test]
    fn only_the_server_of_the_broadcasts_changes_the_cache() {
        let (delivery, first, second) = (Delivery::new(1000), ServerIndex(0), ServerIndex(1));
        let start = || delivery.replay_cache.start();
        delivery.link_up(first, id(5));
        delivery.link_up(second, id(9));
        delivery.new_epoch(second, id(9));
        delivery.link_down(second);
        assert_eq!(start(), Some(id(5)));
        delivery.broadcasts_moved(second, Some(id(9)));
        delivery.link_down(first);
        let late = event("broadcast:a", 10, 5);
        delivery.event(first, Arc::unwrap_or_clone(late));
        assert_eq!(start(), Some(id(9)));
        let topics = Topics::parse(["a"].into_iter()).unwrap();
        assert_eq!(delivery.replay_cache.read(id(9), id(20), &topics, 9), Some((vec![], false)));
        delivery.link_down(second);
        assert_eq!(start(), None);
    }

    #[test]
    fn cache_begins_with_the_link_that_brings_the_broadcasts() {
        let (delivery, first, second) = (Delivery::new(1000), ServerIndex(0), ServerIndex(1));
        let start = || delivery.replay_cache.start();
        delivery.broadcasts_on(second);
        delivery.link_up(first, id(5));
        assert_eq!(start(), None);
        delivery.link_up(second, id(9));
        assert_eq!(start(), Some(id(9)));
        // After a failover, another server has them.
        delivery.broadcasts_on(first);
        assert_eq!(start(), None);
    }
}

//! Where the links deliver what they receive: the workers' mailboxes and the replay cache.

use std::sync::{
    Arc,
    atomic::{AtomicU16, Ordering},
};

use super::{
    mailbox::{Command, Mailboxes, Message},
    replay_cache::ReplayCache,
    retained_cache::RetainedCache,
    session_notices::SessionNotices,
};
use crate::{
    core::{event::Event, id::EventId, part::ServerIndex},
    spans::relay::RelaySpan,
};

/// The mailboxes of the workers, the cache of recent broadcasts, and recent notices about sessions.
/// Its methods keep them consistent.
pub struct Delivery {
    /// The workers' mailboxes.
    pub mailboxes: Mailboxes,
    /// Recent broadcasts.
    pub replay_cache: ReplayCache,
    /// The current retained values of broadcasts. It is as complete as the replay cache.
    pub retained_cache: RetainedCache,
    /// Recent notices about sessions.
    pub session_notices: SessionNotices,
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
            retained_cache: RetainedCache::new(replay_cache_bytes),
            session_notices: SessionNotices::default(),
            broadcast_server: AtomicU16::default(),
        }
    }

    /// Whether the server has the broadcasts. The replay cache depends on no other server.
    fn has_broadcasts(&self, server: ServerIndex) -> bool {
        self.broadcast_server.load(Ordering::Relaxed) == server.0
    }

    /// Delivers an event to the cache and to the workers that may have a stream for it. `span` is
    /// that of a sampled event.
    pub fn event(&self, server: ServerIndex, event: Event, span: Option<Arc<RelaySpan>>) {
        let event = Arc::new(event);
        if self.has_broadcasts(server) {
            self.replay_cache.push(&event);
            self.retained_cache.update(&event);
        }
        self.mailboxes.send_event(server, &event, span);
    }

    /// The link was lost: what comes next may not follow what the caches contain.
    fn clear_caches(&self) {
        self.replay_cache.clear();
        self.retained_cache.close();
    }

    /// The link brings everything after `h`.
    fn begin_caches(&self, h: EventId) {
        self.replay_cache.begin(h);
        self.retained_cache.open(h);
    }

    /// A connection with this generation took over a session of the user, for the `times`th time
    /// recently.
    pub fn taken_over(&self, user: &Arc<str>, digest: &str, generation: u64, times: u64) {
        let digest: Arc<str> = digest.into();
        self.session_notices.add_taken_over(digest.clone(), generation);
        let (user, digest) = (|| user.clone(), || digest.clone());
        self.mailboxes.send_to_user(&user(), || Command::TakenOver {
            user: user(),
            digest: digest(),
            generation,
            times,
        });
    }

    /// The sessions that the user had opened up to this time, ms since 1970, were revoked.
    pub fn revoked(&self, user: &Arc<str>, revoked_ms: u64) {
        self.session_notices.add_revoked(user.clone(), revoked_ms);
        self.mailboxes.send_to_user(user, || Command::Revoke { user: user.clone(), revoked_ms });
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
            self.clear_caches();
            self.begin_caches(start);
        }
        self.mailboxes.send(|| Message::NewEpoch(server));
    }

    /// The link is up, and brings everything after `h`.
    pub fn link_up(&self, server: ServerIndex, h: EventId) {
        if self.has_broadcasts(server) {
            self.begin_caches(h);
        }
        self.watermark(server, h);
        self.mailboxes.send(|| Message::LinkUp(server));
    }

    /// The link was lost: what comes next may not follow what was delivered.
    pub fn link_down(&self, server: ServerIndex) {
        self.mailboxes.send(|| Message::LinkDown(server));
        if self.has_broadcasts(server) {
            self.clear_caches();
        }
    }

    /// A linked server has got slots, which the routes must know already.
    pub fn slots_arrived(&self) {
        self.mailboxes.send(|| Message::SlotsArrived);
    }

    /// The channels of these users are on other servers now, whose routes must be known already.
    pub fn users_moved(&self, users: &Arc<[Arc<str>]>) {
        self.mailboxes.send(|| Message::UsersMoved(users.clone()));
    }

    /// This server has the broadcasts, and its link is about to subscribe to them: from now on, the
    /// cache takes them from this server only. It must know that before the watermark with which
    /// the cache begins, because events follow that at once.
    pub fn set_broadcast_server(&self, server: ServerIndex) {
        self.broadcast_server.store(server.0, Ordering::Relaxed);
        self.clear_caches();
    }

    /// The broadcasts are on another server than this one now, whose route must be known already.
    pub fn broadcasts_left(&self, server: ServerIndex) {
        if self.has_broadcasts(server) {
            self.clear_caches();
        }
        self.mailboxes.send(|| Message::BroadcastsMoved);
    }

    /// The broadcasts are on this server now, whose route must be known already. The link brings
    /// everything after `h`.
    pub fn broadcasts_moved(&self, server: ServerIndex, h: EventId) {
        // Another link may have taken them over since `set_broadcast_server`.
        if self.has_broadcasts(server) {
            self.begin_caches(h);
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
        delivery.set_broadcast_server(second);
        // Behind the watermark, but before this instance has handled that.
        let early = event("broadcast:a", 10, 5);
        delivery.event(second, Arc::unwrap_or_clone(early), None);
        delivery.broadcasts_moved(first, id(8));
        assert_eq!(start(), None, "the cache takes nothing from the first server any more");
        delivery.broadcasts_moved(second, id(9));
        delivery.link_down(first);
        let late = event("broadcast:a", 11, 10);
        delivery.event(first, Arc::unwrap_or_clone(late), None);
        assert_eq!(start(), Some(id(9)));
        let topics = Topics::parse(["a"].into_iter()).unwrap();
        let read = delivery.replay_cache.read(id(9), id(20), &topics, 9);
        let (found, _) = read.expect("a cache that begins at 9");
        assert_eq!(found.iter().map(|e| e.id).collect::<Vec<_>>(), [Some(id(10))]);
        delivery.link_down(second);
        assert_eq!(start(), None);
        // A link that begins with the broadcasts, and one that loses them.
        delivery.set_broadcast_server(first);
        delivery.link_up(second, id(20));
        assert_eq!(start(), None, "the cache depends on no other server");
        delivery.link_up(first, id(21));
        delivery.broadcasts_left(second);
        assert_eq!(start(), Some(id(21)));
        delivery.broadcasts_left(first);
        assert_eq!(start(), None);
    }
}

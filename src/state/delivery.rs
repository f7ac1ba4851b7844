//! Where the link delivers what it receives: the workers' mailboxes and the replay cache.

use std::sync::Arc;

use super::{
    mailbox::{Mailboxes, Message},
    replay_cache::ReplayCache,
};
use crate::core::{event::Event, id::EventId};

/// The mailboxes of the workers, and the cache of recent broadcasts. Its methods keep the two
/// consistent.
pub struct Delivery {
    /// The workers' mailboxes.
    pub mailboxes: Mailboxes,
    /// Recent broadcasts.
    pub replay_cache: ReplayCache,
}

impl Delivery {
    /// Without workers, and with an empty cache of at most this many bytes.
    pub fn new(replay_cache_bytes: usize) -> Self {
        Self { mailboxes: Mailboxes::default(), replay_cache: ReplayCache::new(replay_cache_bytes) }
    }

    /// Delivers an event to the cache and to the workers that may have a stream for it.
    pub fn event(&self, event: Event) {
        let event = Arc::new(event);
        self.replay_cache.push(&event);
        self.mailboxes.send_event(&event);
    }

    /// Everything up to this id has been delivered.
    pub fn watermark(&self, id: EventId) {
        self.mailboxes.send(|| Message::Watermark(id));
    }

    /// Plain messages before this position may be missing.
    pub fn unrecorded(&self, id: EventId) {
        self.mailboxes.send(|| Message::Unrecorded(id));
    }

    /// A new epoch has begun, in which the link brings everything after `start`. The event that is
    /// the first sign of the epoch is after it.
    pub fn new_epoch(&self, start: EventId) {
        self.replay_cache.clear();
        self.replay_cache.begin(start);
        self.mailboxes.send(|| Message::NewEpoch);
    }

    /// The link is up, and brings everything after `h`.
    pub fn link_up(&self, h: EventId) {
        self.replay_cache.begin(h);
        self.watermark(h);
        self.mailboxes.send(|| Message::LinkUp);
    }

    /// STUB
    pub fn users_moved(&self, _users: &Arc<[Arc<str>]>) {}

    /// STUB
    pub fn broadcasts_moved(&self, _server: crate::core::part::ServerIndex, _h: Option<EventId>) {}

    /// The link was lost: what comes next may not follow what was delivered.
    pub fn link_down(&self) {
        self.mailboxes.send(|| Message::LinkDown);
        self.replay_cache.clear();
    }
}

//! The parts of a connection's stream: which servers they are read from, and whether they are live.

use super::{Connection, Subscription};
use crate::core::{
    id::EventId,
    part::{Part, ServerIndex},
    stream_state::StreamState,
};

impl Connection {
    /// Whether all of `part` receives events from the hub.
    pub fn is_part_live(&self, part: Part) -> bool {
        self.state.borrow().is_live(part)
    }

    /// See [`StreamState::is_detached`].
    pub fn is_detached(&self, part: Part) -> bool {
        self.state.borrow().is_detached(part)
    }

    /// See [`StreamState::parts`].
    pub fn parts(&self, part: Part) -> impl Iterator<Item = Part> + use<> {
        self.state.borrow().parts(part)
    }

    /// Whether its two sources are read independently of each other.
    pub fn is_split(&self) -> bool {
        self.state.borrow().is_split()
    }

    /// See [`StreamState::split`].
    pub fn split(&self) {
        self.with(StreamState::split);
        self.notify_room();
    }

    /// The server from which a part is read.
    pub fn server(&self, part: Part) -> ServerIndex {
        self.servers.get()[usize::from(part == Part::Broadcasts)]
    }

    /// Sets the server from which a part is read. A subscription on another server ends.
    pub fn set_server(&self, part: Part, server: ServerIndex) {
        let [user, broadcasts] = self.servers.get();
        let is_included = |other| part.includes(other);
        self.servers.set([
            if is_included(Part::User) { server } else { user },
            if is_included(Part::Broadcasts) { server } else { broadcasts },
        ]);
        if user != self.server(Part::User) {
            self.subscription.take();
        }
    }

    /// Whether it has a subscription to its user's channel.
    pub fn is_subscribed(&self) -> bool {
        self.subscription.borrow().is_some()
    }

    /// Keeps a subscription to its user's channel until the connection ends or the part moves.
    pub fn set_subscription(&self, subscription: Subscription) {
        self.subscription.replace(Some(subscription));
    }

    /// See [`StreamState::detach`].
    pub fn detach(&self, part: Part, watermark: EventId) {
        self.with(|state| state.detach(part, watermark));
        self.notify_room();
    }
}

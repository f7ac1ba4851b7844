//! What one worker knows of each server.

use std::cell::RefCell;

use crate::core::{id::EventId, part::ServerIndex};

#[derive(Clone, Default)]
struct Server {
    is_linked: bool,
    /// The worker has received everything up to this id since the link came up.
    watermark: EventId,
    last_watermark: EventId,
}

/// The servers of one worker, by index.
pub(super) struct HubServers(RefCell<Vec<Server>>);

impl HubServers {
    /// The link is up for these servers.
    pub fn new(linked: &[ServerIndex]) -> Self {
        let servers = Self(RefCell::new(vec![Server::default()]));
        linked.iter().for_each(|server| servers.set_linked(*server, true));
        servers
    }

    fn with<T>(&self, index: ServerIndex, f: impl FnOnce(&mut Server) -> T) -> T {
        let mut servers = self.0.borrow_mut();
        let index = usize::from(index.0);
        if index >= servers.len() {
            servers.resize(index + 1, Server::default());
        }
        f(&mut servers[index])
    }

    /// The servers that are known.
    pub fn all(&self) -> impl Iterator<Item = ServerIndex> + use<> {
        (0..self.0.borrow().len()).filter_map(|index| u16::try_from(index).ok()).map(ServerIndex)
    }

    /// Whether the link to a server is up.
    pub fn is_linked(&self, server: ServerIndex) -> bool {
        self.with(server, |server| server.is_linked)
    }

    /// Sets whether the link to a server is up.
    pub fn set_linked(&self, server: ServerIndex, is_linked: bool) {
        self.with(server, |server| server.is_linked = is_linked);
    }

    /// The worker has received everything up to this id of a server.
    pub fn watermark(&self, server: ServerIndex) -> EventId {
        self.with(server, |server| server.watermark)
    }

    /// Raises the watermark of a server.
    pub fn raise_watermark(&self, server: ServerIndex, id: EventId) {
        self.with(server, |server| server.watermark = id.max(server.watermark));
    }

    /// Nothing has arrived yet on the server's next link, or in its next epoch.
    pub fn reset_watermark(&self, server: ServerIndex) {
        self.with(server, |server| {
            if server.watermark > EventId::ZERO {
                server.last_watermark = std::mem::take(&mut server.watermark);
            }
        });
    }

    /// The last watermark of a server, also while its link is down; `None` before the first.
    pub fn last_watermark(&self, server: ServerIndex) -> Option<EventId> {
        let last = self.with(server, |server| match server.watermark {
            EventId::ZERO => server.last_watermark,
            watermark => watermark,
        });
        (last > EventId::ZERO).then_some(last)
    }
}

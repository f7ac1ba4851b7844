//! The Redis servers that this instance uses, and which of them owns a key. Without a cluster there
//! is one, which owns everything.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::Notify;

use super::{
    cluster::slots::{SLOTS, SlotRanges, slot_of},
    key_names::KeyNames,
    link::Link,
    link_state::LinkState,
};
use crate::core::part::ServerIndex;

/// What is known of a server, shared by its link and by those who use it.
pub struct ServerInfo {
    /// Its number in this instance.
    pub index: ServerIndex,
    /// The id of the node in a cluster; empty without one.
    pub node_id: String,
    /// The state of the link to it.
    pub state: Arc<LinkState>,
    /// Its host and port in a cluster, where they may change.
    endpoint: ArcSwap<(String, u16)>,
    /// The slots that it owns in a cluster.
    slots: ArcSwap<SlotRanges>,
}

impl ServerInfo {
    /// The one server of an instance without a cluster.
    pub fn single(state: Arc<LinkState>) -> Self {
        Self {
            index: ServerIndex::default(),
            node_id: String::new(),
            state,
            endpoint: ArcSwap::default(),
            slots: ArcSwap::default(),
        }
    }

    /// A node of a cluster.
    pub fn node(index: ServerIndex, node_id: String, state: Arc<LinkState>) -> Self {
        Self { index, node_id, ..Self::single(state) }
    }

    /// Whether it is a node of a cluster.
    pub fn is_node(&self) -> bool {
        !self.node_id.is_empty()
    }

    /// Its host and port; empty without a cluster.
    pub fn endpoint(&self) -> Arc<(String, u16)> {
        self.endpoint.load_full()
    }

    /// The slots that it owns; none without a cluster.
    pub fn slots(&self) -> Arc<SlotRanges> {
        self.slots.load_full()
    }

    /// Whether it owns the slot of this key.
    pub fn owns(&self, key: &str) -> bool {
        !self.is_node() || self.slots.load().contains(slot_of(key.as_bytes()))
    }

    /// Records where a node is and which slots it owns. Returns whether that has changed.
    pub fn update(&self, host: &str, port: u16, slots: &SlotRanges) -> bool {
        let (endpoint, owned) = (self.endpoint.load(), self.slots.load());
        let is_changed = endpoint.0 != host || endpoint.1 != port || **owned != *slots;
        if is_changed {
            self.endpoint.store(Arc::new((host.to_owned(), port)));
            self.slots.store(Arc::new(slots.clone()));
        }
        is_changed
    }
}

/// A server and the link to it. The link ends when the last clone is dropped.
#[derive(Clone)]
pub struct Server {
    /// What is known of it.
    pub info: Arc<ServerInfo>,
    /// The link.
    pub link: Link,
}

/// Which server owns which slot.
enum Owners {
    /// One server owns everything.
    One(Server),
    /// The masters of a cluster; for each slot the number of its owner among them plus 1, or 0.
    Slots { masters: Vec<Server>, owners: Box<[u16]> },
}

/// The servers of an instance, shared by all threads.
pub struct Servers {
    keys: Arc<KeyNames>,
    owners: ArcSwap<Owners>,
    /// Notified when a server does not own what it was asked for: the slots must be read again.
    pub stale: Notify,
}

impl Servers {
    /// An instance with one server.
    pub fn single(keys: Arc<KeyNames>, server: Server) -> Self {
        Self::new(keys, Owners::One(server))
    }

    /// A cluster whose masters are not known yet.
    pub fn cluster(keys: Arc<KeyNames>) -> Self {
        let owners = vec![0; usize::from(SLOTS)].into();
        Self::new(keys, Owners::Slots { masters: Vec::new(), owners })
    }

    fn new(keys: Arc<KeyNames>, owners: Owners) -> Self {
        Self { keys, owners: ArcSwap::from_pointee(owners), stale: Notify::new() }
    }

    /// Whether the servers are the masters of a cluster.
    pub fn is_cluster(&self) -> bool {
        matches!(**self.owners.load(), Owners::Slots { .. })
    }

    /// Replaces the masters of a cluster, which own what their [`ServerInfo`] says.
    pub fn set_masters(&self, masters: Vec<Server>) {
        let mut owners: Box<[u16]> = vec![0; usize::from(SLOTS)].into();
        for (number, master) in (1..).zip(&masters) {
            for slot in master.info.slots().iter() {
                owners[usize::from(slot)] = number;
            }
        }
        self.owners.store(Arc::new(Owners::Slots { masters, owners }));
    }

    /// The owner of a key; `None` if nobody owns its slot.
    pub fn of_key(&self, key: &[u8]) -> Option<Server> {
        match &**self.owners.load() {
            Owners::One(server) => Some(server.clone()),
            Owners::Slots { masters, owners } => {
                let number = usize::from(owners[usize::from(slot_of(key))]);
                masters.get(number.checked_sub(1)?).cloned()
            }
        }
    }

    /// The owner of a user's channel.
    pub fn of_user(&self, user: &str) -> Option<Server> {
        match &**self.owners.load() {
            Owners::One(server) => Some(server.clone()),
            Owners::Slots { .. } => self.of_key(self.keys.live_user(user).as_bytes()),
        }
    }

    /// The owner of all broadcasts.
    pub fn of_broadcasts(&self) -> Option<Server> {
        match &**self.owners.load() {
            Owners::One(server) => Some(server.clone()),
            Owners::Slots { .. } => self.of_key(self.keys.live_broadcast().as_bytes()),
        }
    }

    /// All servers.
    pub fn all(&self) -> Vec<Server> {
        match &**self.owners.load() {
            Owners::One(server) => vec![server.clone()],
            Owners::Slots { masters, .. } => masters.clone(),
        }
    }

    /// Whether events arrive from at least one server. The loss of one of several concerns only the
    /// users on it.
    pub fn is_any_alive(&self) -> bool {
        match &**self.owners.load() {
            Owners::One(server) => server.info.state.is_alive(),
            Owners::Slots { masters, .. } => masters.iter().any(|m| m.info.state.is_alive()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{redis::link::testing::idle_link, settings, state::clock::Clock};

    fn keys() -> Arc<KeyNames> {
        Arc::new(KeyNames::new(&settings::Redis {
            key_prefix: "sse:".into(),
            ..Default::default()
        }))
    }

    fn state() -> Arc<LinkState> {
        Arc::new(LinkState::new(Arc::new(Clock::new())))
    }

    fn master(index: u16, slots: impl IntoIterator<Item = u16>) -> Server {
        let info = ServerInfo::node(ServerIndex(index), format!("node{index}"), state());
        info.update("host", 6379, &slots.into_iter().collect());
        Server { info: Arc::new(info), link: idle_link() }
    }

    #[test]
    fn each_channel_belongs_to_the_master_of_its_slot() {
        let servers = Servers::cluster(keys());
        assert!(servers.of_user("42").is_none() && servers.of_broadcasts().is_none());
        let user = slot_of(b"user:42:events");
        let others = (0..SLOTS).filter(|slot| *slot != user);
        servers.set_masters(vec![master(7, [user]), master(8, others)]);
        let index = |server: Option<Server>| server.map(|s| s.info.index.0);
        assert_eq!(index(servers.of_user("42")), Some(7));
        assert_eq!(index(servers.of_key(b"sse:log:{user:42:events}")), Some(7));
        assert_eq!(index(servers.of_broadcasts()), Some(8));
        assert!(servers.is_cluster() && !servers.is_any_alive());
        servers.all()[1].info.state.set_up(true);
        assert!(servers.is_any_alive());
    }

    #[test]
    fn one_server_owns_everything() {
        let info = Arc::new(ServerInfo::single(state()));
        assert!(info.owns("anything"));
        let servers = Servers::single(keys(), Server { info, link: idle_link() });
        assert!(servers.of_user("42").is_some() && servers.of_key(b"x").is_some());
        assert!(!servers.is_cluster());
    }

    #[test]
    fn changes_of_a_node_are_noticed() {
        let node = master(1, [5]).info;
        assert!(node.owns("{n}x") == (slot_of(b"n") == 5));
        assert!(!node.update("host", 6379, &[5].into_iter().collect()));
        assert!(node.update("host", 6379, &[5, 6].into_iter().collect()));
        assert!(node.update("host2", 6379, &[5, 6].into_iter().collect()));
        assert_eq!(node.endpoint().0, "host2");
    }
}

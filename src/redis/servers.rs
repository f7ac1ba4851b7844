//! The Redis servers that this instance uses, and which of them owns a key. Without a cluster there
//! is one, which owns everything.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use super::{
    cluster::slots::{SLOTS, SlotRanges, slot_of},
    key_names::KeyNames,
    link::Link,
    link_state::LinkState,
};
use crate::{core::part::ServerIndex, settings::ServerAddress};

/// What is known of a server, shared by its link and by those who use it.
pub struct ServerInfo {
    /// Its number in this instance.
    pub index: ServerIndex,
    /// The state of the link to it.
    pub state: Arc<LinkState>,
    /// What is known of it as a node of a cluster.
    pub node: Option<NodeInfo>,
    /// Where the one server was last located; empty before that.
    located: Mutex<Arc<str>>,
}

/// What is known of a node of a cluster.
pub struct NodeInfo {
    /// Its id.
    pub id: String,
    address: ArcSwap<ServerAddress>,
    slots: ArcSwap<SlotRanges>,
    /// Slots in which the node key cannot be, because they are about to move away.
    leaving: Mutex<Vec<u16>>,
    /// The number of slots that it is giving away.
    migrating: AtomicUsize,
}

impl NodeInfo {
    /// A node of a cluster, of which only the id is known.
    pub fn new(id: String) -> Self {
        let nowhere = ServerAddress { host: String::new(), port: 0 };
        Self {
            id,
            address: ArcSwap::from_pointee(nowhere),
            slots: ArcSwap::default(),
            leaving: Mutex::default(),
            migrating: AtomicUsize::new(0),
        }
    }

    /// Where it is now.
    pub fn address(&self) -> Arc<ServerAddress> {
        self.address.load_full()
    }

    /// The slots that it owns.
    pub fn slots(&self) -> Arc<SlotRanges> {
        self.slots.load_full()
    }

    /// Records where the node is and which slots it owns. Returns whether that has changed.
    pub fn update(&self, address: ServerAddress, slots: &SlotRanges) -> bool {
        let is_changed = **self.address.load() != address || **self.slots.load() != *slots;
        if is_changed {
            self.address.store(Arc::new(address));
            self.slots.store(Arc::new(slots.clone()));
            self.leaving.lock().clear();
        }
        is_changed
    }

    /// The hash tag of the node key: in a slot that the node owns. `None`: it owns none.
    pub fn tag(&self, preferred: &str) -> Option<String> {
        let slots = self.slots();
        let leaving = self.leaving.lock();
        if leaving.is_empty() {
            return slots.tag(preferred);
        }
        let staying: SlotRanges = slots.iter().filter(|slot| !leaving.contains(slot)).collect();
        staying.tag(preferred)
    }

    /// Records the number of slots whose migration to another node has begun.
    pub fn set_migrating(&self, count: usize) {
        self.migrating.store(count, Ordering::Relaxed);
    }

    /// The number of slots whose migration to another node has begun.
    pub fn migrating(&self) -> usize {
        self.migrating.load(Ordering::Relaxed)
    }

    /// Records that the slot of this tag is about to move away.
    pub fn leave(&self, tag: &str) {
        self.leaving.lock().push(slot_of(tag.as_bytes()));
    }
}

impl ServerInfo {
    /// The one server of an instance without a cluster.
    pub fn single(state: Arc<LinkState>) -> Self {
        Self { index: ServerIndex::default(), state, node: None, located: Mutex::default() }
    }

    /// A node of a cluster, of which only the id is known.
    pub fn node(index: ServerIndex, id: String, state: Arc<LinkState>) -> Self {
        Self { index, state, node: Some(NodeInfo::new(id)), located: Mutex::default() }
    }

    /// Records where the server was located.
    pub fn set_located(&self, address: &str) {
        *self.located.lock() = address.into();
    }

    /// `host:port` of the server, or the path of its socket; `None` if it was not located yet.
    pub fn address(&self) -> Option<Arc<str>> {
        match &self.node {
            Some(node) => Some(node.address().to_string().into()),
            None => Some(self.located.lock().clone()).filter(|address| !address.is_empty()),
        }
    }

    /// Whether it owns the slot of this key.
    pub fn owns(&self, key: &str) -> bool {
        let owns = |node: &NodeInfo| node.slots.load().contains(slot_of(key.as_bytes()));
        self.node.as_ref().is_none_or(owns)
    }
}

/// A server and the link to it. The link ends when the last clone is dropped. Code that runs for
/// each client shares one: clones of its fields would contend for their reference counts.
#[derive(Clone)]
pub struct Server {
    /// What is known of it.
    pub info: Arc<ServerInfo>,
    /// The link.
    pub link: Link,
}

/// Which server owns which slot.
enum Owners {
    /// Nothing is known yet.
    Nobody,
    /// One server owns everything.
    One(Arc<Server>),
    /// The masters of a cluster; for each slot the number of its owner among them plus 1, or 0.
    Slots { masters: Vec<Arc<Server>>, owners: Box<[u16]> },
}

/// The servers of an instance, shared by all threads.
pub struct Servers {
    keys: Arc<KeyNames>,
    owners: ArcSwap<Owners>,
}

impl Servers {
    /// No server yet.
    pub fn new(keys: Arc<KeyNames>) -> Self {
        Self { keys, owners: ArcSwap::from_pointee(Owners::Nobody) }
    }

    /// Whether the servers are the masters of a cluster.
    pub fn is_cluster(&self) -> bool {
        matches!(**self.owners.load(), Owners::Slots { .. })
    }

    /// Ends all links, because the instance ends.
    pub fn close(&self) {
        self.owners.store(Arc::new(Owners::Nobody));
    }

    /// Makes one server the owner of everything.
    pub fn set_single(&self, server: Server) {
        self.owners.store(Arc::new(Owners::One(Arc::new(server))));
    }

    /// Makes the masters of a cluster the owners of their slots.
    pub fn set_masters(&self, masters: Vec<Server>) {
        let mut owners: Box<[u16]> = vec![0; usize::from(SLOTS)].into();
        for (number, master) in (1..).zip(&masters) {
            for slot in
                master.info.node.iter().flat_map(|node| node.slots().iter().collect::<Vec<_>>())
            {
                owners[usize::from(slot)] = number;
            }
        }
        let masters = masters.into_iter().map(Arc::new).collect();
        self.owners.store(Arc::new(Owners::Slots { masters, owners }));
    }

    /// The owner of a key; `None` if nobody owns its slot.
    pub fn of_key(&self, key: &[u8]) -> Option<Arc<Server>> {
        match &**self.owners.load() {
            Owners::Nobody => None,
            Owners::One(server) => Some(server.clone()),
            Owners::Slots { masters, owners } => {
                let number = usize::from(owners[usize::from(slot_of(key))]);
                masters.get(number.checked_sub(1)?).cloned()
            }
        }
    }

    /// The owner of a user's channel.
    pub fn of_user(&self, user: &str) -> Option<Arc<Server>> {
        match &**self.owners.load() {
            Owners::One(server) => Some(server.clone()),
            _ => self.of_key(self.keys.live_user(user).as_bytes()),
        }
    }

    /// The owner of all broadcasts.
    pub fn of_broadcasts(&self) -> Option<Arc<Server>> {
        match &**self.owners.load() {
            Owners::One(server) => Some(server.clone()),
            _ => self.of_key(self.keys.live_broadcast().as_bytes()),
        }
    }

    /// Whether a user's channel has an owner, who does not have the broadcasts.
    pub fn has_separate_broadcasts(&self, user: &str) -> bool {
        if matches!(**self.owners.load(), Owners::One(_)) {
            return false;
        }
        let index = |server: Arc<Server>| server.info.index;
        let (user, broadcasts) = (self.of_user(user), self.of_broadcasts());
        user.is_some_and(|user| broadcasts.map(index) != Some(index(user)))
    }

    /// All servers.
    pub fn all(&self) -> Vec<Server> {
        match &**self.owners.load() {
            Owners::Nobody => Vec::new(),
            Owners::One(server) => vec![(**server).clone()],
            Owners::Slots { masters, .. } => masters.iter().map(|m| (**m).clone()).collect(),
        }
    }

    /// The servers whose links are set up.
    pub fn linked(&self) -> Vec<ServerIndex> {
        let is_up = |server: &Server| server.info.state.is_up();
        self.all().iter().filter(|server| is_up(server)).map(|server| server.info.index).collect()
    }

    /// Whether at least one link is set up.
    pub fn is_any_up(&self) -> bool {
        self.all().iter().any(|server| server.info.state.is_up())
    }

    /// Whether events arrive from at least one server. The loss of one of several concerns only the
    /// users on it.
    pub fn is_any_alive(&self) -> bool {
        match &**self.owners.load() {
            Owners::Nobody => false,
            Owners::One(server) => server.info.state.is_alive(),
            Owners::Slots { masters, .. } => masters.iter().any(|m| m.info.state.is_alive()),
        }
    }

    /// Whether no broadcasts arrive, although other servers may be alive.
    pub fn has_lost_broadcasts(&self) -> bool {
        self.of_broadcasts().is_none_or(|server| server.info.state.is_lost())
    }
}

/// Servers for unit tests.
#[cfg(test)]
pub mod testing {
    use super::*;
    use crate::{
        redis::{link::testing::idle_link, link_state::START_PERIOD},
        settings,
        state::clock::Clock,
    };

    pub(super) fn keys() -> Arc<KeyNames> {
        Arc::new(KeyNames::new(&settings::Redis {
            key_prefix: "sse:".into(),
            ..Default::default()
        }))
    }

    pub(super) fn state() -> Arc<LinkState> {
        Arc::new(LinkState::new(Arc::new(Clock::new())))
    }

    /// One server, whose link nobody serves.
    pub fn single() -> Arc<Servers> {
        let servers = Servers::new(keys());
        let info = Arc::new(ServerInfo::single(state()));
        servers.set_single(Server { info, link: idle_link() });
        Arc::new(servers)
    }

    pub(super) fn address(host: &str) -> ServerAddress {
        ServerAddress { host: host.to_owned(), port: 6379 }
    }

    /// A master of a cluster, whose link nobody serves, of an instance that has started a while
    /// ago.
    pub fn master(index: u16, host: &str, slots: impl IntoIterator<Item = u16>) -> Server {
        let state = LinkState::new(Arc::new(Clock::started_before(START_PERIOD)));
        let info = ServerInfo::node(ServerIndex(index), format!("node{index}"), Arc::new(state));
        let node = info.node.as_ref().expect("a node");
        node.update(address(host), &slots.into_iter().collect());
        Server { info: Arc::new(info), link: idle_link() }
    }

    /// A cluster of these masters.
    pub fn cluster(masters: Vec<Server>) -> Arc<Servers> {
        let servers = Servers::new(keys());
        servers.set_masters(masters);
        Arc::new(servers)
    }
}

#[cfg(test)]
mod tests {
    use super::{testing::*, *};

    #[test]
    fn each_channel_belongs_to_the_master_of_its_slot() {
        let servers = Servers::new(keys());
        assert!(servers.of_user("42").is_none() && servers.of_broadcasts().is_none());
        let user = slot_of(b"user:42:events");
        let others = (0..SLOTS).filter(|slot| *slot != user);
        servers.set_masters(vec![master(7, "host", [user]), master(8, "host", others)]);
        let index = |server: Option<Arc<Server>>| server.map(|s| s.info.index.0);
        assert_eq!(index(servers.of_user("42")), Some(7));
        assert_eq!(index(servers.of_key(b"sse:log:{user:42:events}")), Some(7));
        assert_eq!(index(servers.of_broadcasts()), Some(8));
        assert!(servers.is_cluster() && !servers.is_any_alive());
        assert!(servers.has_separate_broadcasts("42"));
        servers.all()[1].info.state.set_up(true);
        assert!(servers.is_any_alive());
    }

    #[test]
    fn one_server_owns_everything() {
        let servers = single();
        assert!(servers.all()[0].info.owns("anything"));
        assert!(servers.of_user("42").is_some() && servers.of_key(b"x").is_some());
        assert!(!servers.is_cluster() && !servers.has_separate_broadcasts("42"));
    }

    #[test]
    fn broadcasts_are_separate_unless_the_users_server_has_them() {
        let [user, broadcasts] = [&b"user:42:events"[..], b"broadcast"].map(slot_of);
        for (slots, expected) in [
            (vec![vec![user, broadcasts]], false),
            (vec![vec![user], vec![broadcasts]], true),
            (vec![vec![user]], true),
            (vec![vec![broadcasts]], false),
            (vec![], false),
        ] {
            let masters = (0..).zip(&slots).map(|(n, own)| master(n, "host", own.iter().copied()));
            let servers = cluster(masters.collect());
            assert_eq!(servers.has_separate_broadcasts("42"), expected, "{slots:?}");
        }
    }

    #[test]
    fn changes_of_a_node_are_noticed() {
        let info = master(1, "host", [5]).info;
        let node = info.node.as_ref().unwrap();
        assert!(info.owns("{n}x") == (slot_of(b"n") == 5));
        assert!(!node.update(address("host"), &[5].into_iter().collect()));
        assert!(node.update(address("host"), &[5, 6].into_iter().collect()));
        assert!(node.update(address("host2"), &[5, 6].into_iter().collect()));
        assert_eq!(node.address().host, "host2");
    }

    #[test]
    fn node_key_leaves_a_slot_that_moves_away() {
        let info = master(1, "host", 0..SLOTS).info;
        let node = info.node.as_ref().unwrap();
        assert_eq!(node.tag("broadcast").as_deref(), Some("broadcast"));
        node.leave("broadcast");
        let next = node.tag("broadcast").unwrap();
        assert_ne!(slot_of(next.as_bytes()), slot_of(b"broadcast"));
        node.update(address("host"), &(1..SLOTS).collect());
        assert_eq!(node.tag("broadcast").as_deref(), Some("broadcast"), "the slots have changed");
    }
}

//! A Redis Cluster of real processes for one test.

use std::{collections::HashSet, time::Duration};

use super::{Redis, SLOTS, eventually_within};
use redis::FromRedisValue;
use tokio::sync::SemaphorePermit;

/// Number of slots of a cluster.
const ALL_SLOTS: usize = 16_384;
/// A cluster needs longer than one server.
const CLUSTER_GUARD: Duration = Duration::from_secs(90);
/// Maximum number of keys that one MIGRATE moves.
const KEYS: usize = 100;

/// The nodes of a cluster, stopped when dropped. The first ones are the masters in the order of
/// their slots.
pub struct Cluster {
    nodes: Vec<Redis>,
    settings: Vec<(&'static str, &'static str)>,
    fsync: Option<&'static str>,
    _slot: SemaphorePermit<'static>,
}

impl Cluster {
    /// A cluster of masters that share the slots evenly.
    pub async fn start(masters: usize) -> Cluster {
        Self::start_with(masters, None, &[]).await
    }

    /// The same with an append-only file (`fsync`: its `appendfsync`) and other settings of
    /// redis.conf.
    pub async fn start_with(
        masters: usize,
        fsync: Option<&'static str>,
        settings: &[(&'static str, &'static str)],
    ) -> Cluster {
        let slot = SLOTS.acquire().await.expect("never closed");
        // A dead master makes only its own slots unavailable.
        let mut all =
            vec![("cluster-node-timeout", "2000"), ("cluster-require-full-coverage", "no")];
        all.extend(settings);
        let mut cluster = Cluster { nodes: vec![], settings: all, fsync, _slot: slot };
        for n in 0..masters {
            cluster.start_node().await;
            let (first, last) = (n * ALL_SLOTS / masters, (n + 1) * ALL_SLOTS / masters - 1);
            let node = &cluster.nodes[n];
            let epoch = (n + 1).to_string();
            node.command::<()>(&["CLUSTER", "SET-CONFIG-EPOCH", &epoch]).await;
            node.command::<()>(&[
                "CLUSTER",
                "ADDSLOTSRANGE",
                &first.to_string(),
                &last.to_string(),
            ])
            .await;
        }
        for n in 1..masters {
            cluster.meet(n).await;
        }
        cluster.is_ok().await;
        cluster
    }

    async fn start_node(&mut self) {
        let node = Redis::cluster_node(self.fsync, &self.settings);
        node.start_again().await;
        self.nodes.push(node);
    }

    /// Introduces a node to the first one.
    async fn meet(&self, n: usize) {
        let (host, port) = self.nodes[n].address_parts();
        let bus = self.nodes[n].bus_port();
        self.nodes[0].command::<()>(&["CLUSTER", "MEET", &host, &port, bus]).await;
    }

    /// A node by its number; those that were added later follow the masters.
    pub fn node(&self, n: usize) -> &Redis {
        &self.nodes[n]
    }

    /// All nodes.
    pub fn nodes(&self) -> &[Redis] {
        &self.nodes
    }

    /// `host:port` of every node, for `redis+cluster://`.
    pub fn addresses(&self) -> Vec<String> {
        self.nodes.iter().map(Redis::address).collect()
    }

    /// Waits until every running node knows all nodes and owners of all slots.
    pub async fn is_ok(&self) {
        eventually_within(CLUSTER_GUARD, "a cluster that is complete", || async {
            let mut known = 0;
            for node in self.nodes.iter().filter(|node| node.is_running()) {
                let info: String = node.try_command(&["CLUSTER", "INFO"]).await.ok()?;
                let nodes: String = node.try_command(&["CLUSTER", "NODES"]).await.ok()?;
                let is_settled = !nodes.contains("handshake") && !nodes.contains("fail?");
                let is_complete = info.contains("cluster_slots_ok:16384");
                (info.contains("cluster_state:ok") && is_complete && is_settled).then_some(())?;
                let number = nodes.lines().count();
                (known == 0 || known == number).then_some(())?;
                known = number;
            }
            (known >= self.nodes.iter().filter(|node| node.is_running()).count()).then_some(())
        })
        .await;
    }

    /// The slot of a key.
    pub async fn slot_of(&self, key: &str) -> u16 {
        self.any().command(&["CLUSTER", "KEYSLOT", key]).await
    }

    fn any(&self) -> &Redis {
        self.nodes.iter().find(|node| node.is_running()).expect("a running node")
    }

    /// The number of the node that owns a key's slot, as most nodes see it.
    pub async fn owner_of(&self, key: &str) -> usize {
        let slot = self.slot_of(key).await;
        self.owner_of_slot(slot).await
    }

    /// The same of a slot.
    pub async fn owner_of_slot(&self, slot: u16) -> usize {
        for (n, node) in self.nodes.iter().enumerate() {
            if node.is_running() && own_slots(node).await.contains(&slot) {
                return n;
            }
        }
        panic!("nobody owns slot {slot}");
    }

    /// The slots that a node says it owns.
    pub async fn slots_of_node(&self, n: usize) -> HashSet<u16> {
        own_slots(&self.nodes[n]).await.into_iter().collect()
    }

    /// Runs one command on the owner of a key.
    pub async fn command_at<T: FromRedisValue>(&self, key: &str, words: &[&str]) -> T {
        self.nodes[self.owner_of(key).await].command(words).await
    }

    /// The id of a node.
    pub async fn id(&self, n: usize) -> String {
        self.nodes[n].command(&["CLUSTER", "MYID"]).await
    }

    /// Begins to move a slot: its owner is migrating it, and node `to` is importing it.
    pub async fn begin_migration(&self, slot: u16, to: usize) {
        let from = self.owner_of_slot(slot).await;
        let (from_id, to_id) = (self.id(from).await, self.id(to).await);
        let slot = slot.to_string();
        let set = |state: &'static str, id: String| {
            ["CLUSTER".to_owned(), "SETSLOT".to_owned(), slot.clone(), state.to_owned(), id]
        };
        self.nodes[to].command::<()>(&set("IMPORTING", from_id)).await;
        self.nodes[from].command::<()>(&set("MIGRATING", to_id)).await;
    }

    /// Moves the keys of a slot that is being migrated.
    pub async fn move_keys(&self, slot: u16, from: usize, to: usize) {
        let (host, port) = self.nodes[to].address_parts();
        loop {
            let words = ["CLUSTER", "GETKEYSINSLOT", &slot.to_string(), &KEYS.to_string()];
            let keys: Vec<String> = self.nodes[from].command(&words).await;
            if keys.is_empty() {
                return;
            }
            let mut words: Vec<&str> = vec!["MIGRATE", &host, &port, "", "0", "5000", "KEYS"];
            words.extend(keys.iter().map(String::as_str));
            self.nodes[from].command::<redis::Value>(&words).await;
        }
    }

    /// Ends the migration of a slot to node `to`.
    pub async fn end_migration(&self, slot: u16, from: usize, to: usize) {
        let id = self.id(to).await;
        let (slot, others) = (slot.to_string(), 0..self.nodes.len());
        let words = ["CLUSTER", "SETSLOT", &slot, "NODE", &id];
        // The new owner first: until then nobody would accept its keys.
        self.nodes[to].command::<()>(&words).await;
        for n in std::iter::once(from).chain(others.filter(|n| *n != from && *n != to)) {
            if self.nodes[n].is_running() {
                // A replica refuses, and learns it from its master.
                let _ = self.nodes[n].try_command::<()>(&words).await;
            }
        }
    }

    /// Moves a slot with its keys, and waits until every node knows it.
    pub async fn migrate(&self, slot: u16, to: usize) {
        let from = self.owner_of_slot(slot).await;
        self.begin_migration(slot, to).await;
        self.move_keys(slot, from, to).await;
        self.end_migration(slot, from, to).await;
        self.is_ok().await;
    }

    /// Adds a master without slots. Returns its number.
    pub async fn add_master(&mut self) -> usize {
        let n = self.nodes.len();
        self.start_node().await;
        self.meet(n).await;
        self.is_ok().await;
        n
    }

    /// Adds a replica of a master, and waits until it has the data. Returns its number.
    pub async fn add_replica(&mut self, master: usize) -> usize {
        let n = self.add_master().await;
        let id = self.id(master).await;
        let node = &self.nodes[n];
        node.command::<()>(&["CLUSTER", "REPLICATE", &id]).await;
        eventually_within(CLUSTER_GUARD, "a synchronised replica", || async {
            let info: String = node.command(&["INFO", "replication"]).await;
            info.contains("master_link_status:up").then_some(())
        })
        .await;
        self.is_ok().await;
        let id = self.id(n).await;
        eventually_within(CLUSTER_GUARD, "a replica that every node knows", || async {
            for node in self.nodes.iter().filter(|node| node.is_running()) {
                let nodes: String = node.command(&["CLUSTER", "NODES"]).await;
                let line = nodes.lines().find(|line| line.starts_with(&id))?;
                line.contains("slave").then_some(())?;
            }
            Some(())
        })
        .await;
        n
    }

    /// Waits until a replica has become the master of its slots.
    pub async fn is_promoted(&self, n: usize) {
        eventually_within(CLUSTER_GUARD, "a promoted replica", || async {
            let info: String = self.nodes[n].command(&["INFO", "replication"]).await;
            (info.contains("role:master") && !own_slots(&self.nodes[n]).await.is_empty())
                .then_some(())
        })
        .await;
    }
}

/// The slots that a node says it owns.
async fn own_slots(node: &Redis) -> Vec<u16> {
    let nodes: String = node.command(&["CLUSTER", "NODES"]).await;
    let own = nodes.lines().find(|line| line.contains("myself")).expect("its own line");
    if own.contains("slave") {
        return vec![];
    }
    // Slots in migration follow in brackets.
    let ranges = own.split(' ').skip(8).filter(|range| !range.starts_with('['));
    let slots = ranges.map(|range| match range.split_once('-') {
        Some((first, last)) => first.parse().unwrap()..=last.parse().unwrap(),
        None => range.parse().unwrap()..=range.parse().unwrap(),
    });
    slots.flatten().collect()
}

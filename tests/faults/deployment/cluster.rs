//! A cluster of three masters with a replica each.

use super::Server;
use super::route::slot;
use crate::harness::{Proxy, eventually_within, process};
use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(90);
/// `cluster-node-timeout`, ms.
const NODE_TIMEOUT: &str = "2000";

/// A node as CLUSTER NODES describes it.
#[derive(Clone, Debug)]
pub struct Node {
    pub id: String,
    pub address: String,
    pub is_master: bool,
    pub is_connected: bool,
    /// First and last slot of each range.
    pub ranges: Vec<(u16, u16)>,
}

impl Node {
    /// Whether it owns a slot.
    pub fn owns(&self, slot: u16) -> bool {
        self.ranges.iter().any(|(first, last)| (*first..=*last).contains(&slot))
    }
}

/// Parses CLUSTER NODES.
pub fn parse(text: &str) -> Vec<Node> {
    let node = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [id, address, flags, _, _, _, _, link, slots @ ..] = words.as_slice() else {
            return None;
        };
        let range = |word: &&str| {
            let (first, last) = word.split_once('-').unwrap_or((word, word));
            Some((first.parse().ok()?, last.parse().ok()?))
        };
        Some(Node {
            id: id.to_string(),
            address: address.split('@').next()?.to_owned(),
            is_master: flags.contains("master") && !flags.contains("fail"),
            is_connected: *link == "connected" && !flags.contains("fail"),
            ranges: slots.iter().filter_map(range).collect(),
        })
    };
    text.lines().filter_map(node).collect()
}

/// A running node that belongs to no cluster yet. `n`: its number. Others reach it through proxies,
/// and see where its connections come from, so that it can be cut off.
pub async fn node(n: usize) -> Server {
    let mut server = Server::reserve().await;
    let bus = process::free_port().to_string();
    let bus_proxy = Proxy::start(&format!("127.0.0.1:{bus}")).await;
    let source = Ipv4Addr::new(127, 0, 1, n as u8 + 1).to_string();
    let (port, bus_port) = (server.announced_port(), bus_proxy.address().port());
    server.bus = Some((bus_proxy, source.parse().expect("an address")));
    server.configure(&[
        "--bind-source-addr",
        &source,
        "--cluster-announce-ip",
        "127.0.0.1",
        "--cluster-announce-port",
        &port.to_string(),
        "--cluster-announce-bus-port",
        &bus_port.to_string(),
        "--cluster-enabled",
        "yes",
        "--cluster-port",
        &bus,
        "--cluster-node-timeout",
        NODE_TIMEOUT,
        "--cluster-require-full-coverage",
        "no",
        "--cluster-allow-replica-migration",
        "no",
        "--repl-timeout",
        "5",
        "--repl-ping-replica-period",
        "1",
        // MIGRATE sends a whole log in one argument.
        "--proto-max-bulk-len",
        "64mb",
    ]);
    server.run().await;
    server
}

/// Starts the nodes and waits until the cluster works.
pub async fn start() -> Vec<Server> {
    let mut servers = Vec::new();
    for n in 0..6 {
        servers.push(node(n).await);
    }
    let addresses: Vec<String> = servers.iter().map(Server::announced).collect();
    let done = Command::new("redis-cli")
        .args(["--cluster", "create"])
        .args(&addresses)
        .args(["--cluster-replicas", "1", "--cluster-yes"])
        .output()
        .expect("redis-cli is installed");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stdout));
    healthy(&servers).await;
    servers
}

/// The nodes in the view of one server.
pub async fn nodes(server: &Server) -> Option<Vec<Node>> {
    let text: String = server.try_command(&["CLUSTER", "NODES"]).await.ok()?;
    Some(parse(&text))
}

/// Waits until all servers run and agree, and every master has a replica that is up to date.
pub async fn healthy(servers: &[Server]) {
    eventually_within(LIMIT, "a healthy cluster", || async {
        let mut owners = Vec::new();
        for server in servers {
            let state: String = server.try_command(&["CLUSTER", "INFO"]).await.ok()?;
            let nodes = nodes(server).await?;
            let is_known = nodes.len() == servers.len() && nodes.iter().all(|n| n.is_connected);
            if !state.contains("cluster_state:ok") || !is_known {
                return None;
            }
            let role = server.info("replication", "role").await?;
            let link = server.info("replication", "master_link_status").await;
            let has_data = role == "master" || link.as_deref() == Some("up");
            if !has_data {
                return None;
            }
            let mut own: Vec<_> = nodes
                .into_iter()
                .filter(|node| !node.ranges.is_empty())
                .map(|node| (node.id, node.ranges))
                .collect();
            own.sort();
            owners.push(own);
        }
        owners.windows(2).all(|pair| pair[0] == pair[1]).then_some(())
    })
    .await;
}

/// The index of the server that owns the slot of a channel.
pub async fn owner(servers: &[Server], channel: &str) -> usize {
    let slot = slot(channel);
    eventually_within(LIMIT, "an owner of the slot", || async {
        let server = servers.iter().find(|server| server.is_running())?;
        let nodes = nodes(server).await?;
        let owner = nodes.into_iter().find(|node| node.is_master && node.owns(slot))?;
        servers.iter().position(|server| server.announced() == owner.address)
    })
    .await
}

/// Nobody reaches a node, and it reaches nobody, until [`join`].
pub fn cut_off(servers: &[Server], n: usize) {
    let source = |server: &Server| server.bus.as_ref().map(|(_, source)| *source);
    let own: Option<IpAddr> = source(&servers[n]);
    for server in servers {
        let proxies = std::iter::once(&server.proxy).chain(server.bus.iter().map(|(bus, _)| bus));
        match own.filter(|own| source(server) != Some(*own)) {
            Some(own) => proxies.for_each(|proxy| proxy.discard_of(own)),
            None => proxies.for_each(Proxy::discard),
        }
    }
}

/// All nodes reach each other again.
pub fn join(servers: &[Server]) {
    for server in servers {
        server.proxy.up();
        server.bus.iter().for_each(|(bus, _)| bus.up());
    }
}

/// Waits until most of the other servers see another master for the slot. Returns the moment.
pub async fn failover_among(servers: &[Server], old: usize, slot: u16) -> Instant {
    let address = servers[old].announced();
    eventually_within(LIMIT, "a new master", || async {
        let mut moved = 0;
        for (n, server) in servers.iter().enumerate() {
            if n == old {
                continue;
            }
            let nodes = nodes(server).await?;
            let owner = nodes.into_iter().find(|node| node.is_master && node.owns(slot));
            moved += usize::from(owner.is_some_and(|owner| owner.address != address));
        }
        (moved >= 3).then_some(())
    })
    .await;
    Instant::now()
}

/// Moves a slot with its keys to another master, as `redis-cli --cluster reshard` does.
pub async fn move_slot(servers: &[Server], slot: u16, to: usize) {
    let all = nodes(&servers[to]).await.expect("the view of the new owner");
    let source = all.iter().find(|node| node.owns(slot)).expect("an owner");
    let target = all.iter().find(|node| node.address == servers[to].announced()).expect("itself");
    let from =
        servers.iter().find(|server| server.announced() == source.address).expect("a server");
    let (slot, id) = (slot.to_string(), target.id.clone());
    let set = ["CLUSTER", "SETSLOT", slot.as_str()];
    servers[to].command::<()>(&[&set[..], &["IMPORTING", &source.id]].concat()).await;
    from.command::<()>(&[&set[..], &["MIGRATING", &id]].concat()).await;
    let (host, port) = target.address.split_once(':').expect("host:port");
    loop {
        let keys: Vec<String> = from.command(&["CLUSTER", "GETKEYSINSLOT", &slot, "10"]).await;
        if keys.is_empty() {
            break;
        }
        let mut words = vec!["MIGRATE", host, port, "", "0", "5000", "KEYS"];
        words.extend(keys.iter().map(String::as_str));
        from.command::<String>(&words).await;
    }
    let done = [&set[..], &["NODE", &id]].concat();
    servers[to].command::<()>(&done).await;
    from.command::<()>(&done).await;
    for server in servers {
        // Replicas refuse; they learn it from their masters.
        let _ = server.try_command::<()>(&done).await;
    }
}

/// The indexes of the masters that own slots.
pub async fn masters(servers: &[Server]) -> Vec<usize> {
    let nodes = nodes(&servers[0]).await.expect("a node that responds");
    let is_owner = |server: &Server| {
        let has = |node: &Node| node.is_master && !node.ranges.is_empty();
        nodes.iter().any(|node| has(node) && node.address == server.announced())
    };
    (0..servers.len()).filter(|n| is_owner(&servers[*n])).collect()
}

//! Follows the masters of a cluster: asks every known node which master owns which slots, once a
//! second and whenever a server did not own what it was asked for.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use parking_lot::Mutex;
use redis::{RedisError, RedisResult, aio::MultiplexedConnection};
use tokio::sync::{Notify, watch};

use super::{
    moves::Moves,
    nodes::{Masters, Node, View},
    slots::SlotRanges,
};
use crate::{
    core::{id::EventId, part::ServerIndex},
    error_chain::ErrorChain,
    log_limit::LogLimit,
    metrics::Metrics,
    redis::{
        commands::Commands,
        link_state::LinkState,
        locate::Locator,
        pool::timeouts,
        servers::{NodeInfo, Server, ServerInfo, Servers},
        watermark::{self, ClusterKnowledge, Giver},
    },
    settings::ServerAddress,
    state::clock::Clock,
};

/// Time between two rounds of questions, and the shortest one.
const INTERVAL: Duration = Duration::from_secs(1);
const MIN_INTERVAL: Duration = Duration::from_millis(100);
/// An answer older than this no longer counts as a confirmation.
const FRESH: Duration = Duration::from_secs(3);
/// After this time even the answers of a minority are taken over: an operator may have promoted a
/// replica without the others.
const MINORITY: Duration = Duration::from_secs(10);
/// Maximum time for which slots that two masters claim stay with the former one. What moves while
/// that one still claims it cannot be proved to have moved without a loss.
const MAX_DISPUTE: Duration = Duration::from_secs(1);
/// Maximum time to wait before an adoption until the nodes agree on the slots of the server.
/// Longer than [`MAX_DISPUTE`].
const MAX_REFRESH: Duration = Duration::from_millis(1500);
/// Maximum time to wait for an answer, so that a node that hangs does not delay the others.
const MAX_ANSWER: Duration = Duration::from_secs(1);
/// Maximum number of nodes that are asked in one round.
const MAX_ASKED: usize = 100;
/// Maximum number of masters that an instance links to.
const MAX_MASTERS: usize = 500;
/// Minimum time between log lines about unreachable nodes, ms.
const LOG_INTERVAL_MS: u64 = 10_000;

/// What the nodes said lately.
#[derive(Default)]
struct Answers {
    /// By the id of the node.
    views: HashMap<String, (Instant, View)>,
    /// What follows from them.
    masters: Masters,
}

/// The votes by which a master is confirmed.
#[derive(Default)]
pub struct Votes(Mutex<Answers>);

impl Votes {
    /// Whether more than half of the masters said within the last few seconds that this node is a
    /// master.
    pub fn confirm(&self, node_id: &str) -> bool {
        let answers = self.0.lock();
        let fresh = answers.views.values().filter(|(at, _)| at.elapsed() < FRESH);
        answers.masters.confirm(node_id, fresh.map(|(_, view)| view))
    }

    /// The number of slots whose migration from this node has begun, as it said lately.
    fn migrating(&self, node_id: &str) -> usize {
        self.0.lock().views.get(node_id).map_or(0, |(_, view)| view.migrating)
    }

    fn record(&self, views: Vec<View>) -> Masters {
        let mut answers = self.0.lock();
        let now = Instant::now();
        answers.views.retain(|_, (at, _)| at.elapsed() < FRESH);
        for view in views {
            answers.views.insert(view.own_id.clone(), (now, view));
        }
        answers.masters = Masters::merge(answers.views.values().map(|(_, view)| view));
        answers.masters.clone()
    }

    /// Whether the masters say enough to replace what is known: more than half of the servers have
    /// answered lately. A node that was reset or cut off knows little.
    fn is_majority(&self, servers: &[Server]) -> bool {
        let answers = self.0.lock();
        let answered = |server: &&Server| {
            server.info.node.as_ref().is_some_and(|node| answers.views.contains_key(&node.id))
        };
        servers.iter().filter(answered).count() * 2 > servers.len()
    }

    /// Whether a living master, which has just answered, still claims some of the slots that others
    /// give to another one: then it will give them up in a moment. (One that was replaced does not
    /// answer, or becomes a replica soon.)
    fn still_claims(&self, giver: &NodeInfo, slots: &[u16]) -> bool {
        let answers = self.0.lock();
        let Some((at, view)) = answers.views.get(&giver.id) else { return false };
        let own = view.nodes.iter().find(|node| node.id == giver.id);
        at.elapsed() < MIN_INTERVAL
            && own.is_some_and(|own| own.is_master && slots.iter().any(|s| own.slots.contains(*s)))
    }
}

/// What the watcher finds out, for the links.
#[derive(Default)]
pub struct ClusterState {
    /// Which masters are confirmed.
    pub votes: Votes,
    /// Which slots moved without a loss.
    pub moves: Moves,
    /// Notified when a server does not own what it was asked for: the nodes are asked at once.
    pub stale: Notify,
    /// The highest id of each server, also of servers that were replaced.
    highest_ids: Mutex<BTreeMap<ServerIndex, EventId>>,
    /// The number of rounds that have begun.
    begun: AtomicU64,
    /// The number of rounds that have ended.
    rounds: watch::Sender<u64>,
}

impl ClusterState {
    /// Returns when the nodes have been asked again, by a round that begins after this call.
    pub async fn refreshed(&self) {
        let mut rounds = self.rounds.subscribe();
        let next = self.begun.load(Ordering::Relaxed) + 1;
        self.stale.notify_one();
        // The sender lives as long as this state.
        let _ = rounds.wait_for(|round| *round >= next).await;
    }

    /// What an instance knows of the other nodes when it adopts one, which says that it owns
    /// `slots`. Asks the nodes until that is known: then the former owners of slots that have just
    /// moved were asked, too.
    pub async fn knowledge(&self, server: &ServerInfo, slots: &SlotRanges) -> ClusterKnowledge {
        let known = || server.node.as_ref().map(|node| node.slots()).unwrap_or_default();
        let refresh = async {
            self.refreshed().await;
            while !known().includes(slots) {
                self.refreshed().await;
            }
        };
        let _ = tokio::time::timeout(MAX_REFRESH, refresh).await;
        let slots = known();
        let known = self.highest_ids.lock();
        let others = known.iter().filter(|(index, _)| **index != server.index);
        let others = others.map(|(_, id)| *id).collect();
        ClusterKnowledge { others, vouchers: self.moves.vouchers(&slots), slots }
    }

    /// Changes after each round.
    pub fn rounds(&self) -> watch::Receiver<u64> {
        self.rounds.subscribe()
    }
}

/// How the watcher reaches nodes, and what it does with a new master.
pub struct WatcherParts {
    /// The seed nodes.
    pub seeds: Vec<ServerAddress>,
    /// How to connect to a node.
    pub locator: Locator,
    /// Commands for the nodes.
    pub commands: Commands,
    /// Maximum time to wait for an answer.
    pub timeout: Duration,
    /// Starts the link to a server.
    pub start: Box<dyn Fn(ServerInfo) -> Server + Send + Sync>,
    /// Monotonic time.
    pub clock: Arc<Clock>,
    /// The number of slots that moved.
    pub metrics: Arc<Metrics>,
}

/// Follows the masters.
pub struct Watcher {
    parts: WatcherParts,
    servers: Arc<Servers>,
    cluster: Arc<ClusterState>,
    connections: BTreeMap<ServerAddress, MultiplexedConnection>,
    known: Vec<ServerAddress>,
    /// When the masters were last taken over from the answers.
    applied: Instant,
    /// Since when two masters claim the same slots.
    disputed: Option<Instant>,
    /// The number of the next server.
    next_index: u16,
    log: LogLimit,
}

impl Watcher {
    /// A watcher that knows the seeds only.
    pub fn new(parts: WatcherParts, servers: Arc<Servers>, cluster: Arc<ClusterState>) -> Self {
        Self {
            known: parts.seeds.clone(),
            parts,
            servers,
            cluster,
            connections: BTreeMap::new(),
            applied: Instant::now(),
            disputed: None,
            next_index: 0,
            log: LogLimit::new(LOG_INTERVAL_MS),
        }
    }

    /// Follows the masters until the instance ends.
    pub async fn run(mut self) {
        while self.servers.is_cluster() {
            let began = Instant::now();
            let round = self.cluster.begun.fetch_add(1, Ordering::Relaxed) + 1;
            let views = self.ask_all().await;
            for Server { info, .. } in self.servers.all() {
                self.cluster.highest_ids.lock().insert(info.index, info.state.highest_id());
            }
            if !views.is_empty() {
                self.known = endpoints(&views);
                let masters = self.cluster.votes.record(views);
                let known = self.servers.all();
                if known.is_empty()
                    || self.cluster.votes.is_majority(&known)
                    || self.applied.elapsed() > MINORITY
                {
                    if self.is_disputed(&known, &masters) {
                        self.cluster.stale.notify_one();
                    } else {
                        self.apply(known, &masters).await;
                    }
                    self.applied = Instant::now();
                }
            }
            self.cluster.rounds.send_replace(round);
            let _ = tokio::time::timeout(INTERVAL, self.cluster.stale.notified()).await;
            tokio::time::sleep(MIN_INTERVAL.saturating_sub(began.elapsed())).await;
        }
    }

    /// Asks all known nodes at once; those that do not answer are asked again next time.
    async fn ask_all(&mut self) -> Vec<View> {
        let mut asked = self.known.clone();
        asked.extend(self.parts.seeds.iter().filter(|seed| !self.known.contains(seed)).cloned());
        asked.truncate(MAX_ASKED);
        self.connections.retain(|endpoint, _| asked.contains(endpoint));
        let answers = asked.into_iter().map(|endpoint| {
            let connection = self.connections.get(&endpoint).cloned();
            let parts = &self.parts;
            async move {
                let answer = tokio::time::timeout(
                    MAX_ANSWER.min(parts.timeout),
                    ask(&parts.locator, &endpoint, parts.timeout, connection),
                );
                (answer.await.unwrap_or_else(|_| Err(timed_out())), endpoint)
            }
        });
        let mut views = Vec::new();
        for (answer, endpoint) in join_all(answers).await {
            match answer {
                Ok((view, connection)) => {
                    self.connections.insert(endpoint, connection);
                    views.push(view);
                }
                Err(error) => self.unreachable(&endpoint, &error),
            }
        }
        views
    }

    fn unreachable(&mut self, address: &ServerAddress, error: &RedisError) {
        self.connections.remove(address);
        if let Some(suppressed) = self.log.allow(self.parts.clock.now_ms()) {
            let error = ErrorChain(error);
            tracing::warn!(%address, %error, suppressed, "a cluster node does not answer");
        }
    }

    /// Links to new masters, and drops the links to those that have no slots any more.
    async fn apply(&mut self, before: Vec<Server>, masters: &Masters) {
        self.record_moves(&before, masters).await;
        let mut is_changed = before.len() != masters.0.len();
        let mut after = Vec::with_capacity(masters.0.len());
        for node in masters.0.iter().take(MAX_MASTERS) {
            let is_node = |info: &ServerInfo| info.node.as_ref().is_some_and(|n| n.id == node.id);
            let server = match before.iter().find(|server| is_node(&server.info)) {
                Some(server) => server.clone(),
                None => {
                    is_changed = true;
                    let index = ServerIndex(self.next_index);
                    self.next_index = self.next_index.wrapping_add(1);
                    let state = Arc::new(LinkState::new(self.parts.clock.clone()));
                    let info = ServerInfo::node(index, node.id.clone(), state);
                    update(&info, node);
                    (self.parts.start)(info)
                }
            };
            is_changed |= update(&server.info, node);
            if let Some(info) = &server.info.node {
                info.set_migrating(self.cluster.votes.migrating(&node.id));
            }
            after.push(server);
        }
        // A link that is about to end must not take its server for the owner any more.
        for Server { info, .. } in &before {
            let Some(node) = &info.node else { continue };
            if !masters.0.iter().any(|master| master.id == node.id) {
                node.update((*node.address()).clone(), &SlotRanges::default());
            }
        }
        if is_changed {
            let shown: Vec<String> =
                masters.0.iter().map(|n| format!("{} {}", address_of(n), n.slots)).collect();
            tracing::info!(masters = ?shown, "the masters of the cluster");
            self.servers.set_masters(after);
        }
    }
}

/// Whether all of these slots belong to nodes that were masters with slots before.
fn are_masters(before: &[Server], masters: &Masters, slots: &[u16]) -> bool {
    let was_master = |node: &Node| {
        before.iter().any(|server| server.info.node.as_ref().is_some_and(|n| n.id == node.id))
    };
    let owner = |slot: &u16| masters.0.iter().find(|node| node.slots.contains(*slot));
    slots.iter().all(|slot| owner(slot).is_some_and(was_master))
}

/// The slots that a server has lost.
fn lost(giver: &NodeInfo, masters: &Masters) -> Vec<u16> {
    let kept = masters.0.iter().find(|node| node.id == giver.id);
    let has_left = |slot: &u16| kept.is_none_or(|node| !node.slots.contains(*slot));
    giver.slots().iter().filter(has_left).collect()
}

impl Watcher {
    /// Whether slots have moved that their former master, which is alive, still claims: it has not
    /// learned of the move yet. At most for [`MAX_DISPUTE`].
    fn is_disputed(&mut self, before: &[Server], masters: &Masters) -> bool {
        let votes = &self.cluster.votes;
        let is_disputed =
            before.iter().filter_map(|server| server.info.node.as_ref()).any(|giver| {
                let left = lost(giver, masters);
                !left.is_empty() && votes.still_claims(giver, &left)
            });
        if !is_disputed {
            self.disputed = None;
            return false;
        }
        self.disputed.get_or_insert_with(Instant::now).elapsed() < MAX_DISPUTE
    }

    /// Records the slots that leave their servers, before the servers are updated.
    async fn record_moves(&self, before: &[Server], masters: &Masters) {
        let moves = before.iter().filter_map(|Server { info, .. }| {
            let left = lost(info.node.as_ref()?, masters);
            let may_be_failover = !are_masters(before, masters, &left);
            (!left.is_empty()).then(|| self.record_move(info, left, may_be_failover))
        });
        join_all(moves).await;
    }

    /// Records that slots left a server, and whether nothing can be lost with them: then the server
    /// is alive, does not claim the slots any more, and was not replaced by one of its replicas. (A
    /// master that was replaced claims them until it becomes a replica.) `may_be_failover`: the new
    /// owners may have been replicas of it.
    async fn record_move(&self, info: &Arc<ServerInfo>, left: Vec<u16>, may_be_failover: bool) {
        let giver = self.ask_giver(info).await.filter(|giver| {
            let still_owns = left.iter().any(|slot| giver.slots.contains(*slot));
            !(still_owns || giver.is_replica && may_be_failover)
        });
        self.parts.metrics.slots_moved.inc_by(left.len() as u64);
        tracing::info!(
            from = %info.address().unwrap_or_default(),
            slots = left.len(),
            without_loss = giver.is_some(),
            "slots moved to another master"
        );
        if let Some(giver) = &giver {
            info.state.raise_highest_id(giver.h);
            self.cluster.highest_ids.lock().insert(info.index, info.state.highest_id());
        }
        let epochs = giver.map(|giver| giver.epochs).unwrap_or_default();
        self.cluster.moves.record(left.into_iter(), &epochs);
    }

    async fn ask_giver(&self, info: &Arc<ServerInfo>) -> Option<Giver> {
        let mut connection = self.connections.get(&*info.node.as_ref()?.address())?.clone();
        let commands = self.parts.commands.of_server(info);
        let asked = watermark::ask_giver(&mut connection, &commands);
        let answer = tokio::time::timeout(MAX_ANSWER.min(self.parts.timeout), asked).await;
        answer.ok()?.ok()?.filter(|giver| giver.h.is_plausible(self.parts.clock.server_ms()))
    }
}

pub(super) fn address_of(node: &Node) -> ServerAddress {
    ServerAddress { host: node.host.clone(), port: node.port }
}

/// Records what is known of a node. Returns whether that has changed.
fn update(info: &ServerInfo, node: &Node) -> bool {
    info.node.as_ref().is_some_and(|known| known.update(address_of(node), &node.slots))
}

/// Where the working nodes are: masters first, whose answers count.
pub(super) fn endpoints(views: &[View]) -> Vec<ServerAddress> {
    let mut nodes: Vec<_> =
        views.iter().flat_map(|view| &view.nodes).filter(|node| !node.has_failed).collect();
    nodes.sort_by_key(|node| !node.is_master);
    let mut seen = HashSet::new();
    nodes.retain(|node| seen.insert(&node.id));
    nodes.into_iter().map(address_of).collect()
}

fn timed_out() -> RedisError {
    std::io::Error::new(std::io::ErrorKind::TimedOut, "no answer within redis.command_timeout")
        .into()
}

/// What a node says, and the connection to it.
pub(super) async fn ask(
    locator: &Locator,
    address: &ServerAddress,
    timeout: Duration,
    connection: Option<MultiplexedConnection>,
) -> RedisResult<(View, MultiplexedConnection)> {
    let mut connection = match connection {
        Some(connection) => connection,
        None => {
            let client = redis::Client::open(locator.connection_to(address))?;
            client.get_multiplexed_async_connection_with_config(&timeouts(timeout)).await?
        }
    };
    let reply: String = redis::cmd("CLUSTER").arg("NODES").query_async(&mut connection).await?;
    Ok((View::parse(&reply, &address.host, address.port, locator.tls().is_some()), connection))
}

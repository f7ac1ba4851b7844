//! Publishers and clients of a cluster, which check that nothing is lost, doubled or reordered.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use redis::RedisError;
use redis::aio::MultiplexedConnection;
use tokio::task::JoinHandle;

use super::gateway::Builder;
use super::ticket::Ticket;
use super::{Cluster, Gateway, Sse, encode, eventually_within};

/// Longest wait for an event while a cluster fails over.
const PATIENCE: Duration = Duration::from_secs(90);
/// Maximum length of an id, bytes.
const MAX_ID: usize = 80;

/// A gateway of a cluster, without a recorder.
pub fn gateway(cluster: &Cluster) -> Builder {
    Gateway::at(&format!("redis+cluster://{}", cluster.addresses().join(",")))
        .env("PUBLISHERS__PLAIN", "off")
        .env("SERVER__HEARTBEAT", "300ms")
        .env("HISTORY__MAX_LEN", "100000")
}

/// Two ready gateways of a cluster.
pub async fn two_gateways(cluster: &Cluster) -> [Gateway; 2] {
    let builder = gateway(cluster);
    let (one, two) = tokio::join!(builder.start(), builder.start());
    [one, two]
}

/// A user whose channel this node owns; `skip` is the number of such users to skip.
pub async fn user_at(cluster: &Cluster, node: usize, skip: usize) -> String {
    let slots = cluster.slots_of_node(node).await;
    let mut left = skip;
    for id in 0.. {
        let slot = cluster.slot_of(&super::user(&format!("u{id}"))).await;
        if slots.contains(&slot) {
            if left == 0 {
                return format!("u{id}");
            }
            left -= 1;
        }
    }
    unreachable!("a user for each node")
}

/// Publishes the payloads `0`, `1`, … to one channel, as a cluster client does: each is repeated
/// with the same key until a server has accepted it.
pub struct Writer {
    stop: Arc<AtomicBool>,
    accepted: Arc<AtomicUsize>,
    task: JoinHandle<usize>,
}

impl Writer {
    /// Publishes events of this type every `pause` until stopped.
    pub fn start(cluster: &Cluster, channel: &str, kind: &str, pause: Duration) -> Writer {
        let mut route = Route::new(cluster, channel, kind);
        let (stop, accepted) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let (stopped, counted) = (stop.clone(), Arc::<AtomicUsize>::clone(&accepted));
        let task = tokio::spawn(async move {
            let mut next = 0;
            while !stopped.load(Ordering::Relaxed) {
                route.publish(next).await;
                next += 1;
                counted.store(next, Ordering::Relaxed);
                tokio::time::sleep(pause).await;
            }
            next
        });
        Writer { stop, accepted, task }
    }

    /// Waits until this many more events have been accepted.
    pub async fn more(&self, events: usize) {
        let goal = self.accepted.load(Ordering::Relaxed) + events;
        eventually_within(PATIENCE, "accepted events", || async {
            assert!(!self.task.is_finished(), "the writer has failed");
            (self.accepted.load(Ordering::Relaxed) >= goal).then_some(())
        })
        .await;
    }

    /// Ends it, and returns the number of accepted events.
    pub async fn stop(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.expect("a writer without an error")
    }
}

/// Publishes `0..count`, one after the other.
pub async fn publish(cluster: &Cluster, channel: &str, kind: &str, from: usize, count: usize) {
    let mut route = Route::new(cluster, channel, kind);
    for n in from..from + count {
        route.publish(n).await;
    }
}

/// Where a channel's events are published.
struct Route {
    nodes: Vec<String>,
    at: String,
    connection: Option<MultiplexedConnection>,
    channel: String,
    kind: String,
}

impl Route {
    fn new(cluster: &Cluster, channel: &str, kind: &str) -> Route {
        let nodes = cluster.addresses();
        // A cluster requires the second form of a broadcast's name.
        let channel = match channel.strip_prefix("broadcast:") {
            Some(topic) => format!("{{broadcast}}:{topic}"),
            None => channel.to_owned(),
        };
        Route { at: nodes[0].clone(), nodes, connection: None, channel, kind: kind.to_owned() }
    }

    async fn publish(&mut self, number: usize) {
        let key = format!("{}-{number}", self.kind);
        let began = std::time::Instant::now();
        while let Err(error) = self.try_publish(number, &key).await {
            self.recover(&error);
            assert!(began.elapsed() < PATIENCE, "{} is refused: {error}", self.channel);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn try_publish(&mut self, number: usize, key: &str) -> Result<(), RedisError> {
        if self.connection.is_none() {
            let client = redis::Client::open(format!("redis://{}", self.at))?;
            let config = redis::AsyncConnectionConfig::new()
                .set_connection_timeout(Some(Duration::from_secs(1)))
                .set_response_timeout(Some(Duration::from_secs(1)));
            self.connection =
                Some(client.get_multiplexed_async_connection_with_config(&config).await?);
        }
        let connection = self.connection.as_mut().expect("just opened");
        let mut command = redis::cmd("FCALL");
        command.arg("sse_publish").arg(1).arg(&self.channel).arg(&self.kind).arg(number);
        command.arg("KEY").arg(key);
        command.query_async::<String>(connection).await.map(drop)
    }

    /// Finds the server to ask next.
    fn recover(&mut self, error: &RedisError) {
        match (error.code(), error.redirect_node()) {
            (Some("MOVED"), Some((address, _))) => {
                self.at = address.to_owned();
                self.connection = None;
            }
            // Not accepted for now.
            (Some("ASK" | "TRYAGAIN" | "CLUSTERDOWN" | "LOADING" | "NOREPLICAS"), _) => {}
            (Some("SSE"), _) if error.to_string().contains("not-adopted") => {}
            (Some("READONLY" | "MASTERDOWN"), _) => self.next_node(),
            (None, _) => self.next_node(),
            _ if error.to_string().contains("Function not found") => {}
            _ => panic!("{} is rejected: {error}", self.channel),
        }
    }

    fn next_node(&mut self) {
        let n = self.nodes.iter().position(|node| *node == self.at).map_or(0, |n| n + 1);
        self.at = self.nodes[n % self.nodes.len()].clone();
        self.connection = None;
    }
}

/// A client that keeps what it has received, over several streams.
pub struct Reader {
    /// The open stream.
    pub sse: Sse,
    /// The user.
    pub user: String,
    /// The payloads by type of event, in the order of arrival.
    pub received: BTreeMap<String, Vec<usize>>,
    /// The reasons of all gaps.
    pub gaps: Vec<String>,
    last_id: String,
    /// All events and reconnects, for messages of failed assertions.
    trail: Vec<String>,
}

impl Reader {
    /// Connects with a new ticket.
    pub async fn connect(gateway: &Gateway, user: &str) -> Reader {
        let sse = gateway.connect(user).await;
        let last_id = sse.last_id().to_owned();
        let (received, gaps) = (BTreeMap::new(), Vec::new());
        Reader { sse, user: user.to_owned(), received, gaps, last_id, trail: Vec::new() }
    }

    /// Ends the stream and continues at a gateway with the id of the last event.
    pub async fn reconnect(&mut self, gateway: &Gateway) {
        self.reconnect_with(gateway, &super::ticket(&self.user)).await;
    }

    /// The same with this ticket.
    pub async fn reconnect_with(&mut self, gateway: &Gateway, ticket: &Ticket) {
        let query = format!("&lastEventId={}", encode(&self.last_id));
        self.trail.push(format!("reconnects with {}", self.last_id));
        self.sse = gateway.connect_with(ticket, &query).await;
        self.trail.push(format!("connected, id {}", self.sse.last_id()));
    }

    /// The id of the last event.
    pub fn last_id(&self) -> &str {
        &self.last_id
    }

    /// Reads one event.
    pub async fn read(&mut self) {
        let Some(event) = self.sse.next_event_within(PATIENCE).await else {
            panic!("the stream of {} ended: {}", self.user, self.sse.dump());
        };
        assert!(event.last_id.len() <= MAX_ID, "too long: {}", event.last_id);
        if !event.last_id.is_empty() {
            self.last_id.clone_from(&event.last_id);
        }
        self.trail.push(event.to_string());
        match event.event.as_str() {
            "sse.gap" => self.gaps.push(event.json()["reason"].as_str().unwrap().to_owned()),
            "sse.heartbeat" => {}
            kind => {
                assert!(!event.is_system(), "{}", self.sse.dump());
                let number = event.data.parse().expect("a number");
                self.received.entry(kind.to_owned()).or_default().push(number);
            }
        }
    }

    /// Reads until it has received the last of `count` events of a type.
    pub async fn read_all(&mut self, kind: &str, count: usize) {
        while count > 0 && self.received.get(kind).and_then(|r| r.last()) < Some(&(count - 1)) {
            self.read().await;
        }
    }

    /// Reads until a gap has been reported.
    pub async fn read_gap(&mut self) {
        while self.gaps.is_empty() {
            self.read().await;
        }
    }

    /// Reads until it has all of `0..count`, and checks that nothing is missing, doubled or out of
    /// order.
    pub async fn has_all(&mut self, kind: &str, count: usize) {
        self.read_all(kind, count).await;
        self.assert_range(kind, 0, count);
    }

    /// Checks that exactly `from..to` were received.
    pub fn assert_range(&self, kind: &str, from: usize, to: usize) {
        let received = self.received.get(kind).map_or(&[][..], Vec::as_slice);
        let expected: Vec<usize> = (from..to).collect();
        if received != expected {
            let breaks: Vec<_> = received.windows(2).filter(|w| w[1] != w[0] + 1).collect();
            let ends = (received.first(), received.last());
            let at = breaks.first().map_or(String::new(), |w| format!(" {kind} \"{}\"]", w[0]));
            let at = self.trail.iter().position(|line| line.ends_with(&at)).unwrap_or(0);
            let is_shown =
                |line: &&String| [kind, "sse.", "connect"].iter().any(|part| line.contains(part));
            let trail = self.trail[at.saturating_sub(24)..].iter().filter(is_shown).take(40);
            let trail = trail.cloned().collect::<Vec<_>>().join("\n  ");
            panic!("{} {kind}: {ends:?} of {from}..{to}, breaks {breaks:?}\n  {trail}", self.user);
        }
    }

    /// Checks that no gap was reported.
    pub fn assert_no_gap(&self) {
        let at = self.trail.iter().position(|line| line.contains("sse.gap")).unwrap_or(0);
        let trail = self.trail[at.saturating_sub(8)..].iter().take(14);
        let trail = trail.cloned().collect::<Vec<_>>().join("\n  ");
        assert!(self.gaps.is_empty(), "{}: {:?}\n  {trail}", self.user, self.gaps);
    }
}

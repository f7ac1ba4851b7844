//! A deployment with gateways, clients and the channels of the publishers.

use crate::client::{Client, Log};
use crate::deployment::{Deployment, Kind};
use crate::fleet::{Fleet, Role};
use crate::harness::eventually_within;
use crate::harness::gateway::Builder;
use crate::harness::{Postgres, topic, user};
use crate::journal::Journal;
use crate::outbox;
use crate::presence::{self, WATCHER};
use crate::publisher::Publishers;
use crate::undelivered::AWAY;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

const USERS: usize = 8;
const TOPICS: [&str; 3] = ["news", "prices", "status"];
/// Maximum time to wait for anything that must happen.
pub const LIMIT: Duration = Duration::from_secs(60);

/// Everything that a round needs.
pub struct World {
    pub deployment: Deployment,
    pub fleet: Fleet,
    /// The server whose outbox the gateways read.
    pub postgres: Arc<Postgres>,
    /// The one that gets the events of presence is the first.
    pub clients: Vec<Client>,
    /// Clients that leave during this round, at the latest after its faults.
    pub guests: Vec<Client>,
    pub journal: Journal,
    pub channels: Vec<String>,
    pub rng: fastrand::Rng,
    /// Whether there are plain publishers.
    pub plain: bool,
    pub publishers: Option<Publishers>,
    /// The users for which the faults of this round may cause a reset; `None`: all of them.
    pub affected: Option<HashSet<String>>,
    /// The gateways that the faults of this round slow down or stop: leases that they lose say
    /// nothing about the machine.
    pub touched: HashSet<usize>,
    /// The generation of the library, which changed settings raise.
    pub generation: u32,
    /// What was added to the clock of Redis, seconds.
    pub clock_s: i64,
    rounds: u32,
}

impl World {
    /// Starts everything: three gateways, and two clients of each user.
    pub async fn start(kind: Kind, plain: bool, rng: fastrand::Rng) -> World {
        World::start_with(kind, plain, rng, |builder| builder).await
    }

    /// [`World::start`] with other settings.
    pub async fn start_with(
        kind: Kind,
        plain: bool,
        rng: fastrand::Rng,
        change: impl Fn(Builder) -> Builder,
    ) -> World {
        let deployment = Deployment::start(kind).await;
        let mode = if plain { "record" } else { "off" };
        let postgres = outbox::start().await;
        let change = |builder: Builder| {
            let builder = presence::enable(builder).env("PUBLISHERS__PLAIN", mode);
            change(outbox::enable(builder, &postgres))
        };
        let fleet = Fleet::start(&deployment, 3, change).await;
        let users = (0..USERS).map(|n| user(&format!("u{n}")));
        let users = users.chain([user(WATCHER), user(AWAY)]);
        let channels = users.chain(TOPICS.iter().map(|name| topic(name))).collect();
        let (clients, journal, publishers) = (Vec::new(), Journal::default(), None);
        let (guests, generation, clock_s) = (Vec::new(), 1, 0);
        let mut world = World {
            deployment,
            fleet,
            postgres,
            clients,
            guests,
            journal,
            channels,
            rng,
            plain,
            publishers,
            affected: None,
            touched: HashSet::new(),
            generation,
            clock_s,
            rounds: 0,
        };
        world.fill().await;
        world
    }

    /// Replaces clients that are broken or in excess, and waits until all are connected.
    pub async fn fill(&mut self) {
        let address = self.fleet.balancer.address();
        let mut old = std::mem::take(&mut self.clients);
        old.retain(|client| client.read(|log| log.broken.is_none()));
        let mut take = |user: &str, topics: &[&str]| {
            let at = old.iter().position(|c| c.user == user && c.topics == topics)?;
            Some(old.remove(at))
        };
        let watcher = take(WATCHER, &[]).unwrap_or_else(|| Client::watch(address, WATCHER));
        // Before the others, so that it learns of all of them.
        watcher.connected().await;
        self.clients.push(watcher);
        for n in 0..USERS {
            let user = format!("u{n}");
            let exact: &[&str] = &["news", "prices"];
            let wanted: [&[&str]; 2] = if n % 2 == 0 { [exact, &["*"]] } else { [&["*"], &["*"]] };
            for topics in wanted {
                let client = take(&user, topics);
                let client = client.unwrap_or_else(|| Client::start(address, &user, topics));
                self.clients.push(client);
            }
        }
        for client in &self.clients {
            client.connected().await;
        }
    }

    /// Starts the guests of a round, one for each gateway, and waits until they are online.
    pub async fn invite(&mut self) {
        let address = self.fleet.balancer.address();
        self.rounds += 1;
        let user = |n| format!("guest-{}-{n}", self.rounds);
        let guests = (0..self.fleet.members.len()).map(|n| Client::start(address, &user(n), &[]));
        self.guests = guests.collect();
        for guest in &self.guests {
            eventually_within(LIMIT, "a guest who is online", || async {
                let is_online = |log: &Log| log.presence.online.get(&guest.user) == Some(&true);
                self.watcher().read(is_online).then_some(())
            })
            .await;
            guest.leave_with_the_stream();
        }
    }

    /// The client that gets the events of presence.
    pub fn watcher(&self) -> &Client {
        &self.clients[0]
    }

    /// Waits until all gateways are ready, one reads the outbox and, with plain publishers, a
    /// standby could take over.
    pub async fn steady(&self) {
        self.deployment.healthy().await;
        self.fleet.all_ready().await;
        self.fleet.with_role(Role::Reader).await;
        if self.plain {
            self.fleet.with_role(Role::Writer).await;
            self.fleet.with_role(Role::Standby).await;
        }
    }

    /// Waits until this number of events has been acknowledged in addition.
    pub async fn acknowledged(&self, more: usize) {
        let goal = self.journal.acknowledged() + more;
        let deadline = Instant::now() + LIMIT;
        while self.journal.acknowledged() < goal {
            let error = self.journal.last_error();
            assert!(Instant::now() < deadline, "no event is acknowledged: {error}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// A gateway with a role; any one for a role that only plain publishers need.
    pub async fn gateway_with(&mut self, role: Role) -> usize {
        match self.plain || role == Role::Reader {
            true => self.fleet.with_role(role).await,
            false => self.rng.usize(..self.fleet.members.len()),
        }
    }
}

impl World {
    /// Writes the logs of the gateways to a directory that remains.
    pub fn keep_logs(&self) {
        let name = format!("sse-faults-logs-{}-{}", std::process::id(), crate::harness::now_ms());
        let directory = std::env::temp_dir().join(name);
        let _ = std::fs::create_dir_all(&directory);
        self.fleet.save_logs(&directory);
        println!("the logs of the gateways are in {}", directory.display());
    }
}

/// Keeps the logs if a test failed.
impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.keep_logs();
        }
    }
}

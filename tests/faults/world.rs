//! A deployment with gateways, clients and the channels of the publishers.

use crate::client::Client;
use crate::deployment::{Deployment, Kind};
use crate::fleet::{Fleet, Role};
use crate::harness::eventually_within;
use crate::harness::gateway::Builder;
use crate::harness::{topic, user};
use crate::journal::Journal;
use crate::publisher::Publishers;
use std::collections::HashSet;
use std::time::{Duration, Instant};

const USERS: usize = 8;
const TOPICS: [&str; 3] = ["news", "prices", "status"];
/// Maximum time to wait for anything that must happen.
pub const LIMIT: Duration = Duration::from_secs(60);

/// Everything that a round needs.
pub struct World {
    pub deployment: Deployment,
    pub fleet: Fleet,
    pub clients: Vec<Client>,
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
        let change = |builder: Builder| change(builder.env("PUBLISHERS__PLAIN", mode));
        let fleet = Fleet::start(&deployment, 3, change).await;
        let users = (0..USERS).map(|n| user(&format!("u{n}")));
        let channels = users.chain(TOPICS.iter().map(|name| topic(name))).collect();
        let (clients, journal, publishers) = (Vec::new(), Journal::default(), None);
        let (generation, clock_s) = (1, 0);
        let mut world = World {
            deployment,
            fleet,
            clients,
            journal,
            channels,
            rng,
            plain,
            publishers,
            affected: None,
            touched: HashSet::new(),
            generation,
            clock_s,
        };
        world.fill().await;
        world
    }

    /// Replaces clients that are broken, and waits until all are connected.
    pub async fn fill(&mut self) {
        self.clients.retain(|client| client.read(|log| log.broken.is_none()));
        let address = self.fleet.balancer.address();
        for n in 0..USERS {
            let user = format!("u{n}");
            let exact: &[&str] = &["news", "prices"];
            let wanted: [&[&str]; 2] = if n % 2 == 0 { [exact, &["*"]] } else { [&["*"], &["*"]] };
            let own = self.clients.iter().filter(|client| client.user == user);
            let mut topics: Vec<&[&str]> = wanted.to_vec();
            for client in own {
                let at = topics.iter().position(|topics| client.topics == *topics);
                at.map(|at| topics.remove(at));
            }
            self.clients.extend(topics.iter().map(|topics| Client::start(address, &user, topics)));
        }
        for client in &self.clients {
            eventually_within(LIMIT, "a connected client", || async {
                client.read(|log| log.connected).map(drop)
            })
            .await;
        }
    }

    /// Waits until all gateways are ready and, with plain publishers, until a standby could take
    /// over.
    pub async fn steady(&self) {
        self.deployment.healthy().await;
        self.fleet.all_ready().await;
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

    /// A gateway with a role; without plain publishers, any one.
    pub async fn gateway_with(&mut self, role: Role) -> usize {
        match self.plain {
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

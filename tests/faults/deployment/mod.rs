//! The Redis deployments that the suite tests.

mod clock;
pub mod cluster;
mod follower;
pub mod route;
pub mod sentinels;
pub mod server;

pub use route::Route;
pub use server::Server;

use crate::balancer::Balancer;
use crate::harness::{Proxy, eventually_within};
use follower::Follower;
use sentinels::Sentinels;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

/// The kinds of deployments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One server that writes its append-only file every second.
    Everysec,
    /// One server that writes its append-only file before each reply.
    Always,
    /// A primary, two replicas, and three sentinels, behind a proxy that follows `role:master`.
    NaiveProxy,
    /// The same with `min-replicas-to-write 1`. Gateways and publishers ask the sentinels.
    Sentinel,
    /// A cluster of three masters with a replica each.
    Cluster,
}

impl Kind {
    /// All kinds that a run of everything tests.
    pub const ALL: [Kind; 5] =
        [Kind::Everysec, Kind::Always, Kind::NaiveProxy, Kind::Sentinel, Kind::Cluster];

    /// Whether all events have one order.
    pub fn is_total(self) -> bool {
        self != Kind::Cluster
    }

    /// Whether there is one server only.
    pub fn is_single(self) -> bool {
        matches!(self, Kind::Everysec | Kind::Always)
    }

    /// Whether there are replicas and sentinels.
    pub fn is_replicated(self) -> bool {
        matches!(self, Kind::NaiveProxy | Kind::Sentinel)
    }

    /// Whether the clock of the server can be changed.
    pub fn has_clock(self) -> bool {
        self == Kind::Always
    }

    /// Whether each gateway connects to one address, so that a proxy can be between.
    pub fn has_links(self) -> bool {
        !matches!(self, Kind::Sentinel | Kind::Cluster)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Everysec => "single, everysec",
            Kind::Always => "single, always",
            Kind::NaiveProxy => "replicas, naive proxy",
            Kind::Sentinel => "replicas, Sentinel",
            Kind::Cluster => "cluster",
        })
    }
}

/// A running deployment.
pub struct Deployment {
    pub kind: Kind,
    /// All servers with data. The first one is the primary at the start.
    pub servers: Vec<Server>,
    /// How publishers find the server of a channel.
    pub route: Route,
    /// What the gateways connect to, if that is one address.
    pub entrance: Arc<Balancer>,
    pub sentinels: Option<Sentinels>,
    _follower: Option<Follower>,
}

impl Deployment {
    /// Starts the servers.
    pub async fn start(kind: Kind) -> Deployment {
        match kind {
            Kind::Everysec => Deployment::single(kind, "everysec").await,
            Kind::Always => Deployment::single(kind, "always").await,
            Kind::NaiveProxy | Kind::Sentinel => Deployment::replicated(kind).await,
            Kind::Cluster => Deployment::cluster().await,
        }
    }

    async fn single(kind: Kind, sync: &str) -> Deployment {
        let mut server = Server::reserve().await;
        server.has_clock = kind.has_clock();
        server.configure(&["--appendfsync", sync]);
        server.run().await;
        let route = Route::Fixed(server.address());
        let entrance = Arc::new(Balancer::start().await);
        entrance.set(0, server.address().parse().ok());
        let servers = vec![server];
        Deployment { kind, servers, route, entrance, sentinels: None, _follower: None }
    }

    async fn replicated(kind: Kind) -> Deployment {
        let servers = sentinels::servers(kind == Kind::Sentinel).await;
        let sentinels = Sentinels::start(&servers[0]).await;
        let entrance = Arc::new(Balancer::start().await);
        let announced = servers.iter().map(|server| server.proxy.address().to_string()).collect();
        let (route, follower) = if kind == Kind::NaiveProxy {
            let follower = Follower::start(announced, entrance.clone());
            (Route::Fixed(entrance.address().to_string()), Some(follower))
        } else {
            (Route::sentinels(sentinels.addresses()), None)
        };
        let sentinels = Some(sentinels);
        Deployment { kind, servers, route, entrance, sentinels, _follower: follower }
    }

    async fn cluster() -> Deployment {
        let servers = cluster::start().await;
        let route = Route::cluster(servers.iter().map(Server::announced).collect());
        let entrance = Arc::new(Balancer::start().await);
        let kind = Kind::Cluster;
        Deployment { kind, servers, route, entrance, sentinels: None, _follower: None }
    }

    /// The value for `redis.url` of a gateway whose proxy is `link`.
    pub fn url(&self, link: &Proxy) -> String {
        match (self.kind, &self.sentinels) {
            (Kind::Sentinel, Some(sentinels)) => {
                format!("redis+sentinel://{}/{}", sentinels.addresses().join(","), sentinels::NAME)
            }
            (Kind::Cluster, _) => {
                let addresses: Vec<String> = self.servers.iter().map(Server::announced).collect();
                format!("redis+cluster://{}", addresses.join(","))
            }
            _ => link.redis_url(),
        }
    }

    /// The sentinels; panics if there are none.
    pub fn sentinels(&self) -> &Sentinels {
        self.sentinels.as_ref().expect("a deployment with sentinels")
    }

    /// The index of the primary.
    pub async fn primary(&self) -> usize {
        let Some(sentinels) = &self.sentinels else { return 0 };
        eventually_within(LIMIT, "a primary", || async {
            let port = sentinels.primary_port().await?;
            self.servers.iter().position(|server| server.announced_port() == port)
        })
        .await
    }

    /// Waits until every server is running, and every replica up to date.
    pub async fn healthy(&self) {
        if self.kind == Kind::Cluster {
            return cluster::healthy(&self.servers).await;
        }
        if self.sentinels.is_none() {
            return;
        }
        eventually_within(LIMIT, "two connected replicas", || async {
            let primary = &self.servers[self.primary().await];
            let role = primary.info("replication", "role").await?;
            let info: String = primary.try_command(&["INFO", "replication"]).await.ok()?;
            (role == "master" && info.matches("state=online").count() == 2).then_some(())
        })
        .await;
    }

    /// Number of failovers so far.
    pub async fn failovers(&self) -> u64 {
        match &self.sentinels {
            Some(sentinels) => sentinels.failovers().await,
            None => 0,
        }
    }
}

//! The Redis deployments that the suite tests.

pub mod route;
pub mod server;

pub use route::Route;
pub use server::Server;

use crate::balancer::Balancer;
use std::fmt;

/// The kinds of deployments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One server that writes its append-only file every second.
    Everysec,
    /// One server that writes its append-only file before each reply.
    Always,
}

impl Kind {
    /// All kinds that a run of everything tests.
    pub const ALL: [Kind; 2] = [Kind::Everysec, Kind::Always];

    /// Whether all events have one order.
    pub fn is_total(self) -> bool {
        true
    }

    /// Whether one server has all data.
    pub fn is_single(self) -> bool {
        matches!(self, Kind::Everysec | Kind::Always)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Everysec => "single, everysec",
            Kind::Always => "single, always",
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
    /// What the gateways connect to. A fault adds a second server.
    pub entrance: Balancer,
}

impl Deployment {
    /// Starts the servers.
    pub async fn start(kind: Kind) -> Deployment {
        match kind {
            Kind::Everysec => Deployment::single(kind, "everysec").await,
            Kind::Always => Deployment::single(kind, "always").await,
        }
    }

    async fn single(kind: Kind, sync: &str) -> Deployment {
        let server = Server::start(&["--appendfsync", sync]).await;
        let route = Route::Fixed(server.address());
        let entrance = Balancer::start().await;
        entrance.set(0, server.address().parse().ok());
        Deployment { kind, servers: vec![server], route, entrance }
    }

    /// The target of a gateway's link proxy: `host:port`.
    pub fn target(&self) -> String {
        self.entrance.address().to_string()
    }
}

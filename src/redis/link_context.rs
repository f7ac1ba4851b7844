//! The shared state of the tasks of the link thread.

use std::sync::Arc;

use super::{
    cluster::{pools::ServerPools, watcher::ClusterState},
    commands::Commands,
    key_names::KeyNames,
    link_state::LinkState,
    locate::Locator,
    servers::{ServerInfo, Servers},
};
use crate::{
    metrics::Metrics,
    settings::Settings,
    spans::Tracer,
    state::{clock::Clock, delivery::Delivery, presence::Presence, sightings::Sightings},
};

/// The shared state of the supervisor, the reading task and the recorder.
#[derive(Clone)]
pub struct LinkContext {
    /// The settings.
    pub settings: Arc<Settings>,
    /// Monotonic time; the supervisor sets its server time.
    pub clock: Arc<Clock>,
    /// The metrics of the link and the recorder.
    pub metrics: Arc<Metrics>,
    /// The server of the link.
    pub server: Arc<ServerInfo>,
    /// The state of the link, which the supervisor and the reading task update.
    pub state: Arc<LinkState>,
    /// All servers.
    pub servers: Arc<Servers>,
    /// What the nodes of a cluster say.
    pub cluster: Arc<ClusterState>,
    /// Finds the server.
    pub locator: Locator,
    /// Where received events go.
    pub delivery: Arc<Delivery>,
    /// Which events with `UNSEEN` were handed to a stream.
    pub sightings: Arc<Sightings>,
    /// Which users have a stream; `None` without `presence.enabled`.
    pub presence: Option<Arc<Presence>>,
    /// Records spans; `None` without `tracing.endpoint`.
    pub tracer: Option<Arc<Tracer>>,
}

impl LinkContext {
    /// Creates the context of a link that has not been up yet and has no workers yet.
    pub fn new(
        settings: Arc<Settings>,
        clock: Arc<Clock>,
        metrics: Arc<Metrics>,
        locator: Locator,
    ) -> Self {
        let state = Arc::new(LinkState::new(clock.clone()));
        Self {
            locator,
            servers: Arc::new(Servers::new(Arc::new(KeyNames::new(&settings.redis)))),
            cluster: Arc::default(),
            server: Arc::new(ServerInfo::single(state.clone())),
            state,
            delivery: Arc::new(Delivery::new(settings.history.replay_cache_bytes)),
            sightings: Arc::default(),
            presence: settings.presence.enabled.then(Arc::default),
            tracer: None,
            settings,
            clock,
            metrics,
        }
    }

    /// The context of the link to a node of a cluster.
    pub fn for_node(&self, server: Arc<ServerInfo>) -> Self {
        let locator = self.locator.node(server.clone(), self.cluster.clone());
        Self { locator, state: server.state.clone(), server, ..self.clone() }
    }

    /// New pools of connections to the servers of the links, for one thread.
    pub fn commands(&self) -> Commands {
        let pools = ServerPools::new(self.clone());
        self.server_commands().with_cluster(pools)
    }

    /// A new pool of connections to the server of this link, for one thread.
    pub fn server_commands(&self) -> Commands {
        Commands::new(&self.settings.redis, self.locator.clone(), Some(self.server.clone()))
    }
}

/// A link context for unit tests.
#[cfg(test)]
pub mod testing {
    use super::*;

    /// A context with default settings, except for `changes`: variables without their prefix.
    pub fn link_context(changes: &[(&str, &str)]) -> LinkContext {
        let settings = crate::state::testing::settings(changes);
        let locator = Locator::new(&settings.redis).expect("no files");
        LinkContext::new(settings, Arc::new(Clock::new()), Arc::new(Metrics::new()), locator)
    }
}

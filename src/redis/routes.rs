//! Which Redis server has a source of a stream: a user's channel, or the broadcasts.

use std::{sync::Arc, time::Duration};

use super::{
    commands::{CommandError, Commands},
    link::Link,
    link_state::{LinkState, START_PERIOD},
    servers::{Server, Servers},
};
use crate::{
    core::{
        channel::Channel,
        id::{EventId, parse_epoch},
        part::ServerIndex,
    },
    state::clock::Clock,
};

/// Time between two looks for the server of a user while an instance starts.
const POLL: Duration = Duration::from_millis(20);

/// How to reach one Redis server.
#[derive(Clone)]
pub struct Route {
    server: Arc<Server>,
    /// Commands for it.
    pub commands: Arc<Commands>,
}

impl Route {
    /// The number of the server.
    pub fn index(&self) -> ServerIndex {
        self.server.info.index
    }

    /// The link to it.
    pub fn link(&self) -> &Link {
        &self.server.link
    }

    /// The state of the link.
    pub fn state(&self) -> &LinkState {
        &self.server.info.state
    }

    /// The epochs of other servers that this one continues for the slot of a channel, because the
    /// slot moved here without a loss.
    ///
    /// # Errors
    /// Redis does not reply, or the server has not been adopted for the slot yet.
    pub async fn vouched_epochs(&self, channel: &Channel) -> Result<Vec<u64>, CommandError> {
        vouched_epochs(&self.commands, channel).await
    }
}

/// See [`Route::vouched_epochs`]; for the server that has the channel.
///
/// # Errors
/// As there.
pub async fn vouched_epochs(
    commands: &Commands,
    channel: &Channel,
) -> Result<Vec<u64>, CommandError> {
    if !commands.is_node() {
        return Ok(Vec::new());
    }
    let call = commands.call("vouched", &[commands.keys.log(channel)]);
    let epochs: String = commands.run(&call).await?;
    Ok(epochs.split(',').filter_map(parse_epoch).collect())
}

/// The routes of one worker.
#[derive(Clone)]
pub struct Routes {
    servers: Arc<Servers>,
    commands: Arc<Commands>,
    clock: Arc<Clock>,
}

impl Routes {
    /// The routes to these servers.
    pub fn new(servers: Arc<Servers>, commands: Commands, clock: Arc<Clock>) -> Self {
        Self { servers, commands: Arc::new(commands), clock }
    }

    fn route(&self, server: Arc<Server>) -> Route {
        Route { commands: self.commands.shared_of_server(&server.info), server }
    }

    /// The highest id that any of the links has brought.
    pub fn highest_id(&self) -> EventId {
        let servers = self.servers.all();
        servers.iter().map(|server| server.info.state.highest_id()).max().unwrap_or_default()
    }

    /// Whether the servers are the masters of a cluster.
    pub fn is_cluster(&self) -> bool {
        self.servers.is_cluster()
    }

    /// The server that has a user's channel; `None` if no server is known to have it now.
    pub fn user(&self, user: &str) -> Option<Route> {
        self.servers.of_user(user).map(|server| self.route(server))
    }

    /// The server that has the broadcasts; `None` if no server is known to have them now.
    pub fn broadcasts(&self) -> Option<Route> {
        self.servers.of_broadcasts().map(|server| self.route(server))
    }

    /// Whether the server of a user's channel is known, and does not have the broadcasts.
    pub fn has_separate_broadcasts(&self, user: &str) -> bool {
        self.servers.has_separate_broadcasts(user)
    }

    /// The server that has a user's channel, if the link to it is up. While the instance starts,
    /// waits for that first.
    pub async fn user_when_up(&self, user: &str) -> Option<Route> {
        self.when_up(|| self.user(user)).await
    }

    /// The same for the server that has the broadcasts.
    pub async fn broadcasts_when_up(&self) -> Option<Route> {
        self.when_up(|| self.broadcasts()).await
    }

    async fn when_up(&self, route: impl Fn() -> Option<Route>) -> Option<Route> {
        if let Some(route) = route().filter(|route| route.state().is_up()) {
            return Some(route);
        }
        // Boxed, because a larger future costs time for every client.
        let waiting = Box::pin(async {
            loop {
                match route() {
                    Some(route) => return route.state().wait_until_up().await.then_some(route),
                    None if self.clock.now_ms() < START_PERIOD.as_millis() as u64 => {
                        tokio::time::sleep(POLL).await;
                    }
                    None => return None,
                }
            }
        });
        waiting.await
    }
}

//! Which Redis server has a source of a stream: a user's channel, or the broadcasts.

use super::{commands::Commands, link::Link};
use crate::core::part::ServerIndex;

/// How to reach one Redis server.
#[derive(Clone)]
pub struct Route {
    /// The server.
    pub server: ServerIndex,
    /// The link to it.
    pub link: Link,
    /// Commands for it.
    pub commands: Commands,
}

/// The routes of one worker.
#[derive(Clone)]
pub struct Routes {
    only: Route,
}

impl Routes {
    /// The routes to a single server, which has everything.
    pub fn single(link: Link, commands: Commands) -> Self {
        Self { only: Route { server: ServerIndex::default(), link, commands } }
    }

    /// The server that has a user's channel; `None` if no server is known to have it now.
    pub fn user(&self, _user: &str) -> Option<Route> {
        Some(self.only.clone())
    }

    /// The server that has the broadcasts; `None` if no server is known to have them now.
    pub fn broadcasts(&self) -> Option<Route> {
        Some(self.only.clone())
    }
}

//! The pools of connections to the nodes of a cluster, for one thread.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use redis::Cmd;

use super::key;
use crate::{
    core::part::ServerIndex,
    redis::{
        commands::{CommandError, Commands, UnavailableError},
        link_context::LinkContext,
        servers::{Server, ServerInfo},
    },
};

/// Opens the pool of a node when the first command is sent to it.
pub struct ServerPools {
    context: LinkContext,
    pools: Mutex<HashMap<ServerIndex, Arc<Commands>>>,
}

impl ServerPools {
    /// Without a pool.
    pub fn new(context: LinkContext) -> Self {
        Self { context, pools: Mutex::default() }
    }

    /// Whether the servers are the nodes of a cluster.
    pub fn is_cluster(&self) -> bool {
        self.context.servers.is_cluster()
    }

    /// The commands for one server.
    pub fn of_server(&self, server: &Arc<ServerInfo>) -> Commands {
        (*self.shared_of_server(server)).clone()
    }

    /// The same, shared.
    pub fn shared_of_server(&self, server: &Arc<ServerInfo>) -> Arc<Commands> {
        let mut pools = self.pools.lock();
        if !pools.contains_key(&server.index) {
            // Servers that were replaced are not used any more.
            let current = self.context.servers.all();
            pools.retain(|index, _| current.iter().any(|server| server.info.index == *index));
        }
        let open = || Arc::new(self.context.for_node(server.clone()).server_commands());
        pools.entry(server.index).or_insert_with(open).clone()
    }

    /// The commands for each server.
    pub fn each_server(&self) -> Vec<Commands> {
        self.context.servers.all().iter().map(|server| self.of_server(&server.info)).collect()
    }

    /// The commands for the server that owns the key of a command.
    ///
    /// # Errors
    /// The command has no key, or no server is known to own it.
    pub fn of_command(&self, command: &Cmd) -> Result<Commands, CommandError> {
        self.of_owner(key::of(command).and_then(|key| self.context.servers.of_key(key)))
    }

    /// The commands for the server that owns a key.
    ///
    /// # Errors
    /// No server is known to own it.
    pub fn of_key(&self, key: &[u8]) -> Result<Commands, CommandError> {
        self.of_owner(self.context.servers.of_key(key))
    }

    fn of_owner(&self, owner: Option<Arc<Server>>) -> Result<Commands, CommandError> {
        let Some(owner) = owner else {
            self.context.cluster.stale.notify_one();
            return Err(CommandError::Unavailable(UnavailableError::NoOwner));
        };
        Ok(self.of_server(&owner.info))
    }

    /// A server did not own what it was asked for.
    pub fn report_stale(&self) {
        self.context.cluster.stale.notify_one();
    }
}

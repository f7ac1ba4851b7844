//! Starts the links to the servers of an instance.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::{
    cluster::watcher::{Watcher, WatcherParts},
    inbound::Inbound,
    link::{self, Supervisor},
    link_context::LinkContext,
    recorder::inbox::InboxSender,
    rejected::Rejected,
    servers::{Server, ServerInfo},
};
use crate::settings::ServerAddress;

/// What every link needs.
#[derive(Clone)]
pub struct Links {
    /// The context of the instance.
    pub context: LinkContext,
    /// The recorder's inbox.
    pub inbox: InboxSender,
    /// Where rejected messages go.
    pub rejected: mpsc::Sender<Rejected>,
}

impl Links {
    /// The link to the one server of an instance, which owns everything until it turns out to be a
    /// node of a cluster.
    pub fn single(&self) -> Supervisor {
        let (server, supervisor) = self.link(self.context.clone());
        self.context.servers.set_single(server);
        supervisor
    }

    fn link(&self, context: LinkContext) -> (Server, Supervisor) {
        let commands = context.server_commands();
        let inbox = self.inbox.for_server(context.server.index);
        let inbound =
            Inbound::new(context.clone(), commands.keys.clone(), inbox, self.rejected.clone());
        let info = context.server.clone();
        let (link, supervisor) = link::new(context, commands, Arc::new(inbound));
        (Server { info, link }, supervisor)
    }

    /// Serves the one server of an instance, or all masters of a cluster. Returns when the instance
    /// ends.
    pub async fn serve(self, single: Option<Supervisor>) {
        let seeds = match single {
            Some(supervisor) => match supervisor.run().await {
                Some(node) => vec![node],
                None => return,
            },
            None => self.context.locator.seeds().to_vec(),
        };
        self.follow_cluster(seeds).await;
    }

    async fn follow_cluster(self, seeds: Vec<ServerAddress>) {
        let commands = self.context.server_commands();
        let LinkContext { locator, clock, settings, servers, cluster, metrics, .. } =
            self.context.clone();
        servers.set_masters(Vec::new());
        let start = move |info: ServerInfo| {
            let (server, supervisor) = self.link(self.context.for_node(Arc::new(info)));
            tokio::spawn(supervisor.run());
            server
        };
        let parts = WatcherParts {
            seeds,
            locator,
            commands,
            timeout: settings.redis.command_timeout,
            start: Box::new(start),
            clock,
            metrics,
        };
        Watcher::new(parts, servers, cluster).run().await;
    }
}

//! Finds the servers once, for commands of the command line: they have no links and do not follow
//! the cluster.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;

use super::{
    nodes::{Masters, Node, View},
    pools::ServerPools,
    watcher::{address_of, ask, endpoints},
};
use crate::{
    core::part::ServerIndex,
    metrics::Metrics,
    redis::{
        commands::{CommandError, Commands, NoReplyError, UnavailableError},
        library::{self, LibraryError},
        link::Link,
        link_context::LinkContext,
        link_state::LinkState,
        locate::Locator,
        servers::{Server, ServerInfo},
        tls::TlsError,
    },
    settings::{ServerAddress, Settings},
    state::clock::Clock,
};

/// Maximum number of nodes that are asked.
const MAX_ASKED: usize = 100;

/// Why no server was found.
#[derive(Debug, thiserror::Error)]
pub enum DiscoveryError {
    /// The files in `[redis.tls]` cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// No node says which nodes there are.
    #[error("no node of the cluster answers CLUSTER NODES (Redis at {address})")]
    Redis {
        /// Where Redis is, without credentials.
        address: Arc<str>,
        /// What the last node answered.
        #[source]
        source: CommandError,
    },
}

/// What was found.
pub struct Discovered {
    /// Commands for the server, or for the masters of the cluster.
    pub commands: Commands,
    /// All nodes of the cluster; empty without a cluster.
    pub nodes: Vec<Node>,
}

/// Finds the server in `redis.url`, or the masters of the cluster that it is part of.
///
/// # Errors
/// The settings of TLS are invalid, or no node of a cluster answers. A server that is not in a
/// cluster may be unavailable: the first command tells.
pub async fn discover(settings: &Settings) -> Result<Discovered, DiscoveryError> {
    let locator = Locator::new(&settings.redis)?;
    let single = Commands::new(&settings.redis, locator.clone(), None);
    let seeds = seeds(&single, &locator).await;
    if seeds.is_empty() {
        return Ok(Discovered { commands: single, nodes: Vec::new() });
    }
    let views = views(&locator, &seeds, settings.redis.command_timeout).await;
    let views = views
        .map_err(|error| DiscoveryError::Redis { address: locator.address(), source: error })?;
    let masters = Masters::merge(&views);
    let nodes = nodes(&views, &masters);
    let clock = Arc::new(Clock::new());
    let metrics = Arc::new(Metrics::new());
    let context = LinkContext::new(Arc::new(settings.clone()), clock.clone(), metrics, locator);
    let server = |(index, node): (u16, &Node)| {
        let state = Arc::new(LinkState::new(clock.clone()));
        let info = ServerInfo::node(ServerIndex(index), node.id.clone(), state);
        info.node.iter().for_each(|known| {
            known.update(address_of(node), &node.slots);
        });
        Server { info: Arc::new(info), link: Link::none() }
    };
    context.servers.set_masters((0..).zip(&masters.0).map(server).collect());
    Ok(Discovered { commands: single.with_cluster(ServerPools::new(context)), nodes })
}

/// The nodes to ask; none if the server is not in a cluster, or does not say so.
async fn seeds(single: &Commands, locator: &Locator) -> Vec<ServerAddress> {
    if !locator.seeds().is_empty() {
        return locator.seeds().to_vec();
    }
    match library::is_cluster(single).await {
        Ok(true) => {
            locator.locate().await.ok().and_then(|found| found.server).into_iter().collect()
        }
        Ok(false) | Err(LibraryError::Command(_)) | Err(_) => Vec::new(),
    }
}

/// What the seeds and the nodes that they know say.
async fn views(
    locator: &Locator,
    seeds: &[ServerAddress],
    timeout: Duration,
) -> Result<Vec<View>, CommandError> {
    let mut failed = None;
    let mut views = Vec::new();
    let mut asked: Vec<ServerAddress> = Vec::new();
    let mut next = seeds.to_vec();
    // The seeds first, then the nodes that they name.
    for _ in 0..2 {
        next.retain(|address| !asked.contains(address));
        next.truncate(MAX_ASKED);
        let answers = join_all(next.iter().map(|address| ask_one(locator, address, timeout))).await;
        for answer in answers {
            match answer {
                Ok(view) => views.push(view),
                Err(error) => failed = Some(error),
            }
        }
        asked.append(&mut next);
        next = endpoints(&views);
    }
    match failed {
        Some(error) if views.is_empty() => Err(error),
        _ => Ok(views),
    }
}

async fn ask_one(
    locator: &Locator,
    address: &ServerAddress,
    timeout: Duration,
) -> Result<View, CommandError> {
    let answer = tokio::time::timeout(timeout, ask(locator, address, timeout, None)).await;
    match answer {
        Ok(Ok((view, _))) => Ok(view),
        // Nothing was executed: without a reply, the node is unavailable.
        Ok(Err(error)) => Err(match CommandError::from(error) {
            CommandError::NoReply(NoReplyError::Connection(error)) => {
                CommandError::Unavailable(UnavailableError::Redis(error))
            }
            other => other,
        }),
        Err(_) => Err(CommandError::Unavailable(UnavailableError::ConnectTimeout)),
    }
}

/// All nodes: the masters with the slots that they own, then the others.
fn nodes(views: &[View], masters: &Masters) -> Vec<Node> {
    let mut nodes = masters.0.clone();
    // What a node says of itself is more recent than what the others say.
    let own = views.iter().flat_map(|view| view.nodes.iter().filter(|n| n.id == view.own_id));
    for node in own.chain(views.iter().flat_map(|view| &view.nodes)) {
        if nodes.iter().all(|known| known.id != node.id) {
            nodes.push(node.clone());
        }
    }
    nodes
}

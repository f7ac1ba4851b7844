//! Where the server is that the gateway must connect to: at the address in `redis.url`, or where
//! the sentinels say (ARCHITECTURE.md#locating-the-server).

mod error;
mod sentinel;
mod views;
pub mod watcher;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use redis::{ConnectionAddr, ConnectionInfo};
use tokio::{
    net::TcpStream,
    sync::{Notify, watch},
};

use self::sentinel::Sentinels;
pub use self::{
    error::{LocateError, SentinelError},
    views::Confirmation,
    watcher::Watcher,
};
use super::{
    cluster::{slots::SlotRanges, watcher::ClusterState},
    servers::ServerInfo,
    tls::{self, TlsError},
    watermark::ClusterKnowledge,
};
use crate::settings::{self, RedisTarget, RedisUrl, ServerAddress};

/// Finds the server to connect to. Clones share what is known.
#[derive(Clone)]
pub struct Locator(Arc<Inner>, Option<ClusterNode>);

/// One node of a cluster, and what the others say about it.
#[derive(Clone)]
struct ClusterNode {
    info: Arc<ServerInfo>,
    cluster: Arc<ClusterState>,
}

impl ClusterNode {
    fn address(&self) -> ServerAddress {
        let node = self.info.node.as_ref();
        node.map_or_else(
            || ServerAddress { host: String::new(), port: 0 },
            |n| (*n.address()).clone(),
        )
    }
}

struct Inner {
    url: RedisUrl,
    /// Credentials and TLS parameters for any server; its host and port mean nothing.
    template: ConnectionInfo,
    tls: Option<Arc<rustls::ClientConfig>>,
    sentinels: Option<Sentinels>,
    timeout: Duration,
    known: watch::Sender<Known>,
    /// Whether a watcher keeps `known` current.
    is_watched: AtomicBool,
    /// Makes the watcher ask the sentinels.
    ask: Arc<Notify>,
}

/// What the sentinels have said.
#[derive(Clone, Debug, Default)]
struct Known {
    /// The primary; stays while no sentinel replies.
    primary: Option<ServerAddress>,
    /// Why the last round named no primary.
    error: Option<LocateError>,
}

/// A server to connect to. `Display` shows no credentials.
#[derive(Clone, Debug)]
pub struct Located {
    /// Host and port; `None` for a Unix socket.
    pub server: Option<ServerAddress>,
    /// With credentials and TLS.
    pub connection: ConnectionInfo,
}

impl fmt::Display for Located {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.server {
            Some(server) => server.fmt(f),
            None => self.connection.addr().fmt(f),
        }
    }
}

impl Locator {
    /// A locator for these settings. It does not connect yet.
    ///
    /// # Errors
    /// The files in `[redis.tls]` cannot be used.
    pub fn new(settings: &settings::Redis) -> Result<Self, TlsError> {
        let url = settings.url.clone();
        let plain = tls::template(&settings.tls, url.tls)?;
        let sentinels = match &url.target {
            RedisTarget::Sentinel { sentinels, master } => {
                Some(Sentinels::new(sentinels.clone(), master.clone(), settings, &plain))
            }
            _ => None,
        };
        Ok(Self(
            Arc::new(Inner {
                template: plain.set_redis_settings(url.login.clone()),
                tls: url.tls.then(|| tls::client_config(&settings.tls)).transpose()?,
                url,
                sentinels,
                timeout: settings.command_timeout,
                known: watch::Sender::default(),
                is_watched: AtomicBool::new(false),
                ask: Arc::default(),
            }),
            None,
        ))
    }

    /// A locator for one node of a cluster, with the same credentials.
    pub fn node(&self, info: Arc<ServerInfo>, cluster: Arc<ClusterState>) -> Self {
        Self(self.0.clone(), Some(ClusterNode { info, cluster }))
    }

    /// The server to connect to now. For a cluster this is the first seed that can be reached.
    ///
    /// Sentinels are asked only if no [`Watcher`] exists; their answer is remembered.
    ///
    /// # Errors
    /// No sentinel names a primary, or no seed can be reached, within `redis.command_timeout`.
    pub async fn locate(&self) -> Result<Located, LocateError> {
        if let Some(node) = &self.1 {
            let server = node.address();
            return Ok(Located { connection: self.connection_to(&server), server: Some(server) });
        }
        let server = match &self.0.url.target {
            RedisTarget::Socket(path) => {
                let address = ConnectionAddr::Unix(path.clone());
                let connection = self.0.template.clone().set_addr(address);
                return Ok(Located { server: None, connection });
            }
            RedisTarget::Server(server) => server.clone(),
            RedisTarget::Sentinel { .. } => self.primary().await?,
            RedisTarget::Cluster { seeds } => self.reachable(seeds).await?,
        };
        let connection = self.connection_to(&server);
        Ok(Located { server: Some(server), connection })
    }

    /// How to connect to any server: with the credentials of Redis, and with TLS if `redis.url`
    /// says so.
    pub fn connection_to(&self, server: &ServerAddress) -> ConnectionInfo {
        connect_to(&self.0.template, server)
    }

    /// The seeds of a cluster; empty if `redis.url` names none.
    pub fn seeds(&self) -> &[ServerAddress] {
        match &self.0.url.target {
            RedisTarget::Cluster { seeds } => seeds,
            _ => &[],
        }
    }

    /// The configuration of TLS connections; `None` without TLS.
    pub fn tls(&self) -> Option<Arc<rustls::ClientConfig>> {
        self.0.tls.clone()
    }

    /// For a node of a cluster: what the instance knows of the others when it adopts this one.
    pub async fn cluster_knowledge(&self, slots: &SlotRanges) -> Option<ClusterKnowledge> {
        let ClusterNode { info, cluster } = self.1.as_ref()?;
        Some(cluster.knowledge(info, slots).await)
    }

    /// Whether Sentinel or a cluster decides which server is the primary.
    pub fn has_judge(&self) -> bool {
        self.1.is_some() || self.has_sentinels()
    }

    /// Whether sentinels decide which server is the primary.
    pub fn has_sentinels(&self) -> bool {
        self.0.sentinels.is_some()
    }

    /// Asks the sentinels whether this server is the primary at this moment. A gateway calls this
    /// after it has connected, and before it adopts the server. `None` (a Unix socket) is unknown.
    ///
    /// # Errors
    /// No majority of the sentinels agrees within `redis.command_timeout`.
    pub async fn confirms(
        &self,
        server: Option<&ServerAddress>,
    ) -> Result<Confirmation, LocateError> {
        if let Some(ClusterNode { info, cluster }) = &self.1 {
            let is_master = info.node.as_ref().is_some_and(|n| cluster.votes.confirm(&n.id));
            return Ok(if is_master { Confirmation::Confirmed } else { Confirmation::Denied });
        }
        match (&self.0.sentinels, server) {
            (Some(sentinels), Some(server)) => sentinels.ask().await.confirms(server),
            _ => Ok(Confirmation::Unknown),
        }
    }

    /// Whether connections to this server may still be used: `false` if the sentinels name another
    /// one.
    pub fn is_current(&self, server: Option<&ServerAddress>) -> bool {
        let known = self.0.known.borrow();
        known.primary.as_ref().is_none_or(|primary| server == Some(primary))
    }

    /// Waits until the sentinels name a primary other than `server`. Without sentinels it waits
    /// forever.
    pub async fn moved_from(&self, server: Option<&ServerAddress>) -> ServerAddress {
        let mut known = self.0.known.subscribe();
        let moved = |known: &Known| known.primary.as_ref().is_some_and(|p| Some(p) != server);
        loop {
            // The sender lives as long as `self`, so this does not fail.
            let Ok(Some(primary)) = known.wait_for(moved).await.map(|known| known.primary.clone())
            else {
                std::future::pending::<()>().await;
                continue;
            };
            return primary;
        }
    }

    /// Makes the watcher ask the sentinels, because a connection has failed.
    pub fn ask_soon(&self) {
        self.0.ask.notify_one();
    }

    /// Where Redis is, for logs: the server if it is known, otherwise the URL without credentials.
    pub fn address(&self) -> Arc<str> {
        if let Some(node) = &self.1 {
            return node.address().to_string().into();
        }
        match &self.0.known.borrow().primary {
            Some(primary) => primary.to_string().into(),
            None => self.0.url.to_string().into(),
        }
    }

    /// The task that keeps the answer of the sentinels current; `None` without sentinels. From now
    /// on, [`Locator::locate`] relies on it.
    pub fn watcher(&self) -> Option<Watcher> {
        self.0.sentinels.as_ref()?;
        self.0.is_watched.store(true, Ordering::Relaxed);
        Some(Watcher::new(self.clone()))
    }

    async fn primary(&self) -> Result<ServerAddress, LocateError> {
        if let Some(primary) = &self.0.known.borrow().primary {
            return Ok(primary.clone());
        }
        if !self.0.is_watched.load(Ordering::Relaxed) {
            let Some(sentinels) = &self.0.sentinels else { return Err(LocateError::NoAnswer) };
            let primary = sentinels.ask().await.primary()?;
            self.0.known.send_modify(|known| known.primary = Some(primary.clone()));
            return Ok(primary);
        }
        let found = tokio::time::timeout(self.0.timeout, self.moved_from(None)).await;
        found.map_err(|_| self.0.known.borrow().error.clone().unwrap_or(LocateError::NoAnswer))
    }

    /// The first of these servers that accepts a connection.
    async fn reachable(&self, seeds: &[ServerAddress]) -> Result<ServerAddress, LocateError> {
        let share = self.0.timeout / seeds.len().max(1) as u32;
        let mut failed = Vec::new();
        for seed in seeds {
            let connected = TcpStream::connect((seed.host.as_str(), seed.port));
            match tokio::time::timeout(share, connected).await {
                Ok(Ok(_)) => return Ok(seed.clone()),
                Ok(Err(error)) => failed.push((seed.clone(), error)),
                Err(_) => failed.push((seed.clone(), std::io::ErrorKind::TimedOut.into())),
            }
        }
        Err(LocateError::NoSeed(failed.into()))
    }
}

/// `template` with another host and port.
fn connect_to(template: &ConnectionInfo, server: &ServerAddress) -> ConnectionInfo {
    let (host, port) = (server.host.clone(), server.port);
    let address = match template.addr() {
        ConnectionAddr::TcpTls { insecure, tls_params, .. } => ConnectionAddr::TcpTls {
            host,
            port,
            insecure: *insecure,
            tls_params: tls_params.clone(),
        },
        _ => ConnectionAddr::Tcp(host, port),
    };
    template.clone().set_addr(address)
}

//! A primary with two replicas and three sentinels. All of them use the addresses of the servers'
//! proxies, which can cut a server off.

use super::Server;
use crate::harness::eventually_within;
use std::time::{Duration, Instant};

/// The name of the primary in the sentinels.
pub const NAME: &str = "mymaster";
const LIMIT: Duration = Duration::from_secs(60);

/// The sentinels.
pub struct Sentinels(Vec<Server>);

/// Time without an answer after which a sentinel considers the primary down. Longer than
/// [`MAX_LAG_S`] and the second between two acknowledgements of a replica: an isolated primary
/// stops to accept writes before another one is chosen.
const DOWN_AFTER_MS: u64 = 3000;
/// `min-replicas-max-lag`.
const MAX_LAG_S: &str = "1";

/// Starts a primary and two replicas. `guarded`: without a replica, a primary accepts no writes.
pub async fn servers(guarded: bool) -> Vec<Server> {
    let mut servers: Vec<Server> = Vec::new();
    for _ in 0..3 {
        let mut server = Server::reserve().await;
        let own = server.announced_port().to_string();
        let mut arguments =
            vec!["--replica-announce-ip", "127.0.0.1", "--replica-announce-port", own.as_str()];
        let primary = servers.first().map(|primary| primary.announced_port().to_string());
        if let Some(primary) = &primary {
            arguments.extend(["--replicaof", "127.0.0.1", primary]);
        }
        arguments.extend(["--repl-timeout", "5", "--repl-ping-replica-period", "1"]);
        arguments.extend(["--min-replicas-max-lag", MAX_LAG_S]);
        arguments.extend(["--min-replicas-to-write", if guarded { "1" } else { "0" }]);
        server.configure(&arguments);
        server.run().await;
        servers.push(server);
    }
    servers
}

impl Sentinels {
    /// Starts three sentinels, and waits until they know each other and the replicas.
    pub async fn start(primary: &Server) -> Sentinels {
        let mut all = Vec::new();
        for _ in 0..3 {
            let sentinel = Server::reserve().await;
            let file = sentinel.path("sentinel.conf");
            let text = format!(
                "sentinel monitor {NAME} 127.0.0.1 {} 2\n\
                 sentinel down-after-milliseconds {NAME} {DOWN_AFTER_MS}\n\
                 sentinel failover-timeout {NAME} 6000\n\
                 sentinel parallel-syncs {NAME} 2\n",
                primary.announced_port()
            );
            std::fs::write(&file, text).expect("a file");
            let file = file.to_str().expect("a path").to_owned();
            sentinel.spawn(&[file, "--sentinel".to_owned()]);
            all.push(sentinel);
        }
        let sentinels = Sentinels(all);
        eventually_within(LIMIT, "sentinels that know each other", || async {
            for sentinel in &sentinels.0 {
                let master: Vec<String> =
                    sentinel.try_command(&["SENTINEL", "MASTER", NAME]).await.ok()?;
                let has = |name: &str, value: &str| field(&master, name) == Some(value);
                if !has("num-slaves", "2") || !has("num-other-sentinels", "2") {
                    return None;
                }
            }
            Some(())
        })
        .await;
        sentinels
    }

    /// `host:port` of each sentinel.
    pub fn addresses(&self) -> Vec<String> {
        self.0.iter().map(Server::address).collect()
    }

    /// The announced port of the primary as a majority sees it.
    pub async fn primary_port(&self) -> Option<u16> {
        let mut ports = Vec::new();
        for sentinel in &self.0 {
            let words = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME];
            let address: Option<(String, u16)> = sentinel.try_command(&words).await.ok()?;
            ports.extend(address.map(|(_, port)| port));
        }
        ports.iter().find(|port| ports.iter().filter(|other| other == port).count() >= 2).copied()
    }

    /// Waits for a failover from the primary with this port: the moment of the decision.
    pub async fn decision(&self, from: u16) -> Instant {
        eventually_within(LIMIT, "a failover", || async {
            self.primary_port().await.filter(|port| *port != from).map(drop)
        })
        .await;
        Instant::now()
    }

    /// Number of failovers so far.
    pub async fn failovers(&self) -> u64 {
        let mut highest = 0;
        for sentinel in &self.0 {
            let words = ["SENTINEL", "MASTER", NAME];
            let master: Vec<String> = sentinel.try_command(&words).await.unwrap_or_default();
            let epoch = field(&master, "config-epoch").and_then(|epoch| epoch.parse().ok());
            highest = highest.max(epoch.unwrap_or_default());
        }
        highest
    }

    /// Stops the sentinels.
    pub fn freeze(&self) {
        self.0.iter().for_each(Server::freeze);
    }

    /// Lets them continue.
    pub fn thaw(&self) {
        self.0.iter().for_each(Server::thaw);
    }

    /// Lets the first sentinel fail over from the primary with this port, although that is well.
    /// Begins again if the failover is aborted. Returns the moment of the decision.
    pub async fn fail_over(&self, from: u16) -> Instant {
        let first = &self.0[0];
        eventually_within(LIMIT, "a failover that was asked for", || async {
            let words = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME];
            let (_, port): (String, u16) = first.try_command(&words).await.ok()?;
            if port == from {
                // Refused while one is running.
                let _ = first.try_command::<()>(&["SENTINEL", "FAILOVER", NAME]).await;
            }
            self.primary_port().await.filter(|port| *port != from).map(drop)
        })
        .await;
        Instant::now()
    }

    /// Waits until all sentinels have seen this priority of the replica with this port.
    pub async fn sees_priority(&self, port: u16, priority: &str) {
        eventually_within(LIMIT, "a priority", || async {
            for sentinel in &self.0 {
                let words = ["SENTINEL", "REPLICAS", NAME];
                let replicas: Vec<Vec<String>> = sentinel.try_command(&words).await.ok()?;
                let port = port.to_string();
                let replica = replicas.iter().find(|r| field(r, "port") == Some(&port))?;
                field(replica, "slave-priority").filter(|value| *value == priority)?;
            }
            Some(())
        })
        .await;
    }
}

/// A value of a flat list of names and values.
fn field<'a>(list: &'a [String], name: &str) -> Option<&'a str> {
    let mut pairs = list.chunks(2).filter(|pair| pair.len() == 2);
    pairs.find(|pair| pair[0] == name).map(|pair| pair[1].as_str())
}

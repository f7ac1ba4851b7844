//! How publishers find the server that is responsible for a channel, as a client library does.

use super::cluster;
use super::sentinels::NAME;
use super::server::connect;
use redis::aio::MultiplexedConnection;
use redis::{RedisError, RedisResult};
use std::sync::{Arc, Mutex};

/// A way to the server of a channel. Clones share what they know.
#[derive(Clone)]
pub enum Route {
    /// One address (`host:port`).
    Fixed(String),
    /// Sentinels, and the primary that they last named.
    Sentinels(Vec<String>, Arc<Mutex<Option<String>>>),
    /// Nodes of a cluster, and the masters with their slots as last seen.
    Cluster(Vec<String>, Arc<Mutex<Vec<cluster::Node>>>),
}

/// The slot of a channel's keys (the specification of Redis Cluster).
pub fn slot(channel: &str) -> u16 {
    let tag = if channel.starts_with("broadcast:") { "broadcast" } else { channel };
    let mut crc = 0_u16;
    for byte in tag.bytes() {
        crc ^= u16::from(byte) << 8;
        for _ in 0..8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ 0x1021 };
        }
    }
    crc % 16384
}

impl Route {
    /// A route by these sentinels.
    pub fn sentinels(addresses: Vec<String>) -> Route {
        Route::Sentinels(addresses, Arc::default())
    }

    /// A route by these nodes.
    pub fn cluster(addresses: Vec<String>) -> Route {
        Route::Cluster(addresses, Arc::default())
    }

    /// The key with which an event is published to a channel.
    pub fn key(&self, channel: &str) -> String {
        match (self, channel.strip_prefix("broadcast:")) {
            (Route::Cluster(..), Some(topic)) => format!("{{broadcast}}:{topic}"),
            _ => channel.to_owned(),
        }
    }

    /// The address of a channel's server as far as it is known.
    pub fn known(&self, channel: &str) -> Option<String> {
        match self {
            Route::Fixed(address) => Some(address.clone()),
            Route::Sentinels(_, primary) => primary.lock().unwrap().clone(),
            Route::Cluster(_, masters) => {
                let masters = masters.lock().unwrap();
                let owner = masters.iter().find(|node| node.owns(slot(channel)));
                owner.map(|node| node.address.clone())
            }
        }
    }

    /// Connects to the server of a channel. Returns its address and the connection.
    pub async fn connect(&self, channel: &str) -> RedisResult<(String, MultiplexedConnection)> {
        if let Some(address) = self.known(channel) {
            let connection = connect(&address).await?;
            return Ok((address, connection));
        }
        match self {
            Route::Fixed(address) => Ok((address.clone(), connect(address).await?)),
            Route::Sentinels(sentinels, primary) => {
                let (address, connection) = ask(sentinels).await?;
                *primary.lock().unwrap() = Some(address.clone());
                Ok((address, connection))
            }
            Route::Cluster(seeds, masters) => {
                let found = masters_of(seeds).await?;
                let owner = found.iter().find(|node| node.owns(slot(channel)));
                let address = owner.map(|node| node.address.clone());
                *masters.lock().unwrap() = found;
                let address = address.ok_or_else(no_server)?;
                let connection = connect(&address).await?;
                Ok((address, connection))
            }
        }
    }

    /// Notes an error: the next attempt may need another server.
    pub fn failed(&self, _channel: &str, _error: &RedisError) {
        match self {
            Route::Fixed(_) => {}
            Route::Sentinels(_, primary) => *primary.lock().unwrap() = None,
            // Also after MOVED and ASK: client libraries load the slots again.
            Route::Cluster(_, masters) => masters.lock().unwrap().clear(),
        }
    }
}

fn no_server() -> RedisError {
    std::io::Error::other("no server is known for the channel").into()
}

/// The primary that the first sentinel with an answer names, if that agrees.
async fn ask(sentinels: &[String]) -> RedisResult<(String, MultiplexedConnection)> {
    for sentinel in sentinels {
        let Ok(mut connection) = connect(sentinel).await else { continue };
        let mut command = redis::cmd("SENTINEL");
        command.arg("GET-MASTER-ADDR-BY-NAME").arg(NAME);
        let answer: RedisResult<Option<(String, u16)>> = command.query_async(&mut connection).await;
        let Ok(Some((host, port))) = answer else { continue };
        let address = format!("{host}:{port}");
        let mut connection = connect(&address).await?;
        let role: Vec<redis::Value> = redis::cmd("ROLE").query_async(&mut connection).await?;
        let is_primary = matches!(role.first(),
            Some(redis::Value::BulkString(word)) if word == b"master");
        return if is_primary { Ok((address, connection)) } else { Err(no_server()) };
    }
    Err(no_server())
}

/// The masters in the view of a node that responds.
async fn masters_of(seeds: &[String]) -> RedisResult<Vec<cluster::Node>> {
    let first = fastrand::usize(..seeds.len());
    for seed in seeds.iter().cycle().skip(first).take(seeds.len()) {
        let Ok(mut connection) = connect(seed).await else { continue };
        let answer = redis::cmd("CLUSTER").arg("NODES").query_async(&mut connection).await;
        let Ok::<String, _>(text) = answer else { continue };
        return Ok(cluster::parse(&text).into_iter().filter(|node| node.is_master).collect());
    }
    Err(no_server())
}

#[test]
fn slots_are_those_of_redis() {
    assert_eq!(slot("foo"), 12182);
    assert_eq!(slot("broadcast:news"), slot("broadcast"));
}

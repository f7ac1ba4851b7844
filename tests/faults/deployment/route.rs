//! How publishers find the server that is responsible for a channel, as a client library does.

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
}

impl Route {
    /// A route by these sentinels.
    pub fn sentinels(addresses: Vec<String>) -> Route {
        Route::Sentinels(addresses, Arc::default())
    }

    /// The address of a channel's server as far as it is known.
    pub fn known(&self, _channel: &str) -> Option<String> {
        match self {
            Route::Fixed(address) => Some(address.clone()),
            Route::Sentinels(_, primary) => primary.lock().unwrap().clone(),
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
        }
    }

    /// Notes an error: the next attempt may need another server.
    pub fn failed(&self, _channel: &str, _error: &RedisError) {
        match self {
            Route::Fixed(_) => {}
            Route::Sentinels(_, primary) => *primary.lock().unwrap() = None,
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

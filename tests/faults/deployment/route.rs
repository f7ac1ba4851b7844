//! How publishers find the server that is responsible for a channel, as a client library does.

use super::server::connect;
use redis::aio::MultiplexedConnection;
use redis::{RedisError, RedisResult};

/// A way to the server of a channel.
#[derive(Clone)]
pub enum Route {
    /// One address (`host:port`).
    Fixed(String),
}

impl Route {
    /// The address of a channel's server as far as it is known.
    pub fn known(&self, _channel: &str) -> Option<String> {
        match self {
            Route::Fixed(address) => Some(address.clone()),
        }
    }

    /// Connects to the server of a channel. Returns its address and the connection.
    pub async fn connect(&self, channel: &str) -> RedisResult<(String, MultiplexedConnection)> {
        let Some(address) = self.known(channel) else {
            return Err(std::io::Error::other("no server is known for the channel").into());
        };
        let connection = connect(&address).await?;
        Ok((address, connection))
    }

    /// Notes an error: the next attempt may need another server.
    pub fn failed(&self, _channel: &str, _error: &RedisError) {
        match self {
            Route::Fixed(_) => {}
        }
    }
}

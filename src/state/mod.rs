//! What an instance keeps in memory: connections by worker, recent broadcasts, limits. No Redis, no
//! HTTP.

pub mod client;
pub mod client_liveness;
pub mod clock;
pub mod connection;
pub mod connection_index;
pub mod delivery;
mod heartbeats;
pub mod hub;
mod hub_servers;
pub mod lifecycle;
pub mod limits;
pub mod mailbox;
pub mod presence;
pub mod replay_cache;
pub mod retained_cache;
mod round;
pub mod session_notices;
pub mod sightings;
pub mod stream_context;
pub mod summary;
#[cfg(test)]
pub mod testing;
pub mod timers;

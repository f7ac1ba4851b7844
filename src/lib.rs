//! A stateless gateway from Redis to browsers: named, authenticated, resumable Server-Sent Events.
//!
//! ARCHITECTURE.md is the contract: rules, guarantees, and where each is implemented and tested.
//!
//! # Modules
//!
//! A Redis message is decoded once, encoded once, and shared: link, mailbox, hub, connection,
//! socket. Modules depend downward only.
//!
//! | layer | contents | may use |
//! |---|---|---|
//! | [`core`] | ids, channels, envelope, frames, stream state, catch-up decisions. Pure | nothing |
//! | [`settings`], [`metrics`] | configuration; metrics | `core` |
//! | [`backoff`], [`log_limit`], [`error_chain`] | delays between attempts; limits for log lines; errors as one line | nothing |
//! | [`spans`] | OpenTelemetry spans and their exporter | `settings`, `metrics` |
//! | [`postgres`] | connections to Postgres, its outbox table | `settings` |
//! | [`auth`] | tickets (JWTs), their keys, key sets, API keys | `settings`, `metrics` |
//! | [`state`] | hubs, connections, recent broadcasts, limits | `auth` |
//! | [`redis`] | the function library, the link, logs, recorder, sessions | `state` |
//! | [`sources`] | external sources: entries that others write become events | `redis` |
//! | [`admission`] | which clients are admitted; readiness | `redis` |
//! | [`http`] | the public and the admin listener | `admission` |
//! | [`app`] | builds an instance, runs it, drains it | `http` |
//! | [`cli`] | the commands | `app` |
//!
//! # An event's path
//!
//! 1. `redis/library.lua` appends the event to its channel's log and publishes a live message, in
//!    one atomic step. Plain publishes get there through the recorder (`redis/recorder`).
//! 2. `redis/inbound.rs` decodes the message into an [`core::event::Event`] and encodes its frame.
//! 3. `state/mailbox.rs` hands the event to the workers that may have a stream for it.
//! 4. `state/hub.rs` finds the connections of its user or topic.
//! 5. `state/connection/direct.rs` writes it to the sockets of streams with nothing else to write.
//! 6. For others, `core/stream_state.rs` queues it, ignores it, or requests a catch-up
//!    (`redis/catch_up.rs`).
//! 7. `state/connection.rs` passes the bytes to the response body (`http/body.rs`).
//! 8. `http/front` writes them to the socket, over HTTP/1.1 or HTTP/2.

pub mod admission;
pub mod app;
pub mod auth;
pub mod backoff;
pub mod cli;
pub mod core;
pub mod error_chain;
pub mod http;
pub mod log_limit;
pub mod metrics;
pub mod postgres;
pub mod redis;
pub mod settings;
pub mod sources;
pub mod spans;
pub mod state;

/// Private items that the fuzz targets (`fuzz/`) and benches need; not part of the API.
#[cfg(feature = "fuzzing")]
pub mod fuzzing {
    pub use crate::{
        auth::{KeySet, KeySetError, parse_key_set},
        http::front::fuzzing::*,
    };
}

//! A stateless gateway from Redis to browsers: Server-Sent Events that are named, authenticated and resumable.
//!
//! # The map
//!
//! Data goes one way: a Redis message is decoded once, encoded once, and shared: hub -> connection -> socket. Files depend
//! downward only:
//!
//! | layer | what | knows |
//! |---|---|---|
//! | [`core`] | ids, channels, envelope, frames, the flow of one connection, the catch-up: pure | nothing |
//! | [`settings`], [`tickets`] | every key of the configuration; JWTs | core |
//! | [`state`] | hubs, connections, tail, bounds, metrics | core, settings |
//! | [`redis`] | `library.lua`, the link, logs, the recorder, sessions | state |
//! | [`issuer`] | the key set of whoever signs the tickets, kept fresh | state |
//! | [`http`] | the public and the admin listener | redis, issuer |
//! | [`app`] | builds an instance, runs it, drains it | http |
//! | [`cli`] | the commands | app |
//!
//! # The way of an event
//!
//! `FCALL sse_publish` (`redis/library.lua`) appends to the log and publishes on a live channel; a plain PUBLISH comes there
//! by the recorder (`redis/recorder`). The link's reading task (`redis/inbound.rs`) makes an [`core::event::Event`] of it
//! and puts it into every worker's mailbox (`state/mailbox.rs`). The worker's hub (`state/hub.rs`) offers it to the
//! connections of its channel; each connection's flow (`core/stream_state.rs`) takes it, or orders a catch-up (`redis/catch_up.rs`). The
//! stream's body (`http/body.rs`) takes bytes from the connection; over HTTP/1.1 they go to the socket by a writer of our own
//! (`http/front`), over HTTP/2 by actix.
//!
//! # The laws
//!
//! 1. **A connection is a cursor.** At all times a client's stream equals all events of its channels, in id order, up to
//!    its cursor. Live frames are the fast path, the log is the truth: whoever loses its place catches up again.
//! 2. **The catch-up is bounded by H**: subscription confirmed, then H := the clock's last id, then the logs over (cursor, H],
//!    merged by id, then live.
//! 3. **One link.** An instance has one subscriber connection; Redis orders nothing between two. Its reading task awaits
//!    nothing.
//! 4. **The watermark comes by the link** and from nowhere else; idle ids are watermarks.
//! 5. **Everything is bounded**: queues in bytes, waits in time, connections in number. What overflows is read again from
//!    the log.
//! 6. **Every close has one named reason**, which is also the metric's label.
//! 7. **Nothing fatal is said to a browser that should come back**: 200, `retry:` and the end; 4xx only where a URL can
//!    never work again.
//! 8. **A ticket is a credential** and appears in no log, metric or error.
//!
//! # Where each promise is kept, and where it is tested
//!
//! | promise (ARCHITECTURE.md#guarantees-where-implemented-where-tested) | code | test |
//! |---|---|---|
//! | nothing is lost silently | `core/stream_state.rs`, `core/catch_up.rs`, `redis/catch_up.rs` | `tests/gateway/resume.rs`, `gap.rs`, `breaks.rs` |
//! | the id is always fresh | `state/timers.rs`, `redis/tick.rs` | `tests/gateway/resume.rs` |
//! | any Redis client can publish | `redis/library.lua`, `redis/recorder` | `tests/gateway/delivery.rs`, `modes.rs` |
//! | a fault of Redis is no fault of the client | `redis/link.rs` | `tests/gateway/faults.rs`, `neighbours.rs` |
//! | a slow client costs only itself | `core/stream_state.rs`, `state/timers.rs`, `state/client_socket.rs` | `tests/gateway/slow.rs` |
//! | nothing fatal is said | `http/responses.rs`, `http/admission.rs`, `issuer.rs` | `tests/gateway/tickets.rs`, `limits.rs`, `jwks.rs` |
//!
//! Keys and the certificate change without a restart: `app/reload.rs`, tested in `tests/gateway/rotation.rs`.

pub mod app;
pub mod auth;
pub mod cli;
pub mod core;
pub mod http;
pub mod metrics;
pub mod redis;
pub mod settings;
pub mod state;

/// Private parts that the fuzz targets (`fuzz/`) and benches need; not part of the API.
#[cfg(feature = "fuzzing")]
pub mod fuzzing {
    pub use crate::{
        auth::{KeySet, KeySetError, parse_key_set},
        http::front::fuzzing::*,
    };
}

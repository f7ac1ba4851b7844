//! Postgres: connections, notifications, and the outbox table.
//!
//! Nothing here publishes; `sources` does that with what is read here.

pub mod connect;
pub mod error;
pub mod notifications;
pub mod outbox;
pub mod session;
mod tls;

pub use tls::TlsError;

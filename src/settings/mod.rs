//! The settings. One table ([`table::KEYS`]) lists every key with its default, its meaning and its
//! parser; the loader, `check-config`, the sample file and the reference page are made from it.

pub mod check;
pub mod error;
mod file;
pub mod load;
pub mod parse;
mod parse_channels;
mod parse_keys;
mod parse_sources;
mod parse_tracing;
pub mod pem_file;
pub mod postgres;
pub mod postgres_url;
pub mod redis_url;
pub mod sample;
pub mod sources;
pub mod table;
mod types;

pub use error::ConfigError;
pub use load::{Loaded, SettingsSource, load};
pub use pem_file::PemFile;
pub use postgres::{Postgres, PublishedRows, TableName};
pub use postgres_url::PostgresUrl;
pub use redis_url::{RedisTarget, RedisUrl, ServerAddress};
pub use sources::Sources;
pub use types::*;

//! Real processes and plain sockets for black-box tests. Every test starts a Redis and the
//! gateways it needs, so tests share nothing and may run side by side:
//!
//! ```ignore
//! let redis = Redis::start().await;
//! let gateway = Gateway::start(&redis).await;
//! let mut sse = gateway.connect("42").await;            // sse.connected already read and checked
//! let id = redis.durable("user:42:events", "greeting", "1").await.unwrap();
//! assert_eq!(sse.app_event().await.id.as_deref(), Some(id.as_str()));
//! ```
//!
//! Deadlines only guard against hanging ([`GUARD`]); no test may depend on timing.

pub mod cluster;
pub mod cluster_load;
pub mod collector;
pub mod gateway;
pub mod http2;
pub mod id;
pub mod idp;
pub mod keys;
pub mod load;
pub mod metrics;
pub mod parser;
pub mod postgres;
pub mod process;
pub mod proxy;
pub mod redis;
pub mod sentinel;
pub mod sse;
pub mod ticket;

pub use cluster::Cluster;
pub use collector::Collector;
pub use gateway::Gateway;
pub use id::Id;
pub use idp::Idp;
pub use load::{Load, Published, assert_received};
pub use parser::Event;
pub use postgres::Postgres;
pub use proxy::Proxy;
pub use redis::{Publisher, Redis, log_key};
pub use sse::Sse;
pub use ticket::ticket;

use std::future::Future;
use std::time::Duration;

/// Time after which an awaited event is considered missing. Generous, because machines that run
/// tests are busy, but below the 60 s after which a gateway closes idle connections by itself.
pub const GUARD: Duration = Duration::from_secs(45);

/// Limits how many tests run a Redis and gateways at the same time.
pub static SLOTS: tokio::sync::Semaphore = tokio::sync::Semaphore::const_new(4);

/// Calls `probe` repeatedly until it returns `Some`; panics with `what` after [`GUARD`].
pub async fn eventually<T, F, Fut>(what: &str, probe: F) -> T
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Option<T>>,
{
    eventually_within(GUARD, what, probe).await
}

/// [`eventually`] with another guard, for events that may take long.
pub async fn eventually_within<T, F, Fut>(guard: Duration, what: &str, mut probe: F) -> T
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Option<T>>,
{
    let deadline = tokio::time::Instant::now() + guard;
    while let Ok(probed) = tokio::time::timeout_at(deadline, probe()).await {
        if let Some(value) = probed {
            return value;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("gave up after {guard:?} waiting for {what}");
}

/// Percent-encodes a query value.
pub fn encode(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for byte in value.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                out.push(byte as char);
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// The channel of a user.
pub fn user(id: &str) -> String {
    format!("user:{id}:events")
}

/// The channel of a topic.
pub fn topic(name: &str) -> String {
    format!("broadcast:{name}")
}

/// Wall-clock time, ms since 1970.
pub fn now_ms() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("a clock after 1970")
        .as_millis() as u64
}

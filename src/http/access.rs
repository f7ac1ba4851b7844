//! The access log: never a query, where the ticket stands; no referrer either.

use actix_web::middleware::Logger;

/// Peer, method, path, status, bytes, seconds.
pub fn log() -> Logger {
    Logger::new("%a %m %U %s %b %T").log_target("sse_gateway::access")
}

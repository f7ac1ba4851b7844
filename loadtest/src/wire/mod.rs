//! Parsers for HTTP/1.1 responses and event streams. Not shared with the gateway on purpose: a bug
//! in shared code would go unnoticed.

pub mod chunked;
pub mod head;
pub mod sse;

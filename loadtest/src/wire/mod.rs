//! Parsers for HTTP/1.1 responses. Not shared with the gateway's parsers for requests on purpose: a
//! bug in shared code would go unnoticed. The parser for event streams is the one of `tail`
//! (`sse_gateway::core::parser`), because the gateway itself only writes them.

pub mod chunked;
pub mod head;

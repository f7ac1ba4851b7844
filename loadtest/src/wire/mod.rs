//! What comes over a socket: the chunks of HTTP/1.1 and the events in them. Written for this tool and not shared with the
//! gateway: a fault that both had would hide.

pub mod chunked;
pub mod head;
pub mod sse;

//! HTTP/1.1 and HTTP/1.0, from the bytes of a socket to the app and back (RFC 9112). All bytes are
//! parsed once, by one parser with one framing.
//!
//! | file | purpose |
//! |---|---|
//! | `connection` | the loop: head, app, response, keep-alive or close |
//! | `head`, `host` | parses and validates a request's head; pure |
//! | `body` | finds the end of a request's body; pure |
//! | `payload` | the body as a handler reads it |
//! | `rejection` | the response to a malformed request |
//! | `response`, `output` | a response's head, and writing a response |
//! | `stream` | event streams, which take over the socket and have no buffer |

mod body;
#[cfg(any(test, feature = "fuzzing"))]
mod comparison;
mod connection;
#[cfg(test)]
mod differential;
mod head;
pub mod host;
mod output;
mod payload;
mod rejection;
mod response;
mod stream;
#[cfg(test)]
mod stream_tests;
#[cfg(test)]
mod tests;

pub use connection::serve;
pub use head::MAX_HEAD_BYTES;

/// Items that fuzz targets and benches need.
#[cfg(feature = "fuzzing")]
pub mod fuzzing {
    pub use super::{
        body::{Decoder, Step},
        comparison::compare,
        head::{Head, MAX_HEAD_BYTES, MAX_HEADERS, parse},
    };
}

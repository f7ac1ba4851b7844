//! HTTP/1.1 and HTTP/1.0, from the bytes of a socket to the app and back (RFC 9112). One parser and
//! one framing: nothing that is read here is read again by another parser.
//!
//! | file | purpose |
//! |---|---|
//! | `connection` | the loop: head, app, response, keep-alive or close |
//! | `head`, `host` | a request's head, validated: pure |
//! | `body` | where a request's body ends: pure |
//! | `payload` | the body as a handler reads it |
//! | `refusal` | what a malformed request gets |
//! | `response`, `output` | a response's head, and its bytes on their way out |
//! | `stream` | event streams, which take the socket over and hold no buffer |

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
mod refusal;
mod response;
mod stream;
#[cfg(test)]
mod tests;

pub use connection::{WorkerContext, serve};
pub use head::MAX_HEAD_BYTES;

/// What fuzz targets and benches need.
#[cfg(feature = "fuzzing")]
pub mod fuzzing {
    pub use super::{
        body::{Decoder, Step},
        comparison::compare,
        head::{Head, MAX_HEAD_BYTES, MAX_HEADERS, parse},
    };
}

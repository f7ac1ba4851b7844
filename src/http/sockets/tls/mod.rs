//! TLS of client sockets. An idle connection has keys and the state of the protocol, but no buffer:
//! rustls' buffered API keeps a read buffer of 4 KiB for each connection, so this uses its
//! unbuffered one, with buffers that all connections of a worker share (ADR 0011).
//!
//! | file | purpose |
//! |---|---|
//! | `session` | one connection's protocol, from bytes to bytes; no I/O |
//! | `buffers` | the worker's buffers |
//! | `socket` | reads and writes of a [`ClientTcp`](super::tcp::ClientTcp) with TLS |

mod buffers;
mod session;
#[cfg(test)]
mod session_tests;
mod socket;
#[cfg(test)]
pub mod testing;

pub(super) use self::{session::TlsSession, socket::encrypt_now};

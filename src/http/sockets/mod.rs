//! Client sockets, independent of HTTP: accepting them, TLS, the descriptor budget, evicting idle
//! ones, watching those of waiting streams, and reading a client's progress from the kernel.

pub mod accept;
pub mod budget;
pub mod idle;
pub mod peer;
pub mod tcp;
mod tcp_info;
pub mod tls;
pub mod watch;

//! Client sockets below any protocol: accepting them, counting them against the descriptor budget,
//! closing the idle ones, and asking the kernel how far a client has read.

pub mod accept;
pub mod budget;
pub mod idle;
pub mod tcp;
mod tcp_info;

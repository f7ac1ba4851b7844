//! The commands.

pub mod args;
pub mod dev;
pub mod publish;
pub mod serve;
pub mod tail;
pub mod ticket;

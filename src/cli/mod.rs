//! The commands.

pub mod args;
pub mod check;
pub mod dev;
pub mod pages;
pub mod publish;
pub mod serve;
pub mod tail;
pub mod ticket;
pub mod trace;

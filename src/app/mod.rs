//! The life cycle of an instance: build, run, drain.

pub mod build;
pub mod build_error;
pub mod descriptors;
pub mod drain;
pub mod link_thread;
pub mod listener;
pub mod logs;
pub mod memory;
mod plain_fields;
pub mod reload;
pub mod run;
pub mod signals;
pub mod source_thread;
pub mod tls;
pub mod watch;
pub mod worker;

//! Limits on connections and on how often something may happen.

pub mod connections;
pub mod rate;

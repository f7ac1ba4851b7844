//! Redis Cluster: which server owns which slots (ARCHITECTURE.md#redis-cluster).

pub mod discovery;
pub mod key;
pub mod moves;
pub mod nodes;
pub mod pools;
pub mod slots;
pub mod watcher;

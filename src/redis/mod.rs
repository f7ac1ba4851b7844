//! Redis: the function library, the link, the logs, the recorder and sessions. This module does not
//! depend on HTTP.

pub mod adoption;
pub mod call_pipeline;
pub mod catch_up;
pub mod cluster;
pub mod commands;
mod ended_subscriptions;
mod handover;
pub mod history;
pub mod inbound;
pub mod inspect;
pub mod key_names;
pub mod library;
pub mod link;
pub mod link_context;
pub mod link_state;
pub mod links;
pub mod locate;
pub mod log;
mod named_reply;
pub mod pool;
pub mod publish;
pub mod recorder;
pub mod rejected;
pub mod replay_cache_fill;
pub mod retained;
pub mod rivals;
pub mod routes;
pub mod server_metrics;
pub mod servers;
pub mod sessions;
pub mod subscriptions;
pub mod tls;
pub mod trace;
pub mod unseen;
pub mod watermark;
pub mod wire;

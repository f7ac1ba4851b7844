//! The pure core: no I/O, no clock, no randomness. Its decisions can be tested with plain values.

pub mod address;
pub mod catch_up;
pub mod channel;
pub mod channel_pattern;
pub mod channel_rules;
pub mod control_events;
pub mod envelope;
pub mod event;
pub mod event_options;
pub mod filter;
pub mod frame;
pub mod id;
pub mod page;
pub mod parser;
pub mod part;
mod part_state;
pub mod presence;
pub mod queue;
pub mod reasons;
pub mod retained;
pub mod stream_state;
pub mod template;
pub mod topics;
pub mod trace;
pub mod trace_context;
pub mod transport;

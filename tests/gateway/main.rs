//! Black-box tests with real gateways, a real Redis and plain sockets. One module per guarantee.

#[allow(dead_code)]
mod harness;

mod api;
mod bodies;
mod breaks;
mod commands;
mod config;
mod conformance;
mod delivery;
mod descriptors;
mod drain;
mod epochs;
mod faults;
mod foreign_keys;
mod forged;
mod front;
mod gap;
mod h2spec;
mod hostile;
mod http;
mod http2;
mod http2_floods;
mod jwks;
mod limits;
mod log_spans;
mod modes;
mod neighbours;
mod oversized;
mod pages;
mod payloads;
mod poll;
mod rates;
mod refused;
mod request_id;
mod requests;
mod resume;
mod resume_load;
mod revocations;
mod rotation;
mod same_server;
mod sessions;
mod slow;
mod tickets;
mod trace;
mod upgrade;

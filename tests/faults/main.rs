//! The fault suite: real gateways, a real Redis deployment, clients that behave like `EventSource`
//! behind a balancer, publishers, faults, and a checker that knows what Redis acknowledged.
//!
//! `cargo test` runs a short selection. `make faults` runs everything and writes
//! docs/operations/reliability.md, `make soak` looks for leaks. A failed run is repeated with
//! `FAULTS_SEED=<seed>`, one fault with `FAULTS_ONLY=<part of its name>`.

#[allow(dead_code, unused_imports)]
#[path = "../gateway/harness/mod.rs"]
mod harness;

mod balancer;
mod checker;
mod client;
mod deployment;
mod fleet;
mod inject;
mod journal;
mod kept;
mod leases;
mod outbox;
mod page;
mod presence;
mod publisher;
mod random;
mod results;
mod round;
mod runs;
mod soak;
mod undelivered;
mod world;

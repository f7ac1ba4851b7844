//! Tests with real Redis servers and gateways; `servers/harness/test rust` runs them.

mod package;
mod publish;
mod servers;
mod tickets;

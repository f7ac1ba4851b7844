//! Load tester of sse-gateway: opens event streams, publishes events and verifies what arrives.
//!
//! The report contains what happened, without corrections: a slow publisher, a broken stream, a
//! lost or a duplicate event appears in the figures. `tests/negative_control.rs` verifies this with
//! a server that injects a known number of faults.
//!
//! | module | purpose |
//! |---|---|
//! | `args`, `option_values`, `limits` | command line, its value parsers, system limits |
//! | `stamp`, `sequence` | data embedded in each event; events expected and received per stream |
//! | `wire/*` | parsers for response heads and chunks, tested with every split |
//! | `stream/*`, `fleet` | one stream over HTTP/1.1 or HTTP/2; all streams of a run |
//! | `publisher` | publishes events at a fixed rate |
//! | `usage` | CPU and memory of server, Redis, kernel and this tool |
//! | `scenario/*` | one module per scenario |
//! | `stats`, `refusal` | counters of a run; responses without a stream or ticket |
//! | `report`, `table`, `output` | JSON report and thresholds; table for people; output files |
//! | `bench/*` | measures several servers and writes the benchmark page |
//! | `redis_cost/*` | cost of the gateway in Redis |

// All output goes through `output`, where a closed pipe does not change the exit status.
#![warn(clippy::print_stdout, clippy::print_stderr)]

pub mod args;
pub mod bench;
pub mod fleet;
pub mod limits;
pub mod option_values;
pub mod output;
pub mod publisher;
pub mod redis_cost;
pub mod refusal;
pub mod report;
pub mod scenario;
pub mod sequence;
pub mod stamp;
pub mod stats;
pub mod stream;
mod table;
pub mod target;
pub mod tickets;
pub mod tls;
pub mod usage;
pub mod wire;

/// Runs a future on a single thread, so that all streams share their data without locks.
pub fn on_one_thread<T>(work: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    let outcome = runtime.block_on(tokio::task::LocalSet::new().run_until(work));
    // Does not wait for streams that are still open.
    runtime.shutdown_background();
    outcome
}

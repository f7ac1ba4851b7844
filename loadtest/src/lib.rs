//! The load tester of sse-gateway: holds streams, publishes, and counts what arrives.
//!
//! Law: what is reported is what happened. A publisher that lags, a stream that breaks, an event that is lost or comes twice shows in
//! the figures; nothing is corrected away. `tests/negative_control.rs` holds it to that with a server whose faults are counted.
//!
//! | file | what |
//! |---|---|
//! | `args`, `numbers`, `limits` | what is asked, and what cannot be |
//! | `stamp`, `sequence` | what an event says of itself; what a stream is owed and what came |
//! | `wire/*` | heads, chunks, events: a parser of its own, tested over every split |
//! | `stream/*`, `fleet` | one stream over HTTP/1.1 or HTTP/2; all of them |
//! | `publisher` | events at a fixed rate |
//! | `usage` | CPU and memory of server, Redis, kernel and this tool |
//! | `scenario/*` | the runs |
//! | `refusal` | what a server says that gives no stream |
//! | `report`, `table`, `output` | what came of it: JSON and thresholds; for people; where both go |
//! | `bench/*` | servers in turn, and what is written of them |
//! | `redis_cost/*` | what the gateway costs its Redis |

// All that is printed goes through `output`: a closed pipe must not change an exit status.
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

/// Runs something that holds streams: on one thread, so that they share all without locks.
pub fn on_one_thread<T>(work: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    let outcome = runtime.block_on(tokio::task::LocalSet::new().run_until(work));
    // Streams that are still open have nothing left to say.
    runtime.shutdown_background();
    outcome
}

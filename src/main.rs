//! The `sse-gateway` binary; the `sse_gateway` crate documents its structure.

use std::{ffi::c_char, process::ExitCode};

use clap::Parser;
use sse_gateway::cli::{
    args::{Cli, Command},
    check, dev, pages, publish, serve, tail, ticket, trace,
};
use tikv_jemallocator::Jemalloc;

/// With glibc's allocator, a connect takes 15 % more CPU and a stream 10 % more memory.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// The options of jemalloc, which looks for this symbol: freed memory returns to the system within
/// a second, because a storm of reconnects leaves much of it (see `app/memory.rs`).
#[unsafe(export_name = "_rjem_malloc_conf")]
static ALLOCATOR_OPTIONS: Option<&c_char> =
    // SAFETY: the text is static and ends with a NUL.
    unsafe { c"dirty_decay_ms:1000,muzzy_decay_ms:0".as_ptr().as_ref() };

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Serve(args) => serve::serve(&args),
        Command::Dev(args) => dev::dev(&args),
        Command::Ticket(args) => ticket::ticket(&args),
        Command::Publish(args) => publish::publish(&args),
        Command::Tail(args) => tail::tail(&args),
        Command::Trace(args) => trace::trace(&args),
        Command::CheckConfig(args) => check::check(&args),
        Command::Completions(args) => pages::completions(&args),
        Command::Man(args) => pages::man(&args),
    }
}

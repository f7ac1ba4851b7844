//! A gateway that reports how much heap memory it holds.

use std::{
    env,
    io::{Read, Write},
    ops::Deref,
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Parser;
use sse_gateway::cli::{
    args::{Cli, Command},
    serve,
};

use super::{
    harness::{GUARD, Gateway, Redis, eventually, keys::Dir},
    sockets::Tls,
};

/// The path of the socket on which the gateway reports; unset in the process of the tests.
const REPORTS: &str = "HEAP_REPORTS";

/// Runs the gateway, if the harness has started this program instead of one. The name of this test
/// is the harness' argument.
#[test]
fn serve() {
    let Some(path) = env::var_os(REPORTS) else { return };
    let listener = UnixListener::bind(path).expect("a new path");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = stream.and_then(|mut stream| stream.write_all(held().to_string().as_bytes()));
        }
    });
    let Command::Serve(args) = Cli::parse().command else { unreachable!("the argument is serve") };
    assert_eq!(serve::serve(&args), ExitCode::SUCCESS);
}

/// Bytes of all blocks that are allocated, with what the allocator adds to each.
fn held() -> usize {
    // SAFETY: callable at any time, from any thread.
    let info = unsafe { libc::mallinfo2() };
    info.uordblks + info.hblkhd
}

/// A running gateway; derefs to that of the harness.
pub struct Measured {
    gateway: Gateway,
    reports: PathBuf,
    _dir: Dir,
}

impl Deref for Measured {
    type Target = Gateway;

    fn deref(&self) -> &Gateway {
        &self.gateway
    }
}

impl Measured {
    /// Starts a gateway.
    pub async fn start(redis: &Redis, tls: Option<&Tls>) -> Self {
        let dir = Dir::new();
        let reports = Path::new(&dir.text("reports")).to_owned();
        let program = env::current_exe().expect("this program");
        let mut builder = Gateway::builder(redis)
            .program(program.to_str().expect("a path in UTF-8"))
            .process_env(REPORTS, reports.to_str().expect("a path in UTF-8"))
            // A thread's cache of freed blocks would count.
            .process_env("GLIBC_TUNABLES", "glibc.malloc.tcache_count=0")
            .env("SERVER__WORKERS", "1");
        if let Some(tls) = tls {
            builder = builder
                .env("SERVER__TLS__CERTIFICATE", &tls.dir.text("server.pem"))
                .env("SERVER__TLS__KEY", &tls.dir.text("server.key"));
        }
        Self { gateway: builder.start().await, reports, _dir: dir }
    }

    /// Bytes of heap memory that it holds now.
    pub fn held_bytes(&self) -> usize {
        let mut report = String::new();
        let mut stream = UnixStream::connect(&self.reports).expect("it reports");
        stream.set_read_timeout(Some(GUARD)).expect("a timeout");
        stream.read_to_string(&mut report).expect("a report");
        report.parse().expect("a number")
    }

    /// The same, once it has freed what it needed only for a moment.
    pub async fn settled_bytes(&self) -> usize {
        const TOLERANCE_BYTES: usize = 4 << 10;
        const READINGS: usize = 20;
        let (mut settled, mut readings) = (0, 0);
        eventually("memory that does not change", || {
            let held = self.held_bytes();
            readings = if held.abs_diff(settled) <= TOLERANCE_BYTES { readings + 1 } else { 0 };
            settled = if readings == 0 { held } else { settled };
            std::future::ready((readings >= READINGS).then_some(settled))
        })
        .await
    }
}

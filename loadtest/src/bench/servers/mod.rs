//! Servers of the benchmark: how to find, start, subscribe to and publish to each.

mod list;
mod peers;
mod process;
mod start;

use std::path::Path;
use std::process::Child;

pub use self::list::SERVERS;
pub use self::process::{RunningServer, start};
use super::workload::{Size, Workload};

/// Name of the gateway.
pub const GATEWAY: &str = "sse-gateway";
/// Name of the yardstick that is a simple server.
pub const PLAIN_ACTIX: &str = "plain-actix";
/// Name of the yardstick that only sends.
pub const SEND_LOOP: &str = "send-loop";
/// Name of Nchan.
pub const NCHAN: &str = "nchan";

/// Server of the benchmark.
pub struct Server {
    /// Name of the server.
    pub name: &'static str,
    /// Description for readers.
    pub what: &'static str,
    /// Returns the version, or the reason why the server cannot be measured.
    pub version: fn() -> Result<String, String>,
    /// Start command for readers.
    pub started_by: &'static str,
    /// Starts the processes in a directory and on a port; the measured process is the last one.
    start: fn(&Path, u16) -> Result<Vec<Child>, String>,
    /// Options of loadtest for subscribing and publishing, in which `__PORT__`, `__REDIS_PORT__`,
    /// `__CONTROL_PORT__`, `__DIR__` and `__TOKEN__` are replaced.
    options: &'static [&'static str],
    /// The same for single-user events.
    user_options: &'static [&'static str],
    /// Scenarios that the server does not support, with the reason.
    pub unsupported: &'static [(Workload, &'static str)],
}

impl Server {
    /// Returns whether the server supports a scenario.
    pub fn supports(&self, workload: Workload) -> bool {
        self.unsupported.iter().all(|(unsupported, _)| *unsupported != workload)
    }

    fn options(&self, workload: Workload) -> &'static [&'static str] {
        if workload == Workload::Users { self.user_options } else { self.options }
    }

    /// Formats the loadtest command that measures a scenario.
    pub fn command(&self, workload: Workload, size: &Size) -> String {
        let scenario = size.options(workload);
        let (name, load) = scenario.split_once(' ').unwrap_or((&scenario, ""));
        let quoted = |word: &&str| {
            let plain = word.chars().all(|c| c.is_ascii_alphanumeric() || "-_:/.,=%".contains(c));
            if plain { (*word).to_owned() } else { format!("'{word}'") }
        };
        let mut words = vec![format!("loadtest {name}")];
        words.extend(self.options(workload).iter().map(quoted));
        words.push(format!("--server-pid PID {load}"));
        words.join(" ")
    }
}

//! `loadtest redis`: cost of the gateway in Redis, for sizing. Measures the memory of logs and
//! sessions and the CPU of publishes, connects and resumes, with a Redis and a gateway of its own.

mod cpu;
mod memory;

use std::fmt::Write;

use serde::Serialize;

use crate::args::RedisArgs;
use crate::bench::machine::{Machine, first_line};
use crate::bench::servers::{self, SERVERS};
use crate::output::{JsonOutput, write_stderr};

/// Results of `loadtest redis`.
#[derive(Debug, Serialize)]
pub struct Costs {
    /// Machine of the measurement.
    pub machine: Machine,
    /// First line of `redis-server --version`.
    pub redis: String,
    /// Memory of logs.
    pub logs: Vec<memory::Log>,
    /// Memory of a session in bytes, according to `MEMORY USAGE`.
    pub session_bytes: u64,
    /// Growth of `used_memory` per connected user in bytes: session, subscription and everything
    /// else.
    pub connected_user_bytes: u64,
    /// CPU of Redis without streams and events (watermarks, leases), in ms per second.
    pub idle_cpu_ms_per_s: f64,
    /// CPU of Redis per operation.
    pub cpu: Vec<cpu::Cost>,
}

/// Runs all measurements and writes the results.
pub fn run(args: &RedisArgs) -> Result<(), String> {
    let json = JsonOutput::open(args.json.as_deref())?;
    let machine = Machine::read();
    let running = servers::start(&SERVERS[0])?;
    let failed = |error: String| format!("{error}\n{}", running.log());
    let common = running.common();
    let mut meter = cpu::Meter::new(common.redis_url()).map_err(failed)?;
    write_stderr("== CPU of publishes");
    let mut costs = cpu::publishes(&common, &mut meter).map_err(failed)?;
    write_stderr("== CPU of connects and resumes");
    let connects = crate::on_one_thread(cpu::connects(&common, &mut meter)).map_err(failed)?;
    costs.extend(connects.costs);
    write_stderr("== memory of logs");
    let logs = memory::logs(common.redis_url()).map_err(failed)?;
    let costs = Costs {
        machine,
        redis: first_line("redis-server", &["--version"]).unwrap_or_default(),
        logs,
        session_bytes: connects.session_bytes,
        connected_user_bytes: connects.user_bytes,
        idle_cpu_ms_per_s: meter.idle_s_per_s * 1000.0,
        cpu: costs,
    };
    json.write(&costs.table(), &costs)
}

impl Costs {
    fn table(&self) -> String {
        let mut out = format!("{}\n\n", self.redis);
        out += "stream-node-  payload     events       bytes        bytes    CPU per publish\n";
        out += "   max-bytes    bytes    per log     per log    per event    (pipelined), us\n";
        for log in &self.logs {
            let _ = writeln!(
                out,
                "{:12}  {:7}  {:9}  {:10}  {:11}  {:17.1}",
                log.node_max_bytes,
                log.payload_bytes,
                log.events,
                log.bytes,
                log.bytes / log.events.max(1),
                log.publish_cpu_us
            );
        }
        let _ = writeln!(
            out,
            "\nsession: {} bytes; connected user including its subscription: {} bytes\n",
            self.session_bytes, self.connected_user_bytes
        );
        let _ = writeln!(
            out,
            "CPU of Redis when idle: {:.2} ms per second; additional CPU per operation, us:",
            self.idle_cpu_ms_per_s
        );
        for cost in &self.cpu {
            let range = format!("({:.1}–{:.1})", cost.us_min, cost.us_max);
            let _ = writeln!(
                out,
                "{:>9.1} {range:>15}  {} ({} per round)",
                cost.us, cost.what, cost.count
            );
        }
        out
    }
}

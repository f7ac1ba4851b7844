//! Memory of event logs in Redis, by payload size and `stream-node-max-bytes`.

use serde::Serialize;

use super::cpu::Meter;
use crate::stamp::Stamp;

/// Memory of logs with the same number of events.
#[derive(Debug, Serialize)]
pub struct Log {
    /// `stream-node-max-bytes` of Redis.
    pub node_max_bytes: u64,
    /// Payload size in bytes.
    pub payload_bytes: usize,
    /// Events published to each log.
    pub published: u64,
    /// Events kept by each log (history.max_len is 1000, approximately).
    pub events: u64,
    /// Growth of `used_memory` per log in bytes, including its key.
    pub bytes: u64,
    /// CPU of Redis per publish in µs, in pipelines of 256 and without subscribers.
    pub publish_cpu_us: f64,
}

/// Default of Redis.
const DEFAULT_NODE_BYTES: u64 = 4096;
/// Maximum bytes published per measurement: large enough to dominate other changes of
/// `used_memory`.
const MAX_VOLUME_BYTES: u64 = 20 << 20;
const MAX_LOGS: u64 = 5_000;

/// Measures logs of all sizes.
pub fn logs(redis: &str) -> Result<Vec<Log>, String> {
    let mut meter = Meter::new(redis)?;
    let mut found = Vec::new();
    for node_max_bytes in [DEFAULT_NODE_BYTES, 2048, 1024, 512] {
        for published in [1, 10, 1000] {
            found.push(measure(&mut meter, node_max_bytes, published, 256)?);
        }
    }
    for payload_bytes in [64, 1024, 4096] {
        for published in [1, 1000] {
            found.push(measure(&mut meter, DEFAULT_NODE_BYTES, published, payload_bytes)?);
        }
    }
    // More events than are kept: shows how far approximate trimming lets a log grow.
    found.push(measure(&mut meter, DEFAULT_NODE_BYTES, 3000, 256)?);
    Ok(found)
}

fn measure(
    meter: &mut Meter,
    node_max_bytes: u64,
    published: u64,
    payload_bytes: usize,
) -> Result<Log, String> {
    let logs = (MAX_VOLUME_BYTES / (published * (payload_bytes as u64 + 100))).clamp(5, MAX_LOGS);
    meter.command::<()>(
        redis::cmd("CONFIG").arg("SET").arg("stream-node-max-bytes").arg(node_max_bytes),
    )?;
    let channel = |log: u64| format!("user:memory-{log}:events");
    let mut payload = Vec::new();
    Stamp { due_ns: 1, source: 1, sequence: 1, run: 0 }.payload(payload_bytes, &mut payload);
    let mut channels = (0..published).flat_map(|_| (0..logs).map(channel));
    let before = meter.used_bytes()?;
    let us = meter.cpu_us_per_operation(logs * published, |meter| {
        meter.publish(&mut channels, &payload, &[], 256)
    })?;
    let bytes = meter.used_bytes()?.saturating_sub(before) / logs;
    let key = |log: u64| format!("sse:log:{{{}}}", channel(log));
    let events: u64 = meter.command(redis::cmd("XLEN").arg(key(0)))?;
    meter.command::<u64>(redis::cmd("DEL").arg((0..logs).map(key).collect::<Vec<_>>()))?;
    Ok(Log { node_max_bytes, payload_bytes, published, events, bytes, publish_cpu_us: us })
}

//! CPU time of Redis for publishes, connects and resumes, according to `INFO cpu` and without the
//! CPU of an idle Redis.

use std::time::{Duration, Instant};

use serde::Serialize;

use crate::args::Common;
use crate::bench::spread::{Spread, spread};
use crate::scenario::resumes::{self, Missed, Resumes};
use crate::stamp::Stamp;
use crate::usage::RedisInfo;

/// CPU time of an operation.
#[derive(Debug, Serialize)]
pub struct Cost {
    /// Description of the operation.
    pub what: String,
    /// Operations per round.
    pub count: u64,
    /// CPU of Redis per operation in µs: median of the rounds.
    pub us: f64,
    /// Minimum of the rounds, in µs.
    pub us_min: f64,
    /// Maximum of the rounds, in µs.
    pub us_max: f64,
}

impl Cost {
    /// Creates a cost from the figures of the rounds, in µs.
    fn new(what: String, count: u64, us: Vec<f64>) -> Result<Self, String> {
        let Spread { median, min, max, .. } =
            spread(us.into_iter()).ok_or("no round was measured")?;
        Ok(Self { what, count, us: median, us_min: min, us_max: max })
    }
}

/// Cost of connects and resumes.
pub struct Connects {
    /// CPU of Redis per operation.
    pub costs: Vec<Cost>,
    /// `MEMORY USAGE` of a session, in bytes.
    pub session_bytes: u64,
    /// Growth of `used_memory` per connected user, in bytes.
    pub user_bytes: u64,
}

/// Connection to Redis that measures the CPU of its commands.
pub struct Meter {
    connection: redis::Connection,
    usage: RedisInfo,
    /// CPU of an idle Redis, in seconds per second.
    pub idle_s_per_s: f64,
}

const PAYLOAD_BYTES: usize = 256;
/// Options of `sse_publish`.
const OPTIONS: [&[&str]; 4] =
    [&["KEEP", "current"], &["EPHEMERAL"], &["TAGS", "region=eu"], &["UNSEEN", "1h"]];
const ROUNDS: usize = 3;
/// Sessions per call, as in the gateway, and renewals of each session per round.
const SESSIONS_PER_CALL: usize = 100;
const RENEWALS_PER_SESSION: usize = 20;
const IDLE_DURATION: Duration = Duration::from_secs(3);
/// Maximum time for the gateway to record plain publishes.
const RECORD_TIMEOUT: Duration = Duration::from_secs(30);
/// Streams that connect and resume; each has its own user.
const STREAMS: u32 = 1000;

impl Meter {
    /// Connects and measures the CPU of the idle Redis.
    pub fn new(url: &str) -> Result<Self, String> {
        let connection = redis::Client::open(url).and_then(|client| client.get_connection());
        let mut meter = Self {
            connection: connection.map_err(|error| format!("{url}: {error}"))?,
            usage: RedisInfo::open(url)?,
            idle_s_per_s: 0.0,
        };
        let before = meter.usage.cpu();
        std::thread::sleep(IDLE_DURATION);
        meter.idle_s_per_s =
            meter.usage.cpu().since(before).total_s() / IDLE_DURATION.as_secs_f64();
        Ok(meter)
    }

    /// Returns the CPU of Redis in µs for each of the `count` operations that `work` performs.
    pub fn cpu_us_per_operation(
        &mut self,
        count: u64,
        work: impl FnOnce(&mut Self) -> Result<(), String>,
    ) -> Result<f64, String> {
        let (started, before) = (Instant::now(), self.usage.cpu());
        work(self)?;
        Ok(self.cpu_us_since(started, before.total_s()) / count as f64)
    }

    /// Returns the CPU used since `started`, without that of an idle Redis, in µs.
    fn cpu_us_since(&mut self, started: Instant, before_s: f64) -> f64 {
        let used_s = self.usage.cpu().total_s() - before_s;
        (used_s - self.idle_s_per_s * started.elapsed().as_secs_f64()) * 1e6
    }

    /// Returns `used_memory` in bytes.
    pub fn used_bytes(&mut self) -> Result<u64, String> {
        // Redis releases buffers of earlier commands in its next periodic check of clients.
        std::thread::sleep(Duration::from_millis(300));
        Ok(self.usage.used_bytes())
    }

    /// Runs a command.
    pub fn command<T: redis::FromRedisValue>(&mut self, command: &redis::Cmd) -> Result<T, String> {
        command.query(&mut self.connection).map_err(|error| error.to_string())
    }

    /// Publishes a payload durably with these options of `sse_publish` to all channels, in
    /// pipelines of `batch` commands.
    pub fn publish(
        &mut self,
        channels: &mut dyn Iterator<Item = String>,
        payload: &[u8],
        options: &[&str],
        batch: usize,
    ) -> Result<(), String> {
        loop {
            let mut pipeline = redis::pipe();
            for channel in channels.take(batch) {
                pipeline
                    .cmd("FCALL")
                    .arg("sse_publish")
                    .arg(1)
                    .arg(channel)
                    .arg("load")
                    .arg(payload)
                    .arg(options);
            }
            if pipeline.is_empty() {
                return Ok(());
            }
            pipeline
                .query::<Vec<String>>(&mut self.connection)
                .map_err(|error| error.to_string())?;
        }
    }
}

/// Measures publishes of 256 bytes with each method.
pub fn publishes(common: &Common, meter: &mut Meter) -> Result<Vec<Cost>, String> {
    let mut payload = Vec::new();
    Stamp { due_ns: 1, source: 1, sequence: 1, run: 0 }.payload(PAYLOAD_BYTES, &mut payload);
    let users = |count: u64| (0..count).map(|number| format!("user:cpu-{}:events", number % 100));
    let topics = |count: u64| (0..count).map(|number| format!("broadcast:cpu-{}", number % 100));
    let mut costs = Vec::new();
    for (batch, count, how) in [(1, 4_000, "one at a time"), (256, 20_000, "in pipelines of 256")] {
        let us = rounds(|| {
            meter.cpu_us_per_operation(count, |meter| {
                meter.publish(&mut users(count), &payload, &[], batch)
            })
        })?;
        costs.push(Cost::new(
            format!("durable publish to a user who is not connected, {how}"),
            count,
            us,
        )?);
        for options in OPTIONS {
            let us = rounds(|| {
                meter.cpu_us_per_operation(count, |meter| {
                    meter.publish(&mut users(count), &payload, options, batch)
                })
            })?;
            costs.push(Cost::new(format!("the same with {}", options.join(" ")), count, us)?);
        }
        let us = rounds(|| {
            meter.cpu_us_per_operation(count, |meter| {
                meter.publish(&mut topics(count), &payload, &[], batch)
            })
        })?;
        costs.push(Cost::new(
            format!("durable broadcast, one gateway subscribed, {how}"),
            count,
            us,
        )?);
    }
    let count = 4_000;
    let us = rounds(|| {
        meter.cpu_us_per_operation(count, |meter| {
            publish_plain(meter, users(count), &payload, common.redis_url())
        })
    })?;
    costs.push(Cost::new(
        "plain publish, recorded by the gateway, one at a time".to_owned(),
        count,
        us,
    )?);
    let us = rounds(|| {
        meter.cpu_us_per_operation(count, |meter| {
            publish_without_subscribers(meter, count, &payload)
        })
    })?;
    costs.push(Cost::new(
        "for comparison: PUBLISH without subscribers, one at a time".to_owned(),
        count,
        us,
    )?);
    Ok(costs)
}

fn rounds(mut each: impl FnMut() -> Result<f64, String>) -> Result<Vec<f64>, String> {
    (0..ROUNDS).map(|_| each()).collect()
}

/// Publishes plainly and waits until the recorder has counted all events.
fn publish_plain(
    meter: &mut Meter,
    channels: impl Iterator<Item = String>,
    payload: &[u8],
    redis: &str,
) -> Result<(), String> {
    let recorded = |meter: &mut Meter| {
        meter.command::<u64>(redis::cmd("HGET").arg("sse:recorder:{broadcast}").arg("n"))
    };
    let envelope = [br#"{"type":"load","payload":"#, payload, b"}"].concat();
    let mut wanted = recorded(meter)?;
    for channel in channels {
        meter.command::<u64>(redis::cmd("PUBLISH").arg(channel).arg(&envelope))?;
        wanted += 1;
    }
    let end = Instant::now() + RECORD_TIMEOUT;
    while recorded(meter)? < wanted {
        if Instant::now() > end {
            return Err(format!(
                "{redis}: the gateway did not record all plain publishes within {} s",
                RECORD_TIMEOUT.as_secs()
            ));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

fn publish_without_subscribers(
    meter: &mut Meter,
    count: u64,
    payload: &[u8],
) -> Result<(), String> {
    (0..count).try_for_each(|_| {
        meter.command::<u64>(redis::cmd("PUBLISH").arg("nobody").arg(payload)).map(drop)
    })
}

/// Measures first connects, and resumes after missing events. Must run in a `LocalSet`.
pub async fn connects(common: &Common, meter: &mut Meter) -> Result<Connects, String> {
    let count = u64::from(STREAMS);
    let mut streams = Resumes::new(common, STREAMS)?;

    let memory_before = meter.used_bytes()?;
    let (started, before) = (Instant::now(), meter.usage.cpu().total_s());
    streams.connect().await?;
    let first_us = meter.cpu_us_since(started, before) / count as f64;
    let mut costs = vec![Cost::new("first connect (one round)".to_owned(), count, vec![first_us])?];
    let user_bytes = meter.used_bytes()?.saturating_sub(memory_before) / count;
    let keys: Vec<String> = meter.command(redis::cmd("KEYS").arg("sse:session:*"))?;
    let key = keys.first().ok_or("Redis contains no session key (sse:session:*)")?;
    let session_bytes = meter.command(redis::cmd("MEMORY").arg("USAGE").arg(key))?;

    let us = rounds(|| renewals(meter, &keys))?;
    let what = format!(
        "session renewal (one per third of tickets.reconnect_grace), \
         {SESSIONS_PER_CALL} sessions per call"
    );
    costs.push(Cost::new(what, count * RENEWALS_PER_SESSION as u64, us)?);

    for missed in resumes::MISSED_CASES {
        let mut us = Vec::new();
        for _ in 0..ROUNDS {
            us.push(resume(&mut streams, missed, meter).await? / count as f64);
        }
        costs.push(Cost::new(format!("resume, {}", missed.text()), count, us)?);
    }
    Ok(Connects { costs, session_bytes, user_bytes })
}

/// Returns the CPU of Redis in µs per session renewal, called in the same way as by the gateway.
fn renewals(meter: &mut Meter, keys: &[String]) -> Result<f64, String> {
    let mut calls = Vec::new();
    for keys in keys.chunks(SESSIONS_PER_CALL) {
        let mut call = redis::cmd("FCALL");
        call.arg("sse_renew").arg(keys.len());
        let sessions: Option<Vec<(&str, &str)>> = keys.iter().map(|key| session(key)).collect();
        let sessions = sessions.ok_or_else(|| format!("not session keys: {keys:?}"))?;
        for (channel, _) in &sessions {
            call.arg(channel);
        }
        for (key, (_, digest)) in keys.iter().zip(&sessions) {
            let text: String = meter.command(redis::cmd("GET").arg(key))?;
            let fields: Vec<&str> = text.split(' ').collect();
            let [_, generation, first, opened_ms, until_ms, _, _, _, proof, _] = fields[..] else {
                return Err(format!("{key} is not a session: {text:?}"));
            };
            call.arg(digest).arg("loadtest").arg(first).arg(opened_ms).arg(until_ms);
            call.arg(120_000).arg(0).arg(generation).arg(proof);
        }
        calls.push(call);
    }
    meter.cpu_us_per_operation((keys.len() * RENEWALS_PER_SESSION) as u64, |meter| {
        for call in (0..RENEWALS_PER_SESSION).flat_map(|_| &calls) {
            let replies: Vec<String> = meter.command(call)?;
            if replies.iter().any(|reply| reply != "ok") {
                return Err(format!("sse_renew returned {replies:?}"));
            }
        }
        Ok(())
    })
}

/// Returns the channel and the digest in a session's key, `sse:session:{<channel>}:<digest>`.
fn session(key: &str) -> Option<(&str, &str)> {
    key.strip_prefix("sse:session:{")?.split_once("}:")
}

/// Disconnects all streams, publishes what they miss and reconnects them. Returns the CPU of Redis
/// in µs from the reconnect on.
async fn resume(streams: &mut Resumes, missed: Missed, meter: &mut Meter) -> Result<f64, String> {
    streams.cut().await;
    for batch in streams.events(missed).chunks(256) {
        let mut pipeline = redis::pipe();
        for (channel, payload) in batch {
            pipeline.cmd("FCALL").arg("sse_publish").arg(1).arg(channel).arg("load").arg(payload);
        }
        pipeline.query::<Vec<String>>(&mut meter.connection).map_err(|error| error.to_string())?;
    }
    // Gives the gateway time to process the disconnects and the events.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (started, before) = (Instant::now(), meter.usage.cpu().total_s());
    streams.connect().await?;
    streams.caught_up().await?;
    Ok(meter.cpu_us_since(started, before))
}

//! Scenarios of the load tester. All share the same steps: open the streams, let them settle, run
//! the load and what happens during it, wait for outstanding events, and compare received and
//! expected events.

mod churn;
pub mod resumes;
pub mod scaling;
mod search;
mod setup;
mod stalled;
mod steady;
mod storm;

use std::time::{Duration, Instant};

use futures_util::future::join_all;

use crate::args::{Command, Common, Thresholds};
use crate::fleet::Fleet;
use crate::publisher::{Outcome, Publisher, Schedule};
use crate::usage::{Cpu, KernelMemory, Processes, RedisInfo, anonymous_bytes};

use crate::report::{Connect, CpuPerMillion, Load, Memory, Quantiles, Report, Streams};
use crate::stamp::now_ns;
use crate::stats::histogram_us;

/// State of a run.
pub struct Run {
    fleet: Fleet,
    /// Number of open streams, whose events are counted.
    active: u32,
    schedule: Option<Schedule>,
    server: Option<Processes>,
    redis: Option<RedisInfo>,
    redis_url: Option<String>,
    /// Number of concurrent publishers.
    publishers: u32,
    tool: Processes,
    settle: Duration,
    drain: Duration,
    report: Report,
    /// Memory before the first stream.
    empty: MemoryBaseline,
}

/// Memory before the first stream.
#[derive(Clone, Copy)]
struct MemoryBaseline {
    server_bytes: u64,
    tool_bytes: u64,
    kernel: KernelMemory,
}

/// CPU and counters at the start of a load.
struct LoadBaseline {
    server: Option<Cpu>,
    redis: Option<Cpu>,
    tool: Cpu,
    delivered: u64,
    replayed: u64,
    doubled: u64,
    out_of_order: u64,
    foreign: u64,
    expected: u64,
}

/// Runs the scenario of a command. Must run in a `LocalSet`.
pub async fn run(command: Command) -> Result<Report, String> {
    let (name, common) = match &command {
        Command::Idle(common) => ("idle", common),
        Command::Broadcast(common) => ("broadcast", common),
        Command::Users(common) => ("users", common),
        Command::Mixed(common) => ("mixed", common),
        Command::Storm { common, .. } => ("storm", common),
        Command::Stalled { common, .. } => ("stalled", common),
        Command::Churn { common, .. } => ("churn", common),
        Command::SlowPublish { common, .. } => ("slow-publish", common),
        Command::Bench(_) | Command::Redis(_) => {
            return Err("bench and redis are not scenarios".to_owned());
        }
    };
    let common: Common = common.clone();
    let mut run = setup::run(name, &common)?;
    let progress = setup::progress(&run.fleet);
    match run.open(common.streams, &common).await {
        Ok((connect, memory)) => {
            (run.report.connect, run.report.memory) = (Some(connect), Some(memory))
        }
        Err(why) => {
            progress.finish();
            return Ok(run.failed_open(why, &common.thresholds));
        }
    }
    match command {
        Command::Idle(_) => run.report.held = Some(steady::idle(&mut run, common.duration).await),
        Command::Storm { away, .. } => {
            storm::run(&mut run, common.duration, away, common.connect_timeout).await?
        }
        Command::Stalled { stalled_percent, stall, .. } => {
            stalled::run(&mut run, stalled_percent, stall).await?
        }
        Command::Churn { churn_rate, .. } => {
            churn::run(&mut run, common.duration, churn_rate).await?
        }
        Command::SlowPublish { p99, .. } => search::run(&mut run, common.duration, p99).await?,
        _ => steady::load(&mut run, common.duration).await?,
    }
    let loaded = run.server_bytes_per_stream();
    if run.report.load.is_some()
        && let Some(memory) = &mut run.report.memory
    {
        memory.server_bytes_per_loaded_stream = loaded;
    }
    run.report.streams = Streams::new(&run.fleet.env.stats);
    run.report.check_thresholds(&common.thresholds);
    progress.finish();
    Ok(run.report)
}

/// Load during which nothing else happens.
async fn pause(time: Duration) -> Result<(), String> {
    tokio::time::sleep(time).await;
    Ok(())
}

impl Run {
    /// Opens streams up to the number `streams`, and measures connects and idle memory.
    async fn open(&mut self, streams: u32, common: &Common) -> Result<(Connect, Memory), String> {
        let before = self.server_cpu();
        let opened = self.active..streams;
        let count = f64::from(streams - self.active);
        let elapsed = self.fleet.open(opened, common.connect_rate, common.connect_timeout).await?;
        self.active = streams;
        let cpu = self.server_cpu().zip(before).map(|(now, before)| now.since(before).total_s());
        let seconds = elapsed.as_secs_f64();
        let connect = Connect {
            streams,
            seconds,
            per_second: count / seconds,
            server_cpu_s_per_1000: cpu.map(|cpu| cpu * 1000.0 / count),
        };
        tokio::time::sleep(self.settle).await;
        let each = |bytes: u64| bytes / u64::from(streams);
        let memory = Memory {
            server_bytes_empty: self.server.is_some().then_some(self.empty.server_bytes),
            server_bytes_per_idle_stream: self.server_bytes_per_stream(),
            server_bytes_per_loaded_stream: None,
            kernel_bytes_per_stream: each(KernelMemory::read().since(self.empty.kernel)),
            tool_bytes_per_stream: each(anonymous_bytes().saturating_sub(self.empty.tool_bytes)),
        };
        Ok((connect, memory))
    }

    /// Completes the report of a run whose streams could not all be opened. A server that reports a
    /// lack of capacity has answered; otherwise, a server without a single open stream was not
    /// tested.
    fn failed_open(mut self, why: String, thresholds: &Thresholds) -> Report {
        let stats = &self.fleet.env.stats;
        self.report.streams = Streams::new(stats);
        self.report.check_thresholds(thresholds);
        self.report.violations.insert(0, why.clone());
        self.report.failure = stats.untested().then_some(why);
        self.report
    }

    /// Publishes while `during` runs, waits for outstanding events and returns the results.
    async fn load(
        &mut self,
        during: impl AsyncFnOnce(&mut Fleet) -> Result<(), String>,
    ) -> Result<Load, String> {
        let before = self.load_baseline();
        *self.fleet.env.stats.latency_us.borrow_mut() = histogram_us();
        self.fleet.env.stats.gaps.borrow_mut().clear();
        let (started, started_ns) = (Instant::now(), now_ns());
        let publishers = match &self.schedule {
            Some(schedule) => {
                Publisher::start_shares(schedule, self.publishers, &self.fleet.env.published)?
            }
            None => Vec::new(),
        };
        during(&mut self.fleet).await?;
        let seconds = started.elapsed().as_secs_f64();
        let stops = publishers.into_iter().map(Publisher::stop);
        let published = join_all(stops).await.into_iter().fold(Outcome::default(), Outcome::merged);
        self.fleet.drained(0..self.active, self.drain).await;
        // Duplicates of the last events may still arrive.
        tokio::time::sleep(self.settle / 4).await;
        let (expected, lost) = self.fleet.expected_and_lost(0..self.active);
        let (server_cpu, redis_cpu) = (self.server_cpu(), self.redis.as_mut().map(RedisInfo::cpu));
        let stats = &self.fleet.env.stats;
        let delivered = stats.delivered.get() - before.delivered;
        // Measured until the last delivery: a backlog delivered after the end does not count as on
        // time.
        let last_s = stats.last_ns.get().saturating_sub(started_ns) as f64 / 1e9;
        let tool_cpu_s = self.tool_cpu().since(before.tool).total_s();
        Ok(Load {
            published,
            seconds,
            drained_s: (last_s - seconds).max(0.0),
            expected: expected - before.expected,
            delivered,
            replayed: stats.replayed.get() - before.replayed,
            lost,
            doubled: stats.doubled.get() - before.doubled,
            out_of_order: stats.out_of_order.get() - before.out_of_order,
            foreign: stats.foreign.get() - before.foreign,
            gaps: stats.gaps.borrow().clone(),
            deliveries_per_s: delivered as f64 / seconds.max(last_s),
            latency: Quantiles::new(&stats.latency_us.borrow()),
            server_cpu: server_cpu
                .zip(before.server)
                .and_then(|(now, before)| CpuPerMillion::new(now.since(before), delivered)),
            redis_cpu_s: redis_cpu
                .zip(before.redis)
                .map(|(now, before)| now.since(before).total_s()),
            tool_cpu_s,
            tool_cpu_percent: tool_cpu_s * 100.0 / started.elapsed().as_secs_f64(),
        })
    }

    fn load_baseline(&mut self) -> LoadBaseline {
        let stats = &self.fleet.env.stats;
        LoadBaseline {
            server: self.server_cpu(),
            redis: self.redis.as_mut().map(RedisInfo::cpu),
            tool: self.tool_cpu(),
            delivered: stats.delivered.get(),
            replayed: stats.replayed.get(),
            doubled: stats.doubled.get(),
            out_of_order: stats.out_of_order.get(),
            foreign: stats.foreign.get(),
            expected: self.fleet.expected_and_lost(0..self.active).0,
        }
    }

    /// Returns `None` also if a process of the server has exited, because its CPU time is unknown.
    fn server_cpu(&self) -> Option<Cpu> {
        self.server.as_ref().and_then(Processes::cpu)
    }

    fn tool_cpu(&self) -> Cpu {
        self.tool.cpu().unwrap_or_default()
    }

    fn server_bytes_per_stream(&self) -> Option<u64> {
        let server = self.server.as_ref()?;
        Some(server.pss_bytes().saturating_sub(self.empty.server_bytes) / u64::from(self.active))
    }
}

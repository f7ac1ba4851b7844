//! Publishers like those of a backend. A durable one repeats each event with an idempotency key
//! until Redis confirms it; a plain one sends each event once.

use crate::deployment::Route;
use crate::harness::Postgres;
use crate::journal::{Journal, Kind};
use crate::kept::{self, Values};
use crate::outbox::Writer;
use crate::undelivered;
use redis::aio::MultiplexedConnection;
use redis::{Cmd, RedisResult};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::task::JoinHandle;

/// The pause after an attempt that failed.
const RETRY: Duration = Duration::from_millis(50);
/// Number of attempts of a last event, which take at least 60 s.
const LAST_ATTEMPTS: u32 = 1200;

/// Publishers that run until [`Publishers::stop`].
pub struct Publishers {
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Publishers {
    /// Starts a writer of rows, two durable publishers, and two plain ones if `plain`, with about
    /// 25 events per second each, to all channels in turn.
    pub fn start(
        route: &Route,
        postgres: &Arc<Postgres>,
        channels: &[String],
        journal: &Journal,
        plain: bool,
    ) -> Publishers {
        let stop = Arc::<AtomicBool>::default();
        let tasks = (0..if plain { 5 } else { 3 }).map(|n| {
            let kind = match n {
                0 => Kind::Outbox,
                1 | 2 => Kind::Durable,
                _ => Kind::Plain(n),
            };
            let mut publisher = Publisher::new(route.clone(), journal.clone());
            let mut writer = Writer::new(postgres.clone(), journal.clone());
            let (channels, stop) = (channels.to_vec(), stop.clone());
            tokio::spawn(async move {
                let mut timer = tokio::time::interval(Duration::from_millis(40));
                timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
                for turn in n * 3.. {
                    timer.tick().await;
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let channel = &channels[turn % channels.len()];
                    match kind {
                        Kind::Outbox => writer.write(channel).await,
                        Kind::Durable => _ = publisher.durable(channel, 1200).await,
                        Kind::Plain(_) => publisher.plain(channel, kind).await,
                    }
                }
            })
        });
        Publishers { tasks: tasks.collect(), stop }
    }

    /// Stops them after their current event.
    pub async fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.expect("a publisher");
        }
    }
}

/// One connection to whatever the deployment says is responsible for a channel.
pub struct Publisher {
    route: Route,
    journal: Journal,
    connections: Vec<(String, MultiplexedConnection)>,
}

impl Publisher {
    /// A publisher that is not connected yet.
    pub fn new(route: Route, journal: Journal) -> Publisher {
        Publisher { route, journal, connections: Vec::new() }
    }

    /// Publishes an event durably, with up to `attempts` attempts. Returns its number.
    pub async fn durable(&mut self, channel: &str, attempts: u32) -> u64 {
        let number = self.journal.begin(channel, Kind::Durable);
        let mut command = redis::cmd("FCALL");
        command.arg("sse_publish").arg(1).arg(self.route.key(channel));
        command.arg(kept::words(channel, number)).arg("KEY").arg(format!("key-{number}"));
        command.arg(undelivered::options(channel, number));
        for _ in 0..attempts {
            self.journal.attempt(number);
            match self.send::<String>(channel, &command).await {
                Ok(id) => {
                    self.journal.acknowledge(number, id.parse().ok());
                    return number;
                }
                Err(error) => {
                    self.journal.failed(format!("{channel}: {error}"));
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
        number
    }

    /// Publishes the last event of a channel.
    pub async fn last(&mut self, channel: &str) -> u64 {
        self.durable(channel, LAST_ATTEMPTS).await
    }

    /// Publishes a plain event once. It counts as acknowledged if a recorder was subscribed.
    pub async fn plain(&mut self, channel: &str, kind: Kind) {
        let number = self.journal.begin(channel, kind);
        self.journal.attempt(number);
        let mut command = redis::cmd("PUBLISH");
        let envelope = format!("{{\"type\":\"plain\",\"payload\":{{\"n\":{number}}}}}");
        command.arg(channel).arg(envelope);
        // A cluster counts the subscribers of the node that gets the command: that of the recorder.
        if let Ok(1..) = self.send::<i64>("broadcast:", &command).await {
            self.journal.acknowledge(number, None);
        }
    }

    /// The retained values of a channel in Redis; `None`: it does not respond.
    pub async fn kept(&mut self, channel: &str) -> Option<Values> {
        let slot = match channel.strip_prefix("broadcast:") {
            Some(topic) => format!("{{broadcast}}:{topic}"),
            None => format!("{{{channel}}}"),
        };
        let command = Cmd::hgetall(format!("sse:kept:{slot}"));
        self.send(channel, &command).await.ok().map(kept::of_hash)
    }

    /// The numbers of the latest undelivered events; `None`: Redis does not respond.
    pub async fn undelivered(&mut self) -> Option<Vec<u64>> {
        let mut command = redis::cmd("XREVRANGE");
        command.arg("sse:undelivered:{broadcast}").arg("+").arg("-").arg("COUNT").arg(5000);
        let entries: Vec<(String, HashMap<String, String>)> =
            self.send("broadcast:", &command).await.ok()?;
        let number = |fields: &HashMap<String, String>| {
            let payload: serde_json::Value = serde_json::from_str(fields.get("payload")?).ok()?;
            payload["n"].as_u64()
        };
        Some(entries.iter().filter_map(|(_, fields)| number(fields)).collect())
    }

    async fn send<T: redis::FromRedisValue>(&mut self, channel: &str, cmd: &Cmd) -> RedisResult<T> {
        let answer = match self.connection(channel).await {
            Ok(mut connection) => cmd.query_async(&mut connection).await,
            Err(error) => Err(error),
        };
        if let Err(error) = &answer {
            self.route.failed(channel, error);
            self.connections.clear();
        }
        answer
    }

    async fn connection(&mut self, channel: &str) -> RedisResult<MultiplexedConnection> {
        let known = self.route.known(channel);
        if let Some(known) = known
            && let Some((_, found)) = self.connections.iter().find(|(at, _)| *at == known)
        {
            return Ok(found.clone());
        }
        let (address, connection) = self.route.connect(channel).await?;
        self.connections.push((address, connection.clone()));
        Ok(connection)
    }
}

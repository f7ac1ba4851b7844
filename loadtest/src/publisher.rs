//! Publishes at a fixed rate, on a thread of its own. The schedule never waits for anybody: an event that goes out late still carries
//! the time at which it was due.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use redis::ConnectionLike;
use serde::Serialize;

use crate::sequence::PublishedSequences;
use crate::stamp::{BROADCAST, Stamp, now_ns};

/// Events that go to Redis in one pipeline at the most.
const MAX_BATCH: usize = 256;
/// How long Redis or the server may take over one request.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How events get out.
#[derive(Clone, Debug)]
pub enum PublishMethod {
    /// `PUBLISH`, bare.
    Plain {
        /// Redis.
        redis: String,
    },
    /// `FCALL sse_publish`.
    Durable {
        /// Redis.
        redis: String,
    },
    /// The gateway's `POST /publish`.
    Http {
        /// The endpoint.
        url: String,
        /// A key of scope `publish`.
        api_key: String,
    },
    /// Any server's endpoint: the body with `{payload}` replaced.
    Post {
        /// The endpoint; `{topic}` is replaced.
        url: String,
        /// The body.
        body: String,
        /// Header lines.
        headers: Vec<(String, String)>,
    },
}

/// What is published.
#[derive(Clone, Debug)]
pub struct Schedule {
    /// How.
    pub method: PublishMethod,
    /// The broadcast topic.
    pub topic: String,
    /// Broadcasts a second.
    pub broadcasts_per_s: f64,
    /// Events to single users a second, to one after the other.
    pub user_events_per_s: f64,
    /// Users, from 0.
    pub users: u32,
    /// Their names are this and their number.
    pub user_prefix: String,
    /// The run.
    pub run: u16,
    /// Size of a payload, bytes.
    pub payload_bytes: usize,
    /// Over https: whom to believe.
    pub tls_config: Option<rustls::ClientConfig>,
}

/// How long after the end a publisher that lags may still send what was due before.
const GRACE_NS: u64 = 500_000_000;

/// What the publisher did.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Outcome {
    /// Events that were accepted.
    pub published: u64,
    /// Events that were refused or that nobody answered for; no stream is owed them. (Some of the latter may arrive all the same.)
    pub failed: u64,
    /// Events that were due and never sent, since the publisher could not keep its rate.
    pub unsent: u64,
    /// The last failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<String>,
    /// The longest time that an event went out after it was due, ms.
    pub max_lag_ms: u64,
}

/// A publisher at work.
pub struct Publisher {
    /// When to stop, ns; 0: not yet.
    stop_ns: Arc<AtomicU64>,
    thread: JoinHandle<Outcome>,
}

impl Publisher {
    /// Starts to publish; Err: the method does not work.
    pub fn start(schedule: Schedule, published: Arc<PublishedSequences>) -> Result<Self, String> {
        let mut connection = Connection::open(&schedule)?;
        let stop_ns = Arc::new(AtomicU64::new(0));
        let stop = stop_ns.clone();
        let thread =
            std::thread::spawn(move || publish(&schedule, &mut connection, &published, &stop));
        Ok(Self { stop_ns, thread })
    }

    /// Stops; what was due until now is out and answered when this returns, or counted as unsent.
    pub async fn stop(self) -> Outcome {
        self.stop_ns.store(now_ns(), Ordering::SeqCst);
        let joined = tokio::task::spawn_blocking(|| self.thread.join()).await;
        joined
            .ok()
            .and_then(Result::ok)
            .unwrap_or_else(|| unreachable!("the publisher does not panic"))
    }
}

/// The next due time of each source.
struct Pacer {
    start_ns: u64,
    period_ns: f64,
    count: u64,
}

impl Pacer {
    fn new(start_ns: u64, per_second: f64) -> Self {
        Self { start_ns, period_ns: 1e9 / per_second, count: 0 }
    }

    /// Never, for a rate of 0.
    fn due_ns(&self) -> u64 {
        let offset = self.period_ns * (self.count + 1) as f64;
        if offset.is_finite() { self.start_ns + offset as u64 } else { u64::MAX }
    }

    /// Counts on to the first that is due after `end_ns`; answers how many that were.
    fn skip_to(&mut self, end_ns: u64) -> u64 {
        let before = self.count;
        while self.due_ns() <= end_ns {
            self.count += 1;
        }
        self.count - before
    }
}

fn publish(
    schedule: &Schedule,
    connection: &mut Connection,
    published: &PublishedSequences,
    stop_ns: &AtomicU64,
) -> Outcome {
    let mut outcome = Outcome::default();
    let start = now_ns();
    let (mut broadcasts, mut users) = (
        Pacer::new(start, schedule.broadcasts_per_s),
        Pacer::new(start, schedule.user_events_per_s),
    );
    let mut batch = Vec::new();
    loop {
        let next = broadcasts.due_ns().min(users.due_ns());
        let now = now_ns();
        let stop = stop_ns.load(Ordering::SeqCst);
        if stop > 0 && (next > stop || now > stop + GRACE_NS) {
            if next <= stop {
                outcome.max_lag_ms = outcome.max_lag_ms.max((now - next) / 1_000_000);
            }
            outcome.unsent = broadcasts.skip_to(stop) + users.skip_to(stop);
            return outcome;
        }
        let until = if stop > 0 { now.min(stop) } else { now };
        if next > now {
            // Short enough to see the stop flag in time.
            std::thread::sleep(Duration::from_nanos((next - now).min(20_000_000)));
            continue;
        }
        batch.clear();
        while batch.len() < connection.max_batch()
            && broadcasts.due_ns().min(users.due_ns()) <= until
        {
            let (pacer, source) = if broadcasts.due_ns() <= users.due_ns() {
                (&mut broadcasts, BROADCAST)
            } else {
                let source =
                    u32::try_from(users.count % u64::from(schedule.users)).unwrap_or_default() + 1;
                (&mut users, source)
            };
            batch.push(Stamp {
                due_ns: pacer.due_ns(),
                source,
                sequence: published.next(source),
                run: schedule.run,
            });
            pacer.count += 1;
        }
        outcome.max_lag_ms = outcome.max_lag_ms.max((now - next) / 1_000_000);
        for (stamp, result) in batch.iter().zip(connection.send(schedule, &batch)) {
            match result {
                Ok(()) => outcome.published += 1,
                Err(error) => {
                    published.mark_failed(stamp.source, stamp.sequence);
                    outcome.failed += 1;
                    outcome.last_failure = Some(error);
                }
            }
        }
    }
}

/// The connection that the events go over.
enum Connection {
    Redis(Box<redis::Connection>),
    Http(reqwest::blocking::Client),
}

impl Connection {
    fn open(schedule: &Schedule) -> Result<Self, String> {
        match &schedule.method {
            PublishMethod::Plain { redis } | PublishMethod::Durable { redis } => {
                let bad = |error: redis::RedisError| format!("--redis {redis}: {error}");
                let connection = redis::Client::open(redis.as_str())
                    .and_then(|client| client.get_connection_with_timeout(TIMEOUT))
                    .map_err(bad)?;
                connection
                    .set_read_timeout(Some(TIMEOUT))
                    .and_then(|()| connection.set_write_timeout(Some(TIMEOUT)))
                    .map_err(bad)?;
                Ok(Self::Redis(Box::new(connection)))
            }
            PublishMethod::Http { .. } | PublishMethod::Post { .. } => {
                // A client of its own thread: it must not be made where a runtime is entered.
                let mut builder = reqwest::blocking::Client::builder().timeout(TIMEOUT);
                if let Some(tls_config) = &schedule.tls_config {
                    builder = builder.use_preconfigured_tls(tls_config.clone());
                }
                let made = std::thread::spawn(|| builder.build()).join();
                made.map_err(|_| "cannot create the HTTP client".to_owned())?
                    .map(Self::Http)
                    .map_err(|error| format!("cannot create the HTTP client: {error}"))
            }
        }
    }

    /// HTTP publishes one after the other: two requests at once may overtake each other, and the order would be nobody's.
    fn max_batch(&self) -> usize {
        match self {
            Self::Redis(_) => MAX_BATCH,
            Self::Http(_) => 1,
        }
    }

    fn send(&mut self, schedule: &Schedule, batch: &[Stamp]) -> Vec<Result<(), String>> {
        let mut payload = Vec::with_capacity(schedule.payload_bytes + 64);
        match self {
            Self::Redis(connection) => {
                // As any publisher's client does.
                if !connection.is_open()
                    && let Ok(Self::Redis(again)) = Self::open(schedule)
                {
                    *connection = again;
                }
                let mut pipeline = redis::pipe();
                pipeline.ignore_errors();
                for stamp in batch {
                    stamp.payload(schedule.payload_bytes, &mut payload);
                    let channel = schedule.channel(stamp.source);
                    if matches!(schedule.method, PublishMethod::Durable { .. }) {
                        pipeline
                            .cmd("FCALL")
                            .arg("sse_publish")
                            .arg(1)
                            .arg(channel)
                            .arg("load")
                            .arg(payload.as_slice());
                    } else {
                        let envelope =
                            [br#"{"type":"load","payload":"#, payload.as_slice(), b"}"].concat();
                        pipeline.cmd("PUBLISH").arg(channel).arg(envelope);
                    }
                }
                match pipeline.query::<Vec<redis::Value>>(connection) {
                    Ok(values) => {
                        let result = |value: redis::Value| {
                            value.extract_error().map(drop).map_err(|error| error.to_string())
                        };
                        values.into_iter().map(result).collect()
                    }
                    Err(error) => batch.iter().map(|_| Err(error.to_string())).collect(),
                }
            }
            Self::Http(client) => {
                let each = batch.iter().map(|stamp| {
                    stamp.payload(schedule.payload_bytes, &mut payload);
                    post(client, schedule, stamp.source, &String::from_utf8_lossy(&payload))
                });
                each.collect()
            }
        }
    }
}

fn post(
    client: &reqwest::blocking::Client,
    schedule: &Schedule,
    source: u32,
    payload: &str,
) -> Result<(), String> {
    let request = match &schedule.method {
        PublishMethod::Http { url, api_key } => {
            let channel = schedule.channel(source);
            client
                .post(url)
                .bearer_auth(api_key)
                .body(format!(r#"{{"channel":"{channel}","type":"load","payload":{payload}}}"#))
        }
        PublishMethod::Post { url, body, headers } => {
            let request = client
                .post(url.replace("{topic}", &schedule.topic))
                .body(body.replace("{payload}", payload));
            headers.iter().fold(request, |request, (name, value)| request.header(name, value))
        }
        PublishMethod::Plain { .. } | PublishMethod::Durable { .. } => {
            unreachable!("these methods publish through Redis")
        }
    };
    let answer = request.send().map_err(|error| error.to_string())?;
    let status = answer.status();
    // Read whole, or the connection could not be used again.
    let text = answer.text().map_err(|error| error.to_string())?;
    if status.is_success() { Ok(()) } else { Err(format!("{status}: {text}")) }
}

impl Schedule {
    fn channel(&self, source: u32) -> String {
        if source == BROADCAST {
            format!("broadcast:{}", self.topic)
        } else {
            format!("user:{}{}:events", self.user_prefix, source - 1)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schedule_does_not_drift_and_a_rate_of_0_is_never() {
        let mut pacer = Pacer::new(1_000, 3.0);
        pacer.count = 2_999_999;
        assert_eq!(pacer.due_ns(), 1_000 + 1_000_000 * 1_000_000_000);
        assert_eq!(Pacer::new(1_000, 0.0).due_ns(), u64::MAX);
        assert_eq!(Pacer::new(0, 0.0).skip_to(1_000_000_000), 0);
        // Due at 0.1 s, 0.2 s ... 1.0 s; four of them were sent.
        let mut pacer = Pacer { count: 4, ..Pacer::new(0, 10.0) };
        assert_eq!(pacer.skip_to(1_000_000_000), 6);
    }
}

//! Publishes at a fixed rate on a thread of its own. The schedule does not wait for slow responses:
//! an event sent late carries the time at which it was due.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use redis::ConnectionLike;
use serde::{Deserialize, Serialize};

use crate::sequence::PublishedSequences;
use crate::stamp::{BROADCAST, Stamp, now_ns};

/// Maximum events per Redis pipeline.
const MAX_BATCH: usize = 256;
/// Timeout of a request to Redis or the server.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Method of publishing.
#[derive(Clone, Debug)]
pub enum PublishMethod {
    /// Plain publish: `PUBLISH`.
    Plain {
        /// URL of Redis.
        redis: String,
    },
    /// Durable publish: `FCALL sse_publish`.
    Durable {
        /// URL of Redis.
        redis: String,
    },
    /// `POST /publish` of the gateway.
    Http {
        /// URL of the endpoint.
        url: String,
        /// API key with scope `publish`.
        api_key: String,
    },
    /// POST to any server.
    Post {
        /// URL of the endpoint, in which `{topic}` and `{user}` are replaced.
        url: String,
        /// Body, in which `{payload}`, `{payload-string}` and `{user}` are replaced.
        body: String,
        /// Request headers.
        headers: Vec<(String, String)>,
    },
}

/// Events to publish.
#[derive(Clone, Debug)]
pub struct Schedule {
    /// Method of publishing.
    pub method: PublishMethod,
    /// Broadcast topic.
    pub topic: String,
    /// Broadcasts per second.
    pub broadcasts_per_s: f64,
    /// Events per second to single users, one after another.
    pub user_events_per_s: f64,
    /// Number of users.
    pub users: u32,
    /// Prefix of user names, followed by the user's number.
    pub user_prefix: String,
    /// Number of the run for the stamps.
    pub run: u16,
    /// Payload size in bytes.
    pub payload_bytes: usize,
    /// TLS configuration for https.
    pub tls_config: Option<rustls::ClientConfig>,
    /// Part of the events to publish.
    pub share: Share,
}

/// Part of the events of a schedule. Each user belongs to one share, so that several publishers
/// cannot change the order of a user's events. The first share contains the broadcasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Number of this share, from 0.
    pub number: u32,
    /// Number of shares.
    pub of: u32,
}

impl Share {
    /// All events.
    pub const ALL: Self = Self { number: 0, of: 1 };

    /// Returns the number of users in this share.
    fn users(self, users: u32) -> u32 {
        users.saturating_sub(self.number).div_ceil(self.of)
    }

    /// Returns the user of this share's event `count`, one after another.
    fn user(self, users: u32, count: u64) -> u32 {
        let turn = count % u64::from(self.users(users).max(1));
        self.number + self.of * u32::try_from(turn).unwrap_or_default()
    }
}

/// Time after the end of the load during which a slow publisher may still send events, in ns.
const GRACE_NS: u64 = 500_000_000;

/// Figures of the publisher.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Outcome {
    /// Events accepted by Redis or the server.
    pub published: u64,
    /// Events rejected or not acknowledged, which no stream is expected to receive. Events without
    /// an acknowledgement may still arrive.
    pub failed: u64,
    /// Events not sent because the publisher could not sustain its rate.
    pub unsent: u64,
    /// Error of the last failed event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<String>,
    /// Longest time from when an event was due until it was sent, in ms.
    pub max_lag_ms: u64,
}

impl Outcome {
    /// Returns the figures of two publishers of the same load together.
    pub fn merged(mut self, other: Self) -> Self {
        self.published += other.published;
        self.failed += other.failed;
        self.unsent += other.unsent;
        self.last_failure = self.last_failure.or(other.last_failure);
        self.max_lag_ms = self.max_lag_ms.max(other.max_lag_ms);
        self
    }
}

/// Running publisher.
pub struct Publisher {
    /// Time to stop at, in ns; 0 while it runs.
    stop_ns: Arc<AtomicU64>,
    thread: JoinHandle<Outcome>,
}

impl Publisher {
    /// Starts publishing. Fails if the connection cannot be opened.
    pub fn start(schedule: Schedule, published: Arc<PublishedSequences>) -> Result<Self, String> {
        let mut connection = Connection::open(&schedule)?;
        let stop_ns = Arc::new(AtomicU64::new(0));
        let stop = stop_ns.clone();
        let thread =
            std::thread::spawn(move || publish(&schedule, &mut connection, &published, &stop));
        Ok(Self { stop_ns, thread })
    }

    /// Starts `count` publishers, each with its share of the users.
    pub fn start_shares(
        schedule: &Schedule,
        count: u32,
        published: &Arc<PublishedSequences>,
    ) -> Result<Vec<Self>, String> {
        let share = |number| Schedule { share: Share { number, of: count }, ..schedule.clone() };
        (0..count).map(|number| Self::start(share(number), published.clone())).collect()
    }

    /// Stops publishing. Every event due until now has been sent and acknowledged, or counted as
    /// unsent, when this returns.
    pub async fn stop(self) -> Outcome {
        self.stop_ns.store(now_ns(), Ordering::SeqCst);
        let joined = tokio::task::spawn_blocking(|| self.thread.join()).await;
        joined
            .ok()
            .and_then(Result::ok)
            .unwrap_or_else(|| unreachable!("the publisher does not panic"))
    }
}

/// Due times of a source with a fixed rate.
struct Pacer {
    start_ns: u64,
    period_ns: f64,
    count: u64,
}

impl Pacer {
    fn new(start_ns: u64, per_second: f64) -> Self {
        Self { start_ns, period_ns: 1e9 / per_second, count: 0 }
    }

    /// Returns the time at which the next event is due; `u64::MAX` for a rate of 0.
    fn due_ns(&self) -> u64 {
        let offset = self.period_ns * (self.count + 1) as f64;
        if offset.is_finite() { self.start_ns + offset as u64 } else { u64::MAX }
    }

    /// Skips the events due until `end_ns`. Returns how many there were.
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
    let (mut broadcasts, mut users) = schedule.pacers(start);
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
            // Short enough to notice the stop time soon.
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
                let source = schedule.share.user(schedule.users, users.count) + 1;
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

/// Connection for publishing.
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
                // The blocking client must not be created on a thread that has entered a runtime.
                let mut builder = reqwest::blocking::Client::builder().timeout(TIMEOUT);
                if let Some(tls_config) = &schedule.tls_config {
                    builder = builder.use_preconfigured_tls(tls_config.clone());
                }
                let client = std::thread::spawn(|| builder.build()).join();
                client
                    .map_err(|_| "cannot create the HTTP client".to_owned())?
                    .map(Self::Http)
                    .map_err(|error| format!("cannot create the HTTP client: {error}"))
            }
        }
    }

    /// HTTP requests are sent one at a time: concurrent ones could overtake each other, and the
    /// order would be undefined.
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
                // Reconnects, like the client of any publisher.
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
            let user = schedule.user(source);
            let url = url.replace("{topic}", &schedule.topic).replace("{user}", &user);
            let string = serde_json::Value::from(payload).to_string();
            let body = body
                .replace("{user}", &user)
                .replace("{payload-string}", &string)
                .replace("{payload-escaped}", &string[1..string.len() - 1])
                .replace("{payload}", payload);
            let request = client.post(url).body(body);
            headers.iter().fold(request, |request, (name, value)| request.header(name, value))
        }
        PublishMethod::Plain { .. } | PublishMethod::Durable { .. } => {
            unreachable!("these methods publish through Redis")
        }
    };
    let response = request.send().map_err(|error| error.to_string())?;
    let status = response.status();
    // An unread body would prevent reuse of the connection.
    let text = response.text().map_err(|error| error.to_string())?;
    if status.is_success() { Ok(()) } else { Err(format!("{status}: {text}")) }
}

impl Schedule {
    fn channel(&self, source: u32) -> String {
        if source == BROADCAST {
            format!("broadcast:{}", self.topic)
        } else {
            format!("user:{}:events", self.user(source))
        }
    }

    /// Returns the user's name; empty for broadcasts.
    fn user(&self, source: u32) -> String {
        if source == BROADCAST {
            String::new()
        } else {
            format!("{}{}", self.user_prefix, source - 1)
        }
    }

    /// Returns the due times of this share's broadcasts and user events.
    fn pacers(&self, start_ns: u64) -> (Pacer, Pacer) {
        let Share { number, of } = self.share;
        let broadcasts = if number == 0 { self.broadcasts_per_s } else { 0.0 };
        let share = f64::from(self.share.users(self.users)) / f64::from(self.users.max(1));
        let user_events = self.user_events_per_s * share;
        // Without the offset, all shares would publish at the same moment.
        let offset_ns = if user_events > 0.0 {
            (1e9 / user_events * f64::from(number) / f64::from(of)) as u64
        } else {
            0
        };
        (Pacer::new(start_ns, broadcasts), Pacer::new(start_ns + offset_ns, user_events))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_cover_every_user_once_in_turn() {
        for (users, of) in [(10, 1), (10, 3), (7, 4), (2, 4)] {
            let mut seen = Vec::new();
            for share in (0..of).map(|number| Share { number, of }) {
                let own = share.users(users);
                let turns: Vec<u32> =
                    (0..own).map(|count| share.user(users, count.into())).collect();
                if let Some(first) = turns.first() {
                    assert_eq!(share.user(users, own.into()), *first, "the next turn");
                }
                seen.extend(turns);
            }
            seen.sort_unstable();
            assert_eq!(seen, (0..users).collect::<Vec<_>>(), "{users} users, {of} shares");
        }
    }

    #[test]
    fn schedule_never_drifts_and_zero_rate_never_fires() {
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

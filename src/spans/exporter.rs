//! Sends spans to the collector: OTLP over HTTP, as protobuf. It has a bounded queue and a thread
//! of its own, so that a collector that is slow or down delays nothing.

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use opentelemetry_proto::tonic::{resource::v1::Resource, trace::v1::Span};
use prometheus::IntCounterVec;
use reqwest::{Client, StatusCode, Url, header, redirect::Policy};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, timeout, timeout_at},
};

use super::{Tracer, otlp};
use crate::{
    backoff::Backoff, error_chain::ErrorChain, log_limit::LogLimit, metrics::Metrics,
    settings::Tracing,
};

/// Name of the thread.
const THREAD: &str = "spans";
/// Maximum number of spans that wait; further ones are dropped.
const QUEUE: usize = 4096;
/// Maximum number of spans in one request.
const BATCH: usize = 512;
/// How long a request waits for more spans.
const LINGER: Duration = Duration::from_millis(500);
/// Number of attempts to send a request.
const ATTEMPTS: usize = 4;
/// The delay after a failure, and the longest one.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const MAX_RETRY: Duration = Duration::from_secs(5);
/// Maximum number of bytes of a response that are read.
const MAX_RESPONSE_BYTES: usize = 64 << 10;
/// Minimum time between log lines, ms.
const LOG_INTERVAL_MS: u64 = 60_000;

/// The exporter could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The HTTP client cannot be built.
    #[error("the HTTP client of tracing.endpoint could not be built")]
    Client(#[source] reqwest::Error),
    /// The thread cannot be started.
    #[error("the thread \"{THREAD}\" could not be started")]
    Thread(#[source] io::Error),
}

/// A request that the collector did not take.
#[derive(Debug, thiserror::Error)]
enum ExportError {
    #[error("the collector is unreachable")]
    Unreachable(#[source] reqwest::Error),
    #[error("the response has status {0}")]
    Status(StatusCode),
}

impl From<reqwest::Error> for ExportError {
    fn from(error: reqwest::Error) -> Self {
        // The log line names the URL itself.
        Self::Unreachable(error.without_url())
    }
}

impl ExportError {
    /// Whether the specification of OTLP/HTTP allows another attempt.
    fn may_retry(&self) -> bool {
        match self {
            Self::Unreachable(_) => true,
            Self::Status(status) => matches!(status.as_u16(), 429 | 502 | 503 | 504),
        }
    }
}

/// The thread of the exporter.
pub struct Exporter {
    stop: oneshot::Sender<oneshot::Sender<()>>,
}

impl Exporter {
    /// Sends what is left, for at most this long.
    pub async fn flush(self, limit: Duration) {
        let (done, reply) = oneshot::channel();
        if self.stop.send(done).is_ok() && timeout(limit, reply).await.is_err() {
            tracing::warn!("some spans were not exported before the end");
        }
    }
}

/// Starts the exporter; `None` without `tracing.endpoint`. `instance` is the name of this one.
///
/// # Errors
/// See [`StartError`].
pub fn start(
    settings: &Tracing,
    instance: &str,
    metrics: &Metrics,
) -> Result<Option<(Arc<Tracer>, Exporter)>, StartError> {
    let Some(endpoint) = settings.endpoint.clone() else { return Ok(None) };
    let mut headers = settings.headers.clone();
    let protobuf = header::HeaderValue::from_static("application/x-protobuf");
    headers.insert(header::CONTENT_TYPE, protobuf);
    let client = Client::builder()
        .timeout(settings.timeout)
        .redirect(Policy::none())
        .default_headers(headers)
        .user_agent(concat!("sse-gateway/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(StartError::Client)?;
    let (sender, queue) = mpsc::channel(QUEUE);
    let (stop, stopped) = oneshot::channel();
    let task = Task {
        queue,
        client,
        endpoint,
        resource: otlp::resource(&settings.service_name, instance),
        spans: metrics.spans.clone(),
        log: LogLimit::new(LOG_INTERVAL_MS),
        started: Instant::now(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(StartError::Thread)?;
    let run = move || runtime.block_on(task.run(stopped));
    std::thread::Builder::new().name(THREAD.to_owned()).spawn(run).map_err(StartError::Thread)?;
    let tracer = Tracer::new(sender, settings.sample_ratio, metrics.spans.clone());
    Ok(Some((Arc::new(tracer), Exporter { stop })))
}

struct Task {
    queue: mpsc::Receiver<Span>,
    client: Client,
    endpoint: Url,
    resource: Resource,
    spans: IntCounterVec,
    log: LogLimit,
    started: Instant,
}

impl Task {
    async fn run(mut self, mut stop: oneshot::Receiver<oneshot::Sender<()>>) {
        let mut batch = Vec::with_capacity(BATCH);
        let done = loop {
            tokio::select! {
                done = &mut stop => break done,
                () = self.export_next(&mut batch) => {}
            }
        };
        self.queue.close();
        loop {
            while batch.len() < BATCH
                && let Ok(span) = self.queue.try_recv()
            {
                batch.push(span);
            }
            if batch.is_empty() {
                break;
            }
            self.export(&mut batch, 1).await;
        }
        if let Ok(done) = done {
            let _ = done.send(());
        }
    }

    /// Waits for spans and sends them. If it is cancelled, they are still in `batch`.
    async fn export_next(&mut self, batch: &mut Vec<Span>) {
        if self.queue.recv_many(batch, BATCH).await == 0 {
            // The tracer is gone: only the end can follow.
            return std::future::pending().await;
        }
        let until = Instant::now() + LINGER;
        while batch.len() < BATCH {
            let room = BATCH - batch.len();
            match timeout_at(until, self.queue.recv_many(batch, room)).await {
                Ok(1..) => {}
                Ok(0) | Err(_) => break,
            }
        }
        self.export(batch, ATTEMPTS).await;
    }

    async fn export(&self, batch: &mut Vec<Span>, attempts: usize) {
        let body = otlp::encode(&self.resource, batch);
        let mut backoff = Backoff::new(FIRST_RETRY, MAX_RETRY);
        for attempt in 1.. {
            match self.send(body.clone()).await {
                Ok(rejected) => {
                    let rejected = rejected.min(batch.len() as u64);
                    self.count("rejected", rejected);
                    self.count("exported", batch.len() as u64 - rejected);
                    break;
                }
                Err(error) => {
                    self.log_failure(&error);
                    if attempt == attempts || !error.may_retry() {
                        self.count("failed", batch.len() as u64);
                        break;
                    }
                    tokio::time::sleep(backoff.delay()).await;
                }
            }
        }
        batch.clear();
    }

    fn count(&self, outcome: &str, spans: u64) {
        self.spans.with_label_values(&[outcome]).inc_by(spans);
    }

    fn log_failure(&self, error: &ExportError) {
        if let Some(suppressed) = self.log.allow(self.started.elapsed().as_millis() as u64) {
            let (endpoint, error) = (&self.endpoint, ErrorChain(error));
            tracing::warn!(
                %endpoint,
                %error,
                suppressed,
                "spans not exported; those that do not fit into the queue are dropped"
            );
        }
    }

    /// Sends a request. Returns the number of spans that the collector has rejected.
    async fn send(&self, body: Bytes) -> Result<u64, ExportError> {
        let mut response = self.client.post(self.endpoint.clone()).body(body).send().await?;
        if !response.status().is_success() {
            return Err(ExportError::Status(response.status()));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            if body.len() + chunk.len() > MAX_RESPONSE_BYTES {
                return Ok(0);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(otlp::rejected(&body))
    }
}

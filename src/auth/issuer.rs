//! Keeps the issuer's key set (`tickets.jwks_url`, RFC 7517) up to date: fetched in the background
//! every `tickets.jwks_refresh`, and at once when a ticket names an unknown key. All workers share
//! one fetch; tickets cause at most one per `tickets.jwks_cooldown`, whatever they contain. While
//! the issuer is unavailable its last keys stay active.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use prometheus::{IntCounterVec, IntGauge};
use reqwest::{Client, StatusCode, Url, header, redirect::Policy};
use tokio::sync::watch;

use super::{
    SetupError,
    key_ring::KeyRing,
    key_set::{self, KeySet, KeySetError},
};
use crate::{backoff::Backoff, error_chain::ErrorChain, metrics::Metrics, settings::Tickets};

/// Maximum duration of one fetch.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum size of a key set, in bytes.
const MAX_BYTES: usize = 256 << 10;
/// The delay after a failure, and the longest one.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const MAX_RETRY: Duration = Duration::from_secs(30);

/// The workers' side: requests a fetch and waits for its result.
pub(super) struct Issuer {
    fetches: watch::Sender<Fetches>,
    cooldown: Duration,
}

/// The state of fetching; only changed under the channel's lock.
struct Fetches {
    running: bool,
    /// Whether a ticket has requested a fetch.
    requested: bool,
    completed: u64,
    last: Result<(), Unavailable>,
    /// When a ticket last requested a fetch.
    requested_at: Option<Instant>,
}

/// The last fetch of the key set failed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unavailable;

impl Issuer {
    /// Makes the key set as recent as the cooldown allows. The first caller causes a fetch, later
    /// callers wait for the same fetch.
    ///
    /// # Errors
    /// The last fetch failed.
    pub async fn refresh(&self) -> Result<(), Unavailable> {
        let mut fetches = self.fetches.subscribe();
        let (mut completed_before, mut answer) = (0, None);
        self.fetches.send_if_modified(|f| {
            completed_before = f.completed;
            let in_progress = f.running || f.requested;
            if !in_progress && f.requested_at.is_some_and(|at| at.elapsed() < self.cooldown) {
                answer = Some(f.last);
                return false;
            }
            if !in_progress {
                f.requested_at = Some(Instant::now());
                f.requested = true;
            }
            !in_progress
        });
        if let Some(answer) = answer {
            return answer;
        }
        // A fetch has its own timeout; this one only guards against a lost task.
        let done = fetches.wait_for(|f| f.completed > completed_before);
        let done = tokio::time::timeout(2 * TIMEOUT, done).await;
        done.ok().and_then(Result::ok).map_or(Err(Unavailable), |f| f.last)
    }
}

/// Why a fetch failed.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("the issuer is unreachable")]
    Unreachable(#[source] reqwest::Error),
    #[error("the response has status {0}")]
    Status(StatusCode),
    #[error("the key set has more than {MAX_BYTES} bytes")]
    TooLarge,
    #[error(transparent)]
    Invalid(#[from] KeySetError),
}

impl From<reqwest::Error> for FetchError {
    fn from(error: reqwest::Error) -> Self {
        // The log line names the URL itself.
        Self::Unreachable(error.without_url())
    }
}

impl FetchError {
    /// Label of `sse_jwks_fetches_total`.
    fn outcome(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "unreachable",
            Self::Status(_) => "status",
            Self::TooLarge | Self::Invalid(_) => "invalid",
        }
    }
}

/// Fetches the key set in the background; see [`Refresher::run`].
pub struct Refresher {
    issuer: Arc<Issuer>,
    client: Client,
    url: Url,
    interval: Duration,
    keys: Arc<KeyRing>,
    fetches: IntCounterVec,
    key_count: IntGauge,
    /// The summary that was last logged.
    logged: (String, Vec<String>),
}

/// Creates both sides; `None` without `tickets.jwks_url`.
///
/// # Errors
/// The HTTP client cannot be built.
pub(super) fn new(
    settings: &Tickets,
    keys: Arc<KeyRing>,
    metrics: &Metrics,
) -> Result<Option<(Arc<Issuer>, Refresher)>, SetupError> {
    let Some(url) = settings.jwks_url.clone() else { return Ok(None) };
    let client = Client::builder()
        .timeout(TIMEOUT)
        .https_only(url.scheme() == "https")
        // Redirects are not followed: keys are accepted from the configured address only.
        .redirect(Policy::none())
        .pool_max_idle_per_host(0)
        .user_agent(concat!("sse-gateway/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(SetupError::Client)?;
    // Tickets that arrive before the end of the first fetch wait for it.
    let fetches = Fetches {
        running: true,
        requested: false,
        completed: 0,
        last: Err(Unavailable),
        requested_at: None,
    };
    let fetches = watch::Sender::new(fetches);
    let issuer = Arc::new(Issuer { fetches, cooldown: settings.jwks_cooldown });
    let refresher = Refresher {
        issuer: issuer.clone(),
        client,
        url,
        interval: settings.jwks_refresh,
        keys,
        fetches: metrics.jwks_fetches.clone(),
        key_count: metrics.jwks_keys.clone(),
        logged: Default::default(),
    };
    Ok(Some((issuer, refresher)))
}

impl Refresher {
    /// Fetches the key set repeatedly. Does not return.
    pub async fn run(mut self) {
        let issuer = self.issuer.clone();
        let mut requests = issuer.fetches.subscribe();
        let mut backoff = Backoff::new(FIRST_RETRY, MAX_RETRY);
        loop {
            issuer.fetches.send_modify(|f| (f.running, f.requested) = (true, false));
            let fetched = self.fetch().await;
            let outcome = fetched.as_ref().map_or_else(FetchError::outcome, |_| "ok");
            self.fetches.with_label_values(&[outcome]).inc();
            let last = fetched.as_ref().map(|_| ()).map_err(|_| Unavailable);
            let wait = match fetched {
                Ok(set) => {
                    self.activate(set);
                    backoff.reset();
                    // Spreads the fetches of all instances.
                    self.interval.mul_f64(0.9 + 0.1 * fastrand::f64())
                }
                Err(error) => {
                    tracing::warn!(
                        url = %self.url, outcome, error = %ErrorChain(&error),
                        "key set not fetched; the previous keys stay active"
                    );
                    backoff.delay()
                }
            };
            issuer.fetches.send_modify(|f| {
                (f.running, f.completed, f.last) = (false, f.completed + 1, last);
            });
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                _ = requests.wait_for(|f| f.requested) => {}
            }
        }
    }

    /// Activates a key set. Logs its `kid`s and ignored keys when they change.
    fn activate(&mut self, set: KeySet) {
        let kids: Vec<&str> = set.keys.iter().filter_map(|k| k.kid.as_deref()).collect();
        let summary = (format!("{kids:?}"), set.ignored);
        if self.logged != summary {
            tracing::info!(kids = summary.0, "key set active");
            for reason in &summary.1 {
                tracing::warn!(reason, "ignored a key of the key set");
            }
        }
        self.logged = summary;
        self.key_count.set(set.keys.len() as i64);
        self.keys.set_issued(set.keys);
    }

    async fn fetch(&self) -> Result<KeySet, FetchError> {
        let accept = "application/jwk-set+json, application/json";
        let request = self.client.get(self.url.clone()).header(header::ACCEPT, accept);
        let mut response = request.send().await?;
        if response.status() != StatusCode::OK {
            return Err(FetchError::Status(response.status()));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            if body.len() + chunk.len() > MAX_BYTES {
                return Err(FetchError::TooLarge);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(key_set::parse(&body)?)
    }
}

//! The key set of whoever signs the tickets (`tickets.jwks_url`, RFC 7517): fetched in the background, anew when it is
//! `tickets.jwks_refresh` old, and at once when a ticket names a key that is not known. All workers share one fetch, and tickets can
//! cause one every `tickets.jwks_cooldown` at the most, whatever they name. While the issuer is away its last keys stay in use.

use std::{
    error::Error as _,
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use reqwest::{Client, StatusCode, Url, header, redirect::Policy};
use tokio::sync::watch;

use crate::{
    state::instance::Instance,
    tickets::{
        Verifier,
        jwks::{self, KeySet},
    },
};

/// Longest wait for a key set.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Largest key set.
const MAX_BYTES: usize = 256 << 10;
/// The pause after a failure; it doubles with each, up to [`MAX_PAUSE`].
const PAUSE: Duration = Duration::from_secs(1);
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// What the workers have of the issuer.
pub struct Issuer {
    fetches: watch::Sender<Fetches>,
    cooldown: Duration,
}

/// The fetches so far. Changed under the lock of the channel only.
struct Fetches {
    running: bool,
    /// A ticket asks for one.
    wanted: bool,
    done: u64,
    /// How the last one went.
    last: Result<(), Away>,
    /// When a ticket last caused one.
    asked: Option<Instant>,
}

/// The key set could not be fetched.
#[derive(Clone, Copy, Debug)]
pub struct Away;

impl Issuer {
    /// Makes sure that the key set is as new as the cooldown allows. The first to ask causes a fetch, all others wait for it.
    ///
    /// # Errors
    /// The last fetch failed.
    pub async fn look(&self) -> Result<(), Away> {
        let mut fetches = self.fetches.subscribe();
        let (mut done_before, mut answer) = (0, None);
        self.fetches.send_if_modified(|f| {
            done_before = f.done;
            let under_way = f.running || f.wanted;
            if !under_way && f.asked.is_some_and(|at| at.elapsed() < self.cooldown) {
                answer = Some(f.last);
                return false;
            }
            if !under_way {
                f.asked = Some(Instant::now());
                f.wanted = true;
            }
            !under_way
        });
        if let Some(answer) = answer {
            return answer;
        }
        // The fetch itself ends in time.
        let ended = tokio::time::timeout(2 * TIMEOUT, fetches.wait_for(|f| f.done > done_before)).await;
        ended.ok().and_then(Result::ok).map_or(Err(Away), |f| f.last)
    }
}

/// Fetches the key set as long as the instance lives.
pub struct Keeper {
    issuer: Arc<Issuer>,
    client: Client,
    url: Url,
    instance: Arc<Instance>,
    verifier: Arc<Verifier>,
}

/// Why a fetch failed: the metric's label, and the words for the log.
struct Failure(&'static str, String);

/// Both sides; `None` without `tickets.jwks_url`.
///
/// # Errors
/// There is no TLS to be had.
pub fn new(instance: &Arc<Instance>, verifier: &Arc<Verifier>) -> io::Result<Option<(Arc<Issuer>, Keeper)>> {
    let settings = &instance.settings.tickets;
    let Some(url) = settings.jwks_url.clone() else { return Ok(None) };
    let client = Client::builder()
        .timeout(TIMEOUT)
        .https_only(url.scheme() == "https")
        // The keys come from the address that was configured, or not at all.
        .redirect(Policy::none())
        .pool_max_idle_per_host(0)
        .user_agent(concat!("sse-gateway/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|e| io::Error::other(format!("tickets.jwks_url: it cannot be fetched ({})", causes(&e))))?;
    // Tickets that come before the first fetch has ended wait for it.
    let fetches = Fetches { running: true, wanted: false, done: 0, last: Err(Away), asked: None };
    let issuer = Arc::new(Issuer { fetches: watch::Sender::new(fetches), cooldown: settings.jwks_cooldown });
    let keeper = Keeper { issuer: issuer.clone(), client, url, instance: instance.clone(), verifier: verifier.clone() };
    Ok(Some((issuer, keeper)))
}

impl Keeper {
    /// Never ends.
    pub async fn run(self) {
        let fetches = &self.issuer.fetches;
        let mut asked = fetches.subscribe();
        let (mut pause, mut told) = (PAUSE, Default::default());
        loop {
            fetches.send_modify(|f| (f.running, f.wanted) = (true, false));
            let fetched = self.fetch().await;
            let outcome = fetched.as_ref().map_or_else(|failure| failure.0, |_| "ok");
            self.instance.metrics.jwks_fetches.with_label_values(&[outcome]).inc();
            let wait = match fetched {
                Ok(set) => {
                    self.take(set, &mut told);
                    pause = PAUSE;
                    // Not all instances at once.
                    self.instance.settings.tickets.jwks_refresh.mul_f64(0.9 + 0.1 * fastrand::f64())
                }
                Err(Failure(outcome, why)) => {
                    tracing::warn!(
                        outcome,
                        why,
                        "the issuer's key set could not be fetched; its last keys stay in use"
                    );
                    let wait = pause;
                    pause = (pause * 2).min(MAX_PAUSE);
                    wait
                }
            };
            let last = if outcome == "ok" { Ok(()) } else { Err(Away) };
            fetches.send_modify(|f| (f.running, f.done, f.last) = (false, f.done + 1, last));
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                _ = asked.wait_for(|f| f.wanted) => {}
            }
        }
    }

    /// Puts a key set into use; its `kid`s and what is left out of it are told when they change.
    fn take(&self, set: KeySet, told: &mut (String, Vec<String>)) {
        let kids: Vec<&str> = set.keys.iter().filter_map(|k| k.kid.as_deref()).collect();
        let tell = (format!("{kids:?}"), set.ignored);
        if *told != tell {
            tracing::info!(kids = tell.0, "the issuer's key set is in use");
            tell.1.iter().for_each(|why| tracing::warn!(why, "a key of the issuer's key set is ignored"));
        }
        self.instance.metrics.jwks_keys.set(set.keys.len() as i64);
        *told = tell;
        self.verifier.keys.set_issued(set.keys);
        self.instance.keys.fetched();
    }

    async fn fetch(&self) -> Result<KeySet, Failure> {
        let unreachable = |e: reqwest::Error| Failure("unreachable", causes(&e));
        let request =
            self.client.get(self.url.clone()).header(header::ACCEPT, "application/jwk-set+json, application/json");
        let mut answer = request.send().await.map_err(unreachable)?;
        if answer.status() != StatusCode::OK {
            return Err(Failure("status", format!("the answer is {}", answer.status())));
        }
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(unreachable)? {
            if body.len() + chunk.len() > MAX_BYTES {
                return Err(Failure("invalid", format!("the answer has more than {MAX_BYTES} bytes")));
            }
            body.extend_from_slice(&chunk);
        }
        jwks::parse(&body).map_err(|why| Failure("invalid", why))
    }
}

/// An error with its causes: reqwest's own words leave out what matters.
fn causes(error: &reqwest::Error) -> String {
    let mut text = String::new();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(if text.is_empty() { "" } else { ": " });
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    match text.is_empty() {
        true if error.is_timeout() => format!("no answer within {TIMEOUT:?}"),
        true => "the connection failed".to_owned(),
        false => text,
    }
}

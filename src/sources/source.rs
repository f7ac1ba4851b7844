//! The interface of an external source. Everything that all sources share (the lease, the order,
//! retries, rejections, metrics) is in the runner; a source only reads entries and confirms them.

use std::{error::Error, fmt, time::Duration};

use crate::{core::envelope::Rejection, redis::publish::Publish};

/// Maximum number of entries that [`Source::next`] may return.
pub const MAX_ENTRIES: usize = 256;
/// [`Source::next`] should stop collecting entries when their payloads have this many bytes. One
/// entry may be larger.
pub const MAX_BYTES: usize = 4 << 20;

/// One entry of an external source.
#[derive(Debug)]
pub struct Entry {
    /// Identifies the entry in its source, permanently: 1 to 180 bytes without control characters.
    /// It is part of the idempotency key and of log lines, so it must not be secret.
    pub id: String,
    /// The event that the entry becomes, or why it cannot become one. If the event has no key, and
    /// is not ephemeral, the runner sets `<name of the source>:<id>`.
    pub event: Result<Publish, Unusable>,
    /// When the entry was written, in ms since 1970 by the clock of the source; `None`: unknown.
    pub written_ms: Option<u64>,
}

/// Why an entry cannot become an event.
#[derive(Clone, Debug)]
pub struct Unusable {
    /// The code.
    pub reason: Rejection,
    /// Problem and fix.
    pub text: String,
    /// The channel, as far as it is known.
    pub channel: String,
    /// The content for `sse:rejected`, which keeps the first 4,096 bytes.
    pub message: String,
}

/// What became of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The event is stored in its channel's log, or was published if it is ephemeral.
    Stored,
    /// An event with the same key was stored before.
    Duplicate,
    /// The event is rejected, and will be rejected again. It is in `sse:rejected`.
    Rejected {
        /// The code.
        reason: Rejection,
        /// Problem and fix.
        text: String,
    },
}

impl Outcome {
    /// In spans.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::Duplicate => "duplicate",
            Self::Rejected { .. } => "rejected",
        }
    }
}

/// Where the gateway reads entries that others write, to publish them as events.
///
/// One instance at a time reads a source: the **reader**, which has the source's lease. The runner
/// calls `prepare`, then `next` and `done` by turns, and `close` at the end. It may drop the future
/// of any call except `close`, because the lease was lost or the call took too long; then it calls
/// `close`, and `prepare` before anything else. A paused reader may continue to run for a moment
/// beside its successor, so taking an entry must not remove it: only `done` may.
pub trait Source {
    /// The name in logs, metrics, the lease and idempotency keys: 1 to 64 letters, digits and
    /// `_ . -`.
    fn name(&self) -> &str;

    /// Connects and makes the source ready. The next entry is then the first one that no reader has
    /// confirmed.
    ///
    /// # Errors
    /// The runner calls `close`, releases the lease, and tries again after a while.
    fn prepare(&mut self) -> impl Future<Output = Result<(), SourceError>>;

    /// Waits for entries, and returns the next ones in order: at most [`MAX_ENTRIES`], and about
    /// [`MAX_BYTES`]. Returns an empty list if none arrives within `wait`, after which the lease
    /// may expire.
    ///
    /// # Errors
    /// As [`Self::prepare`].
    fn next(&mut self, wait: Duration) -> impl Future<Output = Result<Vec<Entry>, SourceError>>;

    /// Confirms all entries of the last `next`, whose outcomes these are, in the same order: they
    /// are not returned again, by any instance.
    ///
    /// # Errors
    /// As [`Self::prepare`]. Entries that could not be confirmed are returned again and are
    /// recognised by their keys.
    fn done(&mut self, outcomes: &[Outcome]) -> impl Future<Output = Result<(), SourceError>>;

    /// Ends what waits for entries, and forgets what was read and not confirmed.
    fn close(&mut self) -> impl Future<Output = ()>;

    /// Checks for `check-config --connect` that the source can be used, and changes nothing. The
    /// text says what was found.
    ///
    /// # Errors
    /// Why it cannot be used.
    fn check(&mut self) -> impl Future<Output = Result<String, SourceError>>;
}

/// Whether another attempt can succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It cannot be reached, or refuses for now.
    Unavailable,
    /// Somebody must change the source or the settings.
    Misconfigured,
}

/// Why a source cannot be read. It never contains credentials.
#[derive(Debug)]
pub struct SourceError {
    /// Whether another attempt can succeed. The runner repeats both kinds.
    pub fault: Fault,
    text: String,
    cause: Option<Box<dyn Error + Send + Sync>>,
}

impl SourceError {
    /// An error that another attempt may not have; `text` says what was not possible.
    pub fn unavailable(
        text: impl Into<String>,
        cause: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Self {
        Self { fault: Fault::Unavailable, text: text.into(), cause: Some(cause.into()) }
    }

    /// An error that remains until somebody changes something; `text` names the problem and the
    /// fix.
    pub fn misconfigured(text: impl Into<String>) -> Self {
        Self { fault: Fault::Misconfigured, text: text.into(), cause: None }
    }

    /// The same, with its cause.
    pub fn caused_by(self, cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { cause: Some(cause.into()), ..self }
    }
}

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Error for SourceError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause.as_deref().map(|cause| cause as &(dyn Error + 'static))
    }
}

//! Pairs replies with commands. Replies have the order of their commands, but only pushes say what
//! they belong to, and a server also sends pushes that answer nothing: a cluster ends the
//! subscriptions of a slot that moves away with an unsolicited `sunsubscribe`.
//!
//! | in front | a reply that is no push | a confirmation of that command and channel | another one |
//! |---|---|---|---|
//! | commands | answers one | unsolicited | unsolicited |
//! | subscribing | refuses one channel | confirms it | unsolicited |
//! | `SUNSUBSCRIBE` | refuses one channel, or is the end | see below | unsolicited |
//!
//! Whether a `sunsubscribe` of a channel answers our `SUNSUBSCRIBE` or came just before it cannot
//! be known: in the second case an error follows. A `PING` with a text of its own ends such a
//! batch, so all of them are accepted until its reply.

use std::collections::{HashSet, VecDeque};

use redis::{RedisError, RedisResult, Value};
use tokio::sync::oneshot;

use super::{error::EndReason, push::Subscribing};

/// Maximum number of commands without a reply.
const MAX_PENDING: usize = 16_384;
/// Maximum length of an unexpected reply in an error, in characters.
const SHOWN_CHARS: usize = 200;

/// Commands that were sent together, and where their replies go. Nobody may wait for them any more:
/// then they are dropped.
pub(super) enum Batch {
    /// Each is answered by one reply that is no push.
    Commands { left: usize, replies: Vec<Value>, waiting: oneshot::Sender<Vec<Value>> },
    /// One command for each channel, answered by a confirmation or an error.
    Subscribing {
        command: Subscribing,
        channels: Vec<String>,
        results: Vec<RedisResult<()>>,
        waiting: oneshot::Sender<Vec<RedisResult<()>>>,
    },
    /// One `SUNSUBSCRIBE` for each channel, and a `PING` with this text.
    SUnsubscribing {
        channels: HashSet<String>,
        ping: String,
        error: Option<RedisError>,
        waiting: oneshot::Sender<RedisResult<()>>,
    },
}

/// What a confirmation was.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Confirmed {
    Answer,
    Unsolicited,
}

/// Why no command can be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotSent {
    #[error("the connection to Redis has ended")]
    Ended,
    #[error("too many commands wait for a reply of Redis")]
    TooMany,
}

impl Batch {
    /// Number of its commands that wait for a reply.
    fn len(&self) -> usize {
        match self {
            Self::Commands { left, .. } => *left,
            Self::Subscribing { channels, results, .. } => channels.len() - results.len(),
            Self::SUnsubscribing { channels, .. } => channels.len() + 1,
        }
    }
}

/// The commands that wait for a reply, in the order in which they were sent.
#[derive(Default)]
pub(super) struct Pending {
    batches: VecDeque<Batch>,
    is_ended: bool,
}

impl Pending {
    /// Whether a batch of this many commands may be sent.
    pub(super) fn check(&self, commands: usize) -> Result<(), NotSent> {
        let waiting: usize = self.batches.iter().map(Batch::len).sum();
        match self.is_ended {
            true => Err(NotSent::Ended),
            false if waiting + commands > MAX_PENDING => Err(NotSent::TooMany),
            false => Ok(()),
        }
    }

    /// Adds a batch that is sent after all others.
    pub(super) fn add(&mut self, batch: Batch) {
        self.batches.push_back(batch);
    }

    /// Drops every batch, which notifies those who wait, and accepts no more.
    pub(super) fn end(&mut self) {
        self.is_ended = true;
        self.batches.clear();
    }

    /// Takes a reply that is no push.
    pub(super) fn reply(&mut self, value: Value) -> Result<(), EndReason> {
        let Some(front) = self.batches.front_mut() else { return Err(unexpected(&value)) };
        match front {
            Batch::Commands { left, replies, .. } => {
                *left -= 1;
                replies.push(value);
            }
            Batch::Subscribing { results, .. } => match value.extract_error() {
                Err(error) => results.push(Err(error)),
                Ok(value) => return Err(unexpected(&value)),
            },
            Batch::SUnsubscribing { ping, error, .. } => match value.extract_error() {
                // The channel has moved away: it is not subscribed any more.
                Err(refused) if refused.is_cluster_error() => {}
                Err(refused) => {
                    error.get_or_insert(refused);
                }
                Ok(Value::BulkString(text)) if text == ping.as_bytes() => self.finish(),
                Ok(value) => return Err(unexpected(&value)),
            },
        }
        self.finish_answered();
        Ok(())
    }

    /// Takes a confirmation.
    pub(super) fn confirm(&mut self, confirmed: Subscribing, channel: &[u8]) -> Confirmed {
        let is_answer = match self.batches.front_mut() {
            Some(Batch::Subscribing { command, channels, results, .. }) => {
                let next = channels.get(results.len()).map(String::as_bytes);
                let is_next = *command == confirmed && next == Some(channel);
                if is_next {
                    results.push(Ok(()));
                }
                is_next
            }
            Some(Batch::SUnsubscribing { channels, .. }) => {
                let channel = std::str::from_utf8(channel).unwrap_or_default();
                confirmed == Subscribing::SUnsubscribe && channels.contains(channel)
            }
            Some(Batch::Commands { .. }) | None => false,
        };
        self.finish_answered();
        if is_answer { Confirmed::Answer } else { Confirmed::Unsolicited }
    }

    fn finish_answered(&mut self) {
        if self.batches.front().is_some_and(|batch| batch.len() == 0) {
            self.finish();
        }
    }

    /// Passes the results of the first batch on.
    fn finish(&mut self) {
        // Nobody may wait any more.
        match self.batches.pop_front() {
            Some(Batch::Commands { replies, waiting, .. }) => drop(waiting.send(replies)),
            Some(Batch::Subscribing { results, waiting, .. }) => drop(waiting.send(results)),
            Some(Batch::SUnsubscribing { error, waiting, .. }) => {
                drop(waiting.send(error.map_or(Ok(()), Err)));
            }
            None => {}
        }
    }
}

/// The end of a connection whose replies can no longer be paired.
pub(super) fn unexpected(value: &Value) -> EndReason {
    EndReason::Unexpected(format!("{value:?}").chars().take(SHOWN_CHARS).collect())
}

//! The recorder's talk with Redis: leases, markers, records.

use std::time::Duration;

use redis::{Cmd, RedisResult, Value};

use super::numbering::{RecordPosition, Work};
use crate::{
    core::{
        channel::Channel,
        envelope::{self, Rejection},
    },
    error_chain::ErrorChain,
    redis::{
        commands::{CommandError, Commands},
        rejected::{channel_prefix, message_prefix},
    },
};

/// The writer's lease.
pub struct Grant {
    /// The fencing token.
    pub token: String,
    /// Where the recorded number stands.
    pub position: RecordPosition,
}

/// What became of one message.
pub enum Written {
    /// It is recorded.
    Recorded,
    /// An event with its key was recorded before: it is dropped.
    Duplicate,
    /// It is kept in `sse:rejected`, with this reason.
    Rejected {
        /// The code of the refusal.
        reason: String,
        /// What is wrong and how it is put right.
        text: String,
    },
    /// It was counted before.
    Done,
    /// Another writer has taken over.
    Fenced,
    /// Redis refused it for now (out of memory, say).
    Failed(CommandError),
}

/// Calls the functions and commands that the recorder needs.
pub struct Lease {
    commands: Commands,
    holder: String,
    ttl_ms: u64,
}

impl Lease {
    pub fn new(commands: Commands, holder: String, ttl: Duration) -> Self {
        Self { commands, holder, ttl_ms: ttl.as_millis() as u64 }
    }

    /// Where Redis is, for logs.
    pub fn address(&self) -> &str {
        &self.commands.address
    }

    /// The name of the next role.
    pub fn rename(&mut self, holder: String) {
        self.holder = holder;
    }

    fn call(&self, role: &str) -> Cmd {
        let mut call = self.commands.call::<&str>("lease", &[]);
        call.arg(role).arg(&self.holder).arg(self.ttl_ms);
        call
    }

    /// Takes or renews the writer's lease.
    pub async fn writer(&self) -> Result<Option<Grant>, CommandError> {
        let answer: Vec<Value> = self.commands.run(&self.call("recorder")).await?;
        let text = |n: usize| {
            answer
                .get(n)
                .and_then(|v| redis::from_redis_value::<String>(v.clone()).ok())
                .unwrap_or_default()
        };
        if text(0) != "1" {
            return Ok(None);
        }
        // A number that cannot be parsed is in no numbering.
        let position = RecordPosition { marker: text(2), n: text(3).parse().unwrap_or(u64::MAX) };
        Ok(Some(Grant { token: text(1), position }))
    }

    /// Takes or renews the standby's lease.
    pub async fn standby(&self) -> Result<bool, CommandError> {
        let answer: Vec<i64> = self.commands.run(&self.call("standby")).await?;
        Ok(answer.first() == Some(&1))
    }

    /// Reads the position of the last recorded message.
    pub async fn position(&self) -> Result<RecordPosition, CommandError> {
        let mut command = redis::cmd("HMGET");
        command.arg(self.commands.keys.recorder()).arg("marker").arg("n");
        let (marker, n): (Option<String>, Option<u64>) = self.commands.run(&command).await?;
        Ok(RecordPosition { marker: marker.unwrap_or_default(), n: n.unwrap_or(0) })
    }

    /// Gives both leases back and notifies the instances that wait for them.
    pub async fn release(&self) {
        self.release_role("recorder").await;
        self.release_standby().await;
    }

    pub async fn release_standby(&self) {
        self.release_role("standby").await;
    }

    async fn release_role(&self, role: &str) {
        let mut call = self.call(role);
        call.arg("RELEASE");
        // A lease that is not given back runs out by itself.
        if let Err(error) = self.commands.run::<Value>(&call).await {
            let (address, error) = (self.address(), ErrorChain(&error));
            tracing::debug!(%address, %error, role, "could not release a lease");
        }
    }

    pub async fn publish_marker(&self, marker: &str) -> Result<(), CommandError> {
        let mut command = redis::cmd("PUBLISH");
        command.arg(self.commands.keys.live("marker")).arg(marker);
        self.commands.run::<i64>(&command).await.map(drop)
    }

    /// Starts a numbering; `unproved`: there was one before, and nobody can prove that this one
    /// follows it. `false`: fenced.
    pub async fn begin(&self, token: &str, unproved: bool) -> Result<bool, CommandError> {
        let mut call = self.commands.call::<&str>("mark", &[]);
        call.arg(token).arg(token).arg(u8::from(unproved));
        Ok(self.commands.run::<String>(&call).await? == "marked")
    }

    /// Writes messages in order; the answers end with the first that stops the order.
    pub async fn write<'a>(
        &self,
        token: &str,
        work: impl Iterator<Item = &'a (RecordPosition, Work)>,
        max_event_bytes: usize,
    ) -> Result<Vec<Written>, CommandError> {
        let mut pipeline = redis::pipe();
        pipeline.ignore_errors();
        for (position, work) in work {
            pipeline.add_command(self.record(token, position, work, max_event_bytes));
        }
        let answers: Vec<RedisResult<String>> = self.commands.run_all(&pipeline).await?;
        Ok(answers.into_iter().map(written).collect())
    }

    fn record(
        &self,
        token: &str,
        position: &RecordPosition,
        work: &Work,
        max_event_bytes: usize,
    ) -> Cmd {
        let channel = match work {
            Work::Message { channel, .. } => channel.as_slice(),
            Work::ClockSnapshot { .. } => b"",
        };
        // The library keeps no more of a rejected message, and a very long one must not fail here.
        let mut call = self.commands.call("record", &[channel_prefix(channel)]);
        call.arg(token).arg(&position.marker).arg(position.n);
        let message = match work {
            Work::Message { message, .. } => message,
            Work::ClockSnapshot { after } => {
                call.arg("MARK").arg(&after.marker).arg(after.n);
                return call;
            }
        };
        let decoded = match Channel::from_bytes(channel) {
            Some(_) => envelope::decode(message, max_event_bytes),
            None => Err(Rejection::BadChannel),
        };
        match decoded {
            Ok(envelope) => {
                call.arg("PLAIN").arg(envelope.kind).arg(envelope.payload);
                if let Some(key) = envelope.key {
                    call.arg("KEY").arg(key);
                }
                if let Some(ms) = envelope.retry_ms {
                    call.arg("RETRY").arg(ms);
                }
            }
            Err(refusal) => {
                call.arg("REJECT").arg(refusal.code()).arg(message_prefix(message));
            }
        }
        call
    }
}

fn written(answer: RedisResult<String>) -> Written {
    match answer {
        Ok(text) => match text.as_str() {
            "recorded" => Written::Recorded,
            "duplicate" => Written::Duplicate,
            "done" => Written::Done,
            "fenced" | "hole" => Written::Fenced,
            other => match other.strip_prefix("rejected ") {
                Some(refusal) => {
                    let (reason, text) = refusal.split_once(' ').unwrap_or((refusal, ""));
                    Written::Rejected { reason: reason.to_owned(), text: text.to_owned() }
                }
                None => Written::Failed(CommandError::UnexpectedReply(other.to_owned())),
            },
        },
        Err(e) => Written::Failed(e.into()),
    }
}

//! The recorder's commands in Redis: leases, markers and records.

use std::{sync::Arc, time::Duration};

use redis::{Cmd, RedisResult, Value};
use tokio::time::Instant;

use super::numbering::{RecordPosition, Work};
use crate::{
    core::{
        channel::Channel,
        channel_rules::ChannelRules,
        envelope::{self, Envelope, Rejection},
    },
    error_chain::ErrorChain,
    redis::{
        commands::{CommandError, Commands},
        key_names::KeyNames,
        named_reply::NamedReply,
        publish::{add_options, add_trace},
        rejected::{channel_prefix, message_prefix},
    },
    spans::{OpenSpan, Tracer},
};

/// The writer's lease.
pub struct Grant {
    /// When it expires at the earliest, by the clock of this instance.
    pub until: Instant,
    /// The fencing token.
    pub token: String,
    /// What is recorded.
    pub recorded: Recorded,
}

/// The result of taking the writer's lease.
pub enum Taken {
    /// This instance has it.
    Granted(Grant),
    /// Another instance has it, or the standby is about to take it.
    Held,
    /// Nobody has it, and those that had a role last come first.
    Vacant,
}

/// What is recorded.
pub struct Recorded {
    /// The first marker of the numbering, which tells a new one from one that continues.
    pub numbering: String,
    /// The position of the last recorded message.
    pub position: RecordPosition,
}

/// The result of recording one message.
pub enum Written {
    /// The message was recorded.
    Recorded,
    /// The message was dropped, because an event with the same key was recorded before.
    Duplicate,
    /// The message was rejected and stored in `sse:rejected:{broadcast}`.
    Rejected {
        /// The code of the rejection.
        reason: String,
        /// Problem and fix.
        text: String,
    },
    /// The position was recorded before.
    Done,
    /// Another writer has taken over.
    Fenced,
    /// The message before it is not recorded yet.
    Hole,
    /// Redis knows no lease, because its data was wiped.
    Unknown,
    /// Redis refused the message temporarily, for example because it is out of memory.
    Failed(Arc<CommandError>),
}

/// The result of saving the progress on a cluster.
pub enum Saved {
    /// It was saved.
    Done,
    /// Another writer has taken over.
    Fenced,
    /// Redis knows no lease, because its data was wiped.
    Unknown,
}

/// Calls the functions and commands that the recorder needs.
#[derive(Clone)]
pub struct Lease {
    commands: Commands,
    holder: String,
    ttl_ms: u64,
    tracer: Option<Arc<Tracer>>,
}

/// A call that records a message, with the span of a sampled one.
pub struct RecordCall {
    call: Cmd,
    span: Option<OpenSpan>,
}

impl From<Cmd> for RecordCall {
    fn from(call: Cmd) -> Self {
        Self { call, span: None }
    }
}

impl Lease {
    pub fn new(
        commands: Commands,
        holder: String,
        ttl: Duration,
        tracer: Option<Arc<Tracer>>,
    ) -> Self {
        Self { commands, holder, ttl_ms: ttl.as_millis() as u64, tracer }
    }

    /// Whether each channel has its own server.
    pub fn is_cluster(&self) -> bool {
        self.commands.is_cluster()
    }

    /// The connections.
    pub fn commands(&self) -> &Commands {
        &self.commands
    }

    /// The names of keys.
    pub fn keys(&self) -> &Arc<KeyNames> {
        &self.commands.keys
    }

    /// Where Redis is, for logs.
    pub fn address(&self) -> Arc<str> {
        self.commands.address()
    }

    /// Sets the name of the next role in the leases.
    pub fn rename(&mut self, holder: String) {
        self.holder = holder;
    }

    /// A call of a function that works on the recorder's key.
    fn recorder_call(&self, function: &str) -> Cmd {
        self.commands.call(function, &[self.commands.keys.recorder()])
    }

    fn call(&self, role: &str) -> Cmd {
        let mut call = self.recorder_call("lease");
        call.arg(role).arg(&self.holder).arg(self.ttl_ms);
        call
    }

    /// Takes or renews the writer's lease.
    pub async fn writer(&self) -> Result<Taken, CommandError> {
        let until = Instant::now() + Duration::from_millis(self.ttl_ms);
        let reply = self.take("recorder").await?;
        if !is_held(&reply) {
            let is_vacant = reply.text("vacant") == "1";
            return Ok(if is_vacant { Taken::Vacant } else { Taken::Held });
        }
        // A number that cannot be parsed is not part of any numbering.
        let n = reply.number("n").unwrap_or(u64::MAX);
        let position = RecordPosition { marker: reply.text("marker").to_owned(), n };
        let recorded = Recorded { numbering: reply.text("numbering").to_owned(), position };
        Ok(Taken::Granted(Grant { until, token: reply.text("token").to_owned(), recorded }))
    }

    /// Takes or renews the standby's lease.
    pub async fn standby(&self) -> Result<bool, CommandError> {
        Ok(is_held(&self.take("standby").await?))
    }

    async fn take(&self, role: &str) -> Result<NamedReply, CommandError> {
        self.commands.run(&self.call(role)).await
    }

    /// Reads what is recorded.
    pub async fn recorded(&self) -> Result<Recorded, CommandError> {
        let mut command = redis::cmd("HMGET");
        command.arg(self.commands.keys.recorder()).arg("numbering").arg("marker").arg("n");
        let (numbering, marker, n): (Option<String>, Option<String>, Option<u64>) =
            self.commands.run(&command).await?;
        let position = RecordPosition { marker: marker.unwrap_or_default(), n: n.unwrap_or(0) };
        Ok(Recorded { numbering: numbering.unwrap_or_default(), position })
    }

    /// Releases both leases and notifies the instances that wait for them.
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
        // A lease that could not be released expires.
        if let Err(error) = self.commands.run::<Value>(&call).await {
            let (address, error) = (self.address(), ErrorChain(&error));
            tracing::debug!(%address, %error, role, "could not release a lease");
        }
    }

    pub async fn publish_marker(&self, marker: &str) -> Result<(), CommandError> {
        let mut command = redis::cmd("SPUBLISH");
        command.arg(self.commands.keys.live_broadcast()).arg(format!("marker {marker}"));
        self.commands.run::<i64>(&command).await.map(drop)
    }

    /// Starts a numbering. `unproved` means that it cannot be proved to follow the previous one.
    /// Returns `false` if another writer has taken over.
    pub async fn begin(&self, token: &str, unproved: bool) -> Result<bool, CommandError> {
        let mut call = self.recorder_call("mark");
        call.arg(token).arg(token).arg(u8::from(unproved));
        Ok(self.commands.run::<String>(&call).await? == "marked")
    }

    /// Writes messages in order; the results end with the first one that prevents further messages.
    pub async fn write<'a>(
        &self,
        token: &str,
        work: impl Iterator<Item = &'a (RecordPosition, Work)>,
        rules: &ChannelRules,
    ) -> Result<Vec<Written>, CommandError> {
        let mut pipeline = redis::pipe();
        pipeline.ignore_errors();
        let mut spans = Vec::new();
        for (position, work) in work {
            let RecordCall { call, span } = self.record(token, position, work, rules);
            pipeline.add_command(call);
            spans.push(span);
        }
        let replies: Vec<RedisResult<String>> = self.commands.run_all(&pipeline).await?;
        Ok(replies.into_iter().map(written).zip(spans).map(ended).collect())
    }

    fn record(
        &self,
        token: &str,
        position: &RecordPosition,
        work: &Work,
        rules: &ChannelRules,
    ) -> RecordCall {
        let channel = match work {
            Work::Message { channel, .. } => channel.as_slice(),
            Work::Marker { .. } => b"",
        };
        // A marker concerns no channel, but the key must be one that this user may access.
        let recorder = self.commands.keys.recorder();
        let key = match work {
            // The library stores no more of a rejected message, and a very long one would be
            // refused.
            Work::Message { .. } => channel_prefix(channel),
            Work::Marker { .. } => recorder.as_bytes(),
        };
        let mut call = self.commands.call("record", &[key]);
        call.arg(token).arg(&position.marker).arg(position.n);
        let message = match work {
            Work::Message { message, .. } => message,
            Work::Marker { after } => {
                call.arg("MARK").arg(&after.marker).arg(after.n);
                return call.into();
            }
        };
        match decoded(channel, message, rules) {
            Ok(envelope) => self.with_plain(call, channel, &envelope),
            Err(rejection) => {
                call.arg("REJECT").arg(rejection.code()).arg(message_prefix(message));
                call.into()
            }
        }
    }

    /// Completes the call of a valid message. Its span is the parent of what follows.
    fn with_plain(&self, mut call: Cmd, channel: &[u8], envelope: &Envelope<'_>) -> RecordCall {
        let channel = String::from_utf8_lossy(channel);
        let span = self
            .tracer
            .as_ref()
            .and_then(|tracer| tracer.call_for_event("record", envelope.trace, &channel));
        call.arg("PLAIN").arg(&*envelope.kind).arg(envelope.payload);
        let Envelope { key, retry_ms, options, unseen, .. } = envelope;
        let (key, options) = (key.as_deref(), options.as_deref());
        add_options(&mut call, key, *retry_ms, options, unseen.as_deref());
        add_trace(&mut call, span.as_ref().map(OpenSpan::context).or(envelope.trace));
        RecordCall { call, span }
    }

    /// The call that records a message on a cluster, and whether it is not a rejection. `before` is
    /// the number of the message before it on the channel, if that is not known to be recorded.
    pub fn record_across(
        &self,
        token: &str,
        position: &RecordPosition,
        work: &Work,
        before: Option<u64>,
        rules: &ChannelRules,
    ) -> (RecordCall, bool) {
        let (channel, message) = parts(work);
        match decoded(channel, message, rules) {
            Ok(envelope) => {
                let key = self.commands.keys.publish(&String::from_utf8_lossy(channel));
                let mut call = self.call_across(&key, token, position);
                call.arg(before.map(|n| n.to_string()).unwrap_or_default());
                (self.with_plain(call, channel, &envelope), true)
            }
            Err(rejection) => {
                let code = rejection.code();
                (self.reject_across(token, position, code, channel, message).into(), false)
            }
        }
    }

    /// The call that keeps a message which the server of its channel has rejected; `None` if it was
    /// rejected before, and is kept.
    pub fn keep_rejected(
        &self,
        token: &str,
        position: &RecordPosition,
        work: &Work,
        reason: &str,
        rules: &ChannelRules,
    ) -> Option<Cmd> {
        let (channel, message) = parts(work);
        decoded(channel, message, rules).ok()?;
        Some(self.reject_across(token, position, reason, channel, message))
    }

    fn call_across(&self, key: &str, token: &str, position: &RecordPosition) -> Cmd {
        let mut call = self.commands.call("record_across", &[key]);
        call.arg(token).arg(&position.marker).arg(position.n);
        call
    }

    fn reject_across(
        &self,
        token: &str,
        position: &RecordPosition,
        reason: &str,
        channel: &[u8],
        message: &[u8],
    ) -> Cmd {
        // The stream of rejected messages is in the slot of the broadcasts.
        let key = self.commands.keys.publish("broadcast:rejected");
        let mut call = self.call_across(&key, token, position);
        call.arg("").arg("REJECT").arg(reason);
        call.arg(message_prefix(message)).arg(channel_prefix(channel));
        call
    }

    /// Runs calls that record messages on a cluster.
    pub async fn write_each(&self, calls: Vec<RecordCall>) -> Vec<Written> {
        let (calls, spans): (Vec<_>, Vec<_>) =
            calls.into_iter().map(|RecordCall { call, span }| (call, span)).unzip();
        let replies = self.commands.run_each::<String>(calls).await;
        let written = |reply| match reply {
            Ok(text) => written_text(text),
            Err(error) => Written::Failed(error),
        };
        replies.into_iter().map(written).zip(spans).map(ended).collect()
    }

    /// Saves on a cluster that everything up to `position` was recorded, and whether messages were
    /// since the last call. `warning` is an argument of `sse_progress`.
    pub async fn save(
        &self,
        token: &str,
        position: &RecordPosition,
        has_recorded: bool,
        warning: Option<&str>,
    ) -> Result<Saved, CommandError> {
        let mut call = self.recorder_call("progress");
        call.arg(token)
            .arg(&position.marker)
            .arg(position.n)
            .arg(u8::from(has_recorded))
            .arg(warning);
        match self.commands.run::<String>(&call).await?.as_str() {
            "done" => Ok(Saved::Done),
            "fenced" => Ok(Saved::Fenced),
            "unknown" => Ok(Saved::Unknown),
            other => Err(CommandError::UnexpectedReply(other.to_owned())),
        }
    }
}

fn parts(work: &Work) -> (&[u8], &[u8]) {
    match work {
        Work::Message { channel, message } => (channel, message),
        Work::Marker { .. } => (b"", b""),
    }
}

fn decoded<'a>(
    channel: &[u8],
    message: &'a [u8],
    rules: &ChannelRules,
) -> Result<Envelope<'a>, Rejection> {
    match Channel::from_bytes(channel) {
        Some(channel) => envelope::decode(message, rules.of(&channel).max_event_bytes),
        None => Err(Rejection::BadChannel),
    }
}

/// The result of a call, whose span ends with it.
fn ended((written, span): (Written, Option<OpenSpan>)) -> Written {
    let Some(mut span) = span else { return written };
    match &written {
        Written::Recorded | Written::Duplicate => {}
        Written::Rejected { reason, .. } => span.fail(reason),
        Written::Failed(_) => span.fail("refused"),
        // Another call stores the message, or has stored it.
        Written::Done | Written::Fenced | Written::Hole | Written::Unknown => return written,
    }
    span.end();
    written
}

fn is_held(reply: &NamedReply) -> bool {
    reply.text("held") == "1"
}

fn written(reply: RedisResult<String>) -> Written {
    match reply {
        Ok(text) => written_text(text),
        Err(e) => Written::Failed(Arc::new(e.into())),
    }
}

fn written_text(text: String) -> Written {
    match text.as_str() {
        "recorded" => Written::Recorded,
        "duplicate" => Written::Duplicate,
        "done" => Written::Done,
        "fenced" => Written::Fenced,
        "hole" => Written::Hole,
        "unknown" => Written::Unknown,
        other => match other.strip_prefix("rejected ") {
            Some(rejection) => {
                let (reason, text) = rejection.split_once(' ').unwrap_or((rejection, ""));
                Written::Rejected { reason: reason.to_owned(), text: text.to_owned() }
            }
            None => Written::Failed(Arc::new(CommandError::UnexpectedReply(text))),
        },
    }
}

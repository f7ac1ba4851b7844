//! Sends commands and waits for their replies.

use std::{io, sync::atomic::Ordering, time::Duration};

use redis::{Cmd, Pipeline, RedisError, RedisFuture, RedisResult, Value, aio::ConnectionLike};
use tokio::sync::oneshot;

use super::{
    Connection,
    pending::{Batch, NotSent},
    push::Subscribing,
};

/// The error of a command that got no reply because the connection has ended.
fn ended() -> RedisError {
    io::Error::new(io::ErrorKind::BrokenPipe, NotSent::Ended).into()
}

fn not_sent(reason: NotSent) -> RedisError {
    match reason {
        NotSent::Ended => ended(),
        NotSent::TooMany => io::Error::other(reason).into(),
    }
}

/// Commands that were sent, and whose results can be awaited. They are executed before any command
/// that is sent later.
pub struct Sent<T> {
    result: oneshot::Receiver<T>,
    timeout: Duration,
}

impl<T> Sent<T> {
    /// Waits for the results.
    ///
    /// # Errors
    /// The connection has ended, or Redis did not reply in time.
    pub async fn result(self) -> RedisResult<T> {
        let result = tokio::time::timeout(self.timeout, self.result).await;
        result.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?.map_err(|_| ended())
    }
}

impl Connection {
    /// Sends `bytes`, which contain `commands` commands.
    fn begin<T>(
        &self,
        bytes: Vec<u8>,
        commands: usize,
        batch: impl FnOnce(oneshot::Sender<T>) -> Batch,
    ) -> RedisResult<Sent<T>> {
        let (sender, result) = oneshot::channel();
        // One step, so that the replies have the order of the commands.
        let mut pending = self.pending.lock();
        pending.check(commands).map_err(not_sent)?;
        self.writer.try_send(bytes).map_err(|_| not_sent(NotSent::TooMany))?;
        pending.add(batch(sender));
        Ok(Sent { result, timeout: self.timeout })
    }

    /// Sends `bytes`, which contain `commands` commands, and waits for the result of their batch.
    async fn exchange<T>(
        &self,
        bytes: Vec<u8>,
        commands: usize,
        batch: impl FnOnce(oneshot::Sender<T>) -> Batch,
    ) -> RedisResult<T> {
        self.begin(bytes, commands, batch)?.result().await
    }

    /// Sends packed commands; returns their replies, which may be errors.
    pub(super) async fn send(&self, packed: Vec<u8>, commands: usize) -> RedisResult<Vec<Value>> {
        if commands == 0 {
            return Ok(Vec::new());
        }
        let batch = |waiting| Batch::Commands { left: commands, replies: Vec::new(), waiting };
        self.exchange(packed, commands, batch).await
    }

    /// Sends a command for each of at least one channel, in one write; returns the result of each.
    fn begin_subscribing(
        &self,
        command: Subscribing,
        channels: Vec<String>,
    ) -> RedisResult<Sent<Vec<RedisResult<()>>>> {
        let (bytes, count) = (packed(command, &channels), channels.len());
        let results = Vec::with_capacity(count);
        self.begin(bytes, count, |waiting| Batch::Subscribing {
            command,
            channels,
            results,
            waiting,
        })
    }

    async fn subscribing(
        &self,
        command: Subscribing,
        channels: &[String],
    ) -> RedisResult<Vec<RedisResult<()>>> {
        if channels.is_empty() {
            return Ok(Vec::new());
        }
        self.begin_subscribing(command, channels.to_owned())?.result().await
    }

    /// Like [`Self::ssubscribe`] for at least one channel, but does not wait for the results.
    ///
    /// # Errors
    /// The connection has ended.
    pub fn begin_ssubscribe(
        &self,
        channels: Vec<String>,
    ) -> RedisResult<Sent<Vec<RedisResult<()>>>> {
        self.begin_subscribing(Subscribing::SSubscribe, channels)
    }

    /// Subscribes to shard channels. Returns the result of each: on a cluster, some may be refused
    /// because this server does not own their slots (any more).
    ///
    /// # Errors
    /// The connection has ended, or Redis did not confirm all of them in time.
    pub async fn ssubscribe(&self, channels: &[String]) -> RedisResult<Vec<RedisResult<()>>> {
        self.subscribing(Subscribing::SSubscribe, channels).await
    }

    /// Ends subscriptions to shard channels. A channel that has moved to another server is not
    /// subscribed any more, which is no error.
    ///
    /// # Errors
    /// As [`Self::ssubscribe`], or Redis refuses the command.
    pub async fn sunsubscribe(&self, channels: &[String]) -> RedisResult<()> {
        if channels.is_empty() {
            return Ok(());
        }
        let ping = format!("unsubscribed-{}", self.pings.fetch_add(1, Ordering::Relaxed));
        let mut bytes = packed(Subscribing::SUnsubscribe, channels);
        redis::cmd("PING").arg(&ping).write_packed_command(&mut bytes);
        let batch = |waiting| Batch::SUnsubscribing {
            channels: channels.iter().cloned().collect(),
            ping,
            error: None,
            waiting,
        };
        self.exchange(bytes, channels.len() + 1, batch).await?
    }

    /// Subscribes to channels.
    ///
    /// # Errors
    /// As [`Self::ssubscribe`].
    pub async fn subscribe(&self, channels: &[String]) -> RedisResult<Vec<RedisResult<()>>> {
        self.subscribing(Subscribing::Subscribe, channels).await
    }

    /// Ends subscriptions to channels.
    ///
    /// # Errors
    /// As [`Self::ssubscribe`].
    pub async fn unsubscribe(&self, channels: &[String]) -> RedisResult<Vec<RedisResult<()>>> {
        self.subscribing(Subscribing::Unsubscribe, channels).await
    }

    /// Subscribes to every channel that matches a pattern.
    ///
    /// # Errors
    /// As [`Self::ssubscribe`].
    pub async fn psubscribe(&self, patterns: &[String]) -> RedisResult<Vec<RedisResult<()>>> {
        self.subscribing(Subscribing::PSubscribe, patterns).await
    }

    /// Ends subscriptions to patterns.
    ///
    /// # Errors
    /// As [`Self::ssubscribe`].
    pub async fn punsubscribe(&self, patterns: &[String]) -> RedisResult<Vec<RedisResult<()>>> {
        self.subscribing(Subscribing::PUnsubscribe, patterns).await
    }
}

/// A command for each channel.
fn packed(command: Subscribing, channels: &[String]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for channel in channels {
        redis::cmd(command.name()).arg(channel).write_packed_command(&mut bytes);
    }
    bytes
}

/// For commands of redis-rs, which return errors of the server as values.
impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        Box::pin(async move {
            let mut replies = self.send(command.get_packed_command(), 1).await?;
            replies.pop().ok_or_else(ended)
        })
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        Box::pin(async move {
            let mut replies = self.send(pipeline.get_packed_pipeline(), offset + count).await?;
            Ok(replies.split_off(offset))
        })
    }

    fn get_db(&self) -> i64 {
        self.db
    }
}

//! Combines the calls of one worker into pipelines. In a storm of reconnects, many streams open
//! their sessions at once: Redis then reads and writes once for many of them, and so does the
//! worker.

use std::{sync::Arc, time::Duration};

use redis::{Cmd, Value};
use tokio::sync::{mpsc, oneshot};

use super::commands::{CommandError, Commands, NoReplyError};

/// Maximum number of calls in one pipeline.
const MAX_CALLS: usize = 256;
/// Calls are collected while a pipeline has no reply yet, but at most for this long: a pipeline
/// that Redis does not answer must not delay those after it.
const PATIENCE: Duration = Duration::from_millis(5);

type Reply = Result<Value, Arc<CommandError>>;

struct Call {
    command: Cmd,
    reply: oneshot::Sender<Reply>,
}

/// Runs calls of the function library in pipelines. Ends when it is dropped.
pub struct CallPipeline(mpsc::UnboundedSender<Call>);

impl CallPipeline {
    /// Starts the task that runs the calls, on the current worker.
    pub fn start(commands: Commands) -> Self {
        let (calls, receiver) = mpsc::unbounded_channel();
        tokio::task::spawn_local(run(commands, receiver));
        Self(calls)
    }

    /// Runs a call on the server that owns its key. If the future is dropped before the call was
    /// sent, the call is not sent.
    ///
    /// # Errors
    /// See [`CommandError`].
    pub async fn run(&self, command: Cmd) -> Reply {
        let (reply, result) = oneshot::channel();
        // The task ends with the worker only.
        let _ = self.0.send(Call { command, reply });
        result.await.unwrap_or_else(|_| Err(Arc::new(CommandError::NoReply(NoReplyError::Timeout))))
    }
}

async fn run(commands: Commands, mut calls: mpsc::UnboundedReceiver<Call>) {
    loop {
        let mut batch = Vec::new();
        if calls.recv_many(&mut batch, MAX_CALLS).await == 0 {
            return;
        }
        let exchange = tokio::task::spawn_local(exchange(commands.clone(), batch));
        let _ = tokio::time::timeout(PATIENCE, exchange).await;
    }
}

async fn exchange(commands: Commands, mut batch: Vec<Call>) {
    batch.retain(|call| !call.reply.is_closed());
    let (calls, replies): (Vec<_>, Vec<_>) =
        batch.into_iter().map(|Call { command, reply }| (command, reply)).unzip();
    for (reply, result) in replies.into_iter().zip(commands.run_each(calls).await) {
        // The caller may have stopped waiting.
        let _ = reply.send(result);
    }
}

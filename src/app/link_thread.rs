//! The thread of the link: supervisor, ticks, recorder. It is apart from the workers so that no slow handler delays it.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use crate::{
    redis::{
        commands::Commands,
        inbound::{Inbound, Rejected},
        link::{self, Link},
        recorder::{Recorder, inbox},
        tick,
    },
    settings::PlainPublish,
    state::instance::Instance,
};

/// Messages on their way to `sse:rejected` in `relay` mode.
const REJECTED: usize = 1024;

/// The link of a running instance.
pub struct LinkThread {
    /// The workers' side.
    pub link: Link,
    stop_recorder: oneshot::Sender<oneshot::Sender<()>>,
}

impl LinkThread {
    /// Starts the thread.
    ///
    /// # Errors
    /// The URL of Redis is none, or there is no thread to be had.
    pub fn start(instance: Arc<Instance>) -> std::io::Result<Self> {
        let commands = Commands::new(&instance.settings.redis).map_err(std::io::Error::other)?;
        let (inbox, receiver) = inbox::channel();
        let (rejected, rejected_receiver) = mpsc::channel(REJECTED);
        let inbound =
            Arc::new(Inbound::new(instance.clone(), commands.keys.clone(), inbox, rejected));
        let (link, supervisor) = link::new(instance.clone(), commands.clone(), inbound);
        let (stop_recorder, stop) = oneshot::channel();
        let recorder = Recorder::new(instance.clone(), commands.clone(), link.clone(), receiver);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::Builder::new().name("redis-link".to_owned()).spawn(move || {
            runtime.block_on(async {
                if instance.settings.publishers.plain == PlainPublish::Record {
                    tokio::spawn(recorder.run(stop));
                }
                tokio::spawn(tick::run(instance, commands.clone()));
                tokio::spawn(keep_rejected(commands, rejected_receiver));
                supervisor.run().await;
            });
        })?;
        Ok(Self { link, stop_recorder })
    }

    /// Hands the recorder's role over; returns when that is done.
    pub async fn hand_over(self) {
        let (done, answer) = oneshot::channel();
        if self.stop_recorder.send(done).is_ok() {
            let _ = answer.await;
        }
    }
}

async fn keep_rejected(commands: Commands, mut rejected: mpsc::Receiver<Rejected>) {
    while let Some(Rejected { channel, refusal, message }) = rejected.recv().await {
        let mut command = redis::cmd("XADD");
        command.arg(commands.keys.rejected()).arg("MAXLEN").arg("~").arg(1000).arg("*");
        command.arg("channel").arg(channel).arg("reason").arg(refusal.code());
        command.arg("message").arg(&message[..message.len().min(4096)]);
        if let Err(fault) = commands.run::<String>(&command).await {
            tracing::warn!(error = %fault, "a rejected message was not kept");
        }
    }
}

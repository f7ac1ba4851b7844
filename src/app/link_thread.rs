//! The thread of the link: supervisor, ticks, recorder. It is apart from the workers so that no
//! slow handler delays it.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::{
    redis::{
        commands::Commands,
        inbound::Inbound,
        link::{self, Link},
        link_state::LinkState,
        recorder::{Recorder, inbox},
        rejected, tick,
    },
    settings::PlainPublish,
    state::instance::Instance,
};

/// The link of a running instance.
pub struct LinkThread {
    /// The workers' side.
    pub link: Link,
    /// The state of the link.
    pub state: Arc<LinkState>,
    stop_recorder: oneshot::Sender<oneshot::Sender<()>>,
}

impl LinkThread {
    /// Starts the thread.
    ///
    /// # Errors
    /// The URL of Redis is invalid, or the thread could not be started.
    pub fn start(instance: Arc<Instance>) -> std::io::Result<Self> {
        let commands = Commands::new(&instance.settings.redis).map_err(std::io::Error::other)?;
        let (inbox, receiver) = inbox::channel();
        let (rejected_sender, rejected_receiver) = rejected::channel();
        let state = Arc::new(LinkState::new(instance.clock.clone()));
        let keys = commands.keys.clone();
        let inbound = Inbound::new(instance.clone(), state.clone(), keys, inbox, rejected_sender);
        let (link, supervisor) =
            link::new(instance.clone(), state.clone(), commands.clone(), Arc::new(inbound));
        let (stop_recorder, stop) = oneshot::channel();
        let recorder =
            Recorder::new(instance.clone(), false, commands.clone(), link.clone(), receiver);
        let tick_state = state.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::Builder::new().name("redis-link".to_owned()).spawn(move || {
            runtime.block_on(async {
                if instance.settings.publishers.plain == PlainPublish::Record {
                    tokio::spawn(recorder.run(stop));
                } else {
                    // Nothing may wait for a recorder that does not run.
                    drop((recorder, stop));
                }
                tokio::spawn(tick::run(instance, tick_state, commands.clone()));
                tokio::spawn(rejected::write_all(commands, rejected_receiver));
                supervisor.run().await;
            });
        })?;
        Ok(Self { link, state, stop_recorder })
    }

    /// Hands the recorder's role over; returns when that is done.
    pub async fn hand_over(self) {
        let (done, answer) = oneshot::channel();
        if self.stop_recorder.send(done).is_ok() {
            let _ = answer.await;
        }
    }
}

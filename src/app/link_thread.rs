//! The thread of the links: supervisors and recorder. It is separate from the workers, so that no
//! slow handler delays it.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::build_error::BuildError;
use crate::{
    redis::{
        link_context::LinkContext,
        links::Links,
        recorder::{Recorder, inbox, presence::RecorderPresence},
        rejected,
        unseen::Undelivered,
    },
    settings::PlainPublish,
};

/// Name of the thread.
const THREAD: &str = "redis-link";

/// The links of a running instance.
pub struct LinkThread {
    stop_recorder: oneshot::Sender<oneshot::Sender<()>>,
}

impl LinkThread {
    /// Starts the thread.
    ///
    /// # Errors
    /// The thread could not be started.
    pub fn start(
        context: LinkContext,
        name: Arc<str>,
        presence: Arc<RecorderPresence>,
    ) -> Result<Self, BuildError> {
        let commands = context.commands();
        let watcher = context.locator.watcher();
        let (inbox, receiver) = inbox::channel();
        let (rejected_sender, rejected_receiver) = rejected::channel();
        let links = Links { context: context.clone(), inbox, rejected: rejected_sender };
        // Before the workers start, which ask for the server.
        let single = context.locator.seeds().is_empty().then(|| links.single());
        let (stop_recorder, stop) = oneshot::channel();
        let recorder = Recorder::new(context.clone(), name, presence, commands.clone(), receiver);
        let failed = |source| BuildError::Thread { name: THREAD, source };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(failed)?;
        let serve = move || {
            runtime.block_on(async {
                if let Some(watcher) = watcher {
                    tokio::spawn(watcher.run());
                }
                if context.settings.publishers.plain == PlainPublish::Record {
                    tokio::spawn(recorder.run(stop));
                } else {
                    // No other code may wait for a recorder that does not run.
                    drop((recorder, stop));
                }
                let (sightings, metrics) = (context.sightings, context.metrics);
                tokio::spawn(Undelivered::new(commands.clone(), sightings, metrics).run());
                tokio::spawn(rejected::write_all(commands, rejected_receiver));
                links.serve(single).await;
            });
        };
        std::thread::Builder::new().name(THREAD.to_owned()).spawn(serve).map_err(failed)?;
        Ok(Self { stop_recorder })
    }

    /// Hands over the recorder's role, and returns when that is done.
    pub async fn hand_over(self) {
        let (done, reply) = oneshot::channel();
        if self.stop_recorder.send(done).is_ok() {
            let _ = reply.await;
        }
    }
}

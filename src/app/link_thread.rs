//! The thread of the links: supervisors, recorder and presence. It is separate from the workers, so
//! that no slow handler delays it.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::build_error::BuildError;
use crate::{
    redis::{
        link_context::LinkContext,
        links::Links,
        presence::{self, Reporter},
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
    /// `None` without presence, or after the end.
    leave_presence: Option<oneshot::Sender<oneshot::Sender<()>>>,
}

impl LinkThread {
    /// Starts the thread.
    ///
    /// # Errors
    /// The thread could not be started.
    pub fn start(
        context: LinkContext,
        name: Arc<str>,
        recorder_presence: Arc<RecorderPresence>,
    ) -> Result<Self, BuildError> {
        let commands = context.commands();
        let watcher = context.locator.watcher();
        let (inbox, receiver) = inbox::channel();
        let (rejected_sender, rejected_receiver) = rejected::channel();
        let links = Links { context: context.clone(), inbox, rejected: rejected_sender };
        // Before the workers start, which ask for the server.
        let single = context.locator.seeds().is_empty().then(|| links.single());
        let (stop_recorder, stop) = oneshot::channel();
        let recorder =
            Recorder::new(context.clone(), name, recorder_presence, commands.clone(), receiver);
        let (leave_presence, leave) = oneshot::channel();
        let reporter = Reporter::new(&context, commands.clone());
        let leave_presence = reporter.is_some().then_some(leave_presence);
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
                if let Some(reporter) = reporter {
                    presence::answer(&context, &commands);
                    tokio::spawn(reporter.run(leave));
                }
                let (sightings, metrics) = (context.sightings, context.metrics);
                tokio::spawn(Undelivered::new(commands.clone(), sightings, metrics).run());
                tokio::spawn(rejected::write_all(commands, rejected_receiver));
                links.serve(single).await;
            });
        };
        std::thread::Builder::new().name(THREAD.to_owned()).spawn(serve).map_err(failed)?;
        Ok(Self { stop_recorder, leave_presence })
    }

    /// Reports that no user has a stream any more, and returns when that is done.
    pub async fn leave_presence(&mut self) {
        let (done, reply) = oneshot::channel();
        if self.leave_presence.take().is_some_and(|leave| leave.send(done).is_ok()) {
            let _ = reply.await;
        }
    }

    /// Hands over the recorder's role, and returns when that is done.
    pub async fn hand_over(self) {
        let (done, reply) = oneshot::channel();
        if self.stop_recorder.send(done).is_ok() {
            let _ = reply.await;
        }
    }
}

//! The thread of the external sources. It is separate from the links and the workers, so that no
//! slow source delays them.

use std::sync::Arc;

use tokio::sync::{oneshot, watch};

use super::build_error::BuildError;
use crate::{redis::link_context::LinkContext, sources::Sources};

/// Name of the thread.
const THREAD: &str = "sources";

/// The external sources of a running instance.
pub struct SourceThread {
    stop: watch::Sender<bool>,
    ended: oneshot::Receiver<()>,
}

impl SourceThread {
    /// Starts the thread, if there are sources. `name` is that of this instance.
    ///
    /// # Errors
    /// The thread could not be started, or files of the settings cannot be used.
    pub fn start(context: &LinkContext, name: &Arc<str>) -> Result<Option<Self>, BuildError> {
        if context.settings.sources.is_empty() {
            return Ok(None);
        }
        let sources = Sources::new(&context.settings, &context.metrics, || context.commands())?;
        let (context, name) = (context.clone(), name.clone());
        let (stop, stopped) = watch::channel(false);
        let (end, ended) = oneshot::channel();
        let failed = |source| BuildError::Thread { name: THREAD, source };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(failed)?;
        let run = move || {
            runtime.block_on(sources.run(&context, name, stopped));
            let _ = end.send(());
        };
        std::thread::Builder::new().name(THREAD.to_owned()).spawn(run).map_err(failed)?;
        Ok(Some(Self { stop, ended }))
    }

    /// Hands the sources over to other instances, and returns when that is done.
    pub async fn hand_over(self) {
        let _ = self.stop.send(true);
        let _ = self.ended.await;
    }
}

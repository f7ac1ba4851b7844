//! The shared state of the handlers of one worker.

use std::sync::Arc;

use super::{api_keys::ApiAccess, cookie, credentials::TicketCookie};
use crate::{
    admission::{Admission, session::NewSecret},
    redis::commands::Commands,
    spans::Tracer,
    state::stream_context::StreamContext,
};

/// One worker thread.
pub struct Worker {
    /// Admits streams and polls.
    pub admission: Admission,
    /// Access of backends and operators.
    pub api: ApiAccess,
    /// Tickets in a cookie.
    pub ticket_cookie: TicketCookie,
    /// The worker's pool of Redis connections.
    pub commands: Commands,
    /// Settings, clock, metrics and limits.
    pub context: Arc<StreamContext>,
    /// Records spans; `None` without `tracing.endpoint`.
    pub tracer: Option<Arc<Tracer>>,
}

impl Worker {
    /// `Set-Cookie` for the secret of a new session.
    pub fn set_cookie(&self, new: &NewSecret) -> String {
        cookie::set_cookie(new, self.context.settings.sessions.max_session)
    }
}

//! What this instance was notified of about sessions.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;

use super::connection::Connection;
use crate::core::reasons::CloseReason;

/// Above this number, notices are dropped; the renewal of sessions has the same effect later.
const MAX_NOTICES: usize = 4096;

/// Recent notices about sessions, of all workers. A notice may arrive before the connection that
/// it concerns: the link records a notice before it looks for workers with that user, and a worker
/// adds the user before it looks for notices.
#[derive(Default)]
pub struct SessionNotices(Mutex<Notices>);

#[derive(Default)]
struct Notices {
    /// Digest -> session generation.
    taken_over: HashMap<Arc<str>, u64>,
    /// User -> ms since 1970.
    revoked: HashMap<Arc<str>, u64>,
}

/// Adds a notice; if there are too many, only this one remains.
fn add(notices: &mut HashMap<Arc<str>, u64>, about: Arc<str>, value: u64) {
    if notices.len() >= MAX_NOTICES {
        notices.clear();
    }
    notices.insert(about, value);
}

impl SessionNotices {
    /// Records that a newer connection took over a session.
    pub fn add_taken_over(&self, digest: Arc<str>, generation: u64) {
        add(&mut self.0.lock().taken_over, digest, generation);
    }

    /// Records that the sessions that a user opened up to a time were revoked.
    pub fn add_revoked(&self, user: Arc<str>, revoked_ms: u64) {
        add(&mut self.0.lock().revoked, user, revoked_ms);
    }

    /// Why a connection must end, if a notice concerns it.
    pub fn about(&self, c: &Connection) -> Option<CloseReason> {
        let session = c.client.session.as_ref()?;
        let notices = self.0.lock();
        let newer = notices.taken_over.get(&*session.digest);
        if newer.is_some_and(|generation| *generation > session.generation) {
            Some(CloseReason::TakenOver)
        } else if notices.revoked.get(&*session.user).is_some_and(|ms| *ms >= session.opened_ms) {
            Some(CloseReason::Revoked)
        } else {
            None
        }
    }
}

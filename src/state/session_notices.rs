//! What the workers were notified of about sessions.

use std::collections::HashMap;

use super::connection::Connection;
use crate::core::reasons::CloseReason;

/// Above this number, notices are dropped; the renewal of sessions has the same effect later.
const MAX_NOTICES: usize = 4096;

/// Recent notices about sessions. A notice may arrive before the connection that it concerns.
#[derive(Default)]
pub struct SessionNotices {
    /// Digest -> session generation.
    taken_over: HashMap<String, u64>,
    /// User -> ms since 1970.
    revoked: HashMap<String, u64>,
}

impl SessionNotices {
    /// Records that a newer connection took over a session.
    pub fn add_taken_over(&mut self, digest: String, generation: u64) {
        self.taken_over.insert(digest, generation);
    }

    /// Records that the sessions that a user opened up to a time were revoked.
    pub fn add_revoked(&mut self, user: String, revoked_ms: u64) {
        self.revoked.insert(user, revoked_ms);
    }

    /// Drops the notices if there are too many.
    pub fn bound(&mut self) {
        if self.taken_over.len() > MAX_NOTICES {
            self.taken_over.clear();
        }
        if self.revoked.len() > MAX_NOTICES {
            self.revoked.clear();
        }
    }

    /// Why a connection must end, if a notice concerns it.
    pub fn about(&self, c: &Connection) -> Option<CloseReason> {
        let session = &c.client.session;
        let newer = self.taken_over.get(&session.digest);
        if newer.is_some_and(|generation| *generation > session.generation) {
            Some(CloseReason::TakenOver)
        } else if self.revoked.get(&*c.client.user).is_some_and(|ms| *ms >= session.opened_ms) {
            Some(CloseReason::Revoked)
        } else {
            None
        }
    }
}

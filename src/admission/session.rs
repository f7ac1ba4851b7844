//! Opens the session of a ticket, and binds it to the browser that opened it
//! (`tickets.session_cookie`).

use aws_lc_rs::digest;
use secrecy::{ExposeSecret, SecretString};

use super::{Admission, AdmissionError};
use crate::{
    auth::{Ticket, TicketError},
    core::{
        catch_up,
        id::{EventId, StreamPosition},
        reasons::{BusyReason, TicketRejection},
    },
    error_chain::ErrorChain,
    redis::sessions::{self, SessionError, SessionRequest},
    state::client::Session,
};

/// The secret of a new session, for the browser that opened it: a stolen URL alone resumes nothing.
/// Redis has its digest, the proof.
#[derive(Debug)]
pub struct NewSecret {
    /// Digest of the session's ticket.
    pub ticket_digest: String,
    /// The secret.
    pub secret: SecretString,
}

impl NewSecret {
    /// A random secret for the session of that ticket.
    pub fn new(ticket_digest: &str) -> Self {
        let random = || uuid::Uuid::new_v4().simple();
        let secret = format!("{}{}", random(), random());
        Self { ticket_digest: ticket_digest.to_owned(), secret: secret.into() }
    }

    /// What Redis keeps of the secret.
    pub fn proof(&self) -> String {
        proof(self.secret.expose_secret())
    }
}

/// The proof of a secret that a client presents.
pub fn proof(secret: &str) -> String {
    hex::encode(digest::digest(&digest::SHA256, secret.as_bytes()).as_ref())
}

/// A session that is about to be opened or resumed.
pub(super) struct Opening<'a> {
    pub ticket: &'a Ticket,
    /// Id of the connection.
    pub connection: &'a str,
    pub cursor: Option<StreamPosition>,
    /// Whether a new session is shared by its connections.
    pub is_shared: bool,
    /// The proof that the client presents; empty: none.
    pub proof: &'a str,
    /// The proof that a new session gets; empty: none.
    pub new_proof: &'a str,
    /// When the ticket was verified, ms since 1970.
    pub now_ms: u64,
}

impl Admission {
    pub(super) async fn open_session(
        &self,
        opening: &Opening<'_>,
    ) -> Result<Session, AdmissionError> {
        let Opening { ticket, now_ms, .. } = *opening;
        check_session_exp(ticket, now_ms)?;
        let settings = &self.context.settings.sessions;
        let longest_ms = now_ms + settings.max_session.as_millis() as u64;
        let first_broadcasts = self.first_broadcasts(opening);
        let request = SessionRequest {
            digest: &ticket.digest,
            connection: opening.connection,
            user: &ticket.user,
            is_shared: opening.is_shared,
            expired: ticket.expired,
            left_ms: ticket.expires_ms.saturating_add(1000).saturating_sub(now_ms),
            until_ms: ticket.session_exp_ms.map_or(longest_ms, |end| end.min(longest_ms)),
            issued_ms: ticket.issued_ms,
            cursor: opening.cursor,
            first_broadcasts,
            proof: opening.proof,
            new_proof: opening.new_proof,
        };
        let Some(route) = self.routes.user(&ticket.user) else {
            return Err(AdmissionError::Busy(BusyReason::RedisAway));
        };
        let opened =
            sessions::open(&self.sessions, &route.commands, settings.reconnect_grace, &request)
                .await;
        opened.map_err(|error| {
            let recovered = || route.state().recovered_within(super::SESSIONS_REWRITTEN);
            admission_error(error, &route.commands.address(), recovered)
        })
    }

    /// Where a new session begins in the broadcasts, if they may be on another server than the
    /// user.
    fn first_broadcasts(&self, Opening { cursor, .. }: &Opening<'_>) -> Option<EventId> {
        let names_two = cursor.is_some_and(|named| named.user != named.broadcasts);
        if !names_two && !self.routes.is_cluster() {
            return None;
        }
        let known = self.routes.broadcasts().map(|route| route.state().highest_id());
        let h = known.filter(|h| *h > EventId::ZERO);
        let server_ms = self.context.clock.server_ms();
        Some(catch_up::first_of_broadcasts(cursor.map(|named| named.broadcasts), h, server_ms))
    }
}

/// Checks that `session_exp` has not passed.
pub(super) fn check_session_exp(ticket: &Ticket, now_ms: u64) -> Result<(), TicketError> {
    if ticket.session_exp_ms.is_some_and(|end| end <= now_ms) {
        let message = "the ticket's session_exp has passed; get a new ticket";
        return Err(TicketError::new(TicketRejection::SessionOver, message));
    }
    Ok(())
}

/// `has_recovered`: Redis came back so recently that sessions may be missing in it.
pub(super) fn admission_error(
    error: SessionError,
    address: &str,
    has_recovered: impl Fn() -> bool,
) -> AdmissionError {
    let (code, message) = match error {
        // The session may be one that ended while Redis was away, and that its instance has yet to
        // write again.
        SessionError::Expired if has_recovered() => {
            return AdmissionError::Busy(BusyReason::RedisAway);
        }
        SessionError::Redis(error) => {
            tracing::debug!(%address, error = %ErrorChain(&*error), "could not open a session");
            return AdmissionError::Busy(BusyReason::RedisAway);
        }
        SessionError::Expired => (
            TicketRejection::Expired,
            "the ticket has expired and has no session; get a new ticket",
        ),
        SessionError::Used => (
            TicketRejection::Used,
            "the ticket was used, and tickets.reconnect_grace is 0; get a new ticket",
        ),
        SessionError::Over => {
            (TicketRejection::SessionOver, "the session has ended; get a new ticket")
        }
        SessionError::CookieMissing => (
            TicketRejection::CookieMissing,
            "the session belongs to the browser that has its cookie (tickets.session_cookie); \
             get a new ticket",
        ),
        SessionError::Revoked => {
            (TicketRejection::SessionRevoked, "the user's sessions were revoked; get a new ticket")
        }
    };
    TicketError::new(code, message).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redis::commands::{CommandError, NoReplyError};

    fn code(error: SessionError, has_recovered: bool) -> &'static str {
        match admission_error(error, "127.0.0.1:6379", || has_recovered) {
            AdmissionError::Ticket(error) => error.code.name(),
            AdmissionError::Busy(reason) => reason.name(),
            AdmissionError::Topics => "bad-topics",
        }
    }

    #[test]
    fn session_errors_are_final_except_for_redis() {
        assert_eq!(code(SessionError::Expired, false), "ticket-expired");
        assert_eq!(code(SessionError::Used, true), "ticket-used");
        assert_eq!(code(SessionError::Over, true), "session-over");
        assert_eq!(code(SessionError::CookieMissing, true), "session-cookie-missing");
        assert_eq!(code(SessionError::Revoked, true), "session-revoked");
        let away = CommandError::NoReply(NoReplyError::Timeout).into();
        assert_eq!(code(away, false), "redis-away");
    }

    #[test]
    fn expired_ticket_is_retried_just_after_redis_came_back() {
        assert_eq!(code(SessionError::Expired, true), "redis-away");
    }

    #[test]
    fn proof_of_a_new_secret_is_that_of_the_presented_one() {
        let new = NewSecret::new("0a");
        assert_eq!(new.proof(), proof(new.secret.expose_secret()));
        assert_ne!(new.proof(), NewSecret::new("0a").proof());
    }
}

//! Why a client is not admitted.

use super::session::NewSecret;
use crate::{auth::TicketError, core::reasons::BusyReason};

/// Why a client is not admitted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdmissionError {
    /// The ticket can never be accepted again.
    #[error(transparent)]
    Ticket(#[from] TicketError),
    /// The requested topics are malformed.
    #[error("topics must be at most 256 names, prefix* or *, with commas between")]
    Topics,
    /// The client may retry later.
    #[error("busy ({})", .0.name())]
    Busy(BusyReason),
}

/// An admission that failed.
#[derive(Debug)]
pub struct Denied {
    /// The reason.
    pub error: AdmissionError,
    /// The secret of a session that was opened before the admission failed. The client needs it to
    /// come back.
    pub new_secret: Option<Box<NewSecret>>,
}

impl<E: Into<AdmissionError>> From<E> for Denied {
    fn from(error: E) -> Self {
        Self { error: error.into(), new_secret: None }
    }
}

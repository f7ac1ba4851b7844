//! Authentication of clients and backends: tickets (JWTs), the keys that verify them, and API keys.
//! This module does not use Redis.

mod api_keys;
mod common_ticket;
mod credential;
mod issuer;
mod key_ring;
mod key_set;
mod new_ticket;
mod ticket;
mod verifier;

use std::{sync::Arc, time::Duration};

use self::issuer::Issuer;
pub use self::{
    api_keys::{ApiKeyError, ApiKeys},
    credential::{Credential, CredentialSource},
    issuer::Refresher,
    key_ring::KeyRing,
    new_ticket::NewTicket,
    ticket::{Ticket, TicketError},
    verifier::{MintError, Verifier},
};
use crate::{metrics::Metrics, settings::Settings};
#[cfg(feature = "fuzzing")]
pub use key_set::{KeySet, KeySetError, parse as parse_key_set};

/// Why a client is not authenticated.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// The ticket can never be accepted.
    #[error(transparent)]
    Rejected(#[from] TicketError),
    /// The ticket's key is unknown and the issuer's key set cannot be fetched: retry later.
    #[error("the ticket's key is unknown and the issuer's key set cannot be fetched")]
    IssuerUnavailable,
}

/// Why authentication cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// A ticket key cannot be used.
    #[error("tickets.keys: a key cannot be used; replace it")]
    Key(#[from] jsonwebtoken::errors::Error),
    /// The HTTP client that fetches the issuer's key set cannot be built.
    #[error("tickets.jwks_url: the HTTP client could not be built")]
    Client(#[source] reqwest::Error),
}

impl SetupError {
    /// Whether the configuration must be changed.
    pub fn is_configuration(&self) -> bool {
        matches!(self, Self::Key(_))
    }
}

/// The authentication of one instance, shared by all workers.
pub struct Auth {
    /// Verifies and signs tickets.
    pub verifier: Verifier,
    /// The keys of backends and operators.
    pub api_keys: ApiKeys,
    issuer: Option<Arc<Issuer>>,
}

impl Auth {
    /// Creates the authentication from the settings. If `tickets.jwks_url` is set, the caller must
    /// run the [`Refresher`], which fetches the issuer's key set.
    ///
    /// # Errors
    /// See [`SetupError`].
    pub fn new(
        settings: &Settings,
        metrics: &Metrics,
    ) -> Result<(Arc<Self>, Option<Refresher>), SetupError> {
        let verifier = Verifier::new(settings.tickets.clone())?;
        let (issuer, refresher) =
            issuer::new(&settings.tickets, verifier.keys.clone(), metrics)?.unzip();
        let auth = Self { verifier, api_keys: ApiKeys::new(settings.api_keys.clone()), issuer };
        Ok((Arc::new(auth), refresher))
    }

    /// Verifies a ticket. If its key is unknown, the issuer's key set is fetched first, at most
    /// once per `tickets.jwks_cooldown`.
    ///
    /// # Errors
    /// See [`AuthError`].
    pub async fn verify(
        &self,
        credential: Credential<'_>,
        now_s: u64,
    ) -> Result<Ticket, AuthError> {
        let issuer = self.issuer.as_ref();
        let issuer = issuer.filter(|_| self.verifier.lacks_key(credential.token));
        let unavailable = match issuer {
            // Boxed, because a larger future costs time for every client.
            Some(issuer) => Box::pin(issuer.refresh()).await.is_err(),
            None => false,
        };
        self.verifier.verify(credential, now_s).map_err(|rejected| match unavailable {
            true => AuthError::IssuerUnavailable,
            false => AuthError::Rejected(rejected),
        })
    }

    /// Whether no ticket can be verified yet, because all keys are in the issuer's key set, which
    /// has not been fetched.
    pub fn has_no_keys(&self) -> bool {
        self.verifier.keys.is_empty()
    }

    /// Age of the issuer's key set; `None` if none was fetched.
    pub fn key_set_age(&self) -> Option<Duration> {
        self.verifier.keys.issued_age()
    }
}

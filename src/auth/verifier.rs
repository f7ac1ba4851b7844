//! Verifies and signs tickets (JWTs, RFC 7519) with the current keys.

use std::sync::Arc;

use jsonwebtoken::{
    Algorithm as Jwt, EncodingKey, Header, Validation,
    errors::{Error, ErrorKind},
};
use secrecy::ExposeSecret;
use serde_json::json;

use super::{
    key_ring::{KeyRing, VerificationKey, jwt},
    ticket::{self, Claims, Ticket, TicketError, reject},
};
use crate::{core::system::TicketRejection, settings::Tickets};

/// Maximum length of a ticket, in bytes.
const MAX_TICKET_BYTES: usize = 8 << 10;

/// Why a ticket cannot be signed.
#[derive(Debug, thiserror::Error)]
pub enum MintError {
    /// Only public keys are configured.
    #[error("no HS256 key is configured")]
    NoSigningKey,
    /// The JWT library failed.
    #[error("the ticket cannot be signed")]
    Library(#[from] Error),
}

/// Verifies and signs tickets.
pub struct Verifier {
    settings: Tickets,
    /// The keys; they can be replaced at any time.
    pub keys: Arc<KeyRing>,
}

impl Verifier {
    /// Creates a verifier with the keys of these settings.
    ///
    /// # Errors
    /// A key cannot be used.
    pub fn new(mut settings: Tickets) -> Result<Self, Error> {
        let keys = Arc::new(KeyRing::default());
        keys.set_own(&std::mem::take(&mut settings.keys))?;
        Ok(Self { settings, keys })
    }

    /// Whether a newer key set of the issuer may contain the ticket's key: its `kid` is unknown,
    /// and its `alg` is not HS256, which key sets never contain. The ticket's own `alg` is not used
    /// for anything else.
    pub fn lacks_key(&self, token: &str) -> bool {
        if token.len() > MAX_TICKET_BYTES {
            return false;
        }
        jsonwebtoken::decode_header(token).is_ok_and(|header| {
            let is_unknown = |kid: String| self.keys.named(&kid).is_none();
            header.alg != Jwt::HS256 && header.kid.is_some_and(is_unknown)
        })
    }

    /// Verifies a ticket; `now_s` is in seconds since 1970.
    ///
    /// # Errors
    /// The reason why the ticket is rejected.
    pub fn verify(&self, token: &str, now_s: u64) -> Result<Ticket, TicketError> {
        if token.len() > MAX_TICKET_BYTES {
            let message = format!("the ticket exceeds {MAX_TICKET_BYTES} bytes; use fewer claims");
            return reject(TicketRejection::Malformed, message);
        }
        let header = jsonwebtoken::decode_header(token).map_err(|e| header_error(&e))?;
        if header.crit.is_some() {
            // RFC 7515 section 4.1.11: an extension that is not understood must be rejected.
            let message = "the ticket's header has crit, but no extension is supported; remove it";
            return reject(TicketRejection::Malformed, message);
        }
        let key = self.key(header.kid.as_deref())?;
        let algorithm = jwt(key.algorithm);
        if header.alg != algorithm {
            let message = format!(
                "the ticket is signed with {:?}, but its key is configured for {algorithm:?}",
                header.alg
            );
            return reject(TicketRejection::WrongAlgorithm, message);
        }
        let validation = self.validation(algorithm);
        let claims = jsonwebtoken::decode::<Claims>(token, &key.decoding, &validation)
            .map_err(|e| self.claim_error(&e))?
            .claims;
        ticket::check(&claims, ticket::digest(token, key.algorithm), &self.settings, now_s)
    }

    fn validation(&self, algorithm: Jwt) -> Validation {
        let mut validation = Validation::new(algorithm);
        // `ticket::check` checks all times: an expired ticket may still resume its session.
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.set_audience(&[&self.settings.audience]);
        validation.set_required_spec_claims(&["aud"]);
        if let Some(issuer) = &self.settings.issuer {
            validation.set_issuer(&[issuer]);
            validation.set_required_spec_claims(&["aud", "iss"]);
        }
        validation
    }

    fn key(&self, kid: Option<&str>) -> Result<Arc<VerificationKey>, TicketError> {
        self.keys.find(kid).ok_or_else(|| {
            TicketError::new(
                TicketRejection::UnknownKey,
                "the ticket's kid is unknown; see tickets.keys and tickets.jwks_url",
            )
        })
    }

    fn claim_error(&self, error: &Error) -> TicketError {
        let settings = &self.settings;
        let (code, message) = match error.kind() {
            ErrorKind::InvalidSignature => (
                TicketRejection::BadSignature,
                "the ticket's signature does not match its key".to_owned(),
            ),
            ErrorKind::InvalidAudience => (
                TicketRejection::WrongAudience,
                format!("aud must be {:?} (tickets.audience)", settings.audience),
            ),
            ErrorKind::InvalidIssuer => (
                TicketRejection::WrongIssuer,
                format!(
                    "iss must be {:?} (tickets.issuer)",
                    settings.issuer.as_deref().unwrap_or_default()
                ),
            ),
            ErrorKind::MissingRequiredClaim(name) => {
                (TicketRejection::MissingClaim, format!("the ticket has no {name}"))
            }
            ErrorKind::InvalidAlgorithm => (
                TicketRejection::WrongAlgorithm,
                "the ticket's algorithm differs from that of its key".to_owned(),
            ),
            _ => (
                TicketRejection::Malformed,
                "the ticket must be a JWT whose claims are a JSON object".to_owned(),
            ),
        };
        TicketError::new(code, message)
    }

    /// Signs a ticket with the first HS256 key. `ttl_s` and `now_s` are in seconds.
    ///
    /// # Errors
    /// See [`MintError`].
    pub fn mint(
        &self,
        user: &str,
        topics: Option<&[String]>,
        ttl_s: u64,
        now_s: u64,
    ) -> Result<String, MintError> {
        let key = self.keys.signing().ok_or(MintError::NoSigningKey)?;
        let secret = key.secret.as_ref().ok_or(MintError::NoSigningKey)?.expose_secret();
        let mut claims = json!({
            "sub": user,
            "aud": self.settings.audience,
            "iat": now_s,
            "exp": now_s + ttl_s,
            "jti": uuid::Uuid::new_v4().to_string(),
        });
        if let Some(topics) = topics {
            claims["topics"] = json!(topics);
        }
        if let Some(issuer) = &self.settings.issuer {
            claims["iss"] = json!(issuer);
        }
        let header = Header { kid: key.kid.clone(), ..Header::new(Jwt::HS256) };
        Ok(jsonwebtoken::encode(&header, &claims, &EncodingKey::from_secret(secret))?)
    }

    /// Maximum lifetime of a ticket in seconds (`tickets.max_ttl`).
    pub fn max_ttl_s(&self) -> u64 {
        self.settings.max_ttl.as_secs()
    }
}

fn header_error(error: &Error) -> TicketError {
    // The library has no name for `none` and other unknown algorithms.
    let unknown = matches!(error.kind(), ErrorKind::Json(e) if e.to_string().contains("variant"));
    if unknown || matches!(error.kind(), ErrorKind::InvalidAlgorithmName) {
        let message = "the ticket's alg must be HS256, RS256, ES256 or EdDSA";
        return TicketError::new(TicketRejection::WrongAlgorithm, message);
    }
    let message = "the ticket must be a JWT of the form header.claims.signature";
    TicketError::new(TicketRejection::Malformed, message)
}

//! Tickets: short-lived JWTs that let a browser in (RFC 7519; DESIGN.md section 4). What is checked here needs no Redis.

pub mod jwks;
pub mod keys;

use std::sync::Arc;

use jsonwebtoken::{
    Algorithm as Jwt, EncodingKey, Header, Validation,
    errors::{Error, ErrorKind},
};
use secrecy::ExposeSecret;
use serde_json::{Map, Value, json};

use crate::{
    core::{channel::is_name, system::TicketFault, topics::Topics},
    settings::{Algorithm, Tickets},
};

use self::keys::{Key, Keys, jwt};

/// Longest ticket in bytes.
const MAX_TICKET_BYTES: usize = 8 << 10;

/// A ticket whose signature and claims are good.
#[derive(Clone, Debug)]
pub struct Ticket {
    /// `sub`
    pub user: Arc<str>,
    /// `topics`, or the default.
    pub topics: Topics,
    /// SHA-256 of the ticket in hex: the name of its session. The ticket itself goes nowhere.
    pub digest: String,
    /// Whether `exp` has passed: then only a session that lives lets it in.
    pub expired: bool,
    /// `exp` with leeway, ms since 1970.
    pub good_until_ms: u64,
    /// The end of the second of `iat`, ms since 1970.
    pub issued_ms: u64,
    /// `session_exp`, ms since 1970.
    pub session_exp_ms: Option<u64>,
}

/// Why a ticket is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The code in the answer and the metric.
    pub code: TicketFault,
    /// Fault and fix, without the ticket.
    pub message: String,
}

fn refuse<T>(code: TicketFault, message: impl Into<String>) -> Result<T, Refused> {
    Err(Refused { code, message: message.into() })
}

/// Verifies and mints tickets with the keys of the moment.
pub struct Verifier {
    settings: Tickets,
    /// The keys; they can be replaced.
    pub keys: Keys,
}

impl Verifier {
    /// A verifier with these settings.
    ///
    /// # Errors
    /// A key cannot be used.
    pub fn new(mut settings: Tickets) -> Result<Self, Error> {
        let keys = Keys::default();
        keys.set_own(&std::mem::take(&mut settings.keys))?;
        Ok(Self { settings, keys })
    }

    /// Whether a newer key set of the issuer might have the ticket's key: its `kid` is that of no known key. A key set has no HS256
    /// keys, so for such a ticket none need be fetched. (What the ticket says of itself decides nothing else.)
    pub fn lacks_key(&self, token: &str) -> bool {
        let header = (token.len() <= MAX_TICKET_BYTES).then(|| jsonwebtoken::decode_header(token));
        header.and_then(Result::ok).is_some_and(|header| {
            header.alg != Jwt::HS256 && header.kid.is_some_and(|kid| self.keys.named(&kid).is_none())
        })
    }

    /// Checks a ticket at a time, in seconds since 1970.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn verify(&self, token: &str, now_s: u64) -> Result<Ticket, Refused> {
        if token.len() > MAX_TICKET_BYTES {
            return refuse(TicketFault::Malformed, format!("the ticket is longer than {MAX_TICKET_BYTES} bytes"));
        }
        let header = jsonwebtoken::decode_header(token).map_err(|e| header_fault(&e))?;
        if header.crit.is_some() {
            // RFC 7515 section 4.1.11: what must be understood is not.
            return refuse(TicketFault::Malformed, "the ticket's header has crit, and no extension is understood here");
        }
        let key = self.key(header.kid.as_deref())?;
        let algorithm = jwt(key.algorithm);
        if header.alg != algorithm {
            let message =
                format!("the ticket is signed with {:?}, its key is configured for {algorithm:?}", header.alg);
            return refuse(TicketFault::WrongAlgorithm, message);
        }
        let mut validation = Validation::new(algorithm);
        validation.leeway = self.settings.leeway.as_secs();
        // An expired ticket may still have a session: `expired` tells.
        validation.validate_exp = false;
        // By our own clock and code, like `iat`.
        validation.validate_nbf = false;
        validation.set_audience(&[&self.settings.audience]);
        validation.set_required_spec_claims(&["aud"]);
        if let Some(issuer) = &self.settings.issuer {
            validation.set_issuer(&[issuer]);
            validation.set_required_spec_claims(&["aud", "iss"]);
        }
        let claims = jsonwebtoken::decode::<Map<String, Value>>(token, &key.decoding, &validation)
            .map_err(|e| self.claim_fault(&e))?
            .claims;
        self.ticket(token, key.algorithm, &claims, now_s)
    }

    fn key(&self, kid: Option<&str>) -> Result<Arc<Key>, Refused> {
        match self.keys.find(kid) {
            Some(key) => Ok(key),
            None => refuse(
                TicketFault::UnknownKey,
                "no key is known for the ticket's kid; see tickets.keys and tickets.jwks_url",
            ),
        }
    }

    fn claim_fault(&self, error: &Error) -> Refused {
        let (code, message) = match error.kind() {
            ErrorKind::InvalidSignature => {
                (TicketFault::BadSignature, "the ticket's signature does not fit its key".to_owned())
            }
            ErrorKind::InvalidAudience => {
                (TicketFault::WrongAudience, format!("the ticket's aud must be {:?}", self.settings.audience))
            }
            ErrorKind::InvalidIssuer => (
                TicketFault::WrongIssuer,
                format!("the ticket's iss must be {:?}", self.settings.issuer.as_deref().unwrap_or("")),
            ),
            ErrorKind::MissingRequiredClaim(name) => (TicketFault::MissingClaim, format!("the ticket has no {name}")),
            ErrorKind::InvalidAlgorithm => {
                (TicketFault::WrongAlgorithm, "the ticket's algorithm is not that of its key".to_owned())
            }
            _ => (TicketFault::Malformed, "the ticket is no JWT with a JSON object as claims".to_owned()),
        };
        Refused { code, message }
    }

    fn ticket(
        &self,
        token: &str,
        algorithm: Algorithm,
        claims: &Map<String, Value>,
        now_s: u64,
    ) -> Result<Ticket, Refused> {
        let leeway_s = self.settings.leeway.as_secs();
        let user = match claims.get("sub") {
            None => return refuse(TicketFault::MissingClaim, "the ticket has no sub"),
            Some(Value::String(sub)) if is_name(sub) => sub.as_str(),
            Some(_) => {
                return refuse(
                    TicketFault::BadSubject,
                    "sub must be a string of 1 to 256 printable ASCII characters without space, comma and * ? [ ] \\",
                );
            }
        };
        let (exp, iat) = (required(claims, "exp")?, required(claims, "iat")?);
        match claims.get("jti") {
            None => return refuse(TicketFault::MissingClaim, "the ticket has no jti; give each ticket its own"),
            Some(Value::String(jti)) if !jti.is_empty() => {}
            Some(_) => return refuse(TicketFault::BadClaim, "jti must be a string that is not empty"),
        }
        let latest = now_s.saturating_add(leeway_s);
        if iat > latest || seconds(claims, "nbf")?.is_some_and(|nbf| nbf > latest) {
            return refuse(TicketFault::NotYetValid, "the ticket's iat or nbf lies ahead; are the clocks in step?");
        }
        let max_ttl_s = self.settings.max_ttl.as_secs();
        if exp.saturating_sub(iat) > max_ttl_s {
            return refuse(
                TicketFault::TooLongLived,
                format!("exp - iat must be {max_ttl_s} s or less (tickets.max_ttl)"),
            );
        }
        let topics = match claims.get("topics") {
            None => topics(self.settings.default_topics.iter().map(String::as_str))?,
            Some(Value::Array(list)) => {
                let list: Option<Vec<&str>> = list.iter().map(Value::as_str).collect();
                topics(list.ok_or_else(bad_topics)?.into_iter())?
            }
            Some(_) => return Err(bad_topics()),
        };
        let good_until_s = exp.saturating_add(leeway_s);
        Ok(Ticket {
            user: user.into(),
            topics,
            digest: digest(token, algorithm),
            expired: now_s > good_until_s,
            good_until_ms: good_until_s.saturating_mul(1000),
            issued_ms: iat.saturating_mul(1000).saturating_add(999),
            session_exp_ms: seconds(claims, "session_exp")?.map(|s| s.saturating_mul(1000)),
        })
    }

    /// Mints a ticket with the first HS256 key; `None`: there is none.
    ///
    /// # Errors
    /// The library fails to sign.
    pub fn mint(&self, user: &str, topics: Option<&[String]>, ttl_s: u64, now_s: u64) -> Option<Result<String, Error>> {
        let key = self.keys.signing()?;
        let secret = key.secret.as_ref()?.expose_secret();
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
        Some(jsonwebtoken::encode(&header, &claims, &EncodingKey::from_secret(secret)))
    }

    /// Largest lifetime of a ticket in seconds.
    pub fn max_ttl_s(&self) -> u64 {
        self.settings.max_ttl.as_secs()
    }
}

/// The name of the ticket's session. An ECDSA signature has two forms, so there only what is signed counts: a ticket that is good
/// for one connection must not become two.
fn digest(token: &str, algorithm: Algorithm) -> String {
    let named = match (algorithm, token.rsplit_once('.')) {
        (Algorithm::ES256, Some((signed, _))) => signed,
        _ => token,
    };
    hex::encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, named.as_bytes()).as_ref())
}

fn header_fault(error: &Error) -> Refused {
    // `none` and other unknown algorithms have no name in the library.
    let unknown = matches!(error.kind(), ErrorKind::Json(e) if e.to_string().contains("variant"));
    let (code, message) = match unknown || matches!(error.kind(), ErrorKind::InvalidAlgorithmName) {
        true => (TicketFault::WrongAlgorithm, "the ticket's alg is not HS256, RS256, ES256 or EdDSA"),
        false => (TicketFault::Malformed, "the ticket is no JWT; it has the form header.claims.signature"),
    };
    Refused { code, message: message.to_owned() }
}

fn topics<'a>(patterns: impl Iterator<Item = &'a str>) -> Result<Topics, Refused> {
    Topics::parse(patterns).map_err(|_| bad_topics())
}

fn bad_topics() -> Refused {
    let message = "topics must be a list of at most 256 names, `prefix*` or `*`".to_owned();
    Refused { code: TicketFault::BadClaim, message }
}

/// A NumericDate (RFC 7519 section 2); fractions are cut.
fn seconds(claims: &Map<String, Value>, name: &str) -> Result<Option<u64>, Refused> {
    match claims.get(name) {
        None => Ok(None),
        Some(value) => match value.as_f64() {
            Some(s) if (0.0..1e12).contains(&s) => Ok(Some(s as u64)),
            _ => refuse(TicketFault::BadClaim, format!("{name} must be a number of seconds since 1970")),
        },
    }
}

fn required(claims: &Map<String, Value>, name: &str) -> Result<u64, Refused> {
    match seconds(claims, name)? {
        Some(s) => Ok(s),
        None => refuse(TicketFault::MissingClaim, format!("the ticket has no {name}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_other_form_of_an_ecdsa_signature_names_the_same_session() {
        assert_eq!(digest("h.c.one", Algorithm::ES256), digest("h.c.other", Algorithm::ES256));
        assert_ne!(digest("h.c.one", Algorithm::ES256), digest("h.d.one", Algorithm::ES256));
        assert_ne!(digest("h.c.one", Algorithm::HS256), digest("h.c.other", Algorithm::HS256));
    }
}

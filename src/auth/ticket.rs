//! A verified ticket, and the checks of its claims (RFC 7519). No I/O and no clock.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::common_ticket::CommonClaims;
use crate::{
    core::{
        channel::is_name,
        filter::{Filter, INVALID_FILTER},
        reasons::TicketRejection,
        topics::Topics,
    },
    settings::{Algorithm, Tickets},
};

/// A ticket whose signature and claims are valid.
#[derive(Clone, Debug)]
pub struct Ticket {
    /// `sub`
    pub user: Arc<str>,
    /// `topics`, or the default, and `presence`.
    pub topics: Topics,
    /// `filter`: which tags events must have.
    pub filter: Option<Arc<Filter>>,
    /// SHA-256 of the ticket in hex, which identifies its session. The ticket itself is not stored.
    pub digest: String,
    /// Whether `exp` has passed: then the ticket can only resume an existing session.
    pub expired: bool,
    /// `exp` with leeway, ms since 1970.
    pub expires_ms: u64,
    /// The end of the second of `iat`, ms since 1970.
    pub issued_ms: u64,
    /// `exp - iat`, in seconds; its limit depends on where the ticket was presented.
    pub lifetime_s: u64,
    /// `session_exp`, ms since 1970.
    pub session_exp_ms: Option<u64>,
}

/// Why a ticket is rejected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct TicketError {
    /// The code in the response and the metric.
    pub code: TicketRejection,
    /// Problem and fix, without the ticket.
    pub message: String,
}

impl TicketError {
    /// Creates a rejection with this code and message.
    pub fn new(code: TicketRejection, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

pub(super) fn reject<T>(
    code: TicketRejection,
    message: impl Into<String>,
) -> Result<T, TicketError> {
    Err(TicketError::new(code, message))
}

/// The claims of a ticket.
pub(super) type Claims = Map<String, Value>;

/// Checks the claims of a ticket whose signature is valid; `now_s` is in seconds since 1970.
pub(super) fn check(
    claims: &Claims,
    digest: String,
    settings: &Tickets,
    now_s: u64,
) -> Result<Ticket, TicketError> {
    let user = subject(claims)?.into();
    let (exp, iat) = (required(claims, "exp")?, required(claims, "iat")?);
    check_jti(claims)?;
    let times = Times { iat, exp, nbf: seconds(claims, "nbf")? };
    times.check(settings, now_s)?;
    let topics = topics(claims, settings)?.with_presence(presence(claims)?);
    let session_exp = seconds(claims, "session_exp")?;
    let ticket = times.ticket(user, topics, digest, session_exp, settings, now_s);
    Ok(Ticket { filter: filter(claims)?, ..ticket })
}

/// The same for claims in their common form; `None` if they must be checked with [`check`], also
/// if they are rejected.
pub(super) fn check_common(
    claims: &CommonClaims<'_>,
    digest: impl FnOnce() -> String,
    settings: &Tickets,
    now_s: u64,
) -> Option<Ticket> {
    let issuer = settings.issuer.as_deref();
    let is_for_us = claims.aud == settings.audience && (issuer.is_none() || claims.iss == issuer);
    if !is_for_us || !is_name(claims.sub) || claims.jti.is_empty() {
        return None;
    }
    let optional = |claim: Option<f64>| match claim {
        None => Some(None),
        Some(value) => whole_seconds(value).map(Some),
    };
    let times = Times {
        iat: whole_seconds(claims.iat)?,
        exp: whole_seconds(claims.exp)?,
        nbf: optional(claims.nbf)?,
    };
    let session_exp = optional(claims.session_exp)?;
    times.check(settings, now_s).ok()?;
    let topics = match &claims.topics {
        Some(topics) => Topics::parse(topics.iter().copied()),
        None => Topics::parse(settings.default_topics.iter().map(String::as_str)),
    };
    let topics = topics.ok()?.with_presence(claims.presence == Some(true));
    Some(times.ticket(claims.sub.into(), topics, digest(), session_exp, settings, now_s))
}

/// Times in a ticket, in seconds since 1970.
struct Times {
    iat: u64,
    exp: u64,
    nbf: Option<u64>,
}

impl Times {
    fn check(&self, settings: &Tickets, now_s: u64) -> Result<(), TicketError> {
        let latest = now_s.saturating_add(settings.leeway.as_secs());
        if self.iat > latest || self.nbf.is_some_and(|nbf| nbf > latest) {
            return reject(
                TicketRejection::NotYetValid,
                "iat or nbf is in the future; synchronise the clocks of backend and gateway",
            );
        }
        Ok(())
    }

    fn ticket(
        &self,
        user: Arc<str>,
        topics: Topics,
        digest: String,
        session_exp: Option<u64>,
        settings: &Tickets,
        now_s: u64,
    ) -> Ticket {
        let expires_s = self.exp.saturating_add(settings.leeway.as_secs());
        Ticket {
            user,
            topics,
            filter: None,
            digest,
            expired: now_s > expires_s,
            expires_ms: expires_s.saturating_mul(1000),
            issued_ms: self.iat.saturating_mul(1000).saturating_add(999),
            lifetime_s: self.exp.saturating_sub(self.iat),
            session_exp_ms: session_exp.map(|s| s.saturating_mul(1000)),
        }
    }
}

fn subject(claims: &Claims) -> Result<&str, TicketError> {
    match claims.get("sub") {
        None => {
            reject(TicketRejection::MissingClaim, "the ticket has no sub; set it to the user id")
        }
        Some(Value::String(sub)) if is_name(sub) => Ok(sub),
        Some(_) => reject(
            TicketRejection::BadSubject,
            "sub must be a string of 1 to 256 printable ASCII characters without space, comma \
             and * ? [ ] { } \\",
        ),
    }
}

fn check_jti(claims: &Claims) -> Result<(), TicketError> {
    match claims.get("jti") {
        None => {
            reject(TicketRejection::MissingClaim, "the ticket has no jti: a unique id is required")
        }
        Some(Value::String(jti)) if !jti.is_empty() => Ok(()),
        Some(_) => reject(TicketRejection::BadClaim, "jti must be a non-empty string"),
    }
}

fn topics(claims: &Claims, settings: &Tickets) -> Result<Topics, TicketError> {
    let bad_topics = || {
        let message = "topics must be a list of at most 256 names, `prefix*` or `*`";
        TicketError::new(TicketRejection::BadClaim, message)
    };
    let parse = |mut patterns: Box<dyn Iterator<Item = &str> + '_>| {
        Topics::parse(&mut patterns).map_err(|_| bad_topics())
    };
    match claims.get("topics") {
        None => parse(Box::new(settings.default_topics.iter().map(String::as_str))),
        Some(Value::Array(list)) => {
            let list: Option<Vec<&str>> = list.iter().map(Value::as_str).collect();
            parse(Box::new(list.ok_or_else(bad_topics)?.into_iter()))
        }
        Some(_) => Err(bad_topics()),
    }
}

fn filter(claims: &Claims) -> Result<Option<Arc<Filter>>, TicketError> {
    let Some(claim) = claims.get("filter") else { return Ok(None) };
    match Filter::of_claim(claim) {
        Some(filter) => Ok(Some(Arc::new(filter))),
        None => reject(TicketRejection::BadClaim, INVALID_FILTER),
    }
}

fn presence(claims: &Claims) -> Result<bool, TicketError> {
    match claims.get("presence") {
        None => Ok(false),
        Some(Value::Bool(presence)) => Ok(*presence),
        Some(_) => reject(TicketRejection::BadClaim, "presence must be true or false"),
    }
}

/// A NumericDate (RFC 7519 section 2); fractions are truncated.
fn seconds(claims: &Claims, name: &str) -> Result<Option<u64>, TicketError> {
    match claims.get(name) {
        None => Ok(None),
        Some(value) => match value.as_f64().and_then(whole_seconds) {
            Some(s) => Ok(Some(s)),
            None => reject(
                TicketRejection::BadClaim,
                format!("{name} must be a number of seconds since 1970"),
            ),
        },
    }
}

fn whole_seconds(value: f64) -> Option<u64> {
    (0.0..1e12).contains(&value).then_some(value as u64)
}

fn required(claims: &Claims, name: &str) -> Result<u64, TicketError> {
    match seconds(claims, name)? {
        Some(s) => Ok(s),
        None => reject(TicketRejection::MissingClaim, format!("the ticket has no {name}")),
    }
}

/// The digest that identifies the ticket's session. For ES256 it covers only the signed part: an
/// ECDSA signature has two valid forms, and one ticket must not open two sessions.
pub(super) fn digest(token: &str, algorithm: Algorithm) -> String {
    let named = match (algorithm, token.rsplit_once('.')) {
        (Algorithm::ES256, Some((signed, _))) => signed,
        _ => token,
    };
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, named.as_bytes());
    // `hex::encode` collects the characters one by one, which is slower.
    let mut text = vec![0; 2 * digest.as_ref().len()];
    let encoded = hex::encode_to_slice(digest.as_ref(), &mut text);
    let text = encoded.ok().and_then(|()| String::from_utf8(text).ok());
    text.unwrap_or_else(|| hex::encode(digest.as_ref()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    fn checked(change: impl FnOnce(&mut Value)) -> Result<Ticket, TicketError> {
        let mut claims = json!({ "sub": "42", "iat": 1000, "exp": 1060, "jti": "a" });
        change(&mut claims);
        let settings = Tickets {
            leeway: Duration::from_secs(5),
            default_topics: vec!["*".to_owned()],
            ..Tickets::default()
        };
        check(claims.as_object().unwrap(), "digest".to_owned(), &settings, 1030)
    }

    #[test]
    fn invalid_claims_are_rejected_with_their_code() {
        use TicketRejection::*;
        let is_as_expected =
            |t: Ticket| (t.expired, t.expires_ms, t.lifetime_s) == (false, 1_065_000, 60);
        assert!(checked(|_| {}).is_ok_and(is_as_expected));
        for (name, value, code) in [
            ("sub", json!(42), BadSubject),
            ("sub", json!("a b"), BadSubject),
            ("jti", json!(""), BadClaim),
            ("iat", json!(1036), NotYetValid),
            ("nbf", json!(1036), NotYetValid),
            ("exp", json!("soon"), BadClaim),
            ("topics", json!("news"), BadClaim),
            ("topics", json!([1]), BadClaim),
            ("presence", json!("yes"), BadClaim),
            ("session_exp", json!(-1), BadClaim),
            ("filter", json!({"region": "eu"}), BadClaim),
        ] {
            let result = checked(|claims| claims[name] = value.clone());
            assert_eq!(result.err().map(|e| e.code), Some(code), "{name} {value}");
        }
        for name in ["sub", "jti", "iat", "exp"] {
            let result = checked(|claims| drop(claims.as_object_mut().unwrap().remove(name)));
            assert_eq!(result.err().map(|e| e.code), Some(MissingClaim), "{name}");
        }
    }

    #[test]
    fn both_forms_of_ecdsa_signature_identify_one_session() {
        let of = |token, algorithm| digest(token, algorithm);
        assert_eq!(of("h.c.one", Algorithm::ES256), of("h.c.other", Algorithm::ES256));
        assert_ne!(of("h.c.one", Algorithm::ES256), of("h.d.one", Algorithm::ES256));
        assert_ne!(of("h.c.one", Algorithm::HS256), of("h.c.other", Algorithm::HS256));
    }
}

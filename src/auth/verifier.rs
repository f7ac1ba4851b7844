//! Verifies and signs tickets (JWTs, RFC 7519) with the current keys.

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{
    Algorithm as Jwt, EncodingKey, Header, Validation,
    errors::{Error, ErrorKind},
};
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use super::{
    common_ticket,
    credential::{Credential, CredentialSource},
    key_ring::{KeyRing, VerificationKey, jwt},
    new_ticket::NewTicket,
    ticket::{self, Claims, Ticket, TicketError, reject},
};
use crate::{core::reasons::TicketRejection, settings::Tickets};

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
    pub fn verify(&self, credential: Credential<'_>, now_s: u64) -> Result<Ticket, TicketError> {
        let Credential { token, source } = credential;
        if token.len() > MAX_TICKET_BYTES {
            let message = format!("the ticket exceeds {MAX_TICKET_BYTES} bytes; use fewer claims");
            return reject(TicketRejection::Malformed, message);
        }
        let ticket = match self.verify_common(token, now_s) {
            Some(ticket) => ticket,
            None => self.verify_any(token, now_s)?,
        };
        self.check_lifetime(ticket, source)
    }

    /// Checks `exp - iat`. A ticket in a URL must be short-lived; one in an HttpOnly cookie may
    /// live longer.
    fn check_lifetime(
        &self,
        ticket: Ticket,
        source: CredentialSource,
    ) -> Result<Ticket, TicketError> {
        let (max, setting) = match source {
            CredentialSource::Cookie => (self.settings.cookie_max_ttl, "tickets.cookie_max_ttl"),
            CredentialSource::Bearer | CredentialSource::Query => {
                (self.settings.max_ttl, "tickets.max_ttl")
            }
        };
        if ticket.lifetime_s <= max.as_secs() {
            return Ok(ticket);
        }
        let message = format!("exp - iat must be at most {} s here ({setting})", max.as_secs());
        reject(TicketRejection::TooLongLived, message)
    }

    /// Verifies a ticket in its common form; `None` if [`Self::verify_any`] must verify it.
    fn verify_common(&self, token: &str, now_s: u64) -> Option<Ticket> {
        common_ticket::split(token, |ticket, kid| {
            let key = self.keys.find(kid)?;
            let claims = ticket.verified_claims(key.hmac.as_ref()?)?;
            let claims = serde_json::from_slice(&claims).ok()?;
            let digest = || ticket::digest(token, key.algorithm);
            ticket::check_common(&claims, digest, &self.settings, now_s)
        })
    }

    fn verify_any(&self, token: &str, now_s: u64) -> Result<Ticket, TicketError> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| header_error(token))?;
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
    pub fn mint(&self, new: &NewTicket<'_>, ttl_s: u64, now_s: u64) -> Result<String, MintError> {
        let key = self.keys.signing().ok_or(MintError::NoSigningKey)?;
        let secret = key.secret.as_ref().ok_or(MintError::NoSigningKey)?.expose_secret();
        let mut claims = json!({
            "sub": new.user,
            "aud": self.settings.audience,
            "iat": now_s,
            "exp": now_s + ttl_s,
            "jti": uuid::Uuid::new_v4().to_string(),
        });
        new.add_to(&mut claims);
        if let Some(issuer) = &self.settings.issuer {
            claims["iss"] = json!(issuer);
        }
        let header = Header { kid: key.kid.clone(), ..Header::new(Jwt::HS256) };
        Ok(jsonwebtoken::encode(&header, &claims, &EncodingKey::from_secret(secret))?)
    }

    /// Maximum lifetime of a ticket in seconds: `tickets.max_ttl`, or `tickets.cookie_max_ttl` if
    /// there is a cookie for tickets and that is longer.
    pub fn max_ttl_s(&self) -> u64 {
        let Tickets { max_ttl, cookie_max_ttl, cookie, .. } = &self.settings;
        let longest = if cookie.is_some() { max_ttl.max(cookie_max_ttl) } else { max_ttl };
        longest.as_secs()
    }

    /// Lifetime of a ticket without a requested one, in seconds: it is valid everywhere.
    pub fn default_ttl_s(&self) -> u64 {
        self.settings.max_ttl.as_secs().min(60)
    }
}

/// The error for a ticket whose header the JWT library cannot decode. It cannot decode an `alg`
/// that it does not know, such as `none`.
fn header_error(token: &str) -> TicketError {
    if algorithm_name(token).is_some_and(|name| name.parse::<Jwt>().is_err()) {
        let message = "the ticket's alg must be HS256, RS256, ES256 or EdDSA";
        return TicketError::new(TicketRejection::WrongAlgorithm, message);
    }
    let message = "the ticket must be a JWT of the form header.claims.signature";
    TicketError::new(TicketRejection::Malformed, message)
}

/// The `alg` in the header of a ticket, if there is one.
fn algorithm_name(token: &str) -> Option<String> {
    let (header, _) = token.split_once('.')?;
    let header: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).ok()?).ok()?;
    header.get("alg")?.as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings;

    const SECRET: &str = "a secret of more than thirty-two bytes";
    const NOW_S: u64 = 1_763_719_000;

    fn verifier(extra: &[(&str, &str)]) -> Verifier {
        let env = [("TICKETS__SECRET", SECRET)].iter().chain(extra);
        let env = env.map(|(k, v)| (format!("SSE_GATEWAY__{k}"), (*v).to_owned()));
        Verifier::new(settings::load(None, env).expect("valid settings").tickets).expect("keys")
    }

    fn signed(header: &Header, claims: &Value) -> String {
        let key = EncodingKey::from_secret(SECRET.as_bytes());
        jsonwebtoken::encode(header, claims, &key).expect("a ticket")
    }

    fn claims() -> Value {
        json!({ "sub": "u", "aud": "sse-gateway", "iat": NOW_S, "exp": NOW_S + 60 })
    }

    fn verified(verifier: &Verifier, token: &str) -> Result<Ticket, TicketError> {
        verifier.verify(Credential { token, source: CredentialSource::Query }, NOW_S)
    }

    fn rejection(verifier: &Verifier, token: &str) -> Option<TicketRejection> {
        verified(verifier, token).err().map(|error| error.code)
    }

    /// A ticket with this header, whose claims and signature are not valid.
    fn with_header(header: &str) -> String {
        format!("{}.e30.AA", URL_SAFE_NO_PAD.encode(header))
    }

    #[test]
    fn minted_ticket_is_verified_with_its_topics() {
        let verifier = verifier(&[("TICKETS__ISSUER", "the-issuer")]);
        let topics = ["news".to_owned()];
        let filter = json!({"region": ["eu"]});
        let (topics, filter) = (Some(&topics[..]), Some(&filter));
        let new = NewTicket { user: "u", topics, presence: true, filter };
        let token = verifier.mint(&new, 60, NOW_S).unwrap();
        let ticket = verified(&verifier, &token).unwrap();
        assert_eq!(ticket.user.as_ref(), "u");
        assert!(ticket.topics.allows("news") && !ticket.topics.allows("sport"));
        assert!(ticket.topics.allows("presence") && ticket.filter.is_some());
        assert_eq!(verifier.max_ttl_s(), 60);
    }

    #[test]
    fn claims_and_signature_are_checked() {
        let verifier = verifier(&[("TICKETS__ISSUER", "i")]);
        let header = Header::new(Jwt::HS256);
        let with = |name: &str, value: Value| {
            let mut all = claims();
            all["iss"] = json!("i");
            all[name] = value;
            signed(&header, &all)
        };
        let good = with("jti", json!("j"));
        assert_eq!(rejection(&verifier, &good), None);
        let (unsigned, _) = good.rsplit_once('.').unwrap();
        let forged = format!("{unsigned}.{}", URL_SAFE_NO_PAD.encode([7; 32]));
        for (token, expected) in [
            (forged, TicketRejection::BadSignature),
            (with("aud", json!("other")), TicketRejection::WrongAudience),
            (with("iss", json!("other")), TicketRejection::WrongIssuer),
            (signed(&header, &claims()), TicketRejection::MissingClaim),
            (signed(&header, &json!([])), TicketRejection::Malformed),
            ("x".repeat(MAX_TICKET_BYTES + 1), TicketRejection::Malformed),
        ] {
            assert_eq!(rejection(&verifier, &token), Some(expected), "{token}");
        }
    }

    #[test]
    fn lifetime_is_limited_by_where_the_ticket_is_presented() {
        let verifier = verifier(&[("TICKETS__COOKIE", "c"), ("TICKETS__COOKIE_MAX_TTL", "90s")]);
        assert_eq!(verifier.max_ttl_s(), 90);
        use CredentialSource::{Bearer, Cookie, Query};
        for (ttl_s, accepted) in
            [(60, &[Bearer, Query, Cookie][..]), (61, &[Cookie]), (90, &[Cookie]), (91, &[])]
        {
            let token = verifier
                .mint(&NewTicket { user: "u", ..NewTicket::default() }, ttl_s, NOW_S)
                .unwrap();
            for source in [Bearer, Query, Cookie] {
                let result = verifier.verify(Credential { token: &token, source }, NOW_S);
                let expected = match accepted.contains(&source) {
                    true => None,
                    false => Some(TicketRejection::TooLongLived),
                };
                assert_eq!(result.err().map(|error| error.code), expected, "{ttl_s} {source:?}");
            }
        }
    }

    /// A signed ticket with this header and these claims, which may be anything.
    fn signed_text(header: &str, claims: &str) -> String {
        let [header, claims] = [header, claims].map(|text| URL_SAFE_NO_PAD.encode(text));
        let message = format!("{header}.{claims}");
        let key = EncodingKey::from_secret(SECRET.as_bytes());
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Jwt::HS256).unwrap();
        format!("{message}.{signature}")
    }

    #[test]
    fn usual_tickets_are_of_the_common_form() {
        let verifier = verifier(&[("TICKETS__ISSUER", "i")]);
        let topics = ["news".to_owned()];
        let news = NewTicket { user: "u", topics: Some(&topics), ..NewTicket::default() };
        let token = verifier.mint(&news, 60, NOW_S).unwrap();
        let mut all = claims();
        all["iss"] = json!("i");
        all["jti"] = json!("j");
        all["session_exp"] = json!(NOW_S + 3600);
        for token in [token, signed(&Header::new(Jwt::HS256), &all)] {
            assert!(verifier.verify_common(&token, NOW_S).is_some());
            let (unsigned, _) = token.rsplit_once('.').unwrap();
            let forged = format!("{unsigned}.{}", URL_SAFE_NO_PAD.encode([7; 32]));
            assert!(verifier.verify_common(&forged, NOW_S).is_none());
        }
    }

    proptest::proptest! {
        #[test]
        fn common_form_gives_what_the_jwt_library_gives(
            header in proptest::sample::select(HEADERS),
            members in proptest::collection::vec(proptest::sample::select(MEMBERS), 0..4),
            has_issuer: bool,
            damage in 0..400_usize,
        ) {
            let issuer = [("TICKETS__ISSUER", "i")];
            let verifier = verifier(if has_issuer { &issuer } else { &[] });
            let usual = format!(
                r#""sub":"u","aud":"sse-gateway","jti":"j","iat":{NOW_S},"exp":{}"#,
                NOW_S + 60
            );
            // Later members replace or repeat the usual ones.
            let mut all: Vec<&str> = usual.split(',').collect();
            for member in members {
                let name = |member: &str| member.split(':').next().unwrap_or_default().to_owned();
                if damage % 2 == 0 {
                    all.retain(|other| name(other) != name(member));
                }
                all.push(member);
            }
            let mut token = signed_text(header, &format!("{{{}}}", all.join(",")));
            if damage < 100 {
                let at = damage * 7 % token.len();
                token.replace_range(at..=at, if damage % 3 == 0 { "." } else { "A" });
            }
            if let Some(common) = verifier.verify_common(&token, NOW_S) {
                let any = verifier.verify_any(&token, NOW_S).map(|ticket| format!("{ticket:?}"));
                proptest::prop_assert_eq!(Ok(format!("{common:?}")), any, "{}", token);
            }
        }
    }

    const HEADERS: &[&str] = &[
        r#"{"alg":"HS256"}"#,
        r#"{"typ":"JWT","alg":"HS256"}"#,
        r#"{"typ":null,"alg":"HS256","kid":null}"#,
        r#"{"alg":"HS256","kid":"unknown"}"#,
        r#"{"alg":"HS256","crit":[]}"#,
        r#"{"alg":"HS256","alg":"HS256"}"#,
        r#"{"alg":"HS384"}"#,
        r#"{"alg":"HS\u0032\u0035\u0036"}"#,
        r#" {"alg" : "HS256"} "#,
        r#"{"alg":"HS256"}x"#,
    ];
    const MEMBERS: &[&str] = &[
        r#""sub":"other""#,
        r#""sub":"a b""#,
        r#""sub":"\u0061""#,
        r#""sub":42"#,
        r#""aud":["sse-gateway"]"#,
        r#""aud":"other""#,
        r#""iss":"i""#,
        r#""iss":["i"]"#,
        r#""iss":null"#,
        r#""nbf":1763719000.9"#,
        r#""nbf":1763719900"#,
        r#""nbf":null"#,
        r#""nbf":-1"#,
        r#""iat":1763719000.5"#,
        r#""iat":1763719900"#,
        r#""iat":"1763719000""#,
        r#""exp":1763719010"#,
        r#""exp":1e999"#,
        r#""exp":17637190000000"#,
        r#""session_exp":1763720000"#,
        r#""session_exp":null"#,
        r#""topics":[]"#,
        r#""topics":["news","n*"]"#,
        r#""topics":["a b"]"#,
        r#""topics":"news""#,
        r#""topics":null"#,
        r#""topics":["*","presence"]"#,
        r#""presence":true"#,
        r#""presence":false"#,
        r#""presence":null"#,
        r#""presence":1"#,
        r#""jti":"""#,
        r#""jti":null"#,
        r#""other":[1,{"a":"\ud800"}]"#,
    ];

    #[test]
    fn unknown_algorithms_and_malformed_headers_differ() {
        let verifier = verifier(&[]);
        for (token, expected) in [
            (with_header(r#"{"alg":"none"}"#), TicketRejection::WrongAlgorithm),
            (with_header(r#"{"alg":"HS1"}"#), TicketRejection::WrongAlgorithm),
            (with_header(r#"{"alg":"RS256"}"#), TicketRejection::WrongAlgorithm),
            (with_header(r#"{"alg":"HS256","crit":["x"]}"#), TicketRejection::Malformed),
            (with_header(r#"{"alg":"HS256","kid":7}"#), TicketRejection::Malformed),
            // The text of the library's error is the same as for an unknown algorithm.
            (with_header(r#"{"alg":{"variant":1}}"#), TicketRejection::Malformed),
            (with_header("{}"), TicketRejection::Malformed),
            ("no JWT".to_owned(), TicketRejection::Malformed),
        ] {
            assert_eq!(rejection(&verifier, &token), Some(expected), "{token}");
        }
    }

    #[test]
    fn only_unknown_keys_of_public_algorithms_are_fetched() {
        let verifier = verifier(&[]);
        let lacks = |header: &str| verifier.lacks_key(&with_header(header));
        assert!(lacks(r#"{"alg":"ES256","kid":"k"}"#));
        assert!(!lacks(r#"{"alg":"HS256","kid":"k"}"#), "key sets contain no secrets");
        assert!(!lacks(r#"{"alg":"ES256"}"#) && !verifier.lacks_key("no JWT"));
        let long = format!(r#"{{"alg":"ES256","kid":"{}"}}"#, "k".repeat(MAX_TICKET_BYTES));
        assert!(!lacks(&long));
    }

    #[test]
    fn public_keys_alone_sign_nothing() {
        let verifier = verifier(&[]);
        verifier.keys.set_own(&[]).unwrap();
        let minted = verifier.mint(&NewTicket { user: "u", ..NewTicket::default() }, 60, NOW_S);
        assert!(matches!(minted, Err(MintError::NoSigningKey)));
    }
}

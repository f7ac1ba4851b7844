//! The key set of an issuer (JWKS, RFC 7517). The algorithm of a key is taken from the key itself
//! (`kty`, `crv`, `alg`). Keys that cannot verify tickets are ignored, with a reason.

use std::sync::Arc;

use jsonwebtoken::DecodingKey;
use serde_json::{Map, Value};

use super::key_ring::VerificationKey;
use crate::{error_chain::ErrorChain, settings::Algorithm};

/// Length of 2048 bits in base64url. Shorter RSA keys are not secure.
const RSA_MODULUS_CHARS: usize = 342;
/// Length of 32 bytes in base64url: a coordinate of P-256, or a key of Ed25519.
const COORDINATE_CHARS: usize = 43;
/// Maximum length of a `kid` in a log.
const SHOWN_KID_CHARS: usize = 64;

/// Why a key set cannot be used. The previous keys stay active.
#[derive(Debug, thiserror::Error)]
pub enum KeySetError {
    /// The document is not JSON.
    #[error("the key set must be JSON")]
    Json(#[from] serde_json::Error),
    /// The document has no list of keys.
    #[error("the key set must be an object with a list `keys`")]
    NoList,
    /// No key can verify tickets.
    #[error("the key set contains no usable key: {0:?}")]
    NoUsableKey(Vec<String>),
}

/// Why a key cannot verify tickets.
#[derive(Debug, thiserror::Error)]
pub enum KeyFault {
    /// A required member is missing or is not a string.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A member that encodes 32 bytes has another length.
    #[error("{0} has the wrong length")]
    WrongLength(&'static str),
    /// `use` excludes signatures.
    #[error("use is not sig")]
    NotForSignatures,
    /// `key_ops` excludes verification.
    #[error("key_ops does not contain verify")]
    NotForVerification,
    /// The key is symmetric.
    #[error("kty oct is a secret, which must not be published")]
    Secret,
    /// The modulus is too short to be secure.
    #[error("an RSA key must have at least 2048 bits")]
    ShortModulus,
    /// The gateway has no algorithm for the key's type.
    #[error("kty {kty:?} with crv {crv:?} is not supported")]
    Unsupported {
        /// Type of the key.
        kty: String,
        /// Its curve; may be empty.
        crv: String,
    },
    /// The document contains a private key.
    #[error("the private part was published, so the key is compromised")]
    Private,
    /// `alg` is not the algorithm of the key's type.
    #[error("alg is not {0}")]
    WrongAlgorithm(&'static str),
    /// The document contains the `kid` twice.
    #[error("an earlier key has the same kid")]
    Duplicate,
    /// The JWT library cannot use the key.
    #[error("the key cannot be used")]
    Unusable(#[from] jsonwebtoken::errors::Error),
}

/// The keys of a key set.
pub struct KeySet {
    /// Keys that verify tickets; at least one.
    pub keys: Vec<Arc<VerificationKey>>,
    /// Number, `kid` and reason for each ignored key.
    pub ignored: Vec<String>,
}

/// Parses a key set.
///
/// # Errors
/// See [`KeySetError`].
pub fn parse(body: &[u8]) -> Result<KeySet, KeySetError> {
    let document: Value = serde_json::from_slice(body)?;
    let listed = document.get("keys").and_then(Value::as_array).ok_or(KeySetError::NoList)?;
    let mut set = KeySet { keys: Vec::new(), ignored: Vec::new() };
    for (place, jwk) in listed.iter().enumerate() {
        let jwk = jwk.as_object().cloned().unwrap_or_default();
        let kid = text(&jwk, "kid").unwrap_or_default();
        let known = set.keys.iter().any(|k| k.kid.as_deref() == Some(kid));
        match key(&jwk, kid) {
            Ok(_) if known => {
                set.ignored.push(shown(place, kid, &KeyFault::Duplicate));
            }
            Ok(key) => set.keys.push(Arc::new(key)),
            Err(fault) => set.ignored.push(shown(place, kid, &fault)),
        }
    }
    if set.keys.is_empty() { Err(KeySetError::NoUsableKey(set.ignored)) } else { Ok(set) }
}

fn shown(place: usize, kid: &str, fault: &KeyFault) -> String {
    let kid: String = kid.chars().take(SHOWN_KID_CHARS).collect();
    format!("key {} (kid {kid:?}): {}", place + 1, ErrorChain(fault))
}

fn text<'a>(jwk: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    jwk.get(name).and_then(Value::as_str)
}

fn member<'a>(jwk: &'a Map<String, Value>, name: &'static str) -> Result<&'a str, KeyFault> {
    text(jwk, name).ok_or(KeyFault::Missing(name))
}

/// A member that encodes 32 bytes.
fn coordinate<'a>(jwk: &'a Map<String, Value>, name: &'static str) -> Result<&'a str, KeyFault> {
    match member(jwk, name)? {
        value if value.len() == COORDINATE_CHARS => Ok(value),
        _ => Err(KeyFault::WrongLength(name)),
    }
}

fn check_use(jwk: &Map<String, Value>, kid: &str) -> Result<(), KeyFault> {
    let verifies = |ops: &Value| ops.as_array().is_some_and(|o| o.iter().any(|op| op == "verify"));
    if kid.is_empty() {
        return Err(KeyFault::Missing("kid"));
    }
    if jwk.get("use").is_some_and(|u| u != "sig") {
        return Err(KeyFault::NotForSignatures);
    }
    if jwk.get("key_ops").is_some_and(|ops| !verifies(ops)) {
        return Err(KeyFault::NotForVerification);
    }
    Ok(())
}

fn key(jwk: &Map<String, Value>, kid: &str) -> Result<VerificationKey, KeyFault> {
    check_use(jwk, kid)?;
    let (algorithm, names, decoding) = match (member(jwk, "kty")?, text(jwk, "crv")) {
        ("oct", _) => return Err(KeyFault::Secret),
        ("RSA", _) if member(jwk, "n")?.len() < RSA_MODULUS_CHARS => {
            return Err(KeyFault::ShortModulus);
        }
        ("RSA", _) => (
            Algorithm::RS256,
            &["RS256"][..],
            DecodingKey::from_rsa_components(member(jwk, "n")?, member(jwk, "e")?),
        ),
        ("EC", Some("P-256")) => (
            Algorithm::ES256,
            &["ES256"][..],
            DecodingKey::from_ec_components(coordinate(jwk, "x")?, coordinate(jwk, "y")?),
        ),
        ("OKP", Some("Ed25519")) => (
            Algorithm::EdDSA,
            &["EdDSA", "Ed25519"][..],
            DecodingKey::from_ed_components(coordinate(jwk, "x")?),
        ),
        (kty, crv) => {
            return Err(KeyFault::Unsupported {
                kty: kty.to_owned(),
                crv: crv.unwrap_or_default().to_owned(),
            });
        }
    };
    if jwk.contains_key("d") {
        return Err(KeyFault::Private);
    }
    if jwk.get("alg").is_some_and(|alg| !names.iter().any(|name| alg == name)) {
        return Err(KeyFault::WrongAlgorithm(names[0]));
    }
    let (secret, hmac) = (None, None);
    Ok(VerificationKey { kid: Some(kid.to_owned()), algorithm, decoding: decoding?, secret, hmac })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn reason(jwk: Value) -> String {
        let good = json!({ "kty": "OKP", "crv": "Ed25519", "kid": "good", "x": "A".repeat(43) });
        let set = parse(json!({ "keys": [good, jwk] }).to_string().as_bytes())
            .unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(set.keys.len(), 1, "{jwk}");
        set.ignored.concat()
    }

    #[test]
    fn unusable_keys_are_ignored_with_a_reason() {
        let coordinate = "A".repeat(43);
        let ed = json!({ "kty": "OKP", "crv": "Ed25519", "kid": "ed", "x": coordinate });
        let with = |name: &str, value: Value| {
            let mut jwk = ed.clone();
            jwk[name] = value;
            jwk
        };
        for (jwk, expected) in [
            (json!({ "kty": "oct", "kid": "s", "k": "c2VjcmV0", "alg": "HS256" }), "kty oct"),
            (with("use", json!("enc")), "use"),
            (with("key_ops", json!(["sign"])), "key_ops"),
            (with("alg", json!("HS256")), "alg"),
            (with("alg", json!(7)), "alg"),
            (with("kid", json!("")), "kid is missing"),
            (with("kid", json!(7)), "kid is missing"),
            (with("kid", json!("good")), "same kid"),
            (with("crv", json!("Ed448")), "not supported"),
            (with("x", json!("AAAA")), "wrong length"),
            (with("x", json!("!".repeat(43))), "cannot be used"),
            (with("d", json!("AAAA")), "private part"),
            (
                json!({
                    "kty": "EC", "crv": "P-384", "kid": "e", "x": coordinate, "y": coordinate
                }),
                "not supported",
            ),
            (json!({ "kty": "EC", "crv": "P-256", "kid": "e", "x": coordinate }), "y is missing"),
            (json!({ "kty": "RSA", "kid": "r", "n": "AQAB", "e": "AQAB" }), "2048"),
            (
                json!({
                    "kty": "RSA", "kid": "r", "n": "A".repeat(342), "e": "AQAB", "alg": "RS512"
                }),
                "RS256",
            ),
            (json!({ "kid": "x" }), "kty is missing"),
            (json!("text"), "kid is missing"),
        ] {
            let reason = reason(jwk.clone());
            assert!(reason.contains(expected), "{jwk}: {reason}");
        }
        let named = with("alg", json!("Ed25519"));
        assert_eq!(
            parse(json!({ "keys": [named] }).to_string().as_bytes())
                .map(|s| s.keys.len())
                .unwrap_or(0),
            1
        );
    }

    #[test]
    fn documents_without_usable_keys_are_errors() {
        for body in [
            "",
            "<html>",
            "{}",
            "[]",
            r#"{"keys":{}}"#,
            r#"{"keys":[]}"#,
            r#"{"keys":[{"kty":"oct"}]}"#,
        ] {
            assert!(parse(body.as_bytes()).is_err(), "{body}");
        }
    }
}

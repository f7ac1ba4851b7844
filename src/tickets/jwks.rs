//! A key set as an issuer publishes it (RFC 7517). The algorithm of a key comes from the key itself (`kty`, `crv`, `alg`); what can
//! verify no ticket is left out, with the reason.

use std::sync::Arc;

use jsonwebtoken::DecodingKey;
use serde_json::{Map, Value};

use super::keys::Key;
use crate::settings::Algorithm;

/// 2048 bits in base64url: with less an RSA signature is no proof any more.
const RSA_MODULUS_CHARS: usize = 342;
/// 32 bytes in base64url: a coordinate of P-256, a key of Ed25519.
const COORDINATE_CHARS: usize = 43;
/// Longest `kid` shown in a log.
const SHOWN_KID_CHARS: usize = 64;

/// What a key set holds.
pub struct KeySet {
    /// Keys that verify tickets; at least one.
    pub keys: Vec<Arc<Key>>,
    /// Of each other key: which it is, and why it is left out.
    pub ignored: Vec<String>,
}

/// Reads a key set.
///
/// # Errors
/// It is none, or it has no key that could verify a ticket: a fault of the issuer, and no reason to forget the keys of before.
pub fn parse(body: &[u8]) -> Result<KeySet, String> {
    let document: Value = serde_json::from_slice(body).map_err(|e| format!("the answer is no JSON ({e})"))?;
    let Some(listed) = document.get("keys").and_then(Value::as_array) else {
        return Err("the answer is no key set: it has no list `keys`".to_owned());
    };
    let mut set = KeySet { keys: Vec::new(), ignored: Vec::new() };
    for (place, jwk) in listed.iter().enumerate() {
        let jwk = jwk.as_object().cloned().unwrap_or_default();
        let kid = text(&jwk, "kid").unwrap_or_default();
        let known = set.keys.iter().any(|k| k.kid.as_deref() == Some(kid));
        match key(&jwk, kid) {
            Ok(_) if known => set.ignored.push(shown(place, kid, "another key before it has the same kid")),
            Ok(key) => set.keys.push(Arc::new(key)),
            Err(why) => set.ignored.push(shown(place, kid, &why)),
        }
    }
    match set.keys.is_empty() {
        true => Err(format!("the key set has no key that could verify a ticket: {:?}", set.ignored)),
        false => Ok(set),
    }
}

fn shown(place: usize, kid: &str, why: &str) -> String {
    let kid: String = kid.chars().take(SHOWN_KID_CHARS).collect();
    format!("key {} (kid {kid:?}): {why}", place + 1)
}

fn text<'a>(jwk: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    jwk.get(name).and_then(Value::as_str)
}

fn key(jwk: &Map<String, Value>, kid: &str) -> Result<Key, String> {
    let member = |name: &str| text(jwk, name).ok_or_else(|| format!("it has no {name}"));
    if kid.is_empty() {
        return Err("it has no kid".to_owned());
    }
    if jwk.get("use").is_some_and(|u| u != "sig") {
        return Err("its use is not sig".to_owned());
    }
    if jwk.get("key_ops").is_some_and(|ops| !ops.as_array().is_some_and(|ops| ops.iter().any(|op| op == "verify"))) {
        return Err("its key_ops lack verify".to_owned());
    }
    let of = |name: &str, length: usize| match member(name)? {
        value if value.len() == length => Ok(value),
        _ => Err(format!("its {name} has the wrong length")),
    };
    let (algorithm, names, decoding) = match (member("kty")?, text(jwk, "crv")) {
        ("oct", _) => return Err("it is a secret (kty oct), and what is published is none".to_owned()),
        ("RSA", _) if member("n")?.len() < RSA_MODULUS_CHARS => return Err("it has less than 2048 bits".to_owned()),
        ("RSA", _) => (Algorithm::RS256, &["RS256"][..], DecodingKey::from_rsa_components(member("n")?, member("e")?)),
        ("EC", Some("P-256")) => (
            Algorithm::ES256,
            &["ES256"][..],
            DecodingKey::from_ec_components(of("x", COORDINATE_CHARS)?, of("y", COORDINATE_CHARS)?),
        ),
        ("OKP", Some("Ed25519")) => {
            (Algorithm::EdDSA, &["EdDSA", "Ed25519"][..], DecodingKey::from_ed_components(of("x", COORDINATE_CHARS)?))
        }
        (kty, crv) => return Err(format!("its kind (kty {kty:?}, crv {:?}) is not supported", crv.unwrap_or(""))),
    };
    if jwk.contains_key("d") {
        return Err("its private part is published with it: it is nobody's own any more".to_owned());
    }
    if jwk.get("alg").is_some_and(|alg| !names.iter().any(|name| alg == name)) {
        return Err(format!("its alg is not {}", names[0]));
    }
    let decoding = decoding.map_err(|e| format!("it cannot be used ({e})"))?;
    Ok(Key { kid: Some(kid.to_owned()), algorithm, decoding, secret: None })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn why(jwk: Value) -> String {
        let good = json!({ "kty": "OKP", "crv": "Ed25519", "kid": "good", "x": "A".repeat(43) });
        let set = parse(json!({ "keys": [good, jwk] }).to_string().as_bytes()).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(set.keys.len(), 1, "{jwk}");
        set.ignored.concat()
    }

    #[test]
    fn what_can_verify_no_ticket_is_left_out_with_the_reason() {
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
            (with("kid", json!("")), "no kid"),
            (with("kid", json!(7)), "no kid"),
            (with("kid", json!("good")), "same kid"),
            (with("crv", json!("Ed448")), "not supported"),
            (with("x", json!("AAAA")), "wrong length"),
            (with("x", json!("!".repeat(43))), "cannot be used"),
            (with("d", json!("AAAA")), "private part"),
            (json!({ "kty": "EC", "crv": "P-384", "kid": "e", "x": coordinate, "y": coordinate }), "not supported"),
            (json!({ "kty": "EC", "crv": "P-256", "kid": "e", "x": coordinate }), "no y"),
            (json!({ "kty": "RSA", "kid": "r", "n": "AQAB", "e": "AQAB" }), "2048"),
            (json!({ "kty": "RSA", "kid": "r", "n": "A".repeat(342), "e": "AQAB", "alg": "RS512" }), "RS256"),
            (json!({ "kid": "x" }), "no kty"),
            (json!("text"), "no kid"),
        ] {
            let why = why(jwk.clone());
            assert!(why.contains(expected), "{jwk}: {why}");
        }
        let named = with("alg", json!("Ed25519"));
        assert_eq!(parse(json!({ "keys": [named] }).to_string().as_bytes()).map(|s| s.keys.len()).unwrap_or(0), 1);
    }

    #[test]
    fn what_is_no_key_set_is_a_fault() {
        for body in ["", "<html>", "{}", "[]", r#"{"keys":{}}"#, r#"{"keys":[]}"#, r#"{"keys":[{"kty":"oct"}]}"#] {
            assert!(parse(body.as_bytes()).is_err(), "{body}");
        }
    }
}

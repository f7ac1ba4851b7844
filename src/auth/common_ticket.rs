//! Reads tickets in their common form without copies: HS256, only known members, and strings
//! without escapes. Any other ticket, and every one that would be rejected, is left to the JWT
//! library (`verifier.rs`), which is slower. A ticket that both accept gives the same result.

use aws_lc_rs::hmac;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Deserializer};

/// Maximum length of a decoded header, in bytes.
const MAX_HEADER_BYTES: usize = 256;
/// Length of a decoded HS256 signature, in bytes.
const SIGNATURE_BYTES: usize = 32;

/// The header of a ticket.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Header<'a> {
    alg: &'a str,
    #[serde(rename = "typ")]
    _typ: Option<&'a str>,
    kid: Option<&'a str>,
}

/// The claims of a ticket. Times are in seconds since 1970.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CommonClaims<'a> {
    pub sub: &'a str,
    pub aud: &'a str,
    pub jti: &'a str,
    pub iat: f64,
    pub exp: f64,
    #[serde(borrow, default, deserialize_with = "present")]
    pub iss: Option<&'a str>,
    #[serde(default, deserialize_with = "present")]
    pub nbf: Option<f64>,
    #[serde(default, deserialize_with = "present")]
    pub session_exp: Option<f64>,
    #[serde(borrow, default, deserialize_with = "present")]
    pub topics: Option<Vec<&'a str>>,
    #[serde(default, deserialize_with = "present")]
    pub presence: Option<bool>,
}

/// A member that may be absent, but not `null`.
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    value: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(value).map(Some)
}

/// The parts of a ticket, not verified yet.
pub(super) struct CommonTicket<'a> {
    signed: &'a str,
    claims: &'a str,
    signature: [u8; SIGNATURE_BYTES],
}

/// Splits a ticket. Returns it with its `kid`, which `then` gets; `None` if its form is not common.
pub(super) fn split<T>(
    token: &str,
    then: impl FnOnce(CommonTicket<'_>, Option<&str>) -> Option<T>,
) -> Option<T> {
    let (signed, signature_text) = token.rsplit_once('.')?;
    let (header, claims) = signed.split_once('.')?;
    let mut signature = [0; SIGNATURE_BYTES];
    if URL_SAFE_NO_PAD.decode_slice(signature_text, &mut signature).ok()? != SIGNATURE_BYTES {
        return None;
    }
    let mut decoded = [0; MAX_HEADER_BYTES];
    let length = URL_SAFE_NO_PAD.decode_slice(header, &mut decoded).ok()?;
    let header: Header<'_> = serde_json::from_slice(&decoded[..length]).ok()?;
    if header.alg != "HS256" {
        return None;
    }
    then(CommonTicket { signed, claims, signature }, header.kid)
}

impl CommonTicket<'_> {
    /// The decoded claims; `None` if the signature is not that of the key.
    pub fn verified_claims(&self, key: &hmac::Key) -> Option<Vec<u8>> {
        hmac::verify(key, self.signed.as_bytes(), &self.signature).ok()?;
        URL_SAFE_NO_PAD.decode(self.claims).ok()
    }
}

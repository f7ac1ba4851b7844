//! The keys that verify tickets: the gateway's own, from its settings, and those of the issuer's
//! key set. Both can be replaced at any time; a verification in progress continues with its key.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::{ArcSwap, ArcSwapOption};
use aws_lc_rs::hmac;
use jsonwebtoken::{Algorithm as Jwt, DecodingKey, errors::Error};
use secrecy::{ExposeSecret, SecretSlice};

use crate::settings::{Algorithm, TicketKey};

/// A key that verifies tickets.
pub struct VerificationKey {
    /// The `kid` of the tickets that it verifies.
    pub kid: Option<String>,
    /// The only algorithm accepted with this key.
    pub algorithm: Algorithm,
    /// The key as a value of the JWT library.
    pub decoding: DecodingKey,
    /// The secret of an HS256 key, which also signs.
    pub secret: Option<SecretSlice<u8>>,
    /// The secret, prepared for verification.
    pub hmac: Option<hmac::Key>,
}

impl VerificationKey {
    fn new(k: &TicketKey) -> Result<Arc<Self>, Error> {
        let secret = (k.algorithm == Algorithm::HS256).then(|| k.material.clone());
        let hmac =
            |secret: &SecretSlice<u8>| hmac::Key::new(hmac::HMAC_SHA256, secret.expose_secret());
        Ok(Arc::new(Self {
            kid: k.kid.clone(),
            algorithm: k.algorithm,
            decoding: k.decoding_key()?,
            hmac: secret.as_ref().map(hmac),
            secret,
        }))
    }
}

/// The algorithm as a value of the JWT library.
pub(super) fn jwt(algorithm: Algorithm) -> Jwt {
    match algorithm {
        Algorithm::HS256 => Jwt::HS256,
        Algorithm::RS256 => Jwt::RS256,
        Algorithm::ES256 => Jwt::ES256,
        Algorithm::EdDSA => Jwt::EdDSA,
    }
}

type Keys = Vec<Arc<VerificationKey>>;

/// All keys of a verifier.
#[derive(Default)]
pub struct KeyRing {
    own: ArcSwap<Keys>,
    issued: ArcSwap<Keys>,
    issued_at: ArcSwapOption<Instant>,
}

impl KeyRing {
    /// Replaces the gateway's own keys.
    ///
    /// # Errors
    /// A key cannot be used; then no key is replaced.
    pub fn set_own(&self, keys: &[TicketKey]) -> Result<(), Error> {
        let keys: Keys = keys.iter().map(VerificationKey::new).collect::<Result<_, _>>()?;
        self.own.store(keys.into());
        Ok(())
    }

    /// Replaces the issuer's keys.
    pub fn set_issued(&self, keys: Keys) {
        self.issued.store(keys.into());
        self.issued_at.store(Some(Arc::new(Instant::now())));
    }

    /// Age of the issuer's keys; `None` if there are none.
    pub fn issued_age(&self) -> Option<Duration> {
        self.issued_at.load().as_ref().map(|at| at.elapsed())
    }

    /// Whether there is no key at all.
    pub fn is_empty(&self) -> bool {
        self.own.load().is_empty() && self.issued.load().is_empty()
    }

    /// The key with exactly this `kid`; the gateway's own keys come first.
    pub fn named(&self, kid: &str) -> Option<Arc<VerificationKey>> {
        let find = |keys: &Keys| keys.iter().find(|k| k.kid.as_deref() == Some(kid)).cloned();
        find(&self.own.load()).or_else(|| find(&self.issued.load()))
    }

    /// The key for the `kid` of a ticket. An own key without `kid` verifies all tickets whose `kid`
    /// matches no other key; a single own key verifies tickets without `kid`.
    pub fn find(&self, kid: Option<&str>) -> Option<Arc<VerificationKey>> {
        kid.and_then(|kid| self.named(kid)).or_else(|| {
            let own = self.own.load();
            let general = own.iter().find(|k| k.kid.is_none());
            let single = || own.first().filter(|_| kid.is_none() && own.len() == 1);
            general.or_else(single).cloned()
        })
    }

    /// The key that signs: the first HS256 key.
    pub fn signing(&self) -> Option<Arc<VerificationKey>> {
        self.own.load().iter().find(|k| k.secret.is_some()).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(kid: Option<&str>) -> TicketKey {
        TicketKey {
            kid: kid.map(str::to_owned),
            algorithm: Algorithm::HS256,
            material: SecretSlice::from(b"a secret of more than thirty-two bytes".to_vec()),
            file: None,
        }
    }

    fn ring(own: &[Option<&str>]) -> KeyRing {
        let ring = KeyRing::default();
        ring.set_own(&own.iter().map(|kid| key(*kid)).collect::<Vec<_>>()).unwrap();
        ring
    }

    /// The `kid` of the key that was found: no key, or a key without `kid`, or its `kid`.
    fn found(ring: &KeyRing, kid: Option<&str>) -> Option<Option<String>> {
        ring.find(kid).map(|key| key.kid.clone())
    }

    fn issued(kid: &str) -> Arc<VerificationKey> {
        Arc::new(VerificationKey {
            kid: Some(kid.to_owned()),
            algorithm: Algorithm::ES256,
            decoding: DecodingKey::from_secret(b"not used"),
            secret: None,
            hmac: None,
        })
    }

    #[test]
    fn named_key_comes_before_the_general_one() {
        let ring = ring(&[None, Some("a")]);
        assert_eq!(found(&ring, Some("a")), Some(Some("a".to_owned())));
        assert_eq!(found(&ring, Some("b")), Some(None));
        assert_eq!(found(&ring, None), Some(None));
    }

    #[test]
    fn single_named_key_verifies_tickets_without_kid_only() {
        let single = ring(&[Some("a")]);
        assert_eq!(found(&single, None), Some(Some("a".to_owned())));
        assert_eq!(found(&single, Some("b")), None);
        assert_eq!(found(&ring(&[Some("a"), Some("b")]), None), None);
    }

    #[test]
    fn own_key_comes_before_an_issued_one() {
        let ring = ring(&[Some("a")]);
        assert!(ring.issued_age().is_none() && !ring.is_empty());
        ring.set_issued(vec![issued("a"), issued("b")]);
        assert_eq!(ring.named("a").map(|key| key.algorithm), Some(Algorithm::HS256));
        assert_eq!(ring.named("b").map(|key| key.algorithm), Some(Algorithm::ES256));
        assert!(ring.issued_age().is_some());
        // A ticket without a kid is never verified with a key of the issuer.
        ring.set_own(&[]).unwrap();
        assert!(ring.find(None).is_none() && ring.signing().is_none());
    }

    #[test]
    fn unusable_key_replaces_nothing() {
        let ring = ring(&[Some("a")]);
        let unusable = TicketKey { algorithm: Algorithm::RS256, ..key(Some("b")) };
        assert!(ring.set_own(&[key(Some("c")), unusable]).is_err());
        assert!(ring.named("a").is_some() && ring.named("c").is_none());
        assert!(KeyRing::default().is_empty());
    }
}

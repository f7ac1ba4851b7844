//! The keys that verify tickets: the gateway's own, from its settings, and those of the issuer's
//! key set. Both can be replaced at any time; a verification in progress continues with its key.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::{ArcSwap, ArcSwapOption};
use jsonwebtoken::{Algorithm as Jwt, DecodingKey, errors::Error};
use secrecy::SecretSlice;

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
}

impl VerificationKey {
    fn new(k: &TicketKey) -> Result<Arc<Self>, Error> {
        let secret = (k.algorithm == Algorithm::HS256).then(|| k.material.clone());
        let decoding = k.decoding_key()?;
        Ok(Arc::new(Self { kid: k.kid.clone(), algorithm: k.algorithm, decoding, secret }))
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

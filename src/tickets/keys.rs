//! The keys that tickets are verified with: the gateway's own, from its settings, and those of the issuer's key set. Both can be
//! replaced at any time; a verification in progress goes on with the key it has.

use std::sync::Arc;

use jsonwebtoken::{Algorithm as Jwt, DecodingKey, errors::Error};
use secrecy::SecretSlice;

use crate::{
    core::shared::Shared,
    settings::{Algorithm, TicketKey},
};

/// One key, ready for use.
pub struct Key {
    /// The `kid` of the tokens that it verifies.
    pub kid: Option<String>,
    /// The only algorithm accepted with it.
    pub algorithm: Algorithm,
    /// Verifies.
    pub decoding: DecodingKey,
    /// Signs, too: the secret of an HS256 key.
    pub secret: Option<SecretSlice<u8>>,
}

/// The name of an algorithm in the JWT library.
pub(super) fn jwt(algorithm: Algorithm) -> Jwt {
    match algorithm {
        Algorithm::HS256 => Jwt::HS256,
        Algorithm::RS256 => Jwt::RS256,
        Algorithm::ES256 => Jwt::ES256,
        Algorithm::EdDSA => Jwt::EdDSA,
    }
}

/// All keys of a verifier.
#[derive(Default)]
pub struct Keys {
    own: Shared<Vec<Arc<Key>>>,
    issued: Shared<Vec<Arc<Key>>>,
}

impl Keys {
    /// Replaces the gateway's own keys.
    ///
    /// # Errors
    /// One cannot be used; then all stay as they are.
    pub fn set_own(&self, keys: &[TicketKey]) -> Result<(), Error> {
        let usable = |k: &TicketKey| {
            let secret = (k.algorithm == Algorithm::HS256).then(|| k.material.clone());
            Ok(Arc::new(Key { kid: k.kid.clone(), algorithm: k.algorithm, decoding: k.decoding_key()?, secret }))
        };
        self.own.set(keys.iter().map(usable).collect::<Result<_, Error>>()?);
        Ok(())
    }

    /// Replaces the issuer's keys.
    pub fn set_issued(&self, keys: Vec<Arc<Key>>) {
        self.issued.set(keys);
    }

    /// The key of this very `kid`; the gateway's own come first.
    pub fn named(&self, kid: &str) -> Option<Arc<Key>> {
        let find = |keys: Arc<Vec<Arc<Key>>>| keys.iter().find(|k| k.kid.as_deref() == Some(kid)).cloned();
        find(self.own.get()).or_else(|| find(self.issued.get()))
    }

    /// The key for a `kid`; one of the gateway's own without `kid` serves all tokens that name no other, and a single one serves
    /// tokens without `kid`.
    pub fn find(&self, kid: Option<&str>) -> Option<Arc<Key>> {
        kid.and_then(|kid| self.named(kid)).or_else(|| {
            let own = self.own.get();
            let general = own.iter().find(|k| k.kid.is_none());
            general.or_else(|| own.first().filter(|_| kid.is_none() && own.len() == 1)).cloned()
        })
    }

    /// The key that signs: the first HS256 key.
    pub fn signing(&self) -> Option<Arc<Key>> {
        self.own.get().iter().find(|k| k.secret.is_some()).cloned()
    }
}

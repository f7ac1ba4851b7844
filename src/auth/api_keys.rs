//! API keys of backends and operators. Keys are compared by their digest, in constant time.

use arc_swap::ArcSwap;
use aws_lc_rs::{constant_time::verify_slices_are_equal, digest};

use crate::settings::{ApiKey, Scope};

/// Why an API key does not grant access.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApiKeyError {
    /// No keys are configured: the endpoint does not exist.
    #[error("no API keys are configured")]
    NoneConfigured,
    /// The request contains no key.
    #[error("no API key was given")]
    Missing,
    /// The key is not configured.
    #[error("the API key is not configured")]
    Unknown,
    /// The key does not have the required scope.
    #[error("the API key does not have the required scope")]
    MissingScope,
}

/// The configured API keys. They can be replaced at any time.
pub struct ApiKeys(ArcSwap<Vec<ApiKey>>);

impl ApiKeys {
    /// These keys.
    pub fn new(keys: Vec<ApiKey>) -> Self {
        Self(ArcSwap::from_pointee(keys))
    }

    /// Replaces all keys.
    pub fn replace(&self, keys: Vec<ApiKey>) {
        self.0.store(keys.into());
    }

    /// Number of keys.
    pub fn count(&self) -> usize {
        self.0.load().len()
    }

    /// Checks the key of a request, if it has one, and returns the key's digest.
    ///
    /// # Errors
    /// See [`ApiKeyError`].
    pub fn check(&self, key: Option<&str>, scope: Scope) -> Result<[u8; 32], ApiKeyError> {
        let found = self.find(key)?;
        match found.scopes.contains(&scope) {
            true => Ok(found.sha256),
            false => Err(ApiKeyError::MissingScope),
        }
    }

    /// The configured key of a request, if it has one.
    ///
    /// # Errors
    /// See [`ApiKeyError`]; the scopes are not checked.
    pub fn find(&self, key: Option<&str>) -> Result<ApiKey, ApiKeyError> {
        let keys = self.0.load();
        if keys.is_empty() {
            return Err(ApiKeyError::NoneConfigured);
        }
        let digest = digest::digest(&digest::SHA256, key.ok_or(ApiKeyError::Missing)?.as_bytes());
        // Compares with every key, so that the time does not depend on which one is similar.
        let found = keys.iter().fold(None, |found, k| {
            match verify_slices_are_equal(&k.sha256, digest.as_ref()) {
                Ok(()) => Some(k),
                Err(_) => found,
            }
        });
        found.cloned().ok_or(ApiKeyError::Unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_grant_their_scopes_only() {
        let sha256 = |key: &str| {
            let mut out = [0; 32];
            out.copy_from_slice(digest::digest(&digest::SHA256, key.as_bytes()).as_ref());
            out
        };
        let key = |name, scope| ApiKey { sha256: sha256(name), scopes: vec![scope] };
        let keys = ApiKeys::new(Vec::new());
        assert_eq!(keys.check(Some("a"), Scope::Admin), Err(ApiKeyError::NoneConfigured));
        keys.replace(vec![key("a", Scope::Admin), key("b", Scope::Publish)]);
        assert_eq!(keys.check(Some("a"), Scope::Admin), Ok(sha256("a")));
        assert_eq!(keys.check(Some("b"), Scope::Admin), Err(ApiKeyError::MissingScope));
        assert_eq!(keys.check(Some("c"), Scope::Admin), Err(ApiKeyError::Unknown));
        assert_eq!(keys.check(None, Scope::Admin), Err(ApiKeyError::Missing));
    }
}

//! Tickets like those of a backend, and like those of an attacker.

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Map, Value, json};
use std::sync::atomic::{AtomicU64, Ordering};

/// The HS256 secret of the gateways that tests start.
pub const SECRET: &str = "a-secret-for-tests-only-of-more-than-32-bytes";

/// An unsigned ticket; [`Ticket::jwt`] signs it.
#[derive(Clone)]
pub struct Ticket {
    /// The JOSE header.
    pub header: Header,
    /// The claims, which tests may change.
    pub claims: Map<String, Value>,
    key: EncodingKey,
}

/// A valid ticket for a user: 30 s, a unique `jti`, signed with [`SECRET`], default topics.
pub fn ticket(user: &str) -> Ticket {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let now = super::now_ms() / 1000;
    let jti = format!(
        "{}-{}-{}",
        std::process::id(),
        super::now_ms(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    );
    let claims =
        json!({"sub": user, "aud": "sse-gateway", "iat": now, "exp": now + 30, "jti": jti});
    let Value::Object(claims) = claims else { unreachable!("an object") };
    Ticket {
        header: Header::new(Algorithm::HS256),
        claims,
        key: EncodingKey::from_secret(SECRET.as_bytes()),
    }
}

impl Ticket {
    /// Sets the `topics` claim.
    pub fn topics(self, topics: &[&str]) -> Ticket {
        self.claim("topics", json!(topics))
    }

    /// Sets `exp` to this many seconds after `iat`.
    pub fn ttl(self, seconds: i64) -> Ticket {
        let iat = self.claims["iat"].as_i64().expect("iat");
        self.claim("exp", json!(iat + seconds))
    }

    /// Sets any claim to any value.
    pub fn claim(mut self, name: &str, value: Value) -> Ticket {
        self.claims.insert(name.to_string(), value);
        self
    }

    /// Removes a claim.
    pub fn without(mut self, name: &str) -> Ticket {
        self.claims.remove(name);
        self
    }

    /// Sets the `kid` header.
    pub fn kid(mut self, kid: &str) -> Ticket {
        self.header.kid = Some(kid.to_string());
        self
    }

    /// Signs with another algorithm and key.
    pub fn signed(mut self, algorithm: Algorithm, key: EncodingKey) -> Ticket {
        self.header.alg = algorithm;
        self.key = key;
        self
    }

    /// Signs with another HS256 secret.
    pub fn secret(self, secret: &str) -> Ticket {
        let key = EncodingKey::from_secret(secret.as_bytes());
        self.signed(Algorithm::HS256, key)
    }

    /// The signed JWT.
    pub fn jwt(&self) -> String {
        jsonwebtoken::encode(&self.header, &self.claims, &self.key).expect("a ticket")
    }
}

//! What the settings hold once they are parsed.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use ipnet::IpNet;
use reqwest::Url;
use secrecy::{ExposeSecret, SecretSlice, SecretString};

use crate::core::address::AddressHeader;

/// All settings. Build one with [`super::load`]; `Default` is empty and only the starting point of
/// the loader.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The public listener.
    pub server: Server,
    /// The admin listener.
    pub admin: Admin,
    /// The connection to Redis.
    pub redis: Redis,
    /// What becomes of a plain PUBLISH.
    pub publishers: Publishers,
    /// The replay log.
    pub history: History,
    /// Tickets and sessions.
    pub tickets: Tickets,
    /// Keys of the backends that use the HTTP API.
    pub api_keys: Vec<ApiKey>,
    /// Bounds.
    pub limits: Limits,
    /// Cross-origin access.
    pub cors: Cors,
    /// Behaviour on SIGTERM.
    pub drain: Drain,
    /// Logging.
    pub log: Log,
}

/// `[server]`
#[derive(Clone, Debug, Default)]
pub struct Server {
    /// Address of the public listener.
    pub listen: Option<SocketAddr>,
    /// Worker threads; 0 = one per core.
    pub workers: usize,
    /// Base of the `retry:` hint; each connection adds up to the same again.
    pub retry: Duration,
    /// A stream that was quiet for this long gets `sse.heartbeat`.
    pub heartbeat: Duration,
    /// A stream older than this (± 20 %) ends with a `retry:`; zero = never.
    pub max_connection_age: Duration,
    /// PEM file of the certificate chain.
    pub tls_certificate: Option<PathBuf>,
    /// PEM file of the private key.
    pub tls_key: Option<PathBuf>,
    /// Networks of the proxies whose word on a client's address is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// The header in which they say it.
    pub client_address_header: AddressHeader,
}

/// `[admin]`
#[derive(Clone, Debug, Default)]
pub struct Admin {
    /// Address of the admin listener.
    pub listen: Option<SocketAddr>,
}

/// `[redis]`
#[derive(Clone, Debug, Default)]
pub struct Redis {
    /// `redis://` or `rediss://` URL; may contain a password.
    pub url: SecretString,
    /// Prefix of every key and of the live channels.
    pub key_prefix: String,
    /// Prefix of the publishers' channels.
    pub channel_prefix: String,
    /// Connections in the command pool.
    pub pool_size: usize,
    /// Longest wait for the answer to one command.
    pub command_timeout: Duration,
    /// How long a user's channel stays subscribed after the last stream of the user.
    pub unsubscribe_linger: Duration,
}

/// What becomes of a plain PUBLISH (`publishers.plain`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PlainPublish {
    /// A recorder gives it an id and logs it.
    #[default]
    Record,
    /// Every instance relays it at once, live only and without an id.
    Relay,
    /// It is ignored.
    Off,
}

/// `[publishers]`
#[derive(Clone, Debug, Default)]
pub struct Publishers {
    /// What becomes of a plain PUBLISH.
    pub plain: PlainPublish,
}

/// `[history]`
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Events kept per channel (approximately).
    pub max_len: u64,
    /// A log without a new event for this long expires.
    pub retention: Duration,
    /// A publisher's key is remembered for this long.
    pub dedupe_window: Duration,
    /// Largest payload in bytes.
    pub max_event_bytes: usize,
    /// Bytes of recent broadcasts that an instance keeps in memory for resumes.
    pub replay_cache_bytes: usize,
}

/// Signature algorithms for tickets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// HMAC with SHA-256.
    HS256,
    /// RSA PKCS#1 v1.5 with SHA-256.
    RS256,
    /// ECDSA on P-256 with SHA-256.
    ES256,
    /// Ed25519.
    EdDSA,
}

/// One key that verifies tickets.
#[derive(Clone, Debug)]
pub struct TicketKey {
    /// The `kid` of the tokens that it verifies; `None`: tokens whose `kid` names no other key.
    pub kid: Option<String>,
    /// The only algorithm accepted with this key.
    pub algorithm: Algorithm,
    /// HMAC secret, or the public key in PEM.
    pub material: SecretSlice<u8>,
    /// The file that it was read from.
    pub file: Option<PathBuf>,
}

impl TicketKey {
    /// The key as the JWT library wants it.
    ///
    /// # Errors
    /// The material is no key of the algorithm.
    pub fn decoding_key(&self) -> Result<jsonwebtoken::DecodingKey, jsonwebtoken::errors::Error> {
        use jsonwebtoken::DecodingKey;
        let material = self.material.expose_secret();
        match self.algorithm {
            Algorithm::HS256 => Ok(DecodingKey::from_secret(material)),
            Algorithm::RS256 => DecodingKey::from_rsa_pem(material),
            Algorithm::ES256 => DecodingKey::from_ec_pem(material),
            Algorithm::EdDSA => DecodingKey::from_ed_pem(material),
        }
    }
}

/// `[tickets]`
#[derive(Clone, Debug, Default)]
pub struct Tickets {
    /// Every verifying key, that of `tickets.secret` first.
    pub keys: Vec<TicketKey>,
    /// The issuer's key set.
    pub jwks_url: Option<Url>,
    /// A key set is fetched anew when it is this old.
    pub jwks_refresh: Duration,
    /// Unknown keys make the key set be fetched anew at most this often.
    pub jwks_cooldown: Duration,
    /// Required `aud`.
    pub audience: String,
    /// Required `iss`, if set.
    pub issuer: Option<String>,
    /// Largest `exp - iat`.
    pub max_ttl: Duration,
    /// Tolerated clock skew.
    pub leeway: Duration,
    /// Topics of a ticket that has no `topics` claim.
    pub default_topics: Vec<String>,
    /// A session lives for this long after its stream; zero = a ticket allows one connection.
    pub reconnect_grace: Duration,
    /// Longest life of a session.
    pub max_session: Duration,
    /// A session is resumed only with the cookie that its first answer has set.
    pub session_cookie: bool,
}

/// What an API key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// `POST /publish`
    Publish,
    /// `POST /tickets`
    Tickets,
    /// The admin listener's `/connections` and `/users`.
    Admin,
}

/// One API key: its SHA-256 digest, never the key.
#[derive(Clone, Debug)]
pub struct ApiKey {
    /// SHA-256 of the key.
    pub sha256: [u8; 32],
    /// What it may do.
    pub scopes: Vec<Scope>,
}

/// `[limits]`
#[derive(Clone, Debug, Default)]
pub struct Limits {
    /// Streams and polls at once on this instance.
    pub max_connections: usize,
    /// Streams and polls of one user at once on this instance.
    pub max_connections_per_user: usize,
    /// Bytes queued for one connection.
    pub queue_bytes: usize,
    /// Bytes queued for all connections together.
    pub queue_bytes_total: usize,
    /// A client that takes nothing for this long is disconnected.
    pub stall: Duration,
    /// Streams at once on one HTTP/2 connection.
    pub http2_max_concurrent_streams: u32,
    /// Largest body of a POST.
    pub publish_body_bytes: usize,
    /// New streams and polls of one client address a minute; 0: any number.
    pub connects_per_address_per_minute: u64,
    /// Maximum number per minute of one user.
    pub connects_per_user_per_minute: u64,
    /// POSTs with one API key a second; 0: any number.
    pub posts_per_key_per_second: u64,
}

/// `[cors]`
#[derive(Clone, Debug, Default)]
pub struct Cors {
    /// Exact origins, or `*` alone.
    pub allowed_origins: Vec<String>,
}

/// `[drain]`
#[derive(Clone, Debug, Default)]
pub struct Drain {
    /// Not ready, still serving.
    pub delay: Duration,
    /// The streams end evenly over this time.
    pub window: Duration,
}

/// `[log]`
#[derive(Clone, Debug, Default)]
pub struct Log {
    /// One JSON object a line instead of text.
    pub json: bool,
    /// Filter as of `tracing-subscriber`, e.g. `info` or `sse_gateway=debug,info`.
    pub level: String,
}

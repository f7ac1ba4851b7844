//! The parsed settings.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use ipnet::IpNet;
use reqwest::{Url, header::HeaderMap};
use secrecy::{ExposeSecret, SecretSlice, SecretString};

use super::{PemFile, RedisUrl, Sources};
use crate::core::{
    address::AddressHeader,
    channel_rules::{ChannelPolicy, ChannelRules},
};

/// All settings. Build one with [`super::load()`]; `Default` is empty and only the starting point
/// of the loader.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The public listener.
    pub server: Server,
    /// The admin listener.
    pub admin: Admin,
    /// The connection to Redis.
    pub redis: Redis,
    /// Handling of plain publishes.
    pub publishers: Publishers,
    /// External sources.
    pub sources: Sources,
    /// The replay log.
    pub history: History,
    /// Rules for single channels, with the defaults of `[history]`.
    pub channels: ChannelRules,
    /// Tickets and sessions.
    pub tickets: Tickets,
    /// Who is online.
    pub presence: Presence,
    /// Keys of the backends that use the HTTP API.
    pub api_keys: Vec<ApiKey>,
    /// Limits of connections, queues, bodies and rates.
    pub limits: Limits,
    /// Cross-origin access.
    pub cors: Cors,
    /// Behaviour on SIGTERM.
    pub drain: Drain,
    /// Logging.
    pub log: Log,
    /// OpenTelemetry traces.
    pub tracing: Tracing,
}

/// `[server]`
#[derive(Clone, Debug, Default)]
pub struct Server {
    /// Address of the public listener.
    pub listen: Option<SocketAddr>,
    /// Worker threads; 0 = one per core.
    pub workers: usize,
    /// Base of the `retry:` hint; each connection gets a random extra of up to the same value.
    pub retry: Duration,
    /// A stream without events for this long gets `sse.heartbeat`.
    pub heartbeat: Duration,
    /// A stream older than this (± 20 %) ends with a `retry:`; zero = never.
    pub max_connection_age: Duration,
    /// PEM file of the certificate chain.
    pub tls_certificate: Option<PathBuf>,
    /// PEM file of the private key.
    pub tls_key: Option<PathBuf>,
    /// Networks of the proxies that are trusted to name the client's address.
    pub trusted_proxies: Vec<IpNet>,
    /// The header in which trusted proxies name the client's address.
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
    /// Where Redis is, with its credentials.
    pub url: RedisUrl,
    /// Certificates for TLS.
    pub tls: RedisTls,
    /// User of the sentinels; empty = the default user.
    pub sentinel_username: String,
    /// Password of the sentinels; empty = none.
    pub sentinel_password: SecretString,
    /// Prefix of every key and of the live channels.
    pub key_prefix: String,
    /// Prefix of the publishers' channels.
    pub channel_prefix: String,
    /// Connections in the command pool.
    pub pool_size: usize,
    /// Maximum time to wait for the reply to a command.
    pub command_timeout: Duration,
    /// How long a user's channel stays subscribed after the user's last stream has ended.
    pub unsubscribe_linger: Duration,
    /// Which servers accept durable publishes.
    pub fence: Fence,
}

/// Which servers accept durable publishes (`redis.fence`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fence {
    /// Those that a gateway has adopted, and a server that never had a replica.
    #[default]
    Auto,
    /// Those whose last watermark is at most 10 s old.
    Strict,
    /// Every primary.
    Off,
}

impl Fence {
    /// The name in the settings.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Strict => "strict",
            Self::Off => "off",
        }
    }
}

/// `[redis.tls]`
#[derive(Clone, Debug, Default)]
pub struct RedisTls {
    /// The authorities to trust; `None` = the public ones.
    pub ca: Option<PemFile>,
    /// The client certificate, with its chain.
    pub certificate: Option<PemFile>,
    /// The key of the client certificate.
    pub key: Option<PemFile>,
}

/// How a plain PUBLISH is handled (`publishers.plain`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PlainPublish {
    /// A recorder assigns an id and appends the message to the log.
    #[default]
    Record,
    /// Every instance delivers the message at once, live only and without an id.
    Relay,
    /// The message is ignored.
    Off,
}

/// `[publishers]`
#[derive(Clone, Debug, Default)]
pub struct Publishers {
    /// How a plain PUBLISH is handled.
    pub plain: PlainPublish,
}

/// `[history]`
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Generation of these settings: a function library with a higher one replaces others.
    pub generation: u32,
    /// Events kept per channel (approximately).
    pub max_len: u64,
    /// A log without a new event for this long expires.
    pub retention: Duration,
    /// Time during which a second event with the same idempotency key is dropped.
    pub dedupe_window: Duration,
    /// Maximum payload size in bytes.
    pub max_event_bytes: usize,
    /// Maximum number of retained values per channel.
    pub max_kept: u64,
    /// Retained values of a channel expire this long after the last one was written.
    pub kept_retention: Duration,
    /// Bytes of recent broadcasts that an instance keeps in memory for resumes. Retained values,
    /// for new streams, may need as much again.
    pub replay_cache_bytes: usize,
}

impl History {
    /// What applies to channels without a rule.
    pub fn policy(&self) -> ChannelPolicy {
        ChannelPolicy {
            max_len: self.max_len,
            retention: self.retention,
            max_event_bytes: self.max_event_bytes,
            ..ChannelPolicy::default()
        }
    }
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
    /// The `kid` of the tickets that the key verifies; `None`: tickets whose `kid` matches no other
    /// key.
    pub kid: Option<String>,
    /// The only algorithm accepted with this key.
    pub algorithm: Algorithm,
    /// HMAC secret, or the public key in PEM.
    pub material: SecretSlice<u8>,
    /// The file that contains the key, if any.
    pub file: Option<PathBuf>,
}

impl TicketKey {
    /// The key in the form that the JWT library needs.
    ///
    /// # Errors
    /// The material is not a key of the algorithm.
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
    /// All verifying keys; `tickets.secret` comes first.
    pub keys: Vec<TicketKey>,
    /// The issuer's key set.
    pub jwks_url: Option<Url>,
    /// Age at which the key set is fetched again.
    pub jwks_refresh: Duration,
    /// Minimum time between two fetches that unknown keys cause.
    pub jwks_cooldown: Duration,
    /// Required `aud`.
    pub audience: String,
    /// Required `iss`, if set.
    pub issuer: Option<String>,
    /// Maximum lifetime of a ticket (`exp - iat`).
    pub max_ttl: Duration,
    /// Name of the cookie that may contain the ticket.
    pub cookie: Option<String>,
    /// Maximum lifetime of a ticket in that cookie.
    pub cookie_max_ttl: Duration,
    /// Tolerated clock skew.
    pub leeway: Duration,
    /// Topics of a ticket without a `topics` claim.
    pub default_topics: Vec<String>,
    /// Topics of clients without a ticket; empty = every client needs a ticket.
    pub anonymous_topics: Vec<String>,
    /// How long a session survives without a stream; zero = a ticket allows one connection.
    pub reconnect_grace: Duration,
    /// Maximum lifetime of a session.
    pub max_session: Duration,
    /// Whether a session can be resumed only with the cookie that its first response has set.
    pub session_cookie: bool,
}

/// `[presence]`
#[derive(Clone, Debug, Default)]
pub struct Presence {
    /// Whether it is tracked which users have a stream.
    pub enabled: bool,
    /// How long after the end of a user's last stream the user counts as offline.
    pub linger: Duration,
    /// An instance that is silent for this long counts as lost, with all its streams.
    pub lease: Duration,
}

/// What an API key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// `POST /publish`
    Publish,
    /// `POST /tickets`
    Tickets,
    /// The admin listener: what it shows, `/connections`, `/users` and `/presence`.
    Admin,
    /// Changes through the admin page and its API, together with `Admin`.
    Operate,
}

impl Scope {
    /// All scopes.
    pub const ALL: [Self; 4] = [Self::Publish, Self::Tickets, Self::Admin, Self::Operate];

    /// The name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Tickets => "tickets",
            Self::Admin => "admin",
            Self::Operate => "operate",
        }
    }
}

/// One API key: its SHA-256 digest, never the key.
#[derive(Clone, Debug)]
pub struct ApiKey {
    /// SHA-256 of the key.
    pub sha256: [u8; 32],
    /// What the key may do.
    pub scopes: Vec<Scope>,
}

/// `[limits]`
#[derive(Clone, Debug, Default)]
pub struct Limits {
    /// Maximum number of streams and polls on this instance.
    pub max_connections: usize,
    /// Maximum number of streams and polls of one user on this instance.
    pub max_connections_per_user: usize,
    /// Maximum number of streams and polls of clients without a ticket; 0 = half of
    /// `max_connections`.
    pub anonymous_connections: usize,
    /// Maximum number of streams and polls without a ticket from one client address.
    pub anonymous_connections_per_address: usize,
    /// Maximum bytes queued for one connection.
    pub queue_bytes: usize,
    /// Maximum bytes queued for all connections together.
    pub queue_bytes_total: usize,
    /// A client that acknowledges no byte for this long, while some are in flight, is disconnected.
    pub stall: Duration,
    /// Maximum number of concurrent streams on one HTTP/2 connection.
    pub http2_max_concurrent_streams: u32,
    /// Maximum size of the body of a POST.
    pub publish_body_bytes: usize,
    /// Maximum number of new streams, polls and histories per minute from one client address; 0 =
    /// unlimited.
    pub connects_per_address_per_minute: u64,
    /// The same for clients without a ticket, in addition.
    pub anonymous_connects_per_address_per_minute: u64,
    /// Maximum number of new streams, polls and histories per minute of one user; 0 = unlimited.
    pub connects_per_user_per_minute: u64,
    /// Maximum number of POSTs per second with one API key; 0 = unlimited.
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
    /// Time to keep serving while not ready.
    pub delay: Duration,
    /// Time over which the streams are closed evenly.
    pub window: Duration,
}

/// `[log]`
#[derive(Clone, Debug, Default)]
pub struct Log {
    /// Whether to write one JSON object per line instead of text.
    pub json: bool,
    /// A filter for `tracing-subscriber`, e.g. `info` or `sse_gateway=debug,info`.
    pub level: String,
}

/// `[tracing]`
#[derive(Clone, Debug, Default)]
pub struct Tracing {
    /// Where spans are sent; `None` = no traces.
    pub endpoint: Option<Url>,
    /// Headers of each request. Their values are marked as sensitive.
    pub headers: HeaderMap,
    /// The part of the traces that the gateway begins which is recorded, 0 to 1.
    pub sample_ratio: f64,
    /// `service.name` of the spans.
    pub service_name: String,
    /// Maximum duration of one request.
    pub timeout: Duration,
}

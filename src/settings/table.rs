//! Every key with its default (as TOML), its meaning and its parser.

use std::{ops::RangeInclusive, time::Duration};

use toml::Value;

use super::{Settings, parse, parse_keys};

/// One key of the configuration.
pub struct Key {
    /// `section.key`.
    pub name: &'static str,
    /// The default, as a TOML value.
    pub default: &'static str,
    /// What it means, for the sample file and the reference page.
    pub help: &'static str,
    /// Puts a value into the settings; the error is the message of a `ConfigError`.
    pub set: fn(&mut Settings, &Value) -> Result<(), String>,
}

const fn ms(from: u64, to: u64) -> RangeInclusive<Duration> {
    Duration::from_millis(from)..=Duration::from_millis(to)
}

const SECOND: u64 = 1000;
const HOUR: u64 = 3600 * SECOND;
const DAY: u64 = 24 * HOUR;
const ANY_BYTES: RangeInclusive<u64> = 1024..=1 << 40;
const RATE: RangeInclusive<u64> = 0..=1_000_000;

macro_rules! keys {
    ($($name:literal = $default:literal, $help:literal, |$s:ident, $v:ident| $set:expr;)*) => {
        /// The table. Its order is that of the sample file.
        pub static KEYS: &[Key] = &[$(Key { name: $name, default: $default, help: $help, set: |$s, $v| { $set; Ok(()) } }),*];
    };
}

keys! {
    "server.listen" = r#""0.0.0.0:8080""#, "Public listener: HTTP/1.1 and HTTP/2 without TLS by prior knowledge; with server.tls TLS and h2.",
        |s, v| s.server.listen = parse::address(v)?;
    "server.workers" = "0", "Worker threads; 0 = one per core.",
        |s, v| s.server.workers = parse::number(v, 0..=256)? as usize;
    "server.retry" = r#""2s""#, "`retry:` hint for browsers; every connection adds a random part of up to the same again.",
        |s, v| s.server.retry = parse::duration(v, ms(0, HOUR))?;
    "server.heartbeat" = r#""15s""#, "A stream that was quiet this long gets `sse.heartbeat`, which carries a fresh id.",
        |s, v| s.server.heartbeat = parse::duration(v, ms(10, DAY))?;
    "server.max_connection_age" = r#""1h""#, "A stream older than this (± 20 %) ends with a `retry:`, so that load evens out; 0 = never.",
        |s, v| s.server.max_connection_age = parse::duration(v, ms(0, 365 * DAY))?;
    "server.trusted_proxies" = "[]", "Networks of the proxies whose word on a client's address is believed, e.g. [\"10.0.0.0/8\"].",
        |s, v| s.server.trusted_proxies = parse::networks(v)?;
    "server.client_address_header" = r#""x-forwarded-for""#, "Where they say it: `x-forwarded-for` or `forwarded` (RFC 7239). Only the one that they write: the other is the client's.",
        |s, v| s.server.client_address_header = parse::address_header(v)?;
    "server.tls.certificate" = r#""""#, "PEM file of the certificate chain; empty = no TLS.",
        |s, v| s.server.tls_certificate = parse::path(v)?;
    "server.tls.key" = r#""""#, "PEM file of the private key.",
        |s, v| s.server.tls_key = parse::path(v)?;
    "admin.listen" = r#""127.0.0.1:9090""#, "Admin listener: /healthz, /readyz, /metrics, connections.",
        |s, v| s.admin.listen = parse::address(v)?;
    "redis.url" = r#""redis://127.0.0.1:6379""#, "redis://[user:password@]host:port[/db], or rediss:// for TLS. A password belongs into the environment.",
        |s, v| s.redis.url = parse::redis_url(v)?.into();
    "redis.key_prefix" = r#""sse:""#, "Begins every key and every live channel; gateways that share a Redis share their prefix, or nothing.",
        |s, v| s.redis.key_prefix = parse::prefix(v, 1)?;
    "redis.channel_prefix" = r#""""#, "Stands before `user:<id>:events` and `broadcast:<topic>` in the publishers' channels.",
        |s, v| s.redis.channel_prefix = parse::prefix(v, 0)?;
    "redis.pool_size" = "8", "Connections for commands; the subscriber has its own.",
        |s, v| s.redis.pool_size = parse::number(v, 1..=1024)? as usize;
    "redis.command_timeout" = r#""2s""#, "Longest wait for the answer to one command.",
        |s, v| s.redis.command_timeout = parse::duration(v, ms(50, 60 * SECOND))?;
    "redis.unsubscribe_linger" = r#""10s""#, "A user's channel stays subscribed this long after the user's last stream.",
        |s, v| s.redis.unsubscribe_linger = parse::duration(v, ms(0, HOUR))?;
    "publishers.plain" = r#""record""#, "What becomes of a plain PUBLISH: `record` (logged, can be replayed), `relay` (live only, without id), `off`.",
        |s, v| s.publishers.plain = parse::plain_publish(v)?;
    "history.max_len" = "1000", "Events kept per channel, approximately.",
        |s, v| s.history.max_len = parse::number(v, 1..=100_000_000)?;
    "history.retention" = r#""24h""#, "A channel's log expires this long after its last event.",
        |s, v| s.history.retention = parse::duration(v, ms(100, 365 * DAY))?;
    "history.dedupe_window" = r#""5m""#, "A second event with the same publisher's key on a channel within this time is dropped.",
        |s, v| s.history.dedupe_window = parse::duration(v, ms(1, 7 * DAY))?;
    "history.max_event_bytes" = "65536", "Largest payload.",
        |s, v| s.history.max_event_bytes = parse::bytes(v, 1..=16 << 20)?;
    "history.replay_cache_bytes" = r#""16MiB""#, "Recent broadcasts that an instance keeps in memory, so that resumes need not ask Redis.",
        |s, v| s.history.replay_cache_bytes = parse::bytes(v, 0..=1 << 40)?;
    "tickets.secret" = r#""""#, "HS256 secret of 32 bytes or more. Belongs into the environment or a file, never into this one.",
        |s, v| s.tickets.keys.extend(parse_keys::secret(v)?);
    "tickets.secret_file" = r#""""#, "File that holds the HS256 secret (a line break at its end is ignored).",
        |s, v| s.tickets.keys.extend(parse_keys::secret_file(v)?);
    "tickets.keys" = "[]", "More keys, by `kid`: [{ kid, algorithm = HS256|RS256|ES256|EdDSA, secret|secret_file|public_key|public_key_file }].",
        |s, v| s.tickets.keys.extend(parse_keys::ticket_keys(v)?);
    "tickets.jwks_url" = r#""""#, "Key set (JWKS) of whoever signs the tickets, http:// or https://; its keys are good beside those above. Empty = none.",
        |s, v| s.tickets.jwks_url = parse::web_url(v)?;
    "tickets.jwks_refresh" = r#""5m""#, "A key set this old is fetched anew, in the background.",
        |s, v| s.tickets.jwks_refresh = parse::duration(v, ms(SECOND, DAY))?;
    "tickets.jwks_cooldown" = r#""5s""#, "A ticket with an unknown `kid` makes the key set be fetched at once, but at most this often.",
        |s, v| s.tickets.jwks_cooldown = parse::duration(v, ms(100, HOUR))?;
    "tickets.audience" = r#""sse-gateway""#, "Required `aud`.",
        |s, v| s.tickets.audience = parse::non_empty(v)?;
    "tickets.issuer" = r#""""#, "Required `iss`; empty = any.",
        |s, v| s.tickets.issuer = parse::optional_text(v)?;
    "tickets.max_ttl" = r#""60s""#, "Largest `exp - iat`.",
        |s, v| s.tickets.max_ttl = parse::duration(v, ms(SECOND, 365 * DAY))?;
    "tickets.leeway" = r#""5s""#, "Tolerated clock skew.",
        |s, v| s.tickets.leeway = parse::duration(v, ms(0, 5 * SECOND))?;
    "tickets.default_topics" = r#"["*"]"#, "Topics of a ticket without a `topics` claim: names, `prefix*` or `*`.",
        |s, v| s.tickets.default_topics = parse::topics(v)?;
    "tickets.reconnect_grace" = r#""2m""#, "A session lives this long after its stream; 0 = a ticket is good for one connection only.",
        |s, v| s.tickets.reconnect_grace = parse::duration(v, ms(0, DAY))?;
    "tickets.max_session" = r#""12h""#, "Longest life of a session.",
        |s, v| s.tickets.max_session = parse::duration(v, ms(SECOND, 365 * DAY))?;
    "tickets.session_cookie" = "false", "Bind each session to the browser that opened it, by an HttpOnly cookie: a stolen URL resumes nothing. Pages need `withCredentials`.",
        |s, v| s.tickets.session_cookie = parse::flag(v)?;
    "api_keys" = "[]", "Keys for POST /publish, POST /tickets and the admin API: [{ sha256 = \"<hex of the key's SHA-256>\", scopes = [\"publish\", \"tickets\", \"admin\"] }].",
        |s, v| s.api_keys = parse_keys::api_keys(v)?;
    "limits.max_connections" = "10000", "Streams and polls at once on this instance; above it clients are told `sse.busy`.",
        |s, v| s.limits.max_connections = parse::number(v, 1..=10_000_000)? as usize;
    "limits.max_connections_per_user" = "100", "The same for one user.",
        |s, v| s.limits.max_connections_per_user = parse::number(v, 1..=10_000_000)? as usize;
    "limits.queue_bytes" = r#""256KiB""#, "Bytes queued for one connection; above it the queue is dropped and read again from the log.",
        |s, v| s.limits.queue_bytes = parse::bytes(v, ANY_BYTES)?;
    "limits.queue_bytes_total" = r#""256MiB""#, "Bytes queued for all connections; above it the largest queues are dropped.",
        |s, v| s.limits.queue_bytes_total = parse::bytes(v, ANY_BYTES)?;
    "limits.stall" = r#""30s""#, "A client that acknowledges no byte for this long, though some are under way, is disconnected.",
        |s, v| s.limits.stall = parse::duration(v, ms(100, DAY))?;
    "limits.http2_max_concurrent_streams" = "256", "Streams (requests) that a client may have open at once on one HTTP/2 connection; more are refused.",
        |s, v| s.limits.http2_max_concurrent_streams = parse::number(v, 1..=10_000)? as u32;
    "limits.publish_body_bytes" = r#""1MiB""#, "Largest body of POST /publish and POST /tickets.",
        |s, v| s.limits.publish_body_bytes = parse::bytes(v, 1024..=256 << 20)?;
    "limits.connects_per_address_per_minute" = "0", "New streams and polls of one client address (of IPv6: one /64) a minute; above it clients are told `sse.busy`. 0 = any number.",
        |s, v| s.limits.connects_per_address_per_minute = parse::number(v, RATE)?;
    "limits.connects_per_user_per_minute" = "0", "The same for one user.",
        |s, v| s.limits.connects_per_user_per_minute = parse::number(v, RATE)?;
    "limits.posts_per_key_per_second" = "0", "POST /publish and POST /tickets with one API key a second; above it they are answered with 429. 0 = any number.",
        |s, v| s.limits.posts_per_key_per_second = parse::number(v, RATE)?;
    "cors.allowed_origins" = "[]", "Origins that may read the stream, e.g. [\"https://app.example.com\"]; [\"*\"] = any.",
        |s, v| s.cors.allowed_origins = parse::origins(v)?;
    "drain.delay" = r#""5s""#, "After SIGTERM: not ready but still serving, while the balancer takes notice.",
        |s, v| s.drain.delay = parse::duration(v, ms(0, HOUR))?;
    "drain.window" = r#""20s""#, "Then the streams end evenly over this time.",
        |s, v| s.drain.window = parse::duration(v, ms(0, HOUR))?;
    "log.format" = r#""text""#, "`text` or `json`.",
        |s, v| s.log.json = parse::log_format(v)?;
    "log.level" = r#""info""#, "`error`, `warn`, `info`, `debug`, `trace`, or a filter such as `sse_gateway=debug,info`.",
        |s, v| s.log.level = parse::log_level(v)?;
}

//! Every key with its default (as TOML), its meaning and its parser.

use std::{ops::RangeInclusive, time::Duration};

use toml::Value;

use super::{
    Settings, error::ValueError, parse, parse_channels, parse_keys, parse_sources, parse_tracing,
    pem_file, postgres,
};
use crate::core::channel_rules::{ChannelPolicy, ChannelRules};

/// One key of the configuration.
pub struct Key {
    /// `section.key`.
    pub name: &'static str,
    /// The default, as a TOML value.
    pub default: &'static str,
    /// Description for the sample file and the reference page.
    pub help: &'static str,
    /// Parses a value and stores it in the settings; the error is the message of a `ConfigError`.
    pub set: fn(&mut Settings, &Value) -> Result<(), ValueError>,
}

const fn ms(from: u64, to: u64) -> RangeInclusive<Duration> {
    Duration::from_millis(from)..=Duration::from_millis(to)
}

const SECOND: u64 = 1000;
const HOUR: u64 = 3600 * SECOND;
const DAY: u64 = 24 * HOUR;
const ANY_BYTES: RangeInclusive<u64> = 1024..=1 << 40;
const RATE: RangeInclusive<u64> = 0..=1_000_000;
/// The values of `history.max_len`.
pub(super) const LOG_LENGTHS: RangeInclusive<u64> = 1..=100_000_000;
/// The values of `history.retention`.
pub(super) const LOG_RETENTIONS: RangeInclusive<Duration> = ms(100, 365 * DAY);
/// The values of `history.max_event_bytes`.
pub(super) const EVENT_BYTES: RangeInclusive<u64> = 1..=16 << 20;

macro_rules! keys {
    ($($name:literal = $default:literal, $help:literal, |$s:ident, $v:ident| $set:expr;)*) => {
        /// The table. Its order is that of the sample file.
        pub static KEYS: &[Key] = &[$(Key {
            name: $name,
            default: $default,
            help: $help,
            set: |$s, $v| { $set; Ok(()) },
        }),*];
    };
}

keys! {
    "server.listen" = r#""[::]:8080""#,
        "Public listener: HTTP/1.1 and, by prior knowledge, HTTP/2; with server.tls both over TLS. \
         `[::]` accepts IPv4, too; without IPv6 in the kernel it means `0.0.0.0`.",
        |s, v| s.server.listen = parse::address(v)?;
    "server.workers" = "0", "Worker threads; 0 = one per core.",
        |s, v| s.server.workers = parse::number(v, 0..=256)? as usize;
    "server.retry" = r#""2s""#,
        "`retry:` hint for browsers; each connection gets this value plus a random extra of up to \
         the same value.",
        |s, v| s.server.retry = parse::duration(v, ms(0, HOUR))?;
    "server.heartbeat" = r#""15s""#,
        "A stream without events for this long gets `sse.heartbeat`, which carries a current id.",
        |s, v| s.server.heartbeat = parse::duration(v, ms(10, DAY))?;
    "server.max_connection_age" = r#""1h""#,
        "A stream older than this (± 20 %) ends with a `retry:`, to balance load; 0 = never.",
        |s, v| s.server.max_connection_age = parse::duration(v, ms(0, 365 * DAY))?;
    "server.trusted_proxies" = "[]",
        "Networks of proxies that are trusted to name the client's address and the request's id \
         (`x-request-id`), e.g. [\"10.0.0.0/8\"].",
        |s, v| s.server.trusted_proxies = parse::networks(v)?;
    "server.client_address_header" = r#""x-forwarded-for""#,
        "Header in which trusted proxies name the client: `x-forwarded-for` or `forwarded` (RFC \
         7239). Choose the one that your proxy writes: clients can forge the other.",
        |s, v| s.server.client_address_header = parse::address_header(v)?;
    "server.tls.certificate" = r#""""#, "PEM file of the certificate chain; empty = no TLS.",
        |s, v| s.server.tls_certificate = parse::path(v)?;
    "server.tls.key" = r#""""#, "PEM file of the private key.",
        |s, v| s.server.tls_key = parse::path(v)?;
    "admin.listen" = r#""127.0.0.1:9090""#,
        "Admin listener: /healthz, /readyz, /metrics, connections.",
        |s, v| s.admin.listen = parse::address(v)?;
    "redis.url" = r#""redis://127.0.0.1:6379""#,
        "redis://[user:password@]host:port[/db], redis+sentinel://[user:password@]s1:26379,\
         s2:26379/primary[/db] or redis+cluster://[user:password@]host1:6379,host2:6379; with \
         rediss instead of redis for TLS. Set a password in the environment.",
        |s, v| s.redis.url = parse::redis_url(v)?;
    "redis.sentinel_username" = r#""""#,
        "User of the sentinels; empty = the default user.",
        |s, v| s.redis.sentinel_username = parse::text(v)?;
    "redis.sentinel_password" = r#""""#,
        "Password of the sentinels; empty = none. The one in redis.url is that of Redis. Set it in \
         the environment.",
        |s, v| s.redis.sentinel_password = parse::text(v)?.into();
    "redis.key_prefix" = r#""sse:""#,
        "Prefix of every key and every live channel. Gateways with the same prefix work together.",
        |s, v| s.redis.key_prefix = parse::prefix(v, 1)?;
    "redis.channel_prefix" = r#""""#,
        "Prefix of the publishers' channels, before `user:<id>:events` and `broadcast:<topic>`.",
        |s, v| s.redis.channel_prefix = parse::prefix(v, 0)?;
    "redis.pool_size" = "8",
        "Maximum number of connections for commands, per worker; the subscriber connection is \
         separate.",
        |s, v| s.redis.pool_size = parse::number(v, 1..=1024)? as usize;
    "redis.command_timeout" = r#""2s""#, "Maximum time to wait for the reply to a command.",
        |s, v| s.redis.command_timeout = parse::duration(v, ms(50, 60 * SECOND))?;
    "redis.unsubscribe_linger" = r#""10s""#,
        "How long a user's channel stays subscribed after the user's last stream has ended.",
        |s, v| s.redis.unsubscribe_linger = parse::duration(v, ms(0, HOUR))?;
    "redis.fence" = r#""auto""#,
        "Which servers accept durable publishes: `auto` (a gateway must have adopted the server, \
         unless it never had a replica), `strict` (also, a watermark at most 10 s ago) or `off`.",
        |s, v| s.redis.fence = parse::fence(v)?;
    "redis.tls.ca_file" = r#""""#,
        "PEM file of the authorities to trust with rediss; empty = the public ones. Like the two \
         files below, it is read at startup.",
        |s, v| s.redis.tls.ca = pem_file::certificates(v)?;
    "redis.tls.certificate_file" = r#""""#,
        "PEM file of the client certificate, with its chain, for Redis and the sentinels; empty = \
         none.",
        |s, v| s.redis.tls.certificate = pem_file::certificates(v)?;
    "redis.tls.key_file" = r#""""#, "PEM file of the private key of that certificate.",
        |s, v| s.redis.tls.key = pem_file::private_key(v)?;
    "publishers.plain" = r#""record""#,
        "How to handle a plain PUBLISH: `record` (logged, can be replayed), `relay` (live only, \
         without id) or `off`.",
        |s, v| s.publishers.plain = parse::plain_publish(v)?;
    "sources.redis_streams" = "[]",
        "Redis streams that others write; each entry becomes an event. At most 16: [{ stream = \
         \"orders\", name, group = \"sse-gateway\", url, start = \"new\"|\"beginning\", \
         channel, type, payload, id, keep, envelope }], or one [[sources.redis_streams]] table for \
         each. See docs/guides/redis-streams.md.",
        |s, v| s.sources.redis_streams = parse_sources::redis_streams(v)?;
    "sources.postgres.url" = r#""""#,
        "postgres://user:password@host:5432/database; empty = no events from Postgres. Uses TLS \
         unless the host is this one or the URL ends with ?sslmode=disable. Several hosts, \
         separated by commas: the first one that accepts writes. Set it in the environment.",
        |s, v| if let Some(url) = postgres::url(v)? { s.sources.postgres.url = Some(url) };
    "sources.postgres.url_file" = r#""""#,
        "File with that URL, instead of sources.postgres.url.",
        |s, v| if let Some(url) = postgres::url_file(v)? { s.sources.postgres.url = Some(url) };
    "sources.postgres.ca_file" = r#""""#,
        "PEM file of the authorities to trust with TLS; empty = the public ones. Read at startup.",
        |s, v| s.sources.postgres.ca = pem_file::certificates(v)?;
    "sources.postgres.timeout" = r#""5s""#,
        "Maximum time to connect to a server, and for each statement.",
        |s, v| s.sources.postgres.timeout = parse::duration(v, ms(100, 60 * SECOND))?;
    "sources.postgres.outbox" = r#""sse_outbox""#,
        "Table whose rows are published, [schema.]table; empty = none.",
        |s, v| s.sources.postgres.outbox = postgres::table(v)?;
    "sources.postgres.published" = r#""delete""#,
        "What happens to rows whose events were published: `delete`, or `mark` (sets \
         published_at).",
        |s, v| s.sources.postgres.published = postgres::published(v)?;
    "sources.postgres.batch" = "100", "Maximum number of rows to read and publish at a time.",
        |s, v| s.sources.postgres.batch = parse::number(v, 1..=256)? as usize;
    "sources.postgres.poll_interval" = r#""1s""#,
        "How often to look for rows without a notification: a lost notification delays a row by at \
         most this.",
        |s, v| s.sources.postgres.poll_interval = parse::duration(v, ms(20, HOUR))?;
    "sources.postgres.channels" = "[]",
        "Channels of Postgres whose notifications (NOTIFY) are published. Unlike rows, those sent \
         while no gateway listens are lost.",
        |s, v| s.sources.postgres.channels = postgres::channels(v)?;
    "history.generation" = "1",
        "Raise it whenever you change channels or another setting of this section except \
         replay_cache_bytes: the functions in Redis take their values from the highest generation.",
        |s, v| s.history.generation = parse::number(v, 1..=1_000_000_000)? as u32;
    "history.max_len" = "1000", "Approximate number of events to keep per channel.",
        |s, v| s.history.max_len = parse::number(v, LOG_LENGTHS)?;
    "history.retention" = r#""24h""#, "A channel's log expires this long after its last event.",
        |s, v| s.history.retention = parse::duration(v, LOG_RETENTIONS)?;
    "history.dedupe_window" = r#""5m""#,
        "An event with the idempotency key of an earlier one on its channel is dropped within this \
         time.",
        |s, v| s.history.dedupe_window = parse::duration(v, ms(1, 7 * DAY))?;
    "history.max_event_bytes" = "65536", "Maximum payload size.",
        |s, v| s.history.max_event_bytes = parse::bytes(v, EVENT_BYTES)?;
    "history.max_kept" = "1000", "Maximum number of retained values per channel (`KEEP`).",
        |s, v| s.history.max_kept = parse::number(v, 1..=100_000)?;
    "history.kept_retention" = r#""30d""#,
        "Retained values of a channel expire this long after the last one was written.",
        |s, v| s.history.kept_retention = parse::duration(v, ms(1000, 3650 * DAY))?;
    "history.replay_cache_bytes" = r#""16MiB""#,
        "Memory for recent broadcasts, so that resumes need not read them from Redis. Retained \
         values of broadcasts (`KEEP`), for new streams, may need as much again.",
        |s, v| s.history.replay_cache_bytes = parse::bytes(v, 0..=1 << 40)?;
    "tickets.secret" = r#""""#,
        "HS256 secret of 32 bytes or more. Set it in the environment or use a file; never write it \
         here.",
        |s, v| s.tickets.keys.extend(parse_keys::secret(v)?);
    "tickets.secret_file" = r#""""#,
        "File with the HS256 secret (a trailing line break is ignored).",
        |s, v| s.tickets.keys.extend(parse_keys::secret_file(v)?);
    "tickets.keys" = "[]",
        "More keys, by `kid`: [{ kid, algorithm = HS256|RS256|ES256|EdDSA, \
         secret|secret_file|public_key|public_key_file }].",
        |s, v| s.tickets.keys.extend(parse_keys::ticket_keys(v)?);
    "tickets.jwks_url" = r#""""#,
        "Key set (JWKS) of the ticket issuer, http:// or https://; its keys are valid in addition \
         to those above. Empty = none.",
        |s, v| s.tickets.jwks_url = parse::web_url(v)?;
    "tickets.jwks_refresh" = r#""5m""#,
        "Age at which the key set is fetched again, in the background.",
        |s, v| s.tickets.jwks_refresh = parse::duration(v, ms(SECOND, DAY))?;
    "tickets.jwks_cooldown" = r#""5s""#,
        "A ticket with an unknown `kid` causes an immediate fetch, at most once in this time.",
        |s, v| s.tickets.jwks_cooldown = parse::duration(v, ms(100, HOUR))?;
    "tickets.audience" = r#""sse-gateway""#, "Required `aud`.",
        |s, v| s.tickets.audience = parse::non_empty(v)?;
    "tickets.issuer" = r#""""#, "Required `iss`; empty = any.",
        |s, v| s.tickets.issuer = parse::optional_text(v)?;
    "tickets.max_ttl" = r#""60s""#, "Maximum lifetime of a ticket (`exp - iat`).",
        |s, v| s.tickets.max_ttl = parse::duration(v, ms(SECOND, 365 * DAY))?;
    "tickets.cookie" = r#""""#,
        "Name of a cookie that may contain the ticket, for backends that set one, e.g. \
         `__Host-sse`; empty = none. Pages of other origins must be in cors.allowed_origins.",
        |s, v| s.tickets.cookie = parse::cookie_name(v)?;
    "tickets.cookie_max_ttl" = r#""1h""#,
        "Maximum lifetime of a ticket (`exp - iat`) in that cookie.",
        |s, v| s.tickets.cookie_max_ttl = parse::duration(v, ms(SECOND, 365 * DAY))?;
    "tickets.leeway" = r#""5s""#, "Tolerated clock skew.",
        |s, v| s.tickets.leeway = parse::duration(v, ms(0, 5 * SECOND))?;
    "tickets.default_topics" = r#"["*"]"#,
        "Topics of tickets without a `topics` claim: names, `prefix*` or `*`.",
        |s, v| s.tickets.default_topics = parse::topics(v)?;
    "tickets.anonymous_topics" = "[]",
        "Topics of clients without a ticket, which have no user: names, `prefix*` or `*`. Empty = \
         every client needs a ticket.",
        |s, v| s.tickets.anonymous_topics = parse::anonymous_topics(v)?;
    "tickets.reconnect_grace" = r#""2m""#,
        "How long a session survives without a stream; 0 = a ticket allows one connection only.",
        |s, v| s.tickets.reconnect_grace = parse::duration(v, ms(0, DAY))?;
    "tickets.max_session" = r#""12h""#, "Maximum lifetime of a session.",
        |s, v| s.tickets.max_session = parse::duration(v, ms(SECOND, 365 * DAY))?;
    "tickets.session_cookie" = "false",
        "Bind each session to the browser that opened it with an HttpOnly cookie, so that a stolen \
         URL cannot resume it. Pages need `withCredentials`.",
        |s, v| s.tickets.session_cookie = parse::flag(v)?;
    "presence.enabled" = "false",
        "Track which users have a stream, over all instances: `GET /presence`, and the events \
         `sse.online` and `sse.offline` for tickets with the claim `presence`. Set it on all \
         instances.",
        |s, v| s.presence.enabled = parse::flag(v)?;
    "presence.linger" = r#""10s""#,
        "How long after the end of the last stream a user counts as offline.",
        |s, v| s.presence.linger = parse::duration(v, ms(0, HOUR))?;
    "presence.lease" = r#""10s""#,
        "An instance that has not reported to Redis for this long counts as lost, with all its \
         streams.",
        |s, v| s.presence.lease = parse::duration(v, ms(SECOND, HOUR))?;
    "api_keys" = "[]",
        "Keys for POST /publish, POST /tickets and the admin API: [{ sha256 = \"<hex of the key's \
         SHA-256>\", scopes = [\"publish\", \"tickets\", \"admin\", \"operate\"] }].",
        |s, v| s.api_keys = parse_keys::api_keys(v)?;
    "channels" = "[]",
        "Rules for single channels, at most 64; the first one that matches applies: [{ match = \
         \"broadcast:prices.*\", max_len, retention, max_event_bytes, keep = \
         \"optional\"|\"required\", ephemeral = true|false, rate = <events per second> }], or one \
         [[channels]] table for each. What a rule does not set comes from history.*.",
        |s, v| s.channels =
            ChannelRules::new(parse_channels::channel_rules(v)?, ChannelPolicy::default());
    "limits.max_connections" = "10000",
        "Maximum number of streams and polls on this instance; above it clients get `sse.busy`.",
        |s, v| s.limits.max_connections = parse::number(v, 1..=10_000_000)? as usize;
    "limits.max_connections_per_user" = "100",
        "Maximum number of streams and polls of one user on this instance.",
        |s, v| s.limits.max_connections_per_user = parse::number(v, 1..=10_000_000)? as usize;
    "limits.anonymous_connections" = "0",
        "Maximum number of streams and polls of clients without a ticket on this instance, within \
         max_connections; 0 = half of max_connections.",
        |s, v| s.limits.anonymous_connections = parse::number(v, 0..=10_000_000)? as usize;
    "limits.anonymous_connections_per_address" = "100",
        "Maximum number of streams and polls without a ticket from one client address (IPv6: one \
         /64) on this instance.",
        |s, v| {
            s.limits.anonymous_connections_per_address = parse::number(v, 1..=10_000_000)? as usize;
        };
    "limits.queue_bytes" = r#""256KiB""#,
        "Maximum bytes queued for one connection; above it the queue is dropped and the stream \
         catches up from the log.",
        |s, v| s.limits.queue_bytes = parse::bytes(v, ANY_BYTES)?;
    "limits.queue_bytes_total" = r#""256MiB""#,
        "Maximum bytes queued for all connections; above it the largest queues are dropped. \
         Responses to polls and histories that are not sent yet may use half of it (a quarter \
         without a ticket); above that clients get `full`.",
        |s, v| s.limits.queue_bytes_total = parse::bytes(v, ANY_BYTES)?;
    "limits.stall" = r#""30s""#,
        "A client that acknowledges no byte for this long, while some are in flight, is \
         disconnected.",
        |s, v| s.limits.stall = parse::duration(v, ms(100, DAY))?;
    "limits.http2_max_concurrent_streams" = "256",
        "Maximum number of concurrent streams (requests) on one HTTP/2 connection; more are \
         refused.",
        |s, v| s.limits.http2_max_concurrent_streams = parse::number(v, 1..=10_000)? as u32;
    "limits.publish_body_bytes" = r#""1MiB""#,
        "Maximum body size of POST /publish and POST /tickets.",
        |s, v| s.limits.publish_body_bytes = parse::bytes(v, 1024..=256 << 20)?;
    "limits.connects_per_address_per_minute" = "0",
        "Maximum number of new streams, polls and histories per minute from one client address \
         (IPv6: one /64); above it clients get `sse.busy`. 0 = unlimited.",
        |s, v| s.limits.connects_per_address_per_minute = parse::number(v, RATE)?;
    "limits.anonymous_connects_per_address_per_minute" = "300",
        "The same for streams and polls without a ticket, in addition. 0 = unlimited.",
        |s, v| s.limits.anonymous_connects_per_address_per_minute = parse::number(v, RATE)?;
    "limits.connects_per_user_per_minute" = "0",
        "Maximum number of new streams, polls and histories per minute of one user; above it \
         clients get `sse.busy`. 0 = unlimited.",
        |s, v| s.limits.connects_per_user_per_minute = parse::number(v, RATE)?;
    "limits.posts_per_key_per_second" = "0",
        "Maximum number of POST /publish and POST /tickets per second with one API key; above it \
         the response is 429. 0 = unlimited.",
        |s, v| s.limits.posts_per_key_per_second = parse::number(v, RATE)?;
    "cors.allowed_origins" = "[]",
        "Origins that may read the stream, e.g. [\"https://app.example.com\"]; [\"*\"] = any.",
        |s, v| s.cors.allowed_origins = parse::origins(v)?;
    "drain.delay" = r#""5s""#,
        "After SIGTERM: time to keep serving while not ready, so that load balancers notice.",
        |s, v| s.drain.delay = parse::duration(v, ms(0, HOUR))?;
    "drain.window" = r#""20s""#, "Time over which streams are then closed evenly.",
        |s, v| s.drain.window = parse::duration(v, ms(0, HOUR))?;
    "log.format" = r#""text""#, "`text` or `json`.",
        |s, v| s.log.json = parse::log_format(v)?;
    "log.level" = r#""info""#,
        "`error`, `warn`, `info`, `debug`, `trace`, or a filter such as `sse_gateway=debug,info`.",
        |s, v| s.log.level = parse::log_level(v)?;
    "tracing.endpoint" = r#""""#,
        "OpenTelemetry collector that gets traces, by OTLP over HTTP (protobuf), e.g. \
         http://otel-collector:4318; without a path, /v1/traces is added. Empty = no traces. \
         Variables such as OTEL_EXPORTER_OTLP_ENDPOINT have no effect.",
        |s, v| s.tracing.endpoint = parse_tracing::endpoint(v)?;
    "tracing.headers_file" = r#""""#,
        "File with headers of these requests, for example an API key: one `name: value` per line. \
         It is read at startup.",
        |s, v| s.tracing.headers = parse_tracing::headers_file(v)?;
    "tracing.sample_ratio" = "0.0",
        "Part of the events without a `traceparent` that get a trace, 0 to 1. Events with one get \
         spans if it has the flag `sampled`.",
        |s, v| s.tracing.sample_ratio = parse_tracing::ratio(v)?;
    "tracing.service_name" = r#""sse-gateway""#, "`service.name` of the spans.",
        |s, v| s.tracing.service_name = parse::non_empty(v)?;
    "tracing.timeout" = r#""10s""#, "Maximum time for one request to the collector.",
        |s, v| s.tracing.timeout = parse::duration(v, ms(100, 60 * SECOND))?;
}

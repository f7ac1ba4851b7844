//! Checks that concern several settings.

use super::{
    RedisTarget, Scope, Settings,
    error::{ConfigError, Origin},
    load::Values,
    postgres::{PublishedRows, TableName},
};

/// Whether at least one source of ticket keys must be configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// For commands that verify or sign tickets.
    Required,
    /// For commands that only talk to Redis.
    Optional,
}

/// The settings from which ticket keys come.
const TICKET_KEYS: [&str; 4] =
    ["tickets.secret", "tickets.secret_file", "tickets.keys", "tickets.jwks_url"];

/// The names of the sources of `sources.postgres`.
const POSTGRES_SOURCES: [&str; 2] = ["postgres", "postgres-notify"];

pub(super) fn consistency(
    s: &Settings,
    values: &Values,
    ticket_key: KeySource,
    errors: &mut Vec<ConfigError>,
) {
    let origin = |key: &str| values.get(key).map_or(Origin::Unset, |(origin, _)| origin.clone());
    let is_set = |key: &str| values.get(key).is_some_and(|(_, v)| v.as_str() != Some(""));
    let mut fail = |of: &str, key: &str, message: &str| {
        errors.push(ConfigError::new(origin(of), key, message));
    };
    if is_set("tickets.secret") && is_set("tickets.secret_file") {
        let message = "must not be set together with tickets.secret_file; remove one of them";
        fail("tickets.secret", "tickets.secret", message);
    }
    let mut kids: Vec<_> = s.tickets.keys.iter().map(|k| &k.kid).collect();
    kids.sort();
    if kids.windows(2).any(|pair| pair[0] == pair[1]) {
        let message = "two keys have the same kid (or none); give each key its own kid";
        fail("tickets.keys", "tickets.keys", message);
    }
    for (one, other) in
        [("server.tls.certificate", "server.tls.key"), ("server.tls.key", "server.tls.certificate")]
    {
        if is_set(one) && !is_set(other) {
            let message = "server.tls.certificate and server.tls.key must be set together; \
                           set both or neither";
            fail(one, "server.tls", message);
        }
    }
    check_redis(s, &is_set, &mut fail);
    check_postgres(s, &is_set, &mut fail);
    // An invalid key has already been reported.
    let has_key = !s.tickets.keys.is_empty() || s.tickets.jwks_url.is_some();
    let reported = errors.iter().any(|e| TICKET_KEYS.contains(&e.key.as_str()));
    if ticket_key == KeySource::Required && !has_key && !reported {
        let message = "no key to verify tickets with; set SSE_GATEWAY__TICKETS__SECRET (for \
                       example to the output of `openssl rand -hex 32`), tickets.secret_file, \
                       tickets.keys or tickets.jwks_url";
        errors.push(ConfigError::new(Origin::Unset, "tickets.secret", message));
    }
}

/// Settings of the connection to Redis that the URL makes necessary or useless.
fn check_redis(
    s: &Settings,
    is_set: &impl Fn(&str) -> bool,
    fail: &mut impl FnMut(&str, &str, &str),
) {
    for (one, other) in [
        ("redis.tls.certificate_file", "redis.tls.key_file"),
        ("redis.tls.key_file", "redis.tls.certificate_file"),
    ] {
        if is_set(one) && !is_set(other) {
            let message = "redis.tls.certificate_file and redis.tls.key_file must be set \
                           together; set both or neither";
            fail(one, "redis.tls", message);
        }
    }
    let files = ["redis.tls.ca_file", "redis.tls.certificate_file", "redis.tls.key_file"];
    let urls = || {
        let own = s.sources.redis_streams.iter().filter_map(|stream| stream.url.as_ref());
        own.chain([&s.redis.url])
    };
    let has_tls = urls().any(|url| url.tls);
    for key in files.into_iter().filter(|key| !has_tls && is_set(key)) {
        let message = "is used only with TLS; change the scheme of redis.url (rediss://, \
                       rediss+sentinel://, rediss+cluster://), or remove this setting";
        fail(key, key, message);
    }
    let sentinel = urls().any(|url| matches!(url.target, RedisTarget::Sentinel { .. }));
    for key in ["redis.sentinel_username", "redis.sentinel_password"] {
        if !sentinel && is_set(key) {
            let message = "is used only with sentinels; remove it, or use redis+sentinel:// in \
                           redis.url";
            fail(key, key, message);
        }
    }
    if is_set("redis.sentinel_username") && !is_set("redis.sentinel_password") {
        let message = "must be set together with redis.sentinel_password; set both or neither";
        fail("redis.sentinel_username", "redis.sentinel_username", message);
    }
}

/// Settings of the Postgres source that do not fit its URL.
fn check_postgres(
    s: &Settings,
    is_set: &impl Fn(&str) -> bool,
    fail: &mut impl FnMut(&str, &str, &str),
) {
    let (url, file) = ("sources.postgres.url", "sources.postgres.url_file");
    if is_set(url) && is_set(file) {
        fail(
            url,
            url,
            "must not be set together with sources.postgres.url_file; remove one of them",
        );
    }
    let postgres = &s.sources.postgres;
    // The sample file contains the defaults, which need no URL.
    let is_other_table = |table: &TableName| table.quoted() != "\"sse_outbox\"";
    let others = [
        ("ca_file", postgres.ca.is_some()),
        ("outbox", postgres.outbox.as_ref().is_some_and(is_other_table)),
        ("published", postgres.published != PublishedRows::Delete),
        ("channels", !postgres.channels.is_empty()),
    ];
    let keys = others.map(|(key, _)| format!("sources.postgres.{key}"));
    let changed = keys.iter().zip(others).filter(|(_, (_, is_changed))| *is_changed);
    for (key, _) in changed.filter(|_| !is_set(url) && !is_set(file)) {
        fail(key, key, "is used only with sources.postgres.url; set it, or remove this setting");
    }
    let Some(server) = &postgres.url else { return };
    if !server.tls && is_set(&keys[0]) {
        let message = "is used only with TLS; add sslmode=verify-full to sources.postgres.url, or \
                       remove this setting";
        fail(&keys[0], &keys[0], message);
    }
    let mut streams = s.sources.redis_streams.iter();
    if let Some(stream) = streams.find(|stream| POSTGRES_SOURCES.contains(&stream.name.as_str())) {
        let message =
            format!("two sources have the name {:?}; give the stream another one", stream.name);
        fail("sources.redis_streams", "sources.redis_streams", &message);
    }
    if postgres.outbox.is_none() && postgres.channels.is_empty() {
        let message = "nothing is read from Postgres; set sources.postgres.outbox or \
                       sources.postgres.channels";
        fail(&keys[1], &keys[1], message);
    }
}

/// Hints for settings that work but are inefficient or insecure.
pub fn warnings(s: &Settings) -> Vec<String> {
    let plain_http = |url: &reqwest::Url| url.scheme() == "http" && !is_this_host(url);
    let mut all = Vec::new();
    let mut warn = |applies: bool, text: &str| {
        if applies {
            all.push(text.to_owned());
        }
    };
    warn(
        s.tickets.jwks_url.as_ref().is_some_and(plain_http),
        "tickets.jwks_url: uses http, so anyone on the network path can replace the key set; \
         use https",
    );
    warn(
        s.limits.queue_bytes < s.channels.largest_event_bytes(),
        "limits.queue_bytes: is less than the largest max_event_bytes (of history or a channel \
         rule), so each event of that size is read from the log again; increase it",
    );
    warn(
        s.limits.publish_body_bytes < s.channels.largest_event_bytes()
            && s.api_keys.iter().any(|key| key.scopes.contains(&Scope::Publish)),
        "limits.publish_body_bytes: is less than the largest max_event_bytes (of history or a \
         channel rule), so POST /publish cannot take events of that size; increase it",
    );
    warn(
        s.tickets.cookie.is_some() && s.cors.allowed_origins.iter().any(|origin| origin == "*"),
        "cors.allowed_origins: \"*\" does not allow pages of other origins to use the cookie of \
         tickets.cookie; list their origins",
    );
    warn(
        !s.tickets.anonymous_topics.is_empty()
            && s.limits.anonymous_connections >= s.limits.max_connections,
        "limits.anonymous_connections: is not less than limits.max_connections, so clients \
         without a ticket can lock out users; decrease it",
    );
    warn(
        s.limits.queue_bytes_total < s.limits.queue_bytes,
        "limits.queue_bytes_total: is less than limits.queue_bytes, so a single slow client \
         can reach it; increase it",
    );
    all
}

fn is_this_host(url: &reqwest::Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::load::{self, load};

    const SECRET: (&str, &str) = ("TICKETS__SECRET", "a secret of more than thirty-two bytes");

    fn loaded(env: &[(&str, &str)]) -> Result<Settings, Vec<ConfigError>> {
        let name = |name: &str| format!("{}{name}", load::ENV_PREFIX);
        load(None, env.iter().map(|(k, v)| (name(k), (*v).to_owned())))
    }

    fn errors(env: &[(&str, &str)]) -> Vec<String> {
        let errors = loaded(env).err().unwrap_or_default();
        errors.into_iter().map(|error| error.key).collect()
    }

    #[test]
    fn settings_that_contradict_each_other_are_errors() {
        let file = std::env::temp_dir().join(format!("sse-check-{}", std::process::id()));
        std::fs::write(&file, SECRET.1).unwrap();
        let from_file = ("TICKETS__SECRET_FILE", file.to_str().unwrap());
        assert_eq!(errors(&[from_file]), [""; 0]);
        // Both are keys without a kid, too.
        assert_eq!(errors(&[SECRET, from_file]), ["tickets.secret", "tickets.keys"]);
        std::fs::remove_file(file).unwrap();
        for one in ["SERVER__TLS__KEY", "SERVER__TLS__CERTIFICATE"] {
            assert_eq!(errors(&[SECRET, (one, "/a.pem")]), ["server.tls"], "{one}");
        }
        let key = format!(r#"{{"kid": "a", "algorithm": "HS256", "secret": "{}"}}"#, SECRET.1);
        assert_eq!(errors(&[("TICKETS__KEYS", &format!("[{key}]"))]), [""; 0]);
        assert_eq!(errors(&[("TICKETS__KEYS", &format!("[{key}, {key}]"))]), ["tickets.keys"]);
    }

    #[test]
    fn redis_settings_must_fit_the_url() {
        let with = |env: &[(&str, &str)]| errors(&[&[SECRET], env].concat());
        let sentinel = ("REDIS__URL", "redis+sentinel://s1,s2/mymaster");
        let (user, password) = ("REDIS__SENTINEL_USERNAME", "REDIS__SENTINEL_PASSWORD");
        assert_eq!(with(&[sentinel, (user, "u"), (password, "p")]), [""; 0]);
        assert_eq!(with(&[sentinel, (password, "p")]), [""; 0]);
        assert_eq!(with(&[sentinel, (user, "u")]), ["redis.sentinel_username"]);
        assert_eq!(with(&[(password, "p")]), ["redis.sentinel_password"]);
        let missing = [("REDIS__URL", "rediss://a"), ("REDIS__TLS__CA_FILE", "/nowhere.pem")];
        assert_eq!(with(&missing), ["redis.tls.ca_file"]);
        let file = std::env::temp_dir().join(format!("sse-check-pem-{}", std::process::id()));
        let path = file.to_str().unwrap();
        std::fs::write(&file, "no PEM").unwrap();
        let ca = ("REDIS__TLS__CA_FILE", path);
        let text = loaded(&[SECRET, ("REDIS__URL", "rediss://a"), ca]).unwrap_err()[0].to_string();
        assert!(text.contains(path) && text.contains("must contain certificates"), "{text}");
        // Any certificate will do; PEM of other bytes is not checked before TLS is set up.
        std::fs::write(&file, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
            .unwrap();
        let certificate = ("REDIS__TLS__CERTIFICATE_FILE", path);
        assert_eq!(with(&[("REDIS__URL", "rediss://a"), ca]), [""; 0]);
        assert_eq!(with(&[ca]), ["redis.tls.ca_file"]);
        assert_eq!(with(&[sentinel, ca]), ["redis.tls.ca_file"]);
        assert_eq!(with(&[("REDIS__URL", "rediss+cluster://a"), certificate]), ["redis.tls"]);
        let key = ("REDIS__TLS__KEY_FILE", path);
        let text = loaded(&[SECRET, ("REDIS__URL", "rediss://a"), certificate, key]).unwrap_err();
        assert!(text[0].to_string().contains("must contain a private key in PEM"), "{text:?}");
        std::fs::remove_file(file).unwrap();
    }

    #[test]
    fn postgres_settings_must_fit_the_url() {
        let with = |env: &[(&str, &str)]| errors(&[&[SECRET], env].concat());
        let url = ("SOURCES__POSTGRES__URL", "postgres://u:p@127.0.0.1/shop");
        let (outbox, channels) = ("SOURCES__POSTGRES__OUTBOX", "SOURCES__POSTGRES__CHANNELS");
        assert_eq!(with(&[url]), [""; 0]);
        assert_eq!(with(&[url, (outbox, ""), (channels, "sse")]), [""; 0]);
        assert_eq!(with(&[url, (outbox, "")]), ["sources.postgres.outbox"]);
        assert_eq!(with(&[(outbox, "events")]), ["sources.postgres.outbox"]);
        assert_eq!(with(&[(channels, "sse")]), ["sources.postgres.channels"]);
        let file = std::env::temp_dir().join(format!("sse-check-url-{}", std::process::id()));
        std::fs::write(&file, "postgres://u:p@127.0.0.1/shop\n").unwrap();
        let from_file = ("SOURCES__POSTGRES__URL_FILE", file.to_str().unwrap());
        assert_eq!(with(&[from_file]), [""; 0]);
        assert_eq!(with(&[url, from_file]), ["sources.postgres.url"]);
        std::fs::write(&file, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
            .unwrap();
        let ca = ("SOURCES__POSTGRES__CA_FILE", file.to_str().unwrap());
        assert_eq!(with(&[url, ca]), ["sources.postgres.ca_file"]);
        assert_eq!(with(&[("SOURCES__POSTGRES__URL", "postgres://u:p@db/shop"), ca]), [""; 0]);
        std::fs::remove_file(file).unwrap();
    }

    #[test]
    fn missing_key_is_an_error_unless_another_one_was_reported() {
        assert_eq!(errors(&[]), ["tickets.secret"]);
        assert_eq!(errors(&[("TICKETS__JWKS_URL", "https://id.example.com/keys")]), [""; 0]);
        assert_eq!(errors(&[("TICKETS__KEYS", "[{}]")]), ["tickets.keys"]);
    }

    #[test]
    fn warnings_name_what_works_badly() {
        let warned = |env: &[(&str, &str)]| {
            let settings = loaded(&[&[SECRET], env].concat()).expect("valid settings");
            let key = |text: &String| text.split(':').next().unwrap_or_default().to_owned();
            warnings(&settings).iter().map(key).collect::<Vec<_>>()
        };
        assert_eq!(warned(&[]), [""; 0]);
        assert_eq!(warned(&[("LIMITS__QUEUE_BYTES", "1KiB")]), ["limits.queue_bytes"]);
        let total = ("LIMITS__QUEUE_BYTES_TOTAL", "128KiB");
        assert_eq!(warned(&[total]), ["limits.queue_bytes_total"]);
        let any_origin = ("CORS__ALLOWED_ORIGINS", "*");
        assert_eq!(warned(&[any_origin]), [""; 0]);
        assert_eq!(warned(&[any_origin, ("TICKETS__COOKIE", "c")]), ["cors.allowed_origins"]);
        let all = ("LIMITS__ANONYMOUS_CONNECTIONS", "10000");
        assert_eq!(warned(&[all]), [""; 0], "every client needs a ticket");
        let topics = ("TICKETS__ANONYMOUS_TOPICS", "a");
        assert_eq!(warned(&[all, topics]), ["limits.anonymous_connections"]);
        assert_eq!(warned(&[topics]), [""; 0]);
        let large = ("CHANNELS", r#"[{"match": "*", "max_event_bytes": "2MiB"}]"#);
        assert_eq!(warned(&[large]), ["limits.queue_bytes"]);
        let digest = "0".repeat(64);
        let key = format!(r#"[{{"sha256": "{digest}", "scopes": ["publish"]}}]"#);
        let posts = [large, ("API_KEYS", &key), ("LIMITS__QUEUE_BYTES", "2MiB")];
        assert_eq!(warned(&posts), ["limits.publish_body_bytes"]);
        for (url, warns) in [
            ("http://id.example.com/keys", true),
            ("https://id.example.com/keys", false),
            ("http://localhost/keys", false),
            ("http://[::1]:80/keys", false),
            ("http://127.0.0.2/keys", false),
        ] {
            assert_eq!(!warned(&[("TICKETS__JWKS_URL", url)]).is_empty(), warns, "{url}");
        }
    }
}

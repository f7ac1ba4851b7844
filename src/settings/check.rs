//! Checks that concern several settings.

use super::{
    Settings,
    error::{ConfigError, Origin},
    load::Values,
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
        s.limits.queue_bytes < s.history.max_event_bytes,
        "limits.queue_bytes: is less than history.max_event_bytes, so each event of that size \
         is read from the log again; increase it",
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

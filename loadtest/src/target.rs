//! Server under test: its address and the requests for streams.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;

/// Protocol of the streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// HTTP/1.1, one connection per stream.
    Http1,
    /// HTTP/2 with `--streams-per-connection` streams on each connection; without TLS by prior
    /// knowledge.
    Http2,
}

/// Server type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ServerKind {
    /// sse-gateway, with tickets, `sse.connected`, sessions and resume.
    Gateway,
    /// Any SSE server: the URL is used as it is, and a stream is open when the response head
    /// arrives. `{token}` in the URL is replaced by a JWT that is signed for each stream.
    Plain,
    /// Centrifugo's unidirectional SSE: pings and replies do not count as events, and a stream
    /// resumes with `{recover}` in the URL.
    Centrifugo,
}

/// Placeholder in the URL for a signed JWT.
const TOKEN: &str = "{token}";
/// Placeholder in the URL for the position of a stream of Centrifugo.
const RECOVER: &str = "{recover}";

/// Server under test.
pub struct Target {
    /// Server type.
    pub kind: ServerKind,
    /// Protocol of the streams.
    pub protocol: Protocol,
    /// Address of the server.
    pub address: SocketAddr,
    /// Host and port for the `Host` header.
    pub authority: String,
    /// Path and query of all streams, with the placeholders `{user}`, `{topic}`, `{token}` and
    /// `{recover}`.
    pub path: String,
    /// TLS configuration and server name, if the URL uses https.
    pub tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    /// Additional headers of every request.
    pub headers: Vec<(String, String)>,
    /// Maximum number of streams per source address.
    pub streams_per_source: u32,
}

impl Target {
    /// Parses `http(s)://host[:port]/path` and resolves the host. Fails if the URL or a header is
    /// invalid.
    pub fn new(
        url: &str,
        kind: ServerKind,
        protocol: Protocol,
        tls: Option<ClientConfig>,
        headers: &[String],
        streams_per_source: u32,
    ) -> Result<Self, String> {
        let bad =
            |what: &str| format!("--url {url}: {what} (example: http://127.0.0.1:8080/events)");
        let (secure, rest) = match (url.strip_prefix("http://"), url.strip_prefix("https://")) {
            (Some(rest), _) => (false, rest),
            (_, Some(rest)) => (true, rest),
            _ => return Err(bad("must start with http:// or https://")),
        };
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) => (host, port.parse().map_err(|_| bad("invalid port"))?),
            None => (authority, if secure { 443 } else { 80 }),
        };
        let mut addresses =
            (host, port).to_socket_addrs().map_err(|error| bad(&error.to_string()))?;
        let address = addresses.next().ok_or_else(|| bad("host has no address"))?;
        let tls = match (secure, tls) {
            (true, Some(mut config)) => {
                config.alpn_protocols = vec![if protocol == Protocol::Http2 {
                    b"h2".to_vec()
                } else {
                    b"http/1.1".to_vec()
                }];
                let name = ServerName::try_from(host.to_owned())
                    .map_err(|error| bad(&error.to_string()))?;
                Some((Arc::new(config), name))
            }
            (true, None) => return Err(bad("https requires --ca FILE or --insecure")),
            _ => None,
        };
        let headers = headers
            .iter()
            .map(|line| {
                line.split_once(':')
                    .map(|(name, value)| (name.trim().to_lowercase(), value.trim().to_owned()))
            })
            .collect::<Option<_>>()
            .ok_or("--header: must have the form 'Name: value'")?;
        let path = if path.is_empty() { "/events".to_owned() } else { path.to_owned() };
        Ok(Self {
            kind,
            protocol,
            address,
            authority: authority.to_owned(),
            path,
            tls,
            headers,
            streams_per_source,
        })
    }

    /// Returns path and query of a stream's request. A ticket replaces `{token}` or is appended;
    /// `position` is the JSON with which a stream of Centrifugo resumes.
    pub fn path_for(
        &self,
        user: &str,
        topic: &str,
        ticket: Option<&str>,
        position: &[u8],
    ) -> String {
        let mut path = self.path.replace("{user}", user).replace("{topic}", topic);
        if path.contains(RECOVER) {
            path = path.replace(RECOVER, &percent_encoded(position));
        }
        if path.contains(TOKEN) {
            return path.replace(TOKEN, ticket.unwrap_or_default());
        }
        if let Some(ticket) = ticket {
            path.push(if path.contains('?') { '&' } else { '?' });
            path.push_str("ticket=");
            path.push_str(ticket);
        }
        path
    }

    /// Returns the source address of a stream, or `None` for the default. On loopback, further
    /// addresses allow more streams than one port range.
    pub fn source(&self, index: u32) -> Option<IpAddr> {
        let number = u8::try_from(index / self.streams_per_source).ok()?;
        (number > 0 && self.address.ip() == IpAddr::V4(Ipv4Addr::LOCALHOST))
            .then(|| Ipv4Addr::new(127, 0, 0, number.saturating_add(1)).into())
    }
}

/// Returns whether streams of a URL need a signed token.
pub fn needs_token(url: &str) -> bool {
    url.contains(TOKEN)
}

/// Encodes all bytes but letters and digits as `%22`.
fn percent_encoded(bytes: &[u8]) -> String {
    let each = |byte: &u8| {
        if byte.is_ascii_alphanumeric() {
            char::from(*byte).to_string()
        } else {
            format!("%{byte:02X}")
        }
    };
    bytes.iter().map(each).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::args::{Cli, Command};
    use crate::option_values::MAX_STREAMS;
    use clap::Parser;

    /// Number of ports in Linux' default `net.ipv4.ip_local_port_range`.
    const PORTS: usize = 28_232;

    /// Creates a target with default options.
    fn target(url: &str) -> Target {
        let Command::Idle(common) = Cli::parse_from(["loadtest", "idle"]).command else {
            unreachable!("the command line says idle")
        };
        Target::new(url, ServerKind::Plain, Protocol::Http1, None, &[], common.streams_per_source)
            .unwrap()
    }

    #[test]
    fn source_addresses_never_exceed_the_port_range() {
        let target = target("http://127.0.0.1:1/events");
        let mut streams: BTreeMap<Option<IpAddr>, usize> = BTreeMap::new();
        for index in 0..u32::try_from(MAX_STREAMS).unwrap() {
            *streams.entry(target.source(index)).or_default() += 1;
        }
        assert!(streams.values().all(|count| *count <= PORTS), "{streams:?}");
        assert_eq!(target.source(0), None);
        // All bound addresses are loopback and differ from that of unbound sockets.
        let bound: Vec<IpAddr> = streams.into_keys().flatten().collect();
        assert!(
            bound.iter().all(IpAddr::is_loopback) && !bound.contains(&Ipv4Addr::LOCALHOST.into()),
            "{bound:?}"
        );
    }

    #[test]
    fn placeholders_of_a_url_are_replaced() {
        let url = "http://127.0.0.1:1/{user}?c=%7B{recover}%7D";
        let path = |url, ticket, position: &str| {
            target(url).path_for("u1", "load", ticket, position.as_bytes())
        };
        assert_eq!(path(url, None, ""), "/u1?c=%7B%7D");
        assert_eq!(path(url, None, r#""offset":1"#), "/u1?c=%7B%22offset%22%3A1%7D");
        assert_eq!(path(url, Some("t.1"), ""), "/u1?c=%7B%7D&ticket=t.1");
        assert_eq!(path("http://127.0.0.1:1/?jid={token}", Some("t.1"), ""), "/?jid=t.1");
    }

    #[test]
    fn remote_targets_use_the_default_source_address() {
        assert_eq!(target("http://192.0.2.1:1/events").source(500_000), None);
    }
}

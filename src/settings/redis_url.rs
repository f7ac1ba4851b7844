//! `redis.url`: one server, the sentinels of a primary, or the seed nodes of a cluster.

use std::{fmt, path::PathBuf};

use redis::{ConnectionAddr, IntoConnectionInfo, RedisConnectionInfo};

/// Port of a server whose address has none.
const REDIS_PORT: u16 = 6379;
/// Port of a sentinel whose address has none.
const SENTINEL_PORT: u16 = 26379;

/// Where Redis is, and how to log in. `Debug` and `Display` show no password.
#[derive(Clone, Debug)]
pub struct RedisUrl {
    /// How the server is found.
    pub target: RedisTarget,
    /// User, password and database of Redis; those of the sentinels are separate settings.
    pub login: RedisConnectionInfo,
    /// Whether connections use TLS, those to sentinels included.
    pub tls: bool,
}

/// How the server is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedisTarget {
    /// One server, or an address that leads to one.
    Server(ServerAddress),
    /// One server, at a Unix socket.
    Socket(PathBuf),
    /// The primary that these sentinels name.
    Sentinel {
        /// The sentinels to ask first; they name further ones.
        sentinels: Vec<ServerAddress>,
        /// The name under which they monitor the primary.
        master: String,
    },
    /// A cluster, which these nodes describe.
    Cluster {
        /// The nodes to ask first.
        seeds: Vec<ServerAddress>,
    },
}

/// Host and port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerAddress {
    /// A name or an address; an IPv6 address has no brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// Why a URL cannot be used: the end of a sentence that begins with the setting. It quotes nothing
/// of the URL, because a part may be a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RedisUrlError {
    /// It is not a URL, or not one of Redis.
    #[error(
        "must be a Redis URL, for example redis://host:6379, rediss://user:password@host:6380, \
         redis+sentinel://s1:26379,s2:26379/mymaster or redis+cluster://host1:6379,host2:6379"
    )]
    Form,
    /// Several servers without a word on how they belong together.
    #[error(
        "must name one server; for several, use redis+sentinel://s1:26379,s2:26379/mymaster or \
         redis+cluster://host1:6379,host2:6379"
    )]
    SeveralServers,
    /// `#insecure`
    #[error(
        "must not end with #insecure; certificates are always checked, set redis.tls.ca_file to \
         trust a private authority"
    )]
    Insecure,
    /// A list has an empty entry.
    #[error("must name a host for server {0} of the list; add it, or remove the extra comma")]
    NoHost(usize),
    /// A host is not a valid one.
    #[error(
        "must have a valid host for server {0} of the list: a name, an IPv4 address, or an IPv6 \
         address in brackets; percent-encode reserved characters of a password (/ as %2F)"
    )]
    Host(usize),
    /// A port is not a number, or out of range.
    #[error(
        "must have a port from 1 to 65535 for server {0} of the list, for example host:6379; \
         percent-encode reserved characters of a password (/ as %2F)"
    )]
    Port(usize),
    /// The name of the primary is missing.
    #[error(
        "must name the primary after the sentinels, for example \
         redis+sentinel://s1:26379,s2:26379/mymaster"
    )]
    NoMaster,
    /// The name of the primary contains a character that Sentinel does not permit.
    #[error(
        "must name the primary with letters, digits, \".\", \"-\" and \"_\" only; use the name in \
         `sentinel monitor <name>`"
    )]
    MasterName,
    /// The database is not a number.
    #[error(
        "must have a number as database, for example redis+sentinel://s1:26379/mymaster/0; correct \
         or remove it"
    )]
    Database,
    /// A cluster with a database.
    #[error("must not select a database, a cluster has only one; remove what follows the servers")]
    ClusterDatabase,
    /// A list of servers with a query or a fragment.
    #[error(
        "must not have a query or fragment; remove it, and percent-encode reserved characters of a \
         password (? as %3F, # as %23)"
    )]
    Query,
    /// User or password are not valid.
    #[error(
        "must have a valid user and password; percent-encode reserved characters, for example @ as \
         %40"
    )]
    Login,
}

impl Default for RedisUrl {
    fn default() -> Self {
        let host = "127.0.0.1".to_owned();
        let target = RedisTarget::Server(ServerAddress { host, port: REDIS_PORT });
        Self { target, login: RedisConnectionInfo::default(), tls: false }
    }
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = if self.tls { "s" } else { "" };
        match &self.target {
            RedisTarget::Server(address) => address.fmt(f),
            RedisTarget::Socket(path) => path.display().fmt(f),
            RedisTarget::Sentinel { sentinels, master } => {
                write!(f, "redis{s}+sentinel://{}/{master}", join(sentinels))
            }
            RedisTarget::Cluster { seeds } => write!(f, "redis{s}+cluster://{}", join(seeds)),
        }
    }
}

fn join(servers: &[ServerAddress]) -> String {
    servers.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

impl RedisUrl {
    /// Parses a URL.
    ///
    /// # Errors
    /// See [`RedisUrlError`].
    pub fn parse(url: &str) -> Result<Self, RedisUrlError> {
        let (scheme, rest) = url.split_once("://").unwrap_or_default();
        match scheme {
            "redis+sentinel" => sentinel(rest, false),
            "rediss+sentinel" => sentinel(rest, true),
            "redis+cluster" => cluster(rest, false),
            "rediss+cluster" => cluster(rest, true),
            _ => plain(url, rest),
        }
    }
}

/// A URL of one server, as redis-rs parses it.
fn plain(url: &str, rest: &str) -> Result<RedisUrl, RedisUrlError> {
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.rsplit('@').next().is_some_and(|hosts| hosts.contains(',')) {
        return Err(RedisUrlError::SeveralServers);
    }
    let info = url.into_connection_info().map_err(|_| RedisUrlError::Form)?;
    let server =
        |host: &str, port| RedisTarget::Server(ServerAddress { host: host.to_owned(), port });
    let (target, tls) = match info.addr() {
        ConnectionAddr::Tcp(host, port) => (server(host, *port), false),
        ConnectionAddr::TcpTls { insecure: true, .. } => return Err(RedisUrlError::Insecure),
        ConnectionAddr::TcpTls { host, port, .. } => (server(host, *port), true),
        ConnectionAddr::Unix(path) => (RedisTarget::Socket(path.clone()), false),
        _ => return Err(RedisUrlError::Form),
    };
    Ok(RedisUrl { target, login: info.redis_settings().clone(), tls })
}

fn sentinel(rest: &str, tls: bool) -> Result<RedisUrl, RedisUrlError> {
    let parts = Parts::of(rest)?;
    let sentinels = servers(parts.hosts, SENTINEL_PORT)?;
    let (master, database) = parts.path.split_once('/').unwrap_or((parts.path, ""));
    if master.is_empty() {
        return Err(RedisUrlError::NoMaster);
    }
    if !master.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_".contains(&b)) {
        return Err(RedisUrlError::MasterName);
    }
    if !database.bytes().all(|b| b.is_ascii_digit()) || database.len() > 9 {
        return Err(RedisUrlError::Database);
    }
    let login = login(parts.login, database)?;
    let target = RedisTarget::Sentinel { sentinels, master: master.to_owned() };
    Ok(RedisUrl { target, login, tls })
}

fn cluster(rest: &str, tls: bool) -> Result<RedisUrl, RedisUrlError> {
    let parts = Parts::of(rest)?;
    let seeds = servers(parts.hosts, REDIS_PORT)?;
    if !parts.path.is_empty() {
        return Err(RedisUrlError::ClusterDatabase);
    }
    Ok(RedisUrl { target: RedisTarget::Cluster { seeds }, login: login(parts.login, "")?, tls })
}

/// The parts of `[login@]hosts[/path]`.
struct Parts<'a> {
    login: &'a str,
    hosts: &'a str,
    path: &'a str,
}

impl<'a> Parts<'a> {
    fn of(rest: &'a str) -> Result<Self, RedisUrlError> {
        if rest.contains(['?', '#']) {
            return Err(RedisUrlError::Query);
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (login, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
        Ok(Self { login, hosts, path })
    }
}

/// `host[:port]` several times, separated by commas.
fn servers(list: &str, port: u16) -> Result<Vec<ServerAddress>, RedisUrlError> {
    list.split(',').enumerate().map(|(n, text)| server(text.trim(), port, n + 1)).collect()
}

fn server(text: &str, port: u16, n: usize) -> Result<ServerAddress, RedisUrlError> {
    let (host, port_text) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']').ok_or(RedisUrlError::Host(n))?;
            host.parse::<std::net::Ipv6Addr>().map_err(|_| RedisUrlError::Host(n))?;
            match after.strip_prefix(':') {
                Some(port) => (host, Some(port)),
                None if after.is_empty() => (host, None),
                None => return Err(RedisUrlError::Port(n)),
            }
        }
        None => match text.split_once(':') {
            Some((_, port)) if port.contains(':') => return Err(RedisUrlError::Host(n)),
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    if host.is_empty() {
        return Err(RedisUrlError::NoHost(n));
    }
    let is_name = |b: u8| b.is_ascii_alphanumeric() || b".-_:".contains(&b);
    if !host.bytes().all(is_name) {
        return Err(RedisUrlError::Host(n));
    }
    let port = match port_text {
        None => port,
        Some(text) => match text.parse() {
            Ok(port) if port > 0 && text.bytes().all(|b| b.is_ascii_digit()) => port,
            _ => return Err(RedisUrlError::Port(n)),
        },
    };
    Ok(ServerAddress { host: host.to_owned(), port })
}

/// Credentials and database, as redis-rs decodes them.
fn login(login: &str, database: &str) -> Result<RedisConnectionInfo, RedisUrlError> {
    let at = if login.is_empty() { "" } else { "@" };
    let info = format!("redis://{login}{at}localhost/{database}").into_connection_info();
    info.map(|info| info.redis_settings().clone()).map_err(|_| RedisUrlError::Login)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(url: &str) -> String {
        RedisUrl::parse(url).map_or_else(|error| error.to_string(), |url| url.to_string())
    }

    #[test]
    fn addresses_contain_no_credentials() {
        for (url, expected) in [
            ("redis://127.0.0.1:7000", "127.0.0.1:7000"),
            ("redis://user:hush@redis.example/3", "redis.example:6379"),
            ("rediss://:hush@[::1]:7001", "[::1]:7001"),
            ("unix:///run/redis.sock?pass=hush", "/run/redis.sock"),
            ("redis+sentinel://s1/m", "redis+sentinel://s1:26379/m"),
            (
                "rediss+sentinel://u:hush@s1:1,[fd00::2],s3:3/my-master.1/0",
                "rediss+sentinel://s1:1,[fd00::2]:26379,s3:3/my-master.1",
            ),
            (
                "redis+cluster://:hush@a:7000,b,10.0.0.3/",
                "redis+cluster://a:7000,b:6379,\
                                                          10.0.0.3:6379",
            ),
            ("rediss+cluster://a", "rediss+cluster://a:6379"),
        ] {
            assert_eq!(shown(url), expected);
            let debug = format!("{:?}", RedisUrl::parse(url));
            assert!(!debug.contains("hush"), "{debug}");
        }
    }

    #[test]
    fn credentials_are_decoded_and_belong_to_redis() {
        let url = RedisUrl::parse("redis+sentinel://gate%40way:p%2Fw%3F@s1,s2/m/3").unwrap();
        let login = (url.login.username(), url.login.password(), url.login.db());
        assert_eq!(login, (Some("gate@way"), Some("p/w?"), 3));
        let url = RedisUrl::parse("rediss+cluster://:pw@a").unwrap();
        assert_eq!((url.login.username(), url.login.password()), (None, Some("pw")));
        assert!(url.tls);
        let url = RedisUrl::parse("rediss://u:pw@host/2").unwrap();
        assert_eq!((url.login.password(), url.login.db(), url.tls), (Some("pw"), 2, true));
    }

    #[test]
    fn invalid_urls_have_an_error_of_their_own() {
        use RedisUrlError as E;
        for (url, expected) in [
            ("", E::Form),
            ("http://example.org", E::Form),
            ("redis+sentinels://a/m", E::Form),
            ("redis://a:hush", E::Form),
            ("redis://u:hush@a:6379,b:6379", E::SeveralServers),
            ("rediss://a#insecure", E::Insecure),
            ("redis+sentinel:///m", E::NoHost(1)),
            ("redis+sentinel://a,,b/m", E::NoHost(2)),
            ("redis+sentinel://a,:1/m", E::NoHost(2)),
            ("redis+sentinel://a,b c/m", E::Host(2)),
            ("redis+cluster://fd00::1", E::Host(1)),
            ("redis+cluster://[fd00", E::Host(1)),
            ("redis+cluster://[name]", E::Host(1)),
            ("redis+cluster://[::1]7", E::Port(1)),
            ("redis+cluster://a:0", E::Port(1)),
            ("redis+cluster://a:+1", E::Port(1)),
            ("redis+cluster://a,b:65536", E::Port(2)),
            ("redis+sentinel://u:hu/sh@a/m", E::Port(1)),
            ("redis+sentinel://a:26379", E::NoMaster),
            ("redis+sentinel://a:26379/", E::NoMaster),
            ("redis+sentinel://a/my%20master", E::MasterName),
            ("redis+sentinel://a/m/x", E::Database),
            ("redis+sentinel://a/m/0/1", E::Database),
            ("redis+sentinel://a/m/99999999999", E::Database),
            ("redis+cluster://a,b/0", E::ClusterDatabase),
            ("redis+cluster://a?x=1", E::Query),
            ("redis+sentinel://u:hu#sh@a/m", E::Query),
            ("redis+sentinel://u:%FF@a/m", E::Login),
        ] {
            assert_eq!(RedisUrl::parse(url).err(), Some(expected), "{url}");
            assert!(!shown(url).contains("hush"), "{url}");
        }
    }
}

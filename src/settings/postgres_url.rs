//! `sources.postgres.url`: where Postgres is, how to log in, and whether to use TLS.

use std::{fmt, net::IpAddr, str::FromStr};

use tokio_postgres::{
    Config,
    config::{Host, SslMode, TargetSessionAttrs},
};

/// Port of a server whose address has none.
const POSTGRES_PORT: u16 = 5432;

/// The parameters that a URL may have, besides `sslmode`.
const PARAMETERS: [&str; 14] = [
    "user",
    "password",
    "dbname",
    "options",
    "application_name",
    "sslnegotiation",
    "host",
    "hostaddr",
    "port",
    "connect_timeout",
    "keepalives",
    "target_session_attrs",
    "channel_binding",
    "load_balance_hosts",
];

/// Where Postgres is, and how to log in. `Debug` and `Display` show neither user nor password.
#[derive(Clone)]
pub struct PostgresUrl {
    /// Servers and credentials, without timeouts. Only a server that accepts writes is used.
    pub config: Config,
    /// Whether connections use TLS. The certificate is always checked.
    pub tls: bool,
}

/// Why a URL cannot be used: the end of a sentence that begins with the setting. It quotes nothing
/// of the URL, because a part may be a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PostgresUrlError {
    /// It is not a URL of Postgres.
    #[error(
        "must be a Postgres URL, for example postgres://user:password@host:5432/database; \
         percent-encode reserved characters of a password (@ as %40, / as %2F)"
    )]
    Form,
    /// There is no host.
    #[error("must name a host, for example postgres://user:password@host:5432/database")]
    NoHost,
    /// There is no user.
    #[error("must name a user, for example postgres://user:password@host:5432/database")]
    NoUser,
    /// A parameter is unknown.
    #[error(
        "must have no parameter after ? but sslmode, {}; remove others, for example those of an \
         ORM (schema, pgbouncer, connection_limit)",
        PARAMETERS.join(", ")
    )]
    Parameter,
    /// `sslmode` has a value that does not protect the connection, or an unknown one.
    #[error(
        "must have sslmode=verify-full (or require, which checks the certificate as well) or \
         sslmode=disable; other modes do not protect the password or do not check the server"
    )]
    SslMode,
    /// TLS over a Unix socket.
    #[error("must have sslmode=disable for a Unix socket; Postgres has no TLS there")]
    TlsSocket,
}

impl PostgresUrl {
    /// Parses a URL.
    ///
    /// Without `sslmode`, TLS is used unless all servers are on this host.
    ///
    /// # Errors
    /// See [`PostgresUrlError`].
    pub fn parse(url: &str) -> Result<Self, PostgresUrlError> {
        let (scheme, rest) = url.split_once("://").unwrap_or_default();
        if !matches!(scheme, "postgres" | "postgresql") {
            return Err(PostgresUrlError::Form);
        }
        // The password may contain a question mark.
        let (login, servers) = rest.rsplit_once('@').map_or(("", rest), |(l, s)| (l, s));
        if login.contains('@') {
            return Err(PostgresUrlError::Form);
        }
        let at = if login.is_empty() { "" } else { "@" };
        let (servers, query) = servers.split_once('?').unwrap_or((servers, ""));
        let (mut sslmode, mut others) = (None, Vec::new());
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            match parameter.split_once('=').ok_or(PostgresUrlError::Form)? {
                ("sslmode", mode) => sslmode = Some(mode),
                (name, _) if PARAMETERS.contains(&name) => others.push(parameter),
                _ => return Err(PostgresUrlError::Parameter),
            }
        }
        let without = format!("postgres://{login}{at}{servers}?{}", others.join("&"));
        let mut config = Config::from_str(&without).map_err(|_| PostgresUrlError::Form)?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err(PostgresUrlError::NoHost);
        }
        if config.get_user().is_none_or(str::is_empty) {
            return Err(PostgresUrlError::NoUser);
        }
        let is_socket = |host: &Host| matches!(host, Host::Unix(_));
        let tls = match sslmode {
            Some("disable") => false,
            Some("require" | "verify-full") => true,
            None => !is_this_host(&config),
            Some(_) => return Err(PostgresUrlError::SslMode),
        };
        if tls && config.get_hosts().iter().any(is_socket) {
            return Err(PostgresUrlError::TlsSocket);
        }
        config.ssl_mode(if tls { SslMode::Require } else { SslMode::Disable });
        config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        if config.get_application_name().is_none() {
            config.application_name("sse-gateway");
        }
        Ok(Self { config, tls })
    }

    /// The user to log in as.
    pub fn user(&self) -> &str {
        self.config.get_user().unwrap_or_default()
    }
}

/// Whether all servers are on this host.
fn is_this_host(config: &Config) -> bool {
    let is_local = |host: &Host| match host {
        Host::Tcp(name) => {
            name == "localhost" || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
        }
        Host::Unix(_) => true,
    };
    config.get_hosts().iter().all(is_local)
        && config.get_hostaddrs().iter().all(|ip| ip.is_loopback())
}

impl fmt::Display for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ports = self.config.get_ports();
        let mut separator = "";
        let mut names: Vec<String> = Vec::new();
        for host in self.config.get_hosts() {
            names.push(match host {
                Host::Tcp(name) if name.contains(':') => format!("[{name}]"),
                Host::Tcp(name) => name.clone(),
                Host::Unix(path) => path.display().to_string(),
            });
        }
        if names.is_empty() {
            names.extend(self.config.get_hostaddrs().iter().map(ToString::to_string));
        }
        for (n, name) in names.iter().enumerate() {
            let port = ports.get(n).or(ports.first()).copied().unwrap_or(POSTGRES_PORT);
            write!(f, "{separator}{name}:{port}")?;
            separator = ",";
        }
        Ok(())
    }
}

impl fmt::Debug for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PostgresUrl({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tls(url: &str) -> Result<bool, PostgresUrlError> {
        PostgresUrl::parse(url).map(|url| url.tls)
    }

    #[test]
    fn tls_is_the_default_except_on_this_host() {
        for (url, expected) in [
            ("postgres://u:p@db.example.com/shop", true),
            ("postgresql://u:p@db/shop?sslmode=require&channel_binding=require", true),
            ("postgres://u:p@db/shop?sslmode=verify-full", true),
            ("postgres://u:p@db/shop?sslmode=disable", false),
            ("postgres://u@localhost/shop", false),
            ("postgres://u@127.0.0.1:5433", false),
            ("postgres://u@[::1]:5433/shop", false),
            ("postgres://u@127.0.0.1,db/shop", true),
            ("postgres://u@%2Fvar%2Frun%2Fpostgresql/shop", false),
            ("postgres://u@localhost/shop?sslmode=require", true),
        ] {
            assert_eq!(tls(url), Ok(expected), "{url}");
        }
    }

    #[test]
    fn faults_are_named_without_the_url() {
        use PostgresUrlError::*;
        for (url, expected) in [
            ("", Form),
            ("mysql://hush@db/shop", Form),
            ("host=db user=u password=hush", Form),
            ("postgres://u:hush@hush@db/shop", Form),
            ("postgres://u:hush@/shop", NoHost),
            ("postgres://db/hush", NoUser),
            ("postgres://u:hush@db:port/shop", Form),
            ("postgres://u:hush@db/shop?schema=public", Parameter),
            ("postgres://u:hush@db/shop?sslmode=prefer", SslMode),
            ("postgres://u:hush@db/shop?sslmode=verify-ca", SslMode),
            ("postgres://u:hush@%2Ftmp/shop?sslmode=require", TlsSocket),
        ] {
            let error = PostgresUrl::parse(url).err();
            assert_eq!(error, Some(expected), "{url}");
            assert!(!expected.to_string().contains("hush"));
        }
    }

    #[test]
    fn text_of_a_url_shows_servers_only() {
        let url = PostgresUrl::parse("postgres://u:hush@a,[::2]:5433/shop?password=hush").unwrap();
        assert_eq!(url.to_string(), "a:5432,[::2]:5433");
        assert!(!format!("{url:?}").contains("hush"));
        let socket = PostgresUrl::parse("postgres://u:hush@%2Ftmp:5440/shop").unwrap();
        assert_eq!(socket.to_string(), "/tmp:5440");
    }

    #[test]
    fn password_may_contain_a_question_mark() {
        let url = PostgresUrl::parse("postgres://u:a?b=c@localhost/shop").unwrap();
        assert_eq!(url.config.get_password(), Some(&b"a?b=c"[..]));
        assert_eq!(url.user(), "u");
    }
}

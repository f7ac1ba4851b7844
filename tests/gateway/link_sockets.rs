//! How the link's connection is opened: TCP, TLS, a Unix socket; credentials and database.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use redis::IntoConnectionInfo;
use rustls::pki_types::{CertificateDer, pem::PemObject};
use rustls::{ClientConfig, RootCertStore};
use sse_gateway::redis::tls;
use sse_gateway::redis::wire::{Connection, End, OpenError};
use sse_gateway::settings::RedisTls;

use crate::harness::keys::Dir;
use crate::harness::process::{die_with_parent, free_port};
use crate::harness::{GUARD, eventually};

/// A redis-server with TCP, TLS, and a Unix socket, which requires a password.
struct Server {
    child: Child,
    dir: Dir,
    port: u16,
    tls_port: u16,
}

impl Server {
    async fn start() -> Server {
        let (dir, port, tls_port) = (Dir::new(), free_port(), free_port());
        dir.certificate();
        let mut command = Command::new("redis-server");
        command
            .args(["--bind", "127.0.0.1", "--save", "", "--requirepass", "hush"])
            .args(["--port", &port.to_string(), "--tls-port", &tls_port.to_string()])
            .args(["--tls-cert-file", &dir.text("server.pem")])
            .args(["--tls-key-file", &dir.text("server.key")])
            .args(["--tls-auth-clients", "no", "--unixsocket", &dir.text("redis.sock")])
            .args(["--dir", &dir.text("")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        die_with_parent(&mut command);
        let child = command.spawn().expect("redis-server is installed");
        let server = Server { child, dir, port, tls_port };
        let url = format!("redis://:hush@127.0.0.1:{port}");
        eventually("redis-server", || async { open(&url, &public_roots(), GUARD).await.ok() })
            .await;
        server
    }

    /// A configuration that trusts the server's authority.
    fn trusting(&self) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        let pem = std::fs::read(self.dir.text("ca.pem")).expect("a certificate");
        roots.add(CertificateDer::from_pem_slice(&pem).expect("PEM")).expect("an authority");
        Arc::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The configuration without `redis.tls.ca_file`.
fn public_roots() -> Arc<ClientConfig> {
    tls::client_config(&RedisTls::default()).expect("a configuration")
}

async fn open(
    url: &str,
    tls: &Arc<ClientConfig>,
    timeout: Duration,
) -> Result<(Connection, End), OpenError> {
    Connection::open(
        &url.into_connection_info().expect("a URL"),
        Some(tls.clone()),
        timeout,
        |_| (),
    )
    .await
}

async fn refused(url: &str) -> OpenError {
    match open(url, &public_roots(), GUARD).await {
        Ok(_) => panic!("{url} was opened"),
        Err(error) => error,
    }
}

#[tokio::test]
async fn every_kind_of_socket_is_opened_and_logged_in() {
    let server = Server::start().await;
    let (tcp, tls) = (server.port, server.tls_port);
    for url in [
        format!("redis://default:hush@127.0.0.1:{tcp}/3"),
        format!("redis://:hush@localhost:{tcp}/3"),
        format!("rediss://:hush@127.0.0.1:{tls}/3"),
        format!("unix://{}?pass=hush&db=3", server.dir.text("redis.sock")),
    ] {
        let opened = open(&url, &server.trusting(), GUARD).await;
        let (mut connection, _end) = opened.unwrap_or_else(|e| panic!("{url}: {e}"));
        let info: String =
            redis::cmd("CLIENT").arg("INFO").query_async(&mut connection).await.unwrap();
        assert!(info.contains(" db=3 ") && info.contains(" resp=3"), "{url}: {info}");
    }
}

#[tokio::test]
async fn connections_that_cannot_be_opened_say_why() {
    let server = Server::start().await;
    let (tcp, tls) = (server.port, server.tls_port);
    let error = refused(&format!("rediss://:hush@127.0.0.1:{tls}")).await;
    assert!(error.to_string().contains("UnknownIssuer"), "{error}");
    for (url, code) in [
        (format!("redis://127.0.0.1:{tcp}"), "NOAUTH"),
        (format!("redis://:wrong@127.0.0.1:{tcp}"), "WRONGPASS"),
        (format!("redis://:hush@127.0.0.1:{tcp}/999"), "ERR"),
    ] {
        match refused(&url).await {
            OpenError::Refused(error) => assert_eq!(error.code(), Some(code), "{error}"),
            other => panic!("{url}: {other:?}"),
        }
    }
    let nobody = refused(&format!("redis://127.0.0.1:{}", free_port())).await;
    assert!(matches!(nobody, OpenError::Socket(_)), "{nobody:?}");
    // It accepts, and never replies.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("redis://{}", silent.local_addr().expect("an address"));
    let error = open(&url, &public_roots(), Duration::from_millis(50)).await.map(|_| ());
    assert!(matches!(error, Err(OpenError::Timeout)), "{error:?}");
}

//! Clients over HTTP/1.1 and HTTP/2, without and with TLS.

use std::sync::Arc;

use rustls::{
    ClientConfig, RootCertStore, SupportedProtocolVersion,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
    version::{TLS12, TLS13},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use super::{
    PER_CONNECTION,
    harness::{
        GUARD, Gateway,
        http2::{self, Http2},
        keys::Dir,
        ticket,
    },
};

/// A certificate, and the configuration of clients.
pub struct Tls {
    /// Where `server.pem`, `server.key` and `ca.pem` are.
    pub dir: Dir,
    connector: TlsConnector,
}

impl Tls {
    /// A new certificate, and clients that use this version over HTTP/1.1.
    pub fn new(version: &'static SupportedProtocolVersion) -> Self {
        let dir = Dir::new();
        dir.certificate();
        let mut roots = RootCertStore::empty();
        let authority = CertificateDer::from_pem_slice(dir.read("ca.pem").as_bytes());
        roots.add(authority.unwrap()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self { dir, connector: TlsConnector::from(Arc::new(config)) }
    }
}

/// Both versions of TLS.
pub const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];

trait Socket: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Socket for T {}

/// A connection with one stream or several.
pub enum Open {
    /// HTTP/1.1.
    Http1(#[allow(dead_code)] Box<dyn std::any::Any>),
    /// HTTP/2.
    Http2(#[allow(dead_code)] Http2),
}

/// How streams are opened.
pub struct Sockets<'a> {
    gateway: &'a Gateway,
    tls: Option<&'a Tls>,
    is_http2: bool,
}

impl<'a> Sockets<'a> {
    /// One connection for each stream.
    pub fn http1(gateway: &'a Gateway, tls: Option<&'a Tls>) -> Self {
        Self { gateway, tls, is_http2: false }
    }

    /// Connections of [`PER_CONNECTION`] streams.
    pub fn http2(gateway: &'a Gateway, tls: Option<&'a Tls>) -> Self {
        Self { gateway, tls, is_http2: true }
    }

    /// Opens `count` streams, each of a user of its own.
    pub async fn open(&self, open: &mut Vec<Open>, count: usize) {
        for _ in 0..count / if self.is_http2 { PER_CONNECTION } else { 1 } {
            let connection = open.len();
            open.push(match self.is_http2 {
                true => Open::Http2(self.http2_connection(connection).await),
                false => Open::Http1(self.http1_connection(connection).await),
            });
        }
    }

    async fn http1_connection(&self, connection: usize) -> Box<dyn std::any::Any> {
        let tcp = TcpStream::connect(self.gateway.public).await.expect("the listener accepts");
        let request = format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", path(connection, 0));
        match self.tls {
            None => Box::new(connected(tcp, &request).await),
            Some(tls) => {
                let name = ServerName::try_from("127.0.0.1").unwrap();
                let tls = tls.connector.connect(name, tcp).await.expect("a handshake");
                Box::new(connected(tls, &request).await)
            }
        }
    }

    async fn http2_connection(&self, connection: usize) -> Http2 {
        let mut client = match self.tls {
            None => Http2::connect(self.gateway, &[]).await,
            Some(tls) => Http2::connect_tls(self.gateway, &tls.dir, &[]).await,
        };
        for n in 0..PER_CONNECTION {
            let stream = 2 * n as u32 + 1;
            client.send(&http2::get(stream, &path(connection, n))).await;
            let mut text = Vec::new();
            while !is_connected(&text) {
                text.extend(client.frame(http2::DATA, stream).await.payload);
            }
        }
        client
    }
}

fn path(connection: usize, n: usize) -> String {
    format!("/events?ticket={}", ticket(&format!("u{connection}-{n}")).jwt())
}

fn is_connected(text: &[u8]) -> bool {
    String::from_utf8_lossy(text).contains("sse.connected")
}

/// Sends a request, and waits for the first event.
async fn connected<S: Socket>(mut socket: S, request: &str) -> S {
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut text = Vec::new();
    let reading = async {
        while !is_connected(&text) {
            assert_ne!(socket.read_buf(&mut text).await.expect("bytes"), 0, "the end");
        }
    };
    tokio::time::timeout(GUARD, reading).await.expect("the first event");
    socket
}

//! Opens the socket to Redis: TCP, TCP with TLS, or a Unix socket.

use std::{io, sync::Arc};

use futures_util::future::select_ok;
use redis::{ConnectionAddr, io::tcp::TcpSettings};
use rustls::{ClientConfig, pki_types::ServerName};
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream, lookup_host},
};
use tokio_rustls::TlsConnector;

use super::error::OpenError;

/// Both directions of a socket.
pub(super) type Halves = (Box<dyn AsyncRead + Send + Unpin>, Box<dyn AsyncWrite + Send + Unpin>);

/// Connects to Redis.
pub(super) async fn connect(
    address: &ConnectionAddr,
    settings: &TcpSettings,
    tls: Option<Arc<ClientConfig>>,
) -> Result<Halves, OpenError> {
    match address {
        ConnectionAddr::Tcp(host, port) => {
            let (read, write) = connect_tcp(host, *port, settings).await?.into_split();
            Ok((Box::new(read), Box::new(write)))
        }
        ConnectionAddr::TcpTls { insecure: true, .. } => Err(OpenError::Insecure),
        ConnectionAddr::TcpTls { host, port, .. } => {
            let name = ServerName::try_from(host.clone())?;
            let stream = connect_tcp(host, *port, settings).await?;
            let stream =
                TlsConnector::from(tls.ok_or(OpenError::NoTls)?).connect(name, stream).await?;
            let (read, write) = tokio::io::split(stream);
            Ok((Box::new(read), Box::new(write)))
        }
        ConnectionAddr::Unix(path) => {
            let (read, write) = UnixStream::connect(path).await?.into_split();
            Ok((Box::new(read), Box::new(write)))
        }
        _ => Err(io::Error::from(io::ErrorKind::Unsupported).into()),
    }
}

/// Connects to the first address of a host that accepts.
async fn connect_tcp(host: &str, port: u16, settings: &TcpSettings) -> io::Result<TcpStream> {
    let addresses: Vec<_> = lookup_host((host, port)).await?.collect();
    if addresses.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the host has no address"));
    }
    let attempts = addresses.into_iter().map(|address| Box::pin(TcpStream::connect(address)));
    let (stream, _others) = select_ok(attempts).await?;
    // A command must not wait for the acknowledgement of the one before it.
    stream.set_nodelay(true)?;
    if let Some(keepalive) = settings.keepalive() {
        SockRef::from(&stream).set_tcp_keepalive(keepalive)?;
    }
    Ok(stream)
}

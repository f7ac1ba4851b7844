//! A client's connection: cleartext, or TLS with rustls.

use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;

use crate::http::sockets::tcp::ClientTcp;

/// Cleartext, or TLS. TLS is boxed: most connections are cleartext, and its state is large.
pub type Socket = Either<ClientTcp, Box<TlsStream<ClientTcp>>>;

/// The TCP connection of a socket.
pub fn tcp_of(socket: &Socket) -> &ClientTcp {
    match socket {
        Either::Left(tcp) => tcp,
        Either::Right(tls) => tls.get_ref().0,
    }
}

/// Whether the TLS handshake has agreed on HTTP/2.
pub fn has_agreed_on_http2(socket: &Socket) -> bool {
    match socket {
        Either::Left(_) => false,
        Either::Right(tls) => tls.get_ref().1.alpn_protocol() == Some(b"h2"),
    }
}

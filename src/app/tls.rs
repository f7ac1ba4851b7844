//! TLS 1.2 and 1.3 with rustls; h2 and HTTP/1.1 by ALPN. The certificate can be replaced, which
//! does not affect open connections.

use std::{io, path::Path, sync::Arc};

use arc_swap::ArcSwap;
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use tokio_rustls::TlsAcceptor;

fn fault(path: &Path, what: &str, error: impl std::fmt::Display) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidInput,
        format!("{} contains no {what} in PEM ({error})", path.display()),
    )
}

/// The current certificate chain and key.
#[derive(Debug)]
pub struct Certificate(ArcSwap<CertifiedKey>);

impl Certificate {
    /// Reads the PEM files.
    ///
    /// # Errors
    /// A file cannot be read, or the certificate does not match the key.
    pub fn new(certificate: &Path, key: &Path) -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self(ArcSwap::from_pointee(read(certificate, key)?))))
    }

    /// Reads the files again, for new connections. Returns whether the certificate has changed.
    ///
    /// # Errors
    /// See [`Certificate::new`]; the previous certificate stays active.
    pub fn reload(&self, certificate: &Path, key: &Path) -> io::Result<bool> {
        let new = read(certificate, key)?;
        let changed = new.cert != self.0.load().cert;
        self.0.store(new.into());
        Ok(changed)
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

fn read(certificate: &Path, key: &Path) -> io::Result<CertifiedKey> {
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|e| fault(certificate, "certificate chain", e))?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|e| fault(key, "private key", e))?;
    CertifiedKey::from_der(chain, private, &aws_lc_rs::default_provider()).map_err(|e| {
        fault(certificate, &format!("certificate that matches the key in {}", key.display()), e)
    })
}

/// Creates the acceptor of TLS connections.
///
/// # Errors
/// rustls supports no protocol version.
pub fn acceptor(certificate: Arc<Certificate>) -> io::Result<TlsAcceptor> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map(|builder| builder.with_no_client_auth().with_cert_resolver(certificate))
        .map_err(io::Error::other)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

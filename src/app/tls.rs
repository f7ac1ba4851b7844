//! TLS 1.2 and 1.3 with rustls; h2 and HTTP/1.1 by ALPN. The certificate can be replaced, which
//! does not affect open connections.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::ArcSwap;
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject},
    },
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The file of the chain cannot be read or contains no certificates.
    #[error("server.tls.certificate: {} must be a readable certificate chain in PEM", .0.display())]
    Chain(PathBuf, #[source] pem::Error),
    /// The file of the key cannot be read or contains no key.
    #[error("server.tls.key: {} must be a readable private key in PEM", .0.display())]
    Key(PathBuf, #[source] pem::Error),
    /// The two do not belong together, or the key has an unsupported type.
    #[error(
        "server.tls.certificate: {} contains no certificate that matches the key in {}; \
         use a matching pair",
        certificate.display(), key.display()
    )]
    Mismatch {
        /// The file of the chain.
        certificate: PathBuf,
        /// The file of the key.
        key: PathBuf,
        /// The reason.
        source: rustls::Error,
    },
}

/// The current certificate chain and key.
#[derive(Debug)]
pub struct Certificate(ArcSwap<CertifiedKey>);

impl Certificate {
    /// Reads the PEM files.
    ///
    /// # Errors
    /// See [`CertificateError`].
    pub fn new(certificate: &Path, key: &Path) -> Result<Arc<Self>, CertificateError> {
        Ok(Arc::new(Self(ArcSwap::from_pointee(read(certificate, key)?))))
    }

    /// Reads the files again, for new connections. Returns whether the certificate has changed.
    ///
    /// # Errors
    /// See [`Certificate::new`]; the previous certificate stays active.
    pub fn reload(&self, certificate: &Path, key: &Path) -> Result<bool, CertificateError> {
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

fn read(certificate: &Path, key: &Path) -> Result<CertifiedKey, CertificateError> {
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|source| CertificateError::Chain(certificate.into(), source))?;
    let private = PrivateKeyDer::from_pem_file(key)
        .map_err(|source| CertificateError::Key(key.into(), source))?;
    let made = CertifiedKey::from_der(chain, private, &aws_lc_rs::default_provider());
    made.map_err(|source| CertificateError::Mismatch {
        certificate: certificate.into(),
        key: key.into(),
        source,
    })
}

/// Creates the configuration of TLS connections.
///
/// # Errors
/// rustls supports no protocol version.
pub fn server_config(certificate: Arc<Certificate>) -> Result<Arc<ServerConfig>, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map(|builder| builder.with_no_client_auth().with_cert_resolver(certificate))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

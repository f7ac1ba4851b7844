//! TLS by rustls: 1.2 and 1.3, with h2 and HTTP/1.1 by ALPN.

use std::{io, path::Path, sync::Arc};

use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

fn fault(path: &Path, what: &str, error: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("{} holds no {what} in PEM ({error})", path.display()))
}

/// The server's configuration from its PEM files.
///
/// # Errors
/// A file cannot be read or does not fit.
pub fn config(certificate: &Path, key: &Path) -> io::Result<ServerConfig> {
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|e| fault(certificate, "certificate chain", e))?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|e| fault(key, "private key", e))?;
    ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, private))
        .map_err(|e| fault(certificate, "certificate that fits its key", e))
}

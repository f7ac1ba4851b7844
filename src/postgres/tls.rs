//! TLS to Postgres. The certificate and the name of the host are always checked.

use std::{path::PathBuf, sync::Arc};

use rustls::{ClientConfig, crypto::aws_lc_rs, pki_types::pem};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::settings::{PemFile, pem_file::authorities};

/// Why `sources.postgres.ca_file` cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// It contains something else than certificates of authorities.
    #[error(
        "sources.postgres.ca_file: {} must contain certificates of authorities; use such a file",
        .0.display()
    )]
    Authority(PathBuf, #[source] rustls::Error),
    /// It is not valid PEM.
    #[error("sources.postgres.ca_file: {} must be valid PEM; use such a file", .0.display())]
    Pem(PathBuf, #[source] pem::Error),
    /// rustls supports no protocol version.
    #[error("sources.postgres: TLS could not be initialised")]
    Protocol(#[source] rustls::Error),
}

/// TLS with the authorities of `ca`, or the public ones.
///
/// # Errors
/// See [`TlsError`].
pub fn connector(ca: Option<&PemFile>) -> Result<MakeRustlsConnect, TlsError> {
    let roots = authorities(ca, TlsError::Pem, TlsError::Authority)?;
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Protocol)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}

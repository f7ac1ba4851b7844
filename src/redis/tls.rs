//! TLS to Redis and to the sentinels.

use std::{path::PathBuf, sync::Arc};

use redis::{ConnectionInfo, IntoConnectionInfo, RedisError, TlsCertificates};
use rustls::{ClientConfig, crypto::aws_lc_rs, pki_types::pem};
use secrecy::ExposeSecret;

use crate::settings::{PemFile, RedisTls, pem_file::authorities};

/// Why the settings in `[redis.tls]` cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file of the authorities cannot be used.
    #[error(
        "redis.tls.ca_file: {} must contain certificates of authorities; use such a file",
        .0.display()
    )]
    Authority(PathBuf, #[source] rustls::Error),
    /// A file is not valid PEM.
    #[error("redis.tls: {} must be valid PEM; use such a file", .0.display())]
    Pem(PathBuf, #[source] pem::Error),
    /// The client certificate and its key cannot be used.
    #[error(
        "redis.tls.certificate_file: {} contains no certificate that matches the key in {}; \
         use a matching pair",
        certificate.display(), key.display()
    )]
    Identity {
        /// The file of the certificate.
        certificate: PathBuf,
        /// The file of the key.
        key: PathBuf,
        /// The reason.
        source: rustls::Error,
    },
    /// rustls supports no protocol version.
    #[error("redis.tls: TLS could not be initialised")]
    Protocol(#[source] rustls::Error),
    /// redis-rs does not accept what rustls accepts.
    #[error("redis.tls: the files cannot be used; use certificates and a key in PEM")]
    Redis(#[source] RedisError),
}

/// The configuration of TLS connections to Redis: the authorities of `redis.tls.ca_file`, or the
/// public ones, and the client certificate, if there is one.
///
/// # Errors
/// See [`TlsError`].
pub fn client_config(tls: &RedisTls) -> Result<Arc<ClientConfig>, TlsError> {
    let roots = authorities(tls.ca.as_ref(), TlsError::Pem, TlsError::Authority)?;
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Protocol)?
        .with_root_certificates(roots);
    let (Some(certificate), Some(key)) = (&tls.certificate, &tls.key) else {
        return Ok(Arc::new(builder.with_no_client_auth()));
    };
    let pem = |file: &PemFile, source| TlsError::Pem(file.path.clone(), source);
    let chain = certificate.certificates().map_err(|e| pem(certificate, e))?;
    let private = key.private_key().map_err(|e| pem(key, e))?;
    builder.with_client_auth_cert(chain, private).map(Arc::new).map_err(|source| {
        let (certificate, key) = (certificate.path.clone(), key.path.clone());
        TlsError::Identity { certificate, key, source }
    })
}

/// The same for connections of redis-rs: host, port and credentials are to be replaced.
///
/// # Errors
/// See [`TlsError`].
pub fn template(tls: &RedisTls, is_tls: bool) -> Result<ConnectionInfo, TlsError> {
    if !is_tls {
        return "redis://localhost".into_connection_info().map_err(TlsError::Redis);
    }
    let bytes = |file: &PemFile| file.pem.expose_secret().to_vec();
    let client_tls = tls.certificate.as_ref().zip(tls.key.as_ref());
    let client_tls = client_tls.map(|(certificate, key)| redis::ClientTlsConfig {
        client_cert: bytes(certificate),
        client_key: bytes(key),
    });
    let certificates = TlsCertificates { client_tls, root_cert: tls.ca.as_ref().map(bytes) };
    let client = redis::Client::build_with_tls("rediss://localhost", certificates);
    client.map(|client| client.get_connection_info().clone()).map_err(TlsError::Redis)
}

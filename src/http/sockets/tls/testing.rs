//! TLS configurations for tests.

use std::{
    fs,
    process::{Command, Stdio},
    sync::{Arc, LazyLock},
};

use rustls::{
    ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

/// A certificate for `localhost` and its key, in PEM.
static IDENTITY: LazyLock<(Vec<u8>, Vec<u8>)> = LazyLock::new(|| {
    let dir = std::env::temp_dir().join(format!("sse-gateway-tls-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    let status = Command::new("openssl")
        .current_dir(&dir)
        .args(["req", "-x509", "-nodes", "-days", "2", "-subj", "/CN=localhost"])
        .args(["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"])
        .args(["-addext", "subjectAltName=DNS:localhost"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .args(["-keyout", "key.pem", "-out", "certificate.pem"])
        .stderr(Stdio::null())
        .status();
    assert!(status.expect("openssl is installed").success());
    let read = |name: &str| fs::read(dir.join(name)).unwrap();
    let identity = (read("certificate.pem"), read("key.pem"));
    fs::remove_dir_all(&dir).unwrap();
    identity
});

/// The configuration of a server, as `app::tls` makes it.
pub fn server() -> Arc<ServerConfig> {
    let chain = vec![CertificateDer::from_pem_slice(&IDENTITY.0).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(&IDENTITY.1).unwrap();
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Arc::new(config)
}

/// The configuration of a client that uses this version and HTTP/1.1.
pub fn client(version: &'static SupportedProtocolVersion) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&IDENTITY.0).unwrap()).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config)
}

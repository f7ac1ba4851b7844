//! Files with certificates and keys in PEM, which are read and checked when the settings are
//! loaded.

use std::path::PathBuf;

use rustls::{
    RootCertStore,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject},
    },
};
use secrecy::{ExposeSecret, SecretSlice};
use toml::Value;

use super::{
    error::ValueError,
    parse::{self, Parsed},
};

/// A file in PEM, as it was when the settings were loaded.
#[derive(Clone, Debug)]
pub struct PemFile {
    /// The file.
    pub path: PathBuf,
    /// Its content.
    pub pem: SecretSlice<u8>,
}

impl PemFile {
    /// The certificates in the file.
    ///
    /// # Errors
    /// The file is not valid PEM; it was when the settings were loaded.
    pub fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, pem::Error> {
        CertificateDer::pem_slice_iter(self.pem.expose_secret()).collect()
    }

    /// The first private key in the file.
    ///
    /// # Errors
    /// The file contains none; it did when the settings were loaded.
    pub fn private_key(&self) -> Result<PrivateKeyDer<'static>, pem::Error> {
        PrivateKeyDer::from_pem_slice(self.pem.expose_secret())
    }
}

/// The authorities in a file, or the public ones. `invalid` and `refused` make the errors: the file
/// is not valid PEM, or contains something else than certificates of authorities.
///
/// # Errors
/// Those of `invalid` and `refused`.
pub fn authorities<E>(
    file: Option<&PemFile>,
    invalid: fn(PathBuf, pem::Error) -> E,
    refused: fn(PathBuf, rustls::Error) -> E,
) -> Result<RootCertStore, E> {
    let mut roots = RootCertStore::empty();
    let Some(file) = file else {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        return Ok(roots);
    };
    for certificate in file.certificates().map_err(|source| invalid(file.path.clone(), source))? {
        roots.add(certificate).map_err(|source| refused(file.path.clone(), source))?;
    }
    Ok(roots)
}

fn read(value: &Value) -> Parsed<Option<PemFile>> {
    let Some(path) = parse::path(value)? else { return Ok(None) };
    match std::fs::read(&path) {
        Ok(pem) => Ok(Some(PemFile { path, pem: pem.into() })),
        Err(source) => Err(ValueError::UnreadableFile(path, source)),
    }
}

/// A file with at least one certificate, or `None` if the path is empty.
pub fn certificates(value: &Value) -> Parsed<Option<PemFile>> {
    checked(read(value)?, "certificates", |file| match file.certificates() {
        Ok(found) if found.is_empty() => Err(pem::Error::NoItemsFound),
        other => other.map(drop),
    })
}

/// A file with a private key, or `None` if the path is empty.
pub fn private_key(value: &Value) -> Parsed<Option<PemFile>> {
    checked(read(value)?, "a private key", |file| file.private_key().map(drop))
}

fn checked(
    file: Option<PemFile>,
    expected: &'static str,
    check: impl Fn(&PemFile) -> Result<(), pem::Error>,
) -> Parsed<Option<PemFile>> {
    match file.as_ref().map(check) {
        Some(Err(source)) => {
            let path = file.map(|file| file.path).unwrap_or_default();
            Err(ValueError::Pem { path, expected, source })
        }
        _ => Ok(file),
    }
}

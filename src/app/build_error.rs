//! Why an instance cannot be built.

use std::{io, net::SocketAddr};

use super::{descriptors::DescriptorsError, tls::CertificateError};
use crate::{
    auth::SetupError, redis::tls::TlsError, sources::SourcesError, spans::exporter::StartError,
};

/// Why an instance cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The address of a listener is not set.
    #[error("{0}: must be set to ADDRESS:PORT")]
    NoAddress(&'static str),
    /// A listener cannot be bound.
    #[error("{setting}: cannot listen on {address}; choose another address or port")]
    Listen {
        /// The setting with the address.
        setting: &'static str,
        /// The address.
        address: SocketAddr,
        /// The reason.
        source: io::Error,
    },
    /// The certificate or its key cannot be used.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// TLS cannot be initialised.
    #[error("server.tls: TLS could not be initialised")]
    Tls(#[source] rustls::Error),
    /// Authentication cannot be set up.
    #[error(transparent)]
    Auth(#[from] SetupError),
    /// The limit of open files is too low.
    #[error(transparent)]
    Descriptors(#[from] DescriptorsError),
    /// The files for TLS to Redis cannot be used.
    #[error(transparent)]
    RedisTls(#[from] TlsError),
    /// The exporter of spans cannot be started.
    #[error(transparent)]
    Spans(#[from] StartError),
    /// External sources cannot be created.
    #[error(transparent)]
    Sources(#[from] SourcesError),
    /// A thread with its runtime cannot be started.
    #[error("the thread {name} could not be started; check the limits of threads and open files")]
    Thread {
        /// Name of the thread or of its listener.
        name: &'static str,
        /// The reason.
        source: io::Error,
    },
}

impl BuildError {
    /// Whether the configuration must be changed. Otherwise another attempt can succeed.
    pub fn is_configuration(&self) -> bool {
        match self {
            Self::Listen { .. } | Self::Tls(_) | Self::Spans(_) | Self::Thread { .. } => false,
            Self::Auth(error) => error.is_configuration(),
            Self::NoAddress(_)
            | Self::Certificate(_)
            | Self::Descriptors(_)
            | Self::RedisTls(_)
            | Self::Sources(_) => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error_chain::ErrorChain;

    #[test]
    fn taken_port_is_no_error_of_the_configuration() {
        let address = SocketAddr::from(([127, 0, 0, 1], 80));
        let source = io::Error::from(io::ErrorKind::AddrInUse);
        let error = BuildError::Listen { setting: "server.listen", address, source };
        assert!(!error.is_configuration() && BuildError::NoAddress("a.b").is_configuration());
        assert_eq!(
            ErrorChain(&error).to_string(),
            "server.listen: cannot listen on 127.0.0.1:80; choose another address or port: \
             address in use"
        );
    }
}

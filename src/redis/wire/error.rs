//! Why a connection could not be opened, and why it ended.

use std::io;

use redis::RedisError;

use super::frame::FrameError;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The host has no address, or none that accepts a connection; or TLS failed.
    #[error(transparent)]
    Socket(#[from] io::Error),
    /// The host's name is not valid in a certificate.
    #[error("the host of redis.url cannot be verified with TLS")]
    HostName(#[from] rustls::pki_types::InvalidDnsNameError),
    /// TLS without verification is not supported.
    #[error("#insecure in redis.url is not supported: remove it, and use a valid certificate")]
    Insecure,
    /// The address requires TLS, for which there is no configuration.
    #[error("the connection has no TLS configuration")]
    NoTls,
    /// The server was not ready in time.
    #[error("no connection within redis.command_timeout")]
    Timeout,
    /// The server refuses the credentials, the database or RESP3.
    #[error("Redis refused the connection")]
    Refused(#[source] RedisError),
    /// The connection ended meanwhile.
    #[error(transparent)]
    Ended(#[from] EndReason),
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub enum EndReason {
    /// The server closed it.
    #[error("Redis closed the connection")]
    Closed,
    /// Reading failed.
    #[error("could not read from Redis")]
    Read(#[source] io::Error),
    /// Writing failed.
    #[error("could not write to Redis")]
    Write(#[source] io::Error),
    /// A frame is too long, or malformed.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A reply has no meaning.
    #[error("Redis sent a malformed reply")]
    Reply(#[source] RedisError),
    /// A reply or confirmation came that no command waits for: which reply answers which command is
    /// no longer known.
    #[error("Redis sent a reply that no command waits for: {0}")]
    Unexpected(String),
    /// The connection is no longer needed.
    #[error("the connection was dropped")]
    Dropped,
}

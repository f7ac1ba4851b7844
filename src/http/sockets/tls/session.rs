//! One TLS connection as seen by the server, from bytes to bytes: no I/O and no buffer of its own.

use std::{io, mem, sync::Arc};

use bytes::Bytes;
use rustls::{
    Error, ServerConfig,
    server::{ServerConnectionData, UnbufferedServerConnection},
    unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus, WriteTraffic},
};
use tokio::io::ReadBuf;

/// Maximum number of bytes that wait for the rest of a record or handshake message. rustls rejects
/// records and handshake messages that would need more.
pub(super) const MAX_PARTIAL_BYTES: usize = 0xffff;

/// Maximum size of a record's content.
const RECORD_BYTES: usize = 16 << 10;
/// What a record adds to its content: header, nonce or content type, and authentication tag.
const RECORD_OVERHEAD_BYTES: usize = 64;

/// The state of a TLS connection.
pub struct TlsSession {
    rustls: UnbufferedServerConnection,
    /// The start of a record or handshake message whose rest has not arrived.
    partial: Vec<u8>,
    /// What was decrypted and not yet read.
    plaintext: Bytes,
    /// Whether the client has sent close_notify.
    is_closed: bool,
    /// Whether the connection is over because of an error, so that rustls must not be called.
    has_failed: bool,
}

/// What the client's records contained.
#[derive(Default)]
struct Received {
    plaintext: Vec<u8>,
    is_closed: bool,
}

impl TlsSession {
    /// Starts a connection, which waits for the client's handshake.
    ///
    /// # Errors
    /// The configuration is unusable.
    pub fn new(config: Arc<ServerConfig>) -> Result<Self, Error> {
        Ok(Self {
            rustls: UnbufferedServerConnection::new(config)?,
            partial: Vec::new(),
            plaintext: Bytes::new(),
            is_closed: false,
            has_failed: false,
        })
    }

    /// Whether the handshake is incomplete.
    pub fn is_handshaking(&self) -> bool {
        self.rustls.is_handshaking()
    }

    /// Whether the handshake has agreed on HTTP/2.
    pub fn has_agreed_on_http2(&self) -> bool {
        self.rustls.alpn_protocol() == Some(b"h2")
    }

    /// Whether [`TlsSession::read`] has something to return without more bytes from the client:
    /// plaintext or the end.
    pub fn has_unread(&self) -> bool {
        !self.plaintext.is_empty() || self.is_closed
    }

    /// Number of bytes that the buffers of this connection have.
    #[cfg(test)]
    pub fn buffer_bytes(&self) -> usize {
        self.partial.capacity() + self.plaintext.len()
    }

    /// Moves plaintext to a buffer. Returns `false` while none has arrived. After the client has
    /// ended the connection, moves nothing and returns `true`.
    pub fn read(&mut self, buffer: &mut ReadBuf<'_>) -> bool {
        let count = self.plaintext.len().min(buffer.remaining());
        buffer.put_slice(&self.plaintext.split_to(count));
        if self.plaintext.is_empty() {
            self.plaintext = Bytes::new();
        }
        count > 0 || self.is_closed
    }

    /// Discards unread plaintext.
    pub fn discard(&mut self) {
        self.plaintext = Bytes::new();
    }

    /// Processes bytes from the client, in place, and appends to `outbound` what must be sent to
    /// it, also in case of an error.
    ///
    /// # Errors
    /// The client violates the protocol, or has sent an alert. The connection is over.
    pub fn receive(&mut self, bytes: &mut [u8], outbound: &mut Vec<u8>) -> io::Result<()> {
        self.check()?;
        let mut received = Received::default();
        let mut partial = mem::take(&mut self.partial);
        let result = if partial.is_empty() {
            let result = process(&mut self.rustls, bytes, outbound, &mut received);
            result.map(|used| partial = bytes[used..].to_vec())
        } else {
            partial.extend_from_slice(bytes);
            let result = process(&mut self.rustls, &mut partial, outbound, &mut received);
            result.map(|used| drop(partial.drain(..used)))
        };
        if !received.plaintext.is_empty() {
            self.plaintext = [&self.plaintext[..], &received.plaintext].concat().into();
        }
        self.is_closed |= received.is_closed;
        // Everything after close_notify is ignored.
        if !self.is_closed && !partial.is_empty() {
            self.partial = partial;
        }
        let is_full = self.partial.len() >= MAX_PARTIAL_BYTES;
        self.has_failed = result.is_err() || is_full;
        result.map_err(invalid)?;
        match is_full {
            true => Err(invalid("the message is too large")),
            false => Ok(()),
        }
    }

    /// Encrypts plaintext, and appends the records to `outbound`, after whatever else must be sent.
    ///
    /// # Errors
    /// The connection is over, or its keys must not be used any more. All of `outbound` must be
    /// sent anyway.
    pub fn encrypt(&mut self, plaintext: &[u8], outbound: &mut Vec<u8>) -> io::Result<()> {
        self.write(outbound, |traffic, outbound| {
            let records = 1 + plaintext.len() / RECORD_BYTES;
            let space = plaintext.len() + records * RECORD_OVERHEAD_BYTES;
            fill(outbound, space, |free| traffic.encrypt(plaintext, free))
        })
    }

    /// Appends close_notify to `outbound`, after whatever else must be sent. Does nothing if it, or
    /// a fatal alert, was sent before.
    ///
    /// # Errors
    /// The connection is over.
    pub fn close(&mut self, outbound: &mut Vec<u8>) -> io::Result<()> {
        self.write(outbound, |traffic, outbound| {
            fill(outbound, RECORD_OVERHEAD_BYTES, |free| traffic.queue_close_notify(free))
        })
    }

    fn write(
        &mut self,
        outbound: &mut Vec<u8>,
        write: impl FnOnce(
            &mut WriteTraffic<'_, ServerConnectionData>,
            &mut Vec<u8>,
        ) -> Result<(), EncryptError>,
    ) -> io::Result<()> {
        self.check()?;
        loop {
            // Without the bytes that it has seen before, rustls would lose its place.
            let UnbufferedStatus { state, .. } = self.rustls.process_tls_records(&mut self.partial);
            match state {
                Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                    let result = write(&mut traffic, outbound);
                    // The keys are exhausted: close_notify is due.
                    self.has_failed = result.is_err();
                    encode_waiting(&mut self.rustls, &mut self.partial, outbound);
                    return result.map_err(|error| io::Error::other(format!("{error:?}")));
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    fill(outbound, RECORD_OVERHEAD_BYTES, |free| data.encode(free))
                        .map_err(invalid)?;
                }
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::PeerClosed) => self.is_closed = true,
                Ok(_) => return Err(io::ErrorKind::NotConnected.into()),
                Err(error) => {
                    self.has_failed = true;
                    return Err(invalid(error));
                }
            }
        }
    }

    fn check(&self) -> io::Result<()> {
        match self.has_failed {
            true => Err(io::ErrorKind::ConnectionAborted.into()),
            false => Ok(()),
        }
    }
}

/// Processes records until the rest is incomplete, and returns the number of bytes used.
fn process(
    rustls: &mut UnbufferedServerConnection,
    inbound: &mut [u8],
    outbound: &mut Vec<u8>,
    received: &mut Received,
) -> Result<usize, Error> {
    let mut used = 0;
    loop {
        let UnbufferedStatus { mut discard, state, .. } =
            rustls.process_tls_records(&mut inbound[used..]);
        match state {
            Ok(ConnectionState::EncodeTlsData(mut data)) => {
                fill(outbound, RECORD_OVERHEAD_BYTES, |free| data.encode(free))
                    .map_err(|error| Error::General(error.to_string()))?;
            }
            // Sent by the caller.
            Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
            Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                while let Some(record) = traffic.next_record() {
                    let record = record?;
                    discard += record.discard;
                    received.plaintext.extend_from_slice(record.payload);
                }
            }
            Ok(ConnectionState::PeerClosed) => received.is_closed = true,
            // More bytes or plaintext are needed. Early data is not enabled.
            Ok(_) => return Ok(used + discard),
            Err(error) => {
                used += discard;
                encode_waiting(rustls, &mut inbound[used..], outbound);
                return Err(error);
            }
        }
        used += discard;
    }
}

/// Appends alerts that wait to be sent. The connection may have failed, and then rustls must not be
/// made to process more records.
fn encode_waiting(
    rustls: &mut UnbufferedServerConnection,
    inbound: &mut [u8],
    outbound: &mut Vec<u8>,
) {
    while rustls.wants_write() {
        let UnbufferedStatus { state, .. } = rustls.process_tls_records(inbound);
        let Ok(ConnectionState::EncodeTlsData(mut data)) = state else { return };
        if fill(outbound, RECORD_OVERHEAD_BYTES, |free| data.encode(free)).is_err() {
            return;
        }
    }
}

/// An error that may name the space that is needed.
trait Space: Sized {
    /// The number of bytes needed; `None` if it is another error.
    fn needed(&self) -> Option<usize>;
}

impl Space for EncodeError {
    fn needed(&self) -> Option<usize> {
        match self {
            Self::InsufficientSize(size) => Some(size.required_size),
            Self::AlreadyEncoded => None,
        }
    }
}

impl Space for EncryptError {
    fn needed(&self) -> Option<usize> {
        match self {
            Self::InsufficientSize(size) => Some(size.required_size),
            Self::EncryptExhausted => None,
        }
    }
}

/// Appends what `write` writes, with as much space as it needs.
fn fill<E: Space>(
    outbound: &mut Vec<u8>,
    mut space: usize,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, E>,
) -> Result<(), E> {
    let start = outbound.len();
    loop {
        outbound.resize(start + space, 0);
        let written = write(&mut outbound[start..]);
        outbound.truncate(start + *written.as_ref().unwrap_or(&0));
        match written {
            Ok(_) => return Ok(()),
            Err(error) => match error.needed().filter(|needed| *needed > space) {
                Some(needed) => space = needed,
                None => return Err(error),
            },
        }
    }
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

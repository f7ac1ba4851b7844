//! An HTTP/2 client that sends any frames, valid or not.

use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore, pki_types::CertificateDer, pki_types::pem::PemObject};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;

use super::keys::Dir;
use super::{GUARD, Gateway};

/// Types of frames (RFC 9113 section 6).
pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

/// Flags.
pub const ACK: u8 = 1;
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// Error codes (RFC 9113 section 7).
pub const NO_ERROR: u32 = 0;
pub const PROTOCOL_ERROR: u32 = 1;
pub const REFUSED_STREAM: u32 = 7;
pub const CANCEL: u32 = 8;
pub const ENHANCE_YOUR_CALM: u32 = 11;

/// Settings.
pub const MAX_CONCURRENT_STREAMS: u16 = 3;
pub const INITIAL_WINDOW_SIZE: u16 = 4;

/// First octet of a response's header block with this status.
pub const STATUS_200: u8 = 0x88;
pub const STATUS_404: u8 = 0x8d;

trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// A frame.
#[derive(Clone, Debug)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    /// Whether it ends its stream.
    pub fn ends(&self) -> bool {
        matches!(self.kind, DATA | HEADERS) && self.flags & END_STREAM != 0
    }

    /// The error code of RST_STREAM or GOAWAY.
    pub fn code(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }
}

/// The bytes of a frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A header block of literal fields.
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for text in fields.iter().flat_map(|(name, value)| [*name, *value]).enumerate() {
        let (n, text) = text;
        if n % 2 == 0 {
            bytes.push(0);
        }
        // An integer with a prefix of 7 bits (RFC 7541 section 5.1).
        match text.len() {
            len @ 0..127 => bytes.push(len as u8),
            mut len => {
                bytes.push(127);
                len -= 127;
                while len >= 128 {
                    bytes.push(128 | (len % 128) as u8);
                    len /= 128;
                }
                bytes.push(len as u8);
            }
        }
        bytes.extend(text.bytes());
    }
    bytes
}

/// The fields of a request.
pub fn request<'a>(method: &'a str, path: &'a str) -> Vec<(&'a str, &'a str)> {
    vec![(":method", method), (":scheme", "http"), (":authority", "gateway.test"), (":path", path)]
}

/// The frame of a GET request.
pub fn get(stream: u32, path: &str) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &block(&request("GET", path)))
}

/// A connection.
pub struct Http2 {
    io: Box<dyn Io>,
    read: Vec<u8>,
}

impl Http2 {
    /// Connects without TLS, by prior knowledge, with these settings.
    pub async fn connect(gateway: &Gateway, settings: &[(u16, u32)]) -> Http2 {
        let tcp = TcpStream::connect(gateway.public).await.expect("the listener accepts");
        tcp.set_nodelay(true).unwrap();
        Http2::start(Box::new(tcp), settings).await
    }

    /// The same, with a receive buffer of this many bytes.
    pub async fn connect_narrow(gateway: &Gateway, buffer: u32, settings: &[(u16, u32)]) -> Http2 {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(buffer).unwrap();
        let tcp = socket.connect(gateway.public).await.expect("the listener accepts");
        tcp.set_nodelay(true).unwrap();
        Http2::start(Box::new(tcp), settings).await
    }

    /// Connects with TLS; `dir` holds the authority's certificate.
    pub async fn connect_tls(gateway: &Gateway, dir: &Dir, settings: &[(u16, u32)]) -> Http2 {
        let mut roots = RootCertStore::empty();
        let pem = dir.read("ca.pem");
        roots.add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder =
            ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let mut config = builder.unwrap().with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let tcp = TcpStream::connect(gateway.public).await.expect("the listener accepts");
        let name = "127.0.0.1".try_into().unwrap();
        let tls =
            TlsConnector::from(Arc::new(config)).connect(name, tcp).await.expect("a handshake");
        Http2::start(Box::new(tls), settings).await
    }

    async fn start(io: Box<dyn Io>, settings: &[(u16, u32)]) -> Http2 {
        let mut client = Http2 { io, read: Vec::new() };
        client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
        client.settings(settings).await;
        client
    }

    /// Sends SETTINGS.
    pub async fn settings(&mut self, settings: &[(u16, u32)]) {
        let payload: Vec<u8> = settings
            .iter()
            .flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat())
            .collect();
        self.send(&frame(SETTINGS, 0, 0, &payload)).await;
    }

    /// Sends bytes.
    pub async fn send(&mut self, bytes: &[u8]) {
        assert!(self.try_send(bytes).await, "the connection has ended");
    }

    /// The same, but returns `false` if the connection has ended.
    pub async fn try_send(&mut self, bytes: &[u8]) -> bool {
        let sending =
            async { self.io.write_all(bytes).await.is_ok() && self.io.flush().await.is_ok() };
        tokio::time::timeout(GUARD, sending).await.expect("the gateway reads")
    }

    /// Opens a window: that of a stream, or of the connection (0).
    pub async fn open_window(&mut self, stream: u32, bytes: u32) {
        self.send(&frame(WINDOW_UPDATE, 0, stream, &bytes.to_be_bytes())).await;
    }

    /// The next frame, or `None` at the end. Acknowledges SETTINGS and PING.
    pub async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.take() {
                match (frame.kind, frame.flags & ACK) {
                    (SETTINGS, 0) => drop(self.try_send(&self::frame(SETTINGS, ACK, 0, b"")).await),
                    (PING, 0) => {
                        let ack = self::frame(PING, ACK, 0, &frame.payload);
                        self.try_send(&ack).await;
                    }
                    _ => {}
                }
                return Some(frame);
            }
            let reading = self.io.read_buf(&mut self.read);
            let read = tokio::time::timeout(GUARD, reading).await.expect("a frame in time");
            if read.unwrap_or(0) == 0 {
                return None;
            }
        }
    }

    /// Reads up to `bytes` bytes of the next frames.
    pub async fn read_some(&mut self, bytes: usize) {
        let mut part = vec![0; bytes];
        let read = tokio::time::timeout(GUARD, self.io.read(&mut part)).await.expect("bytes");
        let count = read.expect("the connection is open");
        assert_ne!(count, 0, "the end");
        self.read.extend(&part[..count]);
    }

    fn take(&mut self) -> Option<Frame> {
        let head = self.read.get(..9)?;
        let len = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let stream = u32::from_be_bytes(head[5..9].try_into().unwrap());
        let (kind, flags) = (head[3], head[4]);
        if self.read.len() < 9 + len {
            return None;
        }
        let payload = self.read.drain(..9 + len).skip(9).collect();
        Some(Frame { kind, flags, stream, payload })
    }

    /// The next frame of this type on this stream.
    pub async fn frame(&mut self, kind: u8, stream: u32) -> Frame {
        loop {
            let frame = self
                .next()
                .await
                .unwrap_or_else(|| panic!("the end instead of {kind} on {stream}"));
            if (frame.kind, frame.stream) == (kind, stream) {
                return frame;
            }
            let is_wrong =
                frame.stream == stream && frame.kind == RST_STREAM || frame.kind == GOAWAY;
            assert!(!is_wrong, "{frame:?} instead of {kind} on {stream}");
        }
    }

    /// The next frame on this stream.
    pub async fn next_of(&mut self, stream: u32) -> Frame {
        loop {
            let frame = self.next().await.unwrap_or_else(|| panic!("the end instead of {stream}"));
            assert_ne!(frame.kind, GOAWAY, "{frame:?}");
            if frame.stream == stream {
                return frame;
            }
        }
    }

    /// The next GOAWAY; other frames are ignored.
    pub async fn goaway_frame(&mut self) -> Frame {
        loop {
            let frame = self.next().await.expect("a GOAWAY");
            if frame.kind == GOAWAY {
                return frame;
            }
        }
    }

    /// Reads a stream until this text has arrived.
    pub async fn text(&mut self, stream: u32, text: &str) {
        let mut seen = Vec::new();
        while !String::from_utf8_lossy(&seen).contains(text) {
            seen.extend(self.frame(DATA, stream).await.payload);
        }
    }

    /// The error code of the next GOAWAY, if there is one before the end.
    pub async fn goaway(&mut self) -> Option<u32> {
        loop {
            let frame = self.next().await?;
            if frame.kind == GOAWAY {
                return Some(frame.code());
            }
        }
    }
}

//! An SSE client on a plain socket. It reads only when the test reads.

use super::GUARD;
use super::parser::{Event, Parser};
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// How the stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// At the last chunk or the content length.
    Clean,
    /// The connection was cut.
    Cut,
}

enum Body {
    Chunked(Chunks),
    Length(usize),
    UntilClose,
}

/// An open response. Bytes are read from the socket only in the `async` methods, so a client whose
/// test awaits none of them is stalled.
pub struct Sse {
    pub status: u16,
    /// The headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// How the stream ended, if it has ended.
    pub end: Option<End>,
    /// The first 64 KiB of the body, without the chunked coding.
    pub transcript: Vec<u8>,
    /// The parser, with the reconnection time and the comments received.
    pub parser: Parser,
    stream: TcpStream,
    body: Body,
    raw: Vec<u8>,
    queue: VecDeque<Event>,
    seen: VecDeque<String>,
    pace: Option<(usize, Duration)>,
    last_id: String,
    waited: Duration,
}

/// Options of a request.
#[derive(Clone, Default)]
pub struct Request {
    /// Additional header fields.
    pub headers: Vec<(String, String)>,
    /// Size of the receive buffer, bytes (the kernel doubles it), for clients that stall.
    pub receive_buffer: Option<u32>,
}

impl Sse {
    /// Sends GET `url` (`http://host:port/path?query`) and reads the head of the response.
    pub async fn connect(url: &str, headers: &[(&str, &str)]) -> Sse {
        let headers = headers.iter().map(|(k, v)| (k.to_string(), v.to_string()));
        let request = Request { headers: headers.collect(), ..Request::default() };
        let answer = Sse::try_connect(url, &request).await;
        answer.unwrap_or_else(|e| panic!("GET {url}: {e}"))
    }

    /// [`Sse::connect`] that returns connection errors, also that of a connection without a
    /// response.
    pub async fn try_connect(url: &str, request: &Request) -> io::Result<Sse> {
        let work = Sse::open(url, request);
        let answer = tokio::time::timeout(GUARD, work).await;
        answer.unwrap_or_else(|_| panic!("no answer within {GUARD:?}: GET {url}"))
    }

    async fn open(url: &str, request: &Request) -> io::Result<Sse> {
        let rest = url.strip_prefix("http://").expect("http://");
        let (host, path) = rest.split_once('/').expect("a path");
        let address: SocketAddr = host.parse().expect("ip:port");
        let socket = TcpSocket::new_v4()?;
        if let Some(size) = request.receive_buffer {
            socket.set_recv_buffer_size(size)?;
        }
        let mut stream = socket.connect(address).await?;
        let mut head = format!("GET /{path} HTTP/1.1\r\nHost: {host}\r\n");
        head.push_str("Accept: text/event-stream\r\nCache-Control: no-cache\r\n");
        for (name, value) in &request.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        stream.write_all(head.as_bytes()).await?;
        let mut raw = Vec::new();
        let end = loop {
            if let Some(at) = raw.windows(4).position(|w| w == b"\r\n\r\n") {
                break at;
            }
            if stream.read_buf(&mut raw).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        };
        let head = String::from_utf8(raw[..end].to_vec()).expect("a head of text");
        raw.drain(..end + 4);
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1));
        let status = status.and_then(|word| word.parse().ok()).expect("a status");
        let headers: Vec<_> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_string()))
            .collect();
        let find = |name: &str| headers.iter().find(|(key, _)| key == name);
        let body = match (find("transfer-encoding"), find("content-length")) {
            (Some((_, coding)), _) => {
                assert_eq!(coding, "chunked");
                Body::Chunked(Chunks::default())
            }
            (None, Some((_, length))) => Body::Length(length.parse().expect("a length")),
            (None, None) => Body::UntilClose,
        };
        let mut sse = Sse {
            status,
            headers,
            end: None,
            transcript: Vec::new(),
            parser: Parser::default(),
            stream,
            body,
            raw: Vec::new(),
            queue: VecDeque::new(),
            seen: VecDeque::new(),
            pace: None,
            last_id: String::new(),
            waited: Duration::ZERO,
        };
        sse.raw = raw;
        Ok(sse)
    }

    /// Checks for status 200, and reads and checks `sse.connected`.
    pub async fn connected(&mut self) -> Event {
        let first = self.first().await;
        assert_eq!(first.event, "sse.connected", "{}", self.dump());
        first
    }

    /// Checks for status 200, and reads the first event.
    pub async fn first(&mut self) -> Event {
        if self.status != 200 {
            let body = self.body().await;
            panic!("status {}: {body}", self.status);
        }
        self.event().await
    }

    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }

    /// From now on reads at most `bytes` at a time and waits `pause` after each read.
    pub fn read_slowly(&mut self, bytes: usize, pause: Duration) {
        self.pace = Some((bytes, pause));
    }

    /// Drops all packets to the client from now on. Nothing is acknowledged, as after a network
    /// failure.
    pub fn lose_network(&self) {
        // A socket filter that accepts 0 bytes of each packet.
        let drop_all = socket2::SockFilter::new(libc::BPF_RET as u16, 0, 0, 0);
        socket2::SockRef::from(&self.stream).attach_filter(&[drop_all]).expect("a filter");
    }

    /// The next event, or `None` at the end of the stream. Panics after [`GUARD`] without an event
    /// other than heartbeats.
    pub async fn next_event(&mut self) -> Option<Event> {
        self.next_event_within(GUARD).await
    }

    /// [`Sse::next_event`] with another guard.
    pub async fn next_event_within(&mut self, guard: Duration) -> Option<Event> {
        loop {
            if let Some(event) = self.queue.pop_front() {
                self.last_id.clone_from(&event.last_id);
                self.note(event.to_string());
                if event.event != "sse.heartbeat" {
                    self.waited = Duration::ZERO;
                }
                return Some(event);
            }
            if self.end.is_some() {
                return None;
            }
            let started = Instant::now();
            let left = guard.saturating_sub(self.waited);
            let silent = tokio::time::timeout(left, self.read_more()).await.is_err();
            self.waited += started.elapsed();
            if silent {
                panic!("nothing came for {guard:?}; {}", self.dump());
            }
        }
    }

    /// The next event; panics if the stream ends.
    pub async fn event(&mut self) -> Event {
        match self.next_event().await {
            Some(event) => event,
            None => panic!("the stream ended; {}", self.dump()),
        }
    }

    /// The next event other than a heartbeat; panics if the stream ends.
    pub async fn app_event(&mut self) -> Event {
        loop {
            let event = self.event().await;
            if event.event != "sse.heartbeat" {
                return event;
            }
        }
    }

    /// Skips to the next event of this name.
    pub async fn next_of(&mut self, name: &str) -> Event {
        let mut events = self.until(|event| event.event == name).await;
        events.pop().expect("the one that was found")
    }

    /// All events up to and including the first that satisfies `found`; panics if the stream ends.
    pub async fn until(&mut self, mut found: impl FnMut(&Event) -> bool) -> Vec<Event> {
        let mut events = Vec::new();
        loop {
            let event = self.event().await;
            let last = found(&event);
            events.push(event);
            if last {
                return events;
            }
        }
    }

    /// All events up to the end of the stream.
    pub async fn rest(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        while let Some(event) = self.next_event().await {
            events.push(event);
        }
        events
    }

    /// The whole body as text, for responses other than streams.
    pub async fn body(&mut self) -> String {
        self.rest().await;
        String::from_utf8_lossy(&self.transcript).into_owned()
    }

    /// The `Last-Event-ID` a browser would send after the events the test has read.
    pub fn last_id(&self) -> &str {
        &self.last_id
    }

    /// Status, end and the last events read, for messages of failed assertions.
    pub fn dump(&self) -> String {
        let mut text = format!("status {}, end {:?}, last events:", self.status, self.end);
        for line in &self.seen {
            text.push_str("\n  ");
            text.push_str(line);
        }
        text
    }

    fn note(&mut self, line: String) {
        if self.seen.len() == 30 {
            self.seen.pop_front();
        }
        self.seen.push_back(line);
    }

    /// Reads once from the socket and parses the bytes. Cancel-safe: besides the pause of a slow
    /// reader, the read is the only await.
    async fn read_more(&mut self) {
        if self.raw.is_empty() {
            let size = self.pace.map_or(64 * 1024, |(bytes, _)| bytes);
            let mut buffer = vec![0; size];
            match self.stream.read(&mut buffer).await {
                Ok(0) if matches!(self.body, Body::UntilClose) => self.end = Some(End::Clean),
                Ok(0) | Err(_) => self.end = Some(End::Cut),
                Ok(n) => self.raw.extend_from_slice(&buffer[..n]),
            }
        }
        let raw = std::mem::take(&mut self.raw);
        let decoded = match &mut self.body {
            Body::UntilClose => raw,
            Body::Length(left) => {
                let take = raw.len().min(*left);
                *left -= take;
                if *left == 0 {
                    self.end = Some(End::Clean);
                }
                raw[..take].to_vec()
            }
            Body::Chunked(chunks) => {
                let decoded = chunks.feed(&raw);
                if chunks.done {
                    self.end = Some(End::Clean);
                }
                decoded
            }
        };
        let room = (64 * 1024usize).saturating_sub(self.transcript.len());
        let kept = decoded.len().min(room);
        self.transcript.extend_from_slice(&decoded[..kept]);
        self.queue.extend(self.parser.feed(&decoded));
        if let Some((_, pause)) = self.pace {
            tokio::time::sleep(pause).await;
        }
    }
}

/// Decoder of the chunked coding; panics on malformed input.
#[derive(Default)]
struct Chunks {
    line: Vec<u8>,
    left: usize,
    in_data: bool,
    last: bool,
    done: bool,
}

impl Chunks {
    fn feed(&mut self, mut bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        while !bytes.is_empty() && !self.done {
            if self.in_data {
                let take = bytes.len().min(self.left);
                out.extend_from_slice(&bytes[..take]);
                self.left -= take;
                bytes = &bytes[take..];
                self.in_data = self.left > 0;
                continue;
            }
            self.line.push(bytes[0]);
            bytes = &bytes[1..];
            if self.line.ends_with(b"\r\n") {
                let line = std::mem::take(&mut self.line);
                self.end_line(&line[..line.len() - 2]);
            }
        }
        out
    }

    /// Handles a size line, the empty line after a chunk, or a trailer line.
    fn end_line(&mut self, line: &[u8]) {
        let text = std::str::from_utf8(line).expect("a chunk head of text");
        if self.last {
            self.done = text.is_empty();
        } else if !text.is_empty() {
            let size = text.split(';').next().expect("a size").trim();
            self.left = usize::from_str_radix(size, 16)
                .unwrap_or_else(|_| panic!("not a chunk size: {text:?}"));
            self.in_data = self.left > 0;
            self.last = self.left == 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn chunked_stream_byte_by_byte_is_decoded() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/x", listener.local_addr().unwrap());
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
                          7\r\ndata: a\r\nD;x=y\r\n\nid: 3\ndata:b\r\n2\r\n\n\n\r\n0\r\n\r\n";
            for byte in answer.bytes() {
                stream.write_all(&[byte]).await.unwrap();
                tokio::task::yield_now().await;
            }
            std::future::pending::<()>().await;
        });
        let mut sse = Sse::connect(&url, &[]).await;
        let event = sse.event().await;
        assert_eq!((event.data.as_str(), event.last_id.as_str()), ("a\nb", "3"));
        assert_eq!(sse.next_event().await, None);
        assert_eq!(sse.end, Some(End::Clean));
    }
}
